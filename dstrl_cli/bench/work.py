"""What dstrl does while it is timed: the trainer's own loop, one update of it, or a dense product.

Runs in a process of its own (`worker`). Everything is made and warmed up in the constructors, so
that `run` times its steps and nothing else.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from dstrl_cli.bench.plan import PRODUCT_SIZE, WARM_UP_UPDATES, Work
from dstrl_cli.bench.timing import Timing, repeat, repeat_rows
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import to_dict
from dstrl_cli.errors import DstrlError
from dstrl_cli.nets.choice import torch_threads
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.sweep.plan import env_spec


class Training:
    """A population that trains as `trainer.train` does, in folders that are thrown away."""

    def __init__(self, work: Work, folder: Path) -> None:
        from dstrl_cli.training import trainer
        from dstrl_cli.training.reporter import Silent

        config = work.config
        assert config is not None
        torch.set_num_threads(torch_threads(config))
        if config.device.startswith("cuda"):
            torch.cuda.set_device(config.device)
        torch.set_flush_denormal(True)
        torch.set_grad_enabled(False)
        spec = env_spec(config.env).for_seed(config.seed)
        configs = _seeded(config, work.members)
        folders = [RunFolder(folder / str(each.seed)).create(to_dict(each)) for each in configs]
        self.config, self.folders = config, folders
        self.population = trainer.Population(
            configs, [[folder] for folder in folders], spec, config.device, Silent()
        )
        self.observation = self.population.env.reset(self.population.env_seeds)
        for _ in range(config.learning_starts + WARM_UP_UPDATES):
            self.lap()
        self.fill()
        self.step = {"train": self.lap, "update": self.population.update}[work.kind]

    def lap(self) -> None:
        """Take one turn of the trainer's loop, without evaluation."""
        self.observation = self.population.advance(self.observation)

    def fill(self) -> None:
        """Fill the replay buffer by repeating its transitions."""
        replay = self.population.replay
        members, capacity = len(self.population.configs), replay.capacity
        filled = min(self.population.steps, capacity)
        for ring in vars(replay).values():
            if not isinstance(ring, Tensor) or tuple(ring.shape[:2]) != (members, capacity):
                continue
            if ring.is_contiguous():  # others are views of these
                repeat_rows(ring.transpose(0, 1), filled)
        replay.size.fill_(capacity)

    def wait(self) -> None:
        """Wait for the accelerator, and for the second thread."""
        self.population.learner.wait()
        if self.config.device != "cpu":
            torch.cuda.synchronize()

    def run(self, seconds: float) -> Timing:
        """Repeat laps or updates. Raises DstrlError where a member diverged: it did less work."""
        measured = repeat(self.step, seconds, self.wait)
        if not bool(self.population.algorithm.alive.all()):
            raise DstrlError("a member diverged while it was timed")
        return measured

    def parts(self, seconds: float) -> dict[str, float]:
        """Return the milliseconds of a lock-step's parts; lock-steps stay slower afterwards."""
        from dstrl_cli.bench.breakdown import breakdown

        return breakdown(self.population, self.lap, seconds)

    def checkpoint(self) -> tuple[float, int]:
        """Return the seconds that a checkpoint of all members takes, and its bytes."""
        from dstrl_cli.runs.checkpoint import CHECKPOINT_FOLDER, STATE_FILE
        from dstrl_cli.training import checkpoint

        self.wait()
        started = time.perf_counter()
        checkpoint.save(self.population, self.population.training)
        seconds = time.perf_counter() - started
        files = [each.path / CHECKPOINT_FOLDER / STATE_FILE for each in self.folders]
        if not all(file.exists() for file in files):
            raise DstrlError("no checkpoint could be written")
        return seconds, sum(file.stat().st_size for file in files)


def _seeded(config: RunConfig, members: int) -> list[RunConfig]:
    seeds = range(config.seed, config.seed + members)
    return [config.model_copy(update={"seed": seed}) for seed in seeds]


class Product:
    """A dense product of two square matrices in single precision: the machine's peak."""

    def __init__(self, work: Work, folder: Path) -> None:
        torch.set_num_threads(work.threads or 1)
        self.left, self.right, self.out = torch.rand(3, PRODUCT_SIZE, PRODUCT_SIZE).unbind()
        self.run(0.1)

    def run(self, seconds: float) -> Timing:
        """Repeat the product."""
        return repeat(lambda: torch.mm(self.left, self.right, out=self.out), seconds)
