"""Which return a run should reach: `--target`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dstrl_cli.errors import InputError, suggest

DEFAULT_SHARE = 90.0


@dataclass(frozen=True)
class Targets:
    """The returns whose time is asked for.

    Attributes:
        share: percent of the way from the untrained policy to the reference: the dense mean, or
            where there is none that of the best method.
        value: a return for all environments, instead of the share.
        by_env: returns of single environments.
    """

    share: float = DEFAULT_SHARE
    value: float | None = None
    by_env: Mapping[str, float] = field(default_factory=dict)

    def check(self, envs: Sequence[str]) -> None:
        """Raise InputError where a target names an environment of which there are no runs."""
        for env in self.by_env:
            if env not in envs:
                raise InputError(suggest("environment of --target", env, envs))

    def of(self, env: str, untrained: float, reference: float) -> float:
        """Return the target in an environment.

        Args:
            env: its name.
            untrained: the mean return of the evaluation at step 0.
            reference: what 100 percent are.
        """
        if env in self.by_env:
            return self.by_env[env]
        if self.value is not None:
            return self.value
        return untrained + self.share / 100 * (reference - untrained)


def parse_targets(texts: Sequence[str]) -> Targets:
    """Return the targets that `--target` names: `5000`, `80%`, `Hopper-v5=2500`.

    Raises InputError where a text is none of these.
    """
    share, value, by_env = DEFAULT_SHARE, None, {}
    for text in texts:
        env, equals, number = text.rpartition("=")
        if equals:
            by_env[env] = _number(number, text)
        elif number.endswith("%"):
            share = _number(number.removesuffix("%"), text)
            if not 0 < share <= 100:
                raise InputError(f"--target {text}: a share must be above 0 and at most 100%")
        else:
            value = _number(number, text)
    return Targets(share, value, by_env)


def _number(number: str, text: str) -> float:
    try:
        found = float(number)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise InputError(
            f"--target {text}: give a return, as 5000; of one environment, as Hopper-v5=2500; or a "
            "share of the dense return, as 80%"
        )
    return found
