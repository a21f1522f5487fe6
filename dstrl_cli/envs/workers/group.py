"""Gymnasium environments stepped one after the other in this process, with the arrays of a block.

The run's own process and worker processes both use this class, so that both give the same numbers.
The environments share nothing: a trajectory does not depend on the others. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import gymnasium
import numpy as np

from dstrl_cli.envs.calls import (
    close_quietly,
    contained,
    explain,
    global_generators,
    set_global_generators,
)
from dstrl_cli.envs.specs import EnvSpec, make_env
from dstrl_cli.envs.state import EnvState, read_state, write_state
from dstrl_cli.envs.unwrapped import step_function
from dstrl_cli.envs.watch import Watch
from dstrl_cli.envs.workers.block import Block
from dstrl_cli.errors import DstrlError

Causes = dict[int, str]
"""Which environments failed: row to what they raised."""

SUCCESS_KEYS = ("is_success", "success")
"""Where `info` says whether an environment's task is solved; the first that is there counts."""

_REAL = (np.dtype(np.float64), np.dtype(np.float32))
"""Types of observations of which only the shape needs a look."""


class EnvGroup:
    """One environment for each row of a block.

    After an episode's end an environment is reset without a seed, so that its random stream goes
    on. If an environment raises an exception, the exception is returned as text, and its row shows
    an environment that did not move. Numbers that are not finite are left for the batch to find.

    Args:
        spec: the environment.
        block: the arrays; one environment is made for each of its rows.
        watch: is told of every call of an environment, and so notices one that does not return.
    """

    def __init__(self, spec: EnvSpec, block: Block, watch: Watch) -> None:
        self._block, self._watch = block, watch
        # Gymnasium's own environments and dstrl's neither exit nor change the working folder.
        self._contained = contained if spec.foreign else nullcontext
        with self._contained():
            self._envs = [make_env(spec) for _ in block.reward]
        self._steps = [env.step if spec.foreign else step_function(env) for env in self._envs]
        self._action_dtype = np.dtype(spec.action_dtype)
        self._shape = (spec.observation_size,)

    def reset(self, seeds: Sequence[int]) -> Causes:
        """Reset environment i with `seeds[i]` and write its first observation."""
        causes: Causes = {}
        with self._contained():
            for index, seed in enumerate(seeds):
                self._block.observation[index] = 0.0
                self._reset(index, causes, int(seed))
        return causes

    def step(self, masked: bool) -> Causes:
        """Step with the block's actions: all environments, or if `masked` its active ones."""
        block, causes = self._block, {}
        # A copy, because an environment may keep the action it was given.
        action = block.action.astype(self._action_dtype)
        rows = range(len(action)) if not masked else np.flatnonzero(block.active).tolist()
        if masked:  # else every row is written below
            block.show_unmoved(slice(None), block.observation)
        # The batch reports numbers that are not finite; NumPy need not warn of them as well.
        with self._contained(), np.errstate(over="ignore", invalid="ignore"):
            for index in rows:
                try:
                    ended = self._step(index, action[index])
                except (Exception, SystemExit) as error:
                    causes[index] = explain(error)
                    block.show_unmoved(index, block.observation[index])
                    continue
                block.observation[index] = block.next_observation[index]
                if ended:
                    self._reset(index, causes)
        return causes

    def read_states(self) -> list[EnvState | DstrlError]:
        """Return the state of every environment, or the error of `state.read_state`."""
        states: list[EnvState | DstrlError] = []
        for env, observation in zip(self._envs, self._block.observation, strict=True):
            try:
                states.append(read_state(env, observation))
            except DstrlError as error:
                states.append(error)
        return states

    def set_state(self, states: Sequence[EnvState | None]) -> None:
        """Set the state of every environment that has one; see `state.write_state` for errors."""
        for index, state in enumerate(states):
            if state is not None:
                write_state(self._envs[index], state)
                self._block.observation[index] = state.observation

    def generators(self) -> dict[str, Any]:
        """Return the states of this process's global generators."""
        return global_generators()

    def set_generators(self, states: Mapping[str, Any] | None) -> None:
        """Set the states of this process's global generators; None leaves them as they are."""
        if states is not None:
            set_global_generators(states)

    def close(self) -> None:
        """Close every environment, whatever that raises; closing twice is allowed."""
        self._watch.close()
        for env in self._envs:
            close_quietly(env)

    def _step(self, index: int, action: np.ndarray) -> bool:
        """Step one environment and write what it returns; return whether the episode ended."""
        block = self._block
        with self._watch.call(index, "step"):
            seen, paid, terminated, truncated, info = self._steps[index](action)
        if getattr(seen, "dtype", None) not in _REAL or seen.shape != self._shape:
            self._check_observation(seen)
        block.paid[index] = block.reward[index] = _number(paid)
        block.next_observation[index] = seen
        block.ended[:, index] = ended = bool(terminated), bool(truncated)
        block.success[index] = success(info)
        return ended[0] or ended[1]

    def _reset(self, index: int, causes: Causes, seed: int | None = None) -> None:
        env: gymnasium.Env = self._envs[index]
        try:
            with self._watch.call(index, "reset"):
                started = env.reset(seed=seed)
            self._check_observation(observation := first_observation(started))
            self._block.observation[index] = observation
        except (Exception, SystemExit) as error:
            causes[index] = explain(error)

    def _check_observation(self, observation: Any) -> None:
        """Raise ValueError for what NumPy would stretch to fill the row, or take only half of."""
        if np.shape(observation) != self._shape:
            raise ValueError(
                f"an observation of shape {np.shape(observation)} instead of {self._shape}"
            )
        if np.iscomplexobj(observation):
            raise ValueError("an observation of complex numbers")


def first_observation(started: Any) -> Any:
    """Return the observation in what `reset` returned, which must be a pair.

    Raises TypeError where it is the observation alone, as before Gymnasium.
    """
    if not isinstance(started, tuple) or len(started) != 2:
        raise TypeError("reset must return two values, the observation and a dict")
    return started[0]


def success(info: Mapping[str, Any]) -> float:
    """Return what `info` says of success as a number; NaN where it says nothing."""
    for key in SUCCESS_KEYS:
        if key in info:
            try:
                return _number(info[key])
            except (TypeError, ValueError):  # None, or a text
                return np.nan
    return np.nan


def _number(value: Any) -> float:
    """Return a number, or an array of one, as float64. Raises ValueError for an array of more."""
    if isinstance(value, float):  # NumPy's float64 is one
        return value
    return np.asarray(value, np.float64).item()
