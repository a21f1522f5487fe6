"""Episodes of a stored policy under perturbations of rising strength."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from dstrl_cli.envs import EnvSpec, make_env
from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.evaluation.perturbations import FLAG, KINDS, Response, around
from dstrl_cli.evaluation.rollout import Episodes
from dstrl_cli.evaluation.stored import evaluate
from dstrl_cli.runs.policy import Policy


def check_taken(spec: EnvSpec, wanted: Mapping[str, Sequence[float]]) -> None:
    """Raise InputError for a perturbation that the environment cannot take."""
    for name, strengths in wanted.items():
        if KINDS[name].around is None:
            try:
                env = make_env(_changed(spec, name, strengths[0]))
            except InputError as error:
                raise InputError(f"{FLAG} {error}") from None
            with suppress(Exception):  # foreign code; nothing of it is needed any more
                env.close()


def responses(
    policy: Policy,
    spec: EnvSpec,
    starts: Sequence[int],
    seed: int,
    wanted: Mapping[str, Sequence[float]],
    max_steps: int | None,
) -> Iterator[Response]:
    """Yield the episodes of a policy at every strength that is wanted.

    Unperturbed episodes are those of `dstrl eval`; they are run once for all kinds.

    Args:
        policy, spec, starts, max_steps: see `stored.evaluate`.
        seed: of the starts; noise depends on it.
        wanted: the strengths of each kind, the unperturbed one included.

    Raises:
        DstrlError: an environment failed, as it may where its physics is changed too much.
    """
    plain = evaluate(policy, spec, starts, max_steps)
    for name, strengths in wanted.items():
        for strength in strengths:
            found = plain
            if strength != KINDS[name].neutral:
                found = _perturbed(policy, spec, starts, seed, max_steps, name, strength)
            yield Response(name, strength, found.returns, found.lengths)


def _perturbed(
    policy: Policy,
    spec: EnvSpec,
    starts: Sequence[int],
    seed: int,
    max_steps: int | None,
    name: str,
    strength: float,
) -> Episodes:
    """Return the episodes at one strength."""
    made = around(name, strength, seed)
    changed = spec if made else _changed(spec, name, strength)
    try:
        return evaluate(policy, changed, starts, max_steps, made)
    except DstrlError as error:
        raise DstrlError(f"{FLAG} {name}={strength:g}: {error}") from error


def _changed(spec: EnvSpec, name: str, strength: float) -> EnvSpec:
    return replace(spec, physics=((name, strength),))
