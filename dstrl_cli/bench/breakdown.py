"""Where the time of a whole step goes: act, environment, store, and what an update consists of.

What the trainer calls once a step is timed in its own loop. An update may be one call of compiled
code, which nothing can look into. So on the CPU its sampling and its kernels are timed apart: the
same networks take further updates through `Learner.sample_and_train`, which calls them one by one
in the paper's order. `losses` is what remains of the trainer's update.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from dstrl_cli.bench.stopwatch import Place, Stopwatch
from dstrl_cli.bench.timing import repeat

if TYPE_CHECKING:
    from dstrl_cli.training.trainer import Population

TURNS = 10
"""How often steps and single updates take turns, so that both meet the same load of the machine."""

PRODUCTS = ("forward", "predict", "target", "backward")
MOVES = ("optimizer_step", "finish_update", "update_target")
"""What networks compute in an update, where it is not in compiled loops."""


def breakdown(population: Population, lap: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Return the milliseconds of a lock-step's parts.

    Args:
        population: trains, past its random steps.
        lap: takes one lock-step of it.
        seconds: to measure for.
    """
    step = StepParts(population, lap)
    if population.device != "cpu":
        step.run(seconds)
        return step.milliseconds()
    update = UpdateParts(population)
    for _ in range(TURNS):
        step.run(seconds / (2 * TURNS))
        update.run(seconds / (2 * TURNS))
    return within_update(step.milliseconds(), update.milliseconds(), step.updates / step.laps)


def within_update(
    step: Mapping[str, float], update: Mapping[str, float], updates: float
) -> dict[str, float]:
    """Return a step's parts with `update` divided into its own parts and `losses`, what remains.

    Args:
        step: milliseconds of a step's parts.
        update: milliseconds of some parts of one update.
        updates: per step.
    """
    parts = {part: milliseconds * updates for part, milliseconds in update.items()}
    outer = {part: step[part] for part in step if part not in ("update", "rest")}
    losses = max(0.0, step["update"] - sum(parts.values()))
    return outer | parts | {"losses": losses, "rest": step["rest"]}


class StepParts:
    """Times the parts of the trainer's own steps.

    `env` includes copying what the environments return to the device; `transfer`, where
    there is a device, is copying the actions to the host.
    """

    def __init__(self, population: Population, lap: Callable[[], Any]) -> None:
        self.population, self.lap = population, lap
        self.places: dict[str, Sequence[Place]] = {
            "act": [Place(population, "act")],
            "env": [Place(population.env, "step")],
            "store": [Place(population.learner, "store")],
            "update": [Place(population, "update")],
        }
        if population.device != "cpu":
            self.places["transfer"] = [Place(population, "actions_for_env")]
        self.watch = Stopwatch(list(self.places), _waiting(population.device))
        self.total, self.laps, self.updates = 0.0, 0, 0

    def run(self, seconds: float) -> None:
        """Take steps for about `seconds`."""
        period = self.population.config.policy_delay  # every other update costs more
        began = self.population.algorithm.updates
        with self.watch.watching(self.places):
            taken = repeat(_times(period, self.lap), seconds, self.watch.wait)
        self.total += taken.seconds
        self.updates += self.population.algorithm.updates - began
        self.laps += taken.steps * period

    def milliseconds(self) -> dict[str, float]:
        """Return what every part takes in one step; `rest` is what belongs to none."""
        rest = max(0.0, self.total - sum(self.watch.seconds.values()))
        found = self.watch.seconds | {"rest": rest}
        return {part: 1000 * seconds / self.laps for part, seconds in found.items()}


class UpdateParts:
    """Times sampling and kernels within updates that call them one by one."""

    def __init__(self, population: Population) -> None:
        self.population, self.learner = population, population.learner
        self.watch = Stopwatch(["sample", "kernels"])
        self.updates = 0

    def run(self, seconds: float) -> None:
        """Take updates for about `seconds`."""
        algorithm = self.population.algorithm
        period = self.population.config.policy_delay
        networks = [algorithm.actor, algorithm.critic]
        with (
            calls_of(networks, PRODUCTS + MOVES) as kernels,
            calls_of([self.learner.replay], ("sample",)) as sample,
            self.watch.watching({"kernels": kernels, "sample": sample}),
        ):
            taken = repeat(_times(period, self.update), seconds)
        self.updates += taken.steps * period

    def milliseconds(self) -> dict[str, float]:
        """Return what every part takes in one update."""
        found = self.watch.seconds.items()
        return {part: 1000 * seconds / self.updates for part, seconds in found}

    def update(self) -> None:
        """Take one update as the learner does where it captures nothing."""
        algorithm, learner = self.population.algorithm, self.learner
        learner.wait()
        _, most = learner.nsteps.at(algorithm.updates + 1)
        sampling = learner.sampling.at(algorithm.updates)
        due = algorithm.begin_update()
        learner.sample_and_train(due, most, *algorithm.noise(most), sampling)
        self.population.recorder.topology(self.population.steps)


@contextmanager
def calls_of(workers: Sequence[Any], methods: Sequence[str]) -> Iterator[list[Place]]:
    """Give the places at which objects call what computes for them.

    A class whose module knows compiled loops by the name `kernels` calls those; what surrounds them
    does not count. While the context lasts the module sees a copy of their table, since compiled
    loops that call each other must not find timed ones. Of other classes, `methods` compute.
    """
    places: list[Place] = []
    with ExitStack() as stack:
        for module in {type(worker).__module__ for worker in workers}:
            owner: Any = sys.modules[module]
            if (kernels := getattr(owner, "kernels", None)) is None:
                own = [worker for worker in workers if type(worker).__module__ == module]
                places += [Place(worker, name) for worker in own for name in methods]
                continue
            owner.kernels = SimpleNamespace(**vars(kernels))
            stack.callback(setattr, owner, "kernels", kernels)
            compiled = [name for name, each in vars(kernels).items() if hasattr(each, "py_func")]
            places += [Place(owner.kernels, name) for name in compiled]
        yield places


def _times(count: int, step: Callable[[], Any]) -> Callable[[], None]:
    """Return a function that takes a step so many times."""

    def steps() -> None:
        for _ in range(count):
            step()

    return steps


def _waiting(device: str) -> Callable[[], Any]:
    """Return a function that waits for a device's work to end."""
    if not device.startswith("cuda"):
        return lambda: None
    import torch

    return torch.cuda.synchronize
