"""What may be perturbed while a stored policy acts, and how `--perturb` names it. No torch.

Every episode has random numbers of its own, which depend on the seed of the starts and its number
alone: all strengths and all policies meet the same noise, only larger or smaller.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.config.ranges import parse_integers, parse_numbers
from dstrl_cli.errors import InputError, suggest
from dstrl_cli.streams import derived_seed

Acting = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Generators = Sequence[np.random.Generator]

FLAG = "--perturb"
MOST_STEPS = 1000
"""The longest delay."""


# --- between the policy and the environments ------------------------------------------------------


def _noise(generators: Generators, size: int, strength: float) -> NDArray[np.float64]:
    """Return normal noise [N, size], a row from each generator."""
    return strength * np.stack([each.standard_normal(size) for each in generators])


def noisy_observations(act: Acting, strength: float, generators: Generators) -> Acting:
    """Add normal noise of this standard deviation to every entry of what the policy sees."""

    def acting(observations: NDArray[np.float32]) -> NDArray[np.float32]:
        noise = _noise(generators, observations.shape[1], strength)
        return act((observations + noise).astype(np.float32))

    return acting


def noisy_actions(act: Acting, strength: float, generators: Generators) -> Acting:
    """Add normal noise to every entry of the actions in [-1, 1], which are then clipped."""

    def acting(observations: NDArray[np.float32]) -> NDArray[np.float32]:
        actions = act(observations)
        noise = _noise(generators, actions.shape[1], strength)
        return np.clip(actions + noise, -1.0, 1.0).astype(np.float32)

    return acting


def late_actions(act: Acting, strength: float, generators: Generators) -> Acting:
    """Carry actions out so many steps late; the middle of their bounds acts before the first."""
    waiting: deque[NDArray[np.float32]] = deque()

    def acting(observations: NDArray[np.float32]) -> NDArray[np.float32]:
        waiting.append(act(observations))
        return waiting.popleft() if len(waiting) > strength else np.zeros_like(waiting[0])

    return acting


# --- kinds ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of perturbation.

    Attributes:
        meaning: what its strength is.
        neutral: the strength that changes nothing.
        usual: the range that is taken where none is given.
        around: perturbs what a policy sees or does; None for a factor of `envs.physics`.
        least: the smallest strength; `above`: which must be exceeded.
        whole: whether strengths are whole numbers.
    """

    meaning: str
    neutral: float
    usual: str
    around: Callable[[Acting, float, Generators], Acting] | None = None
    least: float = 0.0
    above: bool = False
    whole: bool = False


KINDS: dict[str, Kind] = {
    "observation_noise": Kind(
        "standard deviation of normal noise on every entry of an observation",
        0.0,
        "0:0.5",
        noisy_observations,
    ),
    "action_noise": Kind(
        "standard deviation of normal noise on actions in [-1, 1]", 0.0, "0:0.5", noisy_actions
    ),
    "action_delay": Kind("steps by which actions come late", 0.0, "0-5", late_actions, whole=True),
    "gravity": Kind("factor of gravity (MuJoCo)", 1.0, "0.5:1.5:0.25"),
    "mass": Kind("factor of all masses and inertias (MuJoCo)", 1.0, "0.5:1.5:0.25", above=True),
}


def parse(texts: Iterable[str]) -> dict[str, list[float]]:
    """Return the strengths of each kind that `KIND=RANGE` or `KIND` alone asks for, rising.

    The unperturbed strength is always among them. Raises InputError for an unknown kind, one that
    is given twice, or strengths that it cannot have.
    """
    found: dict[str, list[float]] = {}
    for text in texts:
        name, equals, values = (part.strip() for part in text.partition("="))
        if name not in KINDS:
            raise InputError(f"{FLAG} {suggest('perturbation', name, KINDS)}")
        if name in found:
            raise InputError(f"{FLAG} {name} is given twice: list its strengths, as in {name}=a,b")
        kind = KINDS[name]
        strengths = _strengths(kind, values if equals else kind.usual, f"{FLAG} {name}")
        found[name] = sorted({*strengths, kind.neutral})
    return found


def _strengths(kind: Kind, text: str, flag: str) -> list[float]:
    """Return the strengths that a text names. Raises InputError where one cannot be had."""
    if kind.whole:
        strengths = [float(each) for each in parse_integers(text, flag)]
    else:
        strengths = parse_numbers(text, flag)
    for each in strengths:
        if each < kind.least or (kind.above and each == kind.least):
            relation = "above" if kind.above else "at least"
            raise InputError(f"{flag}: {each:g} must be {relation} {kind.least:g}")
        if kind.whole and each > MOST_STEPS:
            raise InputError(f"{flag}: {each:g} must be at most {MOST_STEPS:,} steps")
    return strengths


def around(name: str, strength: float, seed: int) -> Callable[[Acting, range], Acting] | None:
    """Return what perturbs the episodes of a policy, or None for a factor of the physics.

    Args:
        name, strength: of the perturbation.
        seed: of the starts.
    """
    perturb = KINDS[name].around
    if perturb is None:
        return None

    def of_episodes(act: Acting, episodes: range) -> Acting:
        seeds = [derived_seed(seed, f"perturbation/{name}", number) for number in episodes]
        return perturb(act, strength, [np.random.default_rng(each) for each in seeds])

    return of_episodes


# --- results --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Response:
    """What the episodes of a policy gave under one perturbation; [episodes] each."""

    kind: str
    strength: float
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(self.returns.mean())


def half_lost(
    strengths: Sequence[float], returns: Sequence[float], neutral: float, untrained: float
) -> dict[str, float | None]:
    """Return where half of what training gained is first lost, below and above the unperturbed.

    Only the strengths that were tried are seen. None where less is lost, and everywhere if nothing
    was gained.

    Args:
        strengths: rising; `neutral` is one of them.
        returns: the mean return at each.
        neutral: the strength that changes nothing.
        untrained: the mean return before training.
    """
    by_strength = dict(zip(strengths, returns, strict=True))
    gained = by_strength[neutral] - untrained
    limit = untrained + gained / 2 if gained > 0 else -math.inf
    lost = [each for each in strengths if by_strength[each] < limit]
    return {
        "below": max((each for each in lost if each < neutral), default=None),
        "above": min((each for each in lost if each > neutral), default=None),
    }


def row(response: Response) -> dict[str, Any]:
    """Return a response for programs."""
    return {
        "perturbation": response.kind,
        "strength": response.strength,
        "mean": response.mean,
        "std": float(response.returns.std()),
        "length": float(response.lengths.mean()),
        "returns": response.returns.tolist(),
    }
