"""RLtools doing the same work: a C++ program, compiled for the run, that trains on one core.

Runs in a process of its own (`worker`), into which torch must not be imported: RLtools refuses to
load its linear algebra beside it. Its Python interface steps Gymnasium's environments and takes
whole steps only. Sizes, batch, capacity of the replay buffer and random steps are the measured
run's, everything else is RLtools' own.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium

from dstrl_cli.bench.plan import WARM_UP_UPDATES, Work
from dstrl_cli.bench.timing import Timing, repeat
from dstrl_cli.config.models import RunConfig
from dstrl_cli.envs.specs import EnvSpec, make_env
from dstrl_cli.sweep.plan import env_spec

FOREVER = 10**9


class CompiledTraining:
    """An RLtools program that trains.

    Attributes:
        compile_s: seconds that making the program took, which are part of no timing.
    """

    def __init__(self, work: Work, folder: Path) -> None:
        config = work.config
        assert config is not None
        spec = env_spec(config.env).for_seed(config.seed)
        started = time.perf_counter()
        program = _compiled(config, spec, folder)
        self.compile_s = time.perf_counter() - started
        self.state = program.State(config.seed)
        for _ in range(_random_steps(config) + WARM_UP_UPDATES):
            self.state.step()

    def run(self, seconds: float) -> Timing:
        """Repeat whole steps."""
        return repeat(self.state.step, seconds)


def _compiled(config: RunConfig, spec: EnvSpec, folder: Path) -> Any:
    """Return RLtools' program for a run, compiled in `folder`.

    RLtools keeps compiled code below the folder of temporary files. In a folder of this process
    alone nothing is loaded that others may have put there.
    """
    kept, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        import rltools
    finally:
        tempfile.tempdir = kept
    layers = len(config.hidden_sizes) + 1
    (width,) = set(config.hidden_sizes)
    sizes = {
        f"{role}_{name}": value
        for role in ("ACTOR", "CRITIC")
        for name, value in (
            ("HIDDEN_DIM", width),
            ("NUM_LAYERS", layers),
            ("BATCH_SIZE", config.batch_size),
        )
    }
    return getattr(rltools, config.algo.upper())(
        lambda: _environment(spec, config.seed),
        interface_name="dstrl",
        enable_evaluation=False,
        N_WARMUP_STEPS=_random_steps(config),
        STEP_LIMIT=FOREVER,
        REPLAY_BUFFER_CAP=config.buffer_size,
        EPISODE_STEP_LIMIT=spec.time_limit or FOREVER,
        **sizes,
    )


def _random_steps(config: RunConfig) -> int:
    """Return the steps before training: RLtools needs at least one batch."""
    return max(config.learning_starts, config.batch_size)


def _environment(spec: EnvSpec, seed: int) -> gymnasium.Env:
    """Return the environment with actions in [-1, 1], as RLtools wants them."""
    env = make_env(spec)
    if {*spec.action_low} != {-1.0} or {*spec.action_high} != {1.0}:
        env = gymnasium.wrappers.RescaleAction(env, -1.0, 1.0)
    env.reset(seed=seed)
    return env
