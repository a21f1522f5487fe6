"""Any Gymnasium environment as a batch: N copies, stepped on the CPU.

This process steps them one after the other (`workers.group.EnvGroup`), or worker processes step
them in parallel (`workers.pool.WorkerGroup`); both give the same numbers. The results of a step are
copied to the device in one piece.

Why processes: one step of 30 HalfCheetah-v5 on two shared cores took, at best, 1.15 ms one after
the other and 0.70 ms with two workers. Two threads took 1.18 ms, because the interpreter lock lets
only one run Gymnasium's Python code at a time. `mujoco.rollout` on two threads took 0.79 ms for the
physics alone: rewards, observations and ends would have to be written again for every task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dstrl_cli.envs.actions import ActionScale
from dstrl_cli.envs.base import Active, BatchEnv, HostStep, Step
from dstrl_cli.envs.specs import EnvSpec
from dstrl_cli.envs.state import EnvState
from dstrl_cli.envs.watch import Hung, Watch, say
from dstrl_cli.envs.workers.block import Block, make_block, unpack
from dstrl_cli.envs.workers.group import Causes, EnvGroup
from dstrl_cli.envs.workers.pool import WorkerGroup
from dstrl_cli.errors import DstrlError


class GymnasiumBatch(BatchEnv):
    """N Gymnasium environments; see `BatchEnv` for shapes and failures.

    Args:
        spec: the environment.
        num_envs: how many copies.
        device: where results go.
        workers: the worker processes that step them; None: this process does.
        hung: is told of an environment that hangs in this process; see `watch`.
    """

    def __init__(
        self,
        spec: EnvSpec,
        num_envs: int,
        device: torch.device,
        workers: WorkerGroup | None = None,
        hung: Hung = say,
    ) -> None:
        super().__init__(spec, num_envs, device)
        self._workers = workers
        self._block: Block = workers.block if workers else make_block(spec, num_envs)
        self._group = workers or EnvGroup(spec, self._block, Watch(spec.name, spec.timeout, hung))
        self._scale = ActionScale(spec)
        self._last_observation = self._block.observation.copy()  # always finite
        length = len(self._block.results)
        self._upload = _Upload(length, device) if device.type == "cuda" else None

    def reset(self, seeds: Sequence[int]) -> torch.Tensor:
        """Seed environment i with `seeds[i]`; return observations [N, obs]."""
        block = self._block
        self.failures = {}
        self._record_failures(self._group.reset([int(seed) for seed in seeds]))
        broken = ~np.isfinite(block.observation).all(1)
        block.observation[broken] = 0.0
        self._record_not_finite(broken)
        return self._current_observations()

    def step(self, actions: torch.Tensor, active: Active | None = None) -> Step:
        """Step the active environments; see `BatchEnv.step`."""
        block = self._block
        self._scale(actions.numpy(force=True), out=block.action)
        masked = active is not None or bool(self.failures)
        if masked:
            block.active[:] = True if active is None else active
            block.active[list(self.failures)] = False
        causes = self._group.step(masked)
        if causes:
            self._record_failures(causes)
        # A sum of squares is cheaper than a look at every number; where it overflows, that follows.
        if not math.isfinite(block.results.dot(block.results)):
            self._freeze_not_finite()
        if block.ended[0].dot(block.ended[1]):
            self._settle_ends()
        np.copyto(self._last_observation, block.observation)
        return self._result()

    def read_states(self) -> list[EnvState | DstrlError]:
        """Return the state of every environment; see `BatchEnv.read_states`."""
        return self._group.read_states()

    def set_state(self, states: Sequence[EnvState | None]) -> torch.Tensor:
        """Put every environment into a state [N]; return observations [N, obs]."""
        self._group.set_state(list(states))
        self.failures = {
            index: cause for index, cause in self.failures.items() if states[index] is None
        }
        return self._current_observations()

    def worker_generators(self) -> list[dict[str, Any] | None]:
        """Return the states of the workers' generators; see `BatchEnv.worker_generators`."""
        return self._workers.generators() if self._workers else []

    def set_worker_generators(self, states: Sequence[Mapping[str, Any] | None]) -> None:
        """Set the states of the workers' generators; see `BatchEnv.set_worker_generators`."""
        if self._workers:
            self._workers.set_generators(states)

    def close(self) -> None:
        """Close every environment."""
        self._group.close()

    def _current_observations(self) -> torch.Tensor:
        np.copyto(self._last_observation, self._block.observation)
        return torch.from_numpy(self._last_observation.copy()).to(self.device)

    def _result(self) -> Step:
        block = self._block
        terminated, truncated = block.ended != 0
        host = HostStep(block.paid.copy(), terminated, truncated, block.success.copy())
        if self._upload is None:
            return Step(
                torch.from_numpy(block.next_observation.copy()),
                torch.from_numpy(block.reward.copy()),
                torch.from_numpy(terminated),
                torch.from_numpy(truncated),
                torch.from_numpy(block.observation.copy()),
                host,
            )
        uploaded = self._upload(block.results)
        next_observation, reward, ended, observation = unpack(uploaded, self.num_envs)
        terminated, truncated = ended.bool()
        return Step(next_observation, reward, terminated, truncated, observation, host)

    def _settle_ends(self) -> None:
        """Where an episode terminated at exactly its time limit, let one of the two win."""
        ended = self._block.ended
        both = ended.all(0)
        limit_wins = self.limit_wins.cpu().numpy()
        ended[0, both & limit_wins] = 0.0
        ended[1, both & ~limit_wins] = 0.0

    def _freeze_not_finite(self) -> None:
        """Freeze environments with numbers that are not finite at their last observation."""
        block = self._block
        stepped = np.isfinite(block.next_observation).all(1) & np.isfinite(block.reward)
        started = np.isfinite(block.observation).all(1)
        lost = ~stepped
        block.show_unmoved(lost, self._last_observation[lost])
        # Here only the first observation of the next episode is bad: the one that ended counts.
        halted = stepped & ~started
        block.observation[halted] = block.next_observation[halted]
        self._record_not_finite(lost | halted)

    def _record_not_finite(self, broken: np.ndarray) -> None:
        for index in np.flatnonzero(broken).tolist():
            self.failures.setdefault(
                index,
                f"environment {index} ({self.spec.name}) returned a number that is not finite: "
                "it, or the policy that acts in it, has diverged",
            )

    def _record_failures(self, causes: Causes) -> None:
        for index, cause in causes.items():
            self.failures.setdefault(
                index, f"environment {index} ({self.spec.name}) failed: {cause}"
            )


class _Upload:
    """Copies arrays of one length to an accelerator without waiting for the copy."""

    def __init__(self, length: int, device: torch.device) -> None:
        self._device = device
        self._staging = torch.empty(length, pin_memory=True)
        self._copied = torch.cuda.Event()

    def __call__(self, array: np.ndarray) -> torch.Tensor:
        self._copied.synchronize()  # the previous copy must be done before its memory is reused
        self._staging.numpy()[:] = array
        result = self._staging.to(self._device, non_blocking=True)
        self._copied.record(torch.cuda.current_stream(self._device))
        return result
