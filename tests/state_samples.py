"""Small runs without environments, which are stopped, written to the disk, and gone on with."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graph_stand_in import eager

from dstrl_cli.algos.base import Algorithm
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.resolving import resolve
from dstrl_cli.envs.base import Step
from dstrl_cli.registry import ALGORITHMS, load
from dstrl_cli.replay.capacity import CapacityControl
from dstrl_cli.replay.compiled import CompiledReplay
from dstrl_cli.replay.paired import PairedReplay
from dstrl_cli.replay.state import whole
from dstrl_cli.runs.checkpoint import read_state, write_state
from dstrl_cli.training.learner import Learner

OBS, ACT, LIMIT = 3, 2, 7
STEPS, STOPS = 130, (58, 91, 104)
"""Steps in all, and those after which a run is stopped: in the middle of everything below."""

SMALL = (
    "hidden_sizes=[12,10]",
    "batch_size=16",
    "learning_starts=20",
    "buffer_size=70",  # full at step 70
    "topology.update_interval=6",
    "topology.stop_before_end=30",
    "nstep_delay=45",  # critic updates: step 65
    "buffer.check_interval=25",
    "buffer.min_size=30",
    "buffer.distance_threshold=0",
)


def config(method: str, algo: str = "td3", seed: int = 0, sets: Sequence[str] = ()) -> RunConfig:
    """A short run of a method, all of whose parts act before and after the stops."""
    flags = {"env.id": "2DNav-v1", "steps": STEPS, "seed": seed, "sparsity": 0.6}
    return resolve(method, algo, sets=(*SMALL, *sets), flags=flags)


class Trainee:
    """What trains of a population, on transitions that depend on seed and step alone.

    Args:
        configs: the members.
        engine: of the networks.
        kind: layout of the buffer; None: the engine's.
    """

    def __init__(self, configs: Sequence[RunConfig], engine: str, kind: Any = None) -> None:
        self.algorithm: Algorithm = load(ALGORITHMS, configs[0].algo)(
            configs, OBS, ACT, "cpu", engine
        )
        kind = kind or (CompiledReplay if engine == "sparse" else PairedReplay)
        capacity = max(each.replay_capacity for each in configs)
        self.replay = kind(len(configs), capacity, OBS, ACT, 0.9, policy_actions=True)
        self.learner = Learner(self.algorithm, self.replay, eager)
        self.capacity = CapacityControl(configs, "cpu")
        self.configs, self.steps = configs, 0

    def train(self, until: int = STEPS) -> Trainee:
        """Go on until so many steps are taken."""
        with torch.no_grad():
            while self.steps < until:
                self.store(self.steps)
                self.steps += 1
                if self.steps > self.configs[0].learning_starts:
                    self.learner.update()
                self.capacity.check(self.steps, self.replay, self.algorithm.act)
                if self.steps % 40 == 0:
                    self.algorithm.take_metrics()
        return self

    def store(self, step: int) -> None:
        """Store a transition: episodes of `LIMIT` steps, every other of which terminates."""
        seeds = self.algorithm.seeds
        observation, action, reward = drawn(seeds, step).split((OBS, ACT, 1), dim=1)
        last = step % LIMIT == LIMIT - 1
        final = step + 10**6 if last else step + 1
        after = drawn(seeds, step + 1)[:, :OBS]
        ended = torch.full((len(seeds),), last)
        fell = torch.full_like(ended, step % (2 * LIMIT) == LIMIT - 1) & ended
        seen = drawn(seeds, final)[:, :OBS]
        result = Step(seen, reward.squeeze(1), fell, ended & ~fell, after)
        self.learner.store(observation, action.tanh(), result, 0.5 * action.tanh())

    def state(self, member: int, folder: Path) -> dict[str, Any]:
        """Return a member's state as it comes back from the disk."""
        state = {
            "algorithm": self.algorithm.state(member),
            "replay": self.replay.state(member),
            "steps": self.steps,
        }
        write_state(folder, state)
        return read_state(folder)

    def resume(self, states: Sequence[Mapping[str, Any]]) -> Trainee:
        """Go on from the states of the members, in order."""
        self.algorithm.set_state([state["algorithm"] for state in states])
        self.replay.set_state([state["replay"] for state in states])
        self.learner.nsteps.set(max(1, self.algorithm.updates))
        self.steps = states[0]["steps"]
        return self


def drawn(seeds: Sequence[int], step: int) -> torch.Tensor:
    """The numbers of one step, by each seed alone."""
    return _drawn(tuple(seeds), step)


@functools.cache
def _drawn(seeds: tuple[int, ...], step: int) -> torch.Tensor:
    sources = [torch.Generator().manual_seed(10**7 * seed + step) for seed in seeds]
    return torch.stack([torch.randn(OBS + ACT + 1, generator=each) for each in sources])


def leaves(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, leaf) of a nested state."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from leaves(value, f"{name}/{key}")
    else:
        yield name, state


def assert_equal_states(one: Any, other: Any, tolerance: float = 0.0) -> None:
    """Compare all leaves: arrays bit for bit, unless there is a `tolerance`."""
    ours, theirs = dict(leaves(one)), dict(leaves(other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        given = theirs[name]
        if isinstance(value, (np.ndarray, tuple)):
            value, given = whole(value), whole(given)
            if name.endswith("/powers"):  # counted together, or one by one
                value, given = np.broadcast_arrays(value, given)
            assert (value.dtype, value.shape) == (given.dtype, given.shape), name
            if tolerance and value.dtype.kind == "f":
                np.testing.assert_allclose(value, given, 1e-3, tolerance, err_msg=name)
            else:
                assert value.tobytes() == given.tobytes(), name
        elif isinstance(value, float) and tolerance:
            assert abs(value - given) <= 1e-3 * abs(given) + tolerance, name
        else:
            assert value == given, name


def both(trainee: Trainee, member: int = 0) -> dict[str, Any]:
    """All that a member has: its states, and what its networks and the buffer give."""
    algorithm = trainee.algorithm
    inputs = torch.linspace(-1, 1, 4 * (OBS + ACT)).view(1, 4, -1)
    inputs = inputs.expand(len(trainee.configs), -1, -1)
    networks = {
        "critic": algorithm.critic.target(inputs)[member].numpy(),
        "actor": algorithm.actor.target(inputs[..., :OBS])[member].numpy(),
        "act": algorithm.act(inputs[..., :OBS])[member].numpy(),
    }
    return {
        "algorithm": algorithm.state(member),
        "replay": trainee.replay.state(member),
        "networks": networks,
    }
