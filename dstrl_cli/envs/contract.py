"""What dstrl expects of an environment, checked by calling an instance that is made for it.

The instance is reset twice with one seed and stepped once, before anything is written. What it
returns is looked at here, once, with a message for each way to be wrong; the training loop trusts
it from then on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from dstrl_cli.envs.actions import ActionScale
from dstrl_cli.envs.calls import explain, generators_restored, seed_globals
from dstrl_cli.envs.specs import RUN_SEED, EnvSpec
from dstrl_cli.envs.watch import Watch
from dstrl_cli.errors import InputError

SEED = 0
"""With which the instance is reset."""

NOT_SEEDED = (
    "the starts of '{}' do not follow seeds (two resets with one seed differ): the same run twice "
    "gives other numbers, and evaluations have other starts each time; if it takes a seed when it "
    "is made, set env.kwargs.seed=run"
)
OWN_SEED = (
    "the starts of '{}' do not follow the seeds of resets (two with one seed differ), only that of "
    "env.kwargs.seed: evaluations, and dstrl eval, have other starts each time"
)
GLOBAL = (
    "'{}' draws its starts from the generators of NumPy or Python that a whole process shares: "
    "they are seeded for a run that trains by itself, and evaluations have other starts each time; "
    "members of a population influence each other's starts"
)
"""What a user is told of starts that do not follow seeds, and of a frequent reason for it."""


def check(env: gymnasium.Env, spec: EnvSpec, watch: Watch) -> tuple[str, ...]:
    """Reset an environment twice and step it once; return what the user should know of it.

    Raises:
        InputError: something that it does or returns cannot be trained on, with the remedy.
    """
    probe = _Probe(env, spec, watch)
    with generators_restored():
        starts = [probe.start(), probe.start()]
        probe.step()
        if np.array_equal(starts[0], starts[1]):
            return ()
        starts = []
        for _ in range(2):
            seed_globals(SEED)
            starts.append(probe.start())
        unseeded = OWN_SEED if RUN_SEED in spec.kwargs else NOT_SEEDED
        told = GLOBAL if np.array_equal(starts[0], starts[1]) else unseeded
        return (told.format(spec.name),)


class _Probe:
    """Calls an environment and checks what it returns."""

    def __init__(self, env: gymnasium.Env, spec: EnvSpec, watch: Watch) -> None:
        self.env, self.spec, self.watch = env, spec, watch

    def start(self) -> NDArray[Any]:
        """Reset with `SEED`; return the checked observation."""
        with self.watch.call(0, "reset"):
            returned = self.attempt("reset", lambda: self.env.reset(seed=SEED))
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise self.wrong(
                f"reset returned {_described(returned)}, not two values (observation, info)",
                "it follows the interface before Gymnasium; wrap it, or let reset return "
                "`observation, {}`",
            )
        self.check_info("reset", returned[1])
        return self.observation("reset", returned[0])

    def step(self) -> None:
        """Step once, with the middle of the action bounds."""
        action = ActionScale(self.spec)(np.zeros(self.spec.action_size, np.float32))
        action = action.astype(self.spec.action_dtype)
        with self.watch.call(0, "step"):
            returned = self.attempt("step", lambda: self.env.step(action))
        if not isinstance(returned, tuple) or len(returned) != 5:
            raise self.not_five(_described(returned))
        observation, reward, terminated, truncated, info = returned
        self.observation("step", observation)
        self.check_reward(reward)
        self.check_flag("terminated", terminated)
        self.check_flag("truncated", truncated)
        self.check_info("step", info)

    def attempt(self, what: str, call: Callable[[], Any]) -> Any:
        """Return what a call of the environment returns."""
        try:
            return call()
        except InputError:
            raise
        except ValueError as error:  # Gymnasium's wrappers unpack what step returned
            if match := re.search(r"expected 5, got (\d+)", str(error)):
                raise self.not_five(f"{match[1]} values") from error
            raise self.failed(what, error) from error
        except (Exception, SystemExit) as error:
            raise self.failed(what, error) from error

    def observation(self, where: str, observation: Any) -> NDArray[Any]:
        """Return an observation as an array of finite real numbers, as long as its space says."""
        array = _as_array(observation)
        if array.dtype.kind not in "biuf":
            raise self.wrong(
                f"the observation of {where} is {_described(observation)}",
                "return real numbers"
                + (", such as real and imaginary parts" if array.dtype.kind == "c" else ""),
            )
        if array.shape != (self.spec.observation_size,):
            raise self.wrong(
                f"the observation of {where} has shape {array.shape}, but its observation_space "
                f"({self.spec.observation_size},)",
                "return what the space announces",
            )
        if not np.isfinite(array).all():
            raise self.wrong(
                f"the observation of {where} is not finite ({array.tolist()})",
                "return finite numbers",
            )
        return array

    def check_reward(self, reward: Any) -> None:
        """Raise unless the reward is one finite number."""
        array = _as_array(reward)
        if array.dtype.kind in "biuf" and array.size != 1:
            raise self.wrong(
                f"the reward is {_described(reward)}, but one number is needed",
                "for several objectives, register the environment through "
                "mo_gymnasium.wrappers.LinearReward, which weighs them",
            )
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise self.wrong(f"the reward is {reward!r}", "return one finite number")

    def check_flag(self, which: str, flag: Any) -> None:
        """Raise unless a flag is true or false, or an array of one of them."""
        array = _as_array(flag)
        if array.dtype.kind != "b" or array.size != 1:
            raise self.wrong(f"{which} is {flag!r}", "return true or false")

    def check_info(self, where: str, info: Any) -> None:
        """Raise unless the last value is a dict."""
        if not isinstance(info, Mapping):
            raise self.wrong(f"the info of {where} is {_described(info)}", "return a dict")

    def failed(self, what: str, error: BaseException) -> InputError:
        """Return the error for a call that raised an exception."""
        remedy = "mend it (reset takes seed and options, step an action), or choose another"
        return self.wrong(f"{what} failed ({explain(error)})", remedy)

    def not_five(self, returned: str) -> InputError:
        """Return the error for a step of the interface before Gymnasium."""
        return self.wrong(
            f"step returned {returned}, not five values (observation, reward, terminated, "
            "truncated, info)",
            "wrap it, or split its `done` into terminated and truncated",
        )

    def wrong(self, what: str, remedy: str) -> InputError:
        """Return the error for an environment that does not fit."""
        return InputError(f"env '{self.spec.name}': {what}; {remedy}")


def _as_array(value: Any) -> NDArray[Any]:
    """Return a value as an array; what is none becomes one of objects."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError):  # lists of different lengths
        return np.array(None)


def _described(value: Any) -> str:
    """Return what kind of thing a value is, in a few words."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    if isinstance(value, tuple):
        return f"{len(value)} values"
    return repr(value)[:80]
