"""Gymnasium environments stepped one after the other in this process, with the arrays of a block.

The run's own process and worker processes both use this class, so that both give the same numbers.
The environments share nothing: a trajectory does not depend on the others. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium
import numpy as np

from dstrl_cli.envs.specs import EnvSpec, make_env
from dstrl_cli.envs.state import EnvState, read_state, write_state
from dstrl_cli.envs.workers.block import Block

Causes = dict[int, str]
"""Which environments failed: row to what they raised."""


class EnvGroup:
    """One environment for each row of a block.

    After an episode's end an environment is reset without a seed, so that its random stream goes
    on. If an environment raises an exception, the exception is returned as text, and its row shows
    an environment that did not move. Numbers that are not finite are left for the batch to find.
    """

    def __init__(self, spec: EnvSpec, block: Block) -> None:
        self._block = block
        self._envs = [make_env(spec) for _ in block.reward]
        self._action_dtype = self._envs[0].action_space.dtype

    def reset(self, seeds: Sequence[int]) -> Causes:
        """Reset environment i with `seeds[i]` and write its first observation."""
        causes: Causes = {}
        for index, seed in enumerate(seeds):
            self._block.observation[index] = 0.0
            self._reset(index, causes, int(seed))
        return causes

    def step(self, masked: bool) -> Causes:
        """Step with the block's actions: all environments, or if `masked` its active ones."""
        block, causes = self._block, {}
        next_observation, observation = block.next_observation, block.observation
        reward = block.reward
        # A copy, because an environment may keep the action it was given.
        action = block.action.astype(self._action_dtype)
        rows = range(len(reward)) if not masked else np.flatnonzero(block.active).tolist()
        next_observation[:] = observation
        reward[:] = 0.0
        block.ended[:] = 0.0
        # The batch reports numbers that are not finite; NumPy need not warn of them as well.
        with np.errstate(over="ignore", invalid="ignore"):
            for index in rows:
                try:
                    seen, paid, terminated, truncated, _ = self._envs[index].step(action[index])
                    reward[index] = paid
                    next_observation[index] = seen
                except (Exception, SystemExit) as error:
                    causes[index] = _explain(error)
                    reward[index] = 0.0
                    continue
                observation[index] = next_observation[index]
                if terminated or truncated:
                    block.ended[0, index] = not truncated
                    block.ended[1, index] = truncated
                    self._reset(index, causes)
        return causes

    def get_state(self) -> list[EnvState]:
        """Return the state of every environment; see `state.read_state` for errors."""
        return [
            read_state(env, observation)
            for env, observation in zip(self._envs, self._block.observation, strict=True)
        ]

    def set_state(self, states: Sequence[EnvState]) -> None:
        """Set the state of every environment; see `state.write_state` for errors."""
        for index, state in enumerate(states):
            write_state(self._envs[index], state)
            self._block.observation[index] = state.observation

    def close(self) -> None:
        """Close every environment; closing twice is allowed."""
        for env in self._envs:
            env.close()

    def _reset(self, index: int, causes: Causes, seed: int | None = None) -> None:
        env: gymnasium.Env = self._envs[index]
        try:
            self._block.observation[index] = env.reset(seed=seed)[0]
        except (Exception, SystemExit) as error:
            causes[index] = _explain(error)


def _explain(error: BaseException) -> str:
    """Return an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
