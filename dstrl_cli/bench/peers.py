"""The same work done by other libraries: Stable-Baselines3 and SBX, with their own loops.

Runs in a process of its own (`worker`); needs the extra `bench`. Network sizes, batch, replay size
and random steps are the measured run's, everything else is theirs.
"""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from dstrl_cli.bench.plan import WARM_UP_UPDATES, Work
from dstrl_cli.bench.timing import Timed, Timing, repeat, repeat_rows
from dstrl_cli.envs.specs import make_env
from dstrl_cli.sweep.plan import env_spec

EXPLORATION_NOISE = 0.1
FOREVER = 10**9
_ROWS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class Deadline:
    """A callback that ends a `learn` call when its time is over, and counts whole steps.

    A step lasts from one action's end to the next, so it holds one update.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.count, self.began, self.now = -1, 0.0, 0.0
        self.began_cpu, self.now_cpu = 0.0, 0.0

    def __call__(self, *_: object) -> bool:
        """Count a step; return whether there is time for another."""
        self.now = time.perf_counter()
        if self.count < 0:
            self.began, self.began_cpu = self.now, time.process_time()
        self.count += 1
        if self.count == 0 or self.now - self.began < self.seconds:
            return True
        self.now_cpu = time.process_time()
        return False

    @property
    def timing(self) -> Timing:
        """The steps that were counted and what they took."""
        return Timing(self.count, self.now - self.began, self.now_cpu - self.began_cpu)


class PeerTraining:
    """A model of Stable-Baselines3's interface that trains, or only updates."""

    def __init__(self, work: Work, model: Any) -> None:
        assert work.config is not None
        self.model, self.batch_size = model, work.config.batch_size
        model.learn(work.config.learning_starts + WARM_UP_UPDATES)
        buffer = model.replay_buffer
        filled = buffer.buffer_size if buffer.full else buffer.pos
        for name in _ROWS:
            repeat_rows(getattr(buffer, name), filled)
        buffer.full = True
        self.measure = {"train": self.learn, "update": self.update}[work.kind]

    def run(self, seconds: float) -> Timing:
        """Repeat whole steps or updates."""
        return self.measure(seconds)

    def learn(self, seconds: float) -> Timing:
        """Train with the library's own loop."""
        deadline = Deadline(seconds)
        self.model.learn(FOREVER, callback=deadline, reset_num_timesteps=False)
        return deadline.timing

    def update(self, seconds: float) -> Timing:
        """Sample and update only."""
        return repeat(lambda: self.model.train(1, self.batch_size), seconds)


def sb3(work: Work, folder: Path) -> Timed:
    """Return Stable-Baselines3 doing the work, on the device that it is to run on."""
    import torch

    torch.set_num_threads(work.threads or 1)
    device = work.config.device if work.config is not None else "cpu"
    return PeerTraining(work, _model("stable_baselines3", work, device=device))


def sbx(work: Work, folder: Path) -> Timed:
    """Return SBX doing the work; `threads` limits XLA's pools, before it is imported."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if work.threads is not None:
        os.environ["NPROC"] = str(work.threads)
        parallel = str(work.threads > 1).lower()
        os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={parallel}"
    return PeerTraining(work, _model("sbx", work))


def _model(library: str, work: Work, **more: Any) -> Any:
    from stable_baselines3.common.noise import NormalActionNoise

    config = work.config
    assert config is not None
    spec = env_spec(config.env).for_seed(config.seed)
    if config.algo == "td3":
        zeros = np.zeros(spec.action_size)
        more["action_noise"] = NormalActionNoise(zeros, zeros + EXPLORATION_NOISE)
    algorithm = getattr(importlib.import_module(library), config.algo.upper())
    return algorithm(
        "MlpPolicy",
        make_env(spec),
        buffer_size=config.buffer_size,
        learning_starts=config.learning_starts,
        batch_size=config.batch_size,
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": list(config.hidden_sizes)},
        seed=config.seed,
        **more,
    )
