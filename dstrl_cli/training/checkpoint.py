"""The checkpoints of a population: when one is due, and its members' states, taken and given back.

There is one state per member, so that a member may go on alone or in another population. What a
state holds of networks, rules and replay is their own business; `runs.folder` stores it.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from dstrl_cli import streams
from dstrl_cli.config.fields import interval_seconds
from dstrl_cli.config.models import RunConfig
from dstrl_cli.envs.base import BatchEnv
from dstrl_cli.envs.calls import global_generators, set_global_generators
from dstrl_cli.envs.state import EnvState
from dstrl_cli.errors import DstrlError
from dstrl_cli.training.recorder_state import recorder_state, set_recorder_state
from dstrl_cli.training.timing import CHECK_EVERY

if TYPE_CHECKING:
    from dstrl_cli.training.trainer import Population

LARGEST_SHARE = 0.03
"""Share of the time that checkpoints may take: slow ones are written less often than asked for."""


class Schedule:
    """When a checkpoint of a population is due: as often as the member that wants the most.

    Attributes:
        on: whether any member wants checkpoints.
        unwanted: members that want none (`checkpoint_every: 0`).
        unkept: members that have something which no checkpoint can hold.
    """

    def __init__(self, configs: Sequence[RunConfig]) -> None:
        wanted = {config.checkpoint_every for config in configs} - {0}
        self.steps = [each for each in wanted if isinstance(each, int)]
        seconds = [interval_seconds(each) for each in wanted]
        self.seconds = min((each for each in seconds if each is not None), default=None)
        self.on = bool(wanted)
        self.unwanted = {
            member for member, config in enumerate(configs) if config.checkpoint_every == 0
        }
        self.unkept: set[int] = set()
        self.last, self.pause = time.perf_counter(), self.seconds or 0.0

    def due(self, step: int) -> bool:
        """Return whether a checkpoint is due after environment step `step`."""
        if not self.on:
            return False
        if any(step % every == 0 for every in self.steps):
            return True
        if self.seconds is None or step % CHECK_EVERY:
            return False
        return time.perf_counter() - self.last >= self.pause

    def of(self, members: Iterable[int]) -> list[int]:
        """Return those of some members that want checkpoints."""
        return [member for member in members if member not in self.unwanted]

    def written(self, took: float) -> None:
        """Note that a checkpoint was written now, in `took` seconds."""
        self.last = time.perf_counter()
        self.pause = max(self.seconds or 0.0, took / LARGEST_SHARE)


# --- the states of the members ------------------------------------------------------------------


def save(population: Population, members: Iterable[int]) -> list[int]:
    """Write a checkpoint of some members of a population that is between two steps.

    Where that fails, the training goes on: the former checkpoint is still there. Returns the
    members of which one was written.
    """
    unkept, saved = population.checkpoints.unkept, list[int]()
    wanted = [member for member in members if member not in unkept]
    if not wanted:
        return saved
    population.learner.wait()
    started = time.perf_counter()
    step, tell = population.steps, population.reporter.message
    population.recorder.flush()
    environments = environment_texts(population.env)
    broken = population.replay.faults()  # these end as failed at the next look at the device
    for member in [each for each in wanted if each not in broken]:
        config = population.configs[member]
        of = f" of {config.method} seed {config.seed}" if len(population.configs) > 1 else ""
        try:
            state = member_state(population, member, environments[member])
        except DstrlError as error:
            unkept.add(member)
            tell(f"warning: no checkpoints{of} are written: {error}")
            continue
        try:
            for sink in population.recorder.sinks[member]:
                sink.checkpoint(state)
            saved.append(member)
        except (OSError, DstrlError) as error:
            tell(f"warning: no checkpoint{of} was written at step {step:,}: {error}")
    seconds = time.perf_counter() - started
    population.checkpoints.written(seconds)
    population.recorder.checkpoint_took(seconds)
    population.clock += seconds
    population.tell()
    return saved


def goes_on_in_words(saved: int, members: int) -> str:
    """Return whether a run, or how many of a population, can go on from where it was stopped."""
    if saved == members:
        return "where it can be resumed"
    if not saved:
        return "of which nothing is kept"
    return f"where {saved} of {members} runs can be resumed"


def environment_texts(env: BatchEnv) -> list[str | DstrlError]:
    """Return the state of each environment as text, or why it cannot be read."""
    return [
        state if isinstance(state, DstrlError) else env_to_text(state)
        for state in env.read_states()
    ]


def member_state(
    population: Population, member: int, environment: str | DstrlError
) -> dict[str, Any]:
    """Return the state of a member, all of whose rows are written.

    Args:
        population: the population, between two steps.
        member: its index.
        environment: the state of its environment, or why that cannot be read.
    """
    unread = isinstance(environment, DstrlError)
    return {
        "steps": population.steps,
        "evaluated": population.evaluated,
        "timing": population.timing.state(),
        "environment": None if unread else environment,
        "environment_problem": str(environment) if unread else None,
        "generators": generators(population),
        "algorithm": population.algorithm.state(member),
        "replay": population.replay.state(member),
        "recorder": recorder_state(population.recorder, member),
    }


def restore(population: Population, states: Sequence[dict[str, Any]]) -> Tensor:
    """Give the members of a new population their states; return the observations to act on next.

    All states are of the same step and last evaluation. They are emptied, since their arrays lie in
    the files of the checkpoints, which others are about to replace. Members the state of whose
    environment is missing start new episodes: the ones that they were in are not counted, and their
    last transitions are cut.
    """
    population.steps, population.evaluated = states[0]["steps"], states[0]["evaluated"]
    population.clock_step = population.steps
    population.timing.set_state(states[0]["timing"])
    population.algorithm.set_state([state["algorithm"] for state in states])
    population.replay.set_state([state["replay"] for state in states])
    set_recorder_state(population.recorder, [state["recorder"] for state in states])
    population.episodes.follow(population.recorder.episode_count)
    population.learner.nsteps.set(max(1, population.algorithm.updates))
    texts = [state["environment"] for state in states]
    if None in texts:
        restart_episodes(population, states)
    observation = population.env.set_state([text and env_from_text(text) for text in texts])
    population.freeze_failed(population.env, 1)
    set_generators(population, states[0]["generators"])
    for state in states:
        state.clear()
    return observation


def restart_episodes(population: Population, states: Sequence[Mapping[str, Any]]) -> None:
    """Start a new episode of the members whose environment has no state, and say so.

    The start follows from the seed and the step, so that it is the same if it is done again. The
    environments of the others are reset, too.
    """
    step = population.steps
    for member, (config, state) in enumerate(zip(population.configs, states, strict=True)):
        if state["environment"] is not None:
            continue
        population.replay.cut_newest(member)
        population.recorder.restart_episode(member)
        population.reporter.message(
            f"{config.method} seed {config.seed}: a new episode begins at step {step:,} instead of "
            f"the one that was stopped, since {state['environment_problem']}"
        )
    seeds = [
        streams.derived_seed(each.seed, "restart", step) % 2**31 for each in population.configs
    ]
    population.env.reset(seeds)


# --- generators that a process has --------------------------------------------------------------


def generators(population: Population) -> str | None:
    """Return the states of the global generators of this process and of workers, as text.

    Some environments draw from them. They belong to a process, and so to a run that has it alone:
    None for several members. All workers evaluate; one of them steps the training's environment.
    """
    if len(population.configs) > 1:
        return None
    states = global_generators() | {"workers": population.eval_env.worker_generators()}
    return json.dumps(_plain(states))


def set_generators(population: Population, text: str | None) -> None:
    """Put the global generators of a run by itself into the states that `generators` returned."""
    if text is None or len(population.configs) > 1:
        return
    states = _typed(json.loads(text))
    set_global_generators(states)
    population.eval_env.set_worker_generators(states.get("workers", ()))


# --- environments as text -----------------------------------------------------------------------


def env_to_text(state: EnvState) -> str:
    """Return the state of an environment as JSON; numbers, arrays and tuples keep their types."""
    return json.dumps({each.name: _plain(getattr(state, each.name)) for each in fields(state)})


def env_from_text(text: str) -> EnvState:
    """Return the state that `env_to_text` wrote."""
    return EnvState(**{name: _typed(value) for name, value in json.loads(text).items()})


def _plain(value: Any) -> Any:
    """Return a value for JSON: what JSON does not have becomes a mapping of one key, its kind.

    Python writes whole numbers of any size, as those of random generators, and reads them exactly.
    """
    if isinstance(value, np.ndarray | np.generic):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return {kind: [value.dtype.str, list(value.shape), data]}
    if isinstance(value, Mapping):
        return {"dict": {key: _plain(item) for key, item in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [_plain(item) for item in value]}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _typed(value: Any) -> Any:
    """Return the value that `_plain` turned into JSON."""
    if isinstance(value, list):
        return [_typed(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {key: _typed(item) for key, item in content.items()}
    if kind == "tuple":
        return tuple(_typed(item) for item in content)
    dtype, shape, data = content
    array = np.frombuffer(base64.b64decode(data), dtype=dtype).reshape(shape).copy()
    return array if kind == "array" else array[()]
