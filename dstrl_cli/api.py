"""dstrl from Python: `train` and `load_policy`, which `import dstrl_cli` offers.

`train` does what `dstrl train` does with the same keys, in the calling process and without output.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dstrl_cli.config.keys import flatten
from dstrl_cli.envs.calls import generators_restored
from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.machine import this_host
from dstrl_cli.registry import only_asked
from dstrl_cli.runs.checksums import check_policy
from dstrl_cli.runs.policy import Policy, find_policy
from dstrl_cli.runs.summary import read_summary
from dstrl_cli.sweep.place import Limits, place_runs
from dstrl_cli.sweep.plan import Axes
from dstrl_cli.sweep.request import RunRequest, plan_training
from dstrl_cli.sweep.states import Planned, ended, repaired
from dstrl_cli.terminal import describe
from dstrl_cli.terminal.flags import train_flags
from dstrl_cli.training.run import Outcome
from dstrl_cli.training.run import train as train_runs


def train(
    *,
    algo: str | None = None,
    dst: str | Path | None = None,
    ours: bool | None = None,
    env: str | None = None,
    task: int | None = None,
    sparsity: float | None = None,
    actor_sparsity: float | None = None,
    critic_sparsity: float | None = None,
    seed: int | None = None,
    steps: float | None = None,
    episodes: float | None = None,
    init_mask_from: str | Path | None = None,
    init_weights_from: str | Path | None = None,
    expert: str | Path | None = None,
    expert_q: str | Path | None = None,
    prefill_from: str | Path | None = None,
    preset: str | Path | None = None,
    sets: Mapping[str, Any] | None = None,
    device: str | None = None,
    engine: str | None = None,
    replay_device: str | None = None,
    out: str | Path | None = None,
    config: str | Path | None = None,
    checkpoint_every: int | str | None = None,
    keep_checkpoint: bool = False,
    tensorboard: bool = False,
    wandb: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    trust: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Train one run in this process, as `dstrl train` with the same keys would.

    What is left out has the default of the command line. A script needs no
    `if __name__ == "__main__"`, as no further process is started unless `env_workers` asks for it.
    So an environment that hangs for longer than `env.timeout`, or crashes, ends this process.

    Args:
        algo: `td3`, `sac` or `bc`.
        dst: the method: a name, or the path of a YAML file.
        ours: let the critics adapt by importance scores.
        env: Gymnasium id.
        task: task of a navigation environment, 0-9.
        sparsity: sparsity of all networks.
        actor_sparsity: sparsity of the actor alone.
        critic_sparsity: sparsity of the critics alone.
        seed: the seed of everything that is random.
        steps: environment steps; `1e6` is accepted.
        episodes: training episodes; training ends at whichever of steps and episodes comes first.
        init_mask_from: a run whose last masks it starts with: its folder, or a policy file.
        init_weights_from: a run whose first weights it starts with, likewise.
        expert: with `algo="bc"`, the run whose policy is imitated, likewise.
        expert_q: a run whose critics give the targets of this run's critics, likewise.
        prefill_from: a run whose policy takes the first `learning_starts` steps, likewise.
        preset: a preset's name, or the path of a YAML file.
        sets: further keys and values, as `--set` takes them: `{"nstep": 3}`; keys may be dotted or
            nested.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        engine: `auto`, `masked` or `sparse`.
        replay_device: `auto` or `cpu`.
        out: folder of the results.
        config: the stored `config.yaml` of a run, which is trained again exactly as it was; the
            keys above that would change it may not be given.
        checkpoint_every: a number of steps or a time (`10m`); 0 writes no checkpoints.
        keep_checkpoint: keep the last checkpoint when the run has finished.
        tensorboard: also write the curves for TensorBoard, into the run's folder.
        wandb: also send the curves to Weights & Biases, or keep them for it (`WANDB_MODE=offline`).
        overwrite: start over where a run is already.
        resume: go on with the run that is in the folder, if it was stopped; a finished one is not
            trained again, unless `steps` are more than it had and it kept its checkpoint.
        trust: import also modules that neither these arguments name nor an installed distribution
            holds, but the preset or the method's file does.
        quiet: say nothing; else a line is printed for every evaluation and message.

    Returns:
        The run's keys and its `summary.json`, as `dstrl train --json` prints them; `path` is the
        folder of the run.

    Raises:
        InputError: a key or value is wrong, or the folder holds a run; nothing was written.
        DstrlError: the run did not reach its last step.
    """
    given = {key: str(each) if isinstance(each, Path) else each for key, each in locals().items()}
    keys = train_flags(given | {"seeds": None})
    axes = Axes(algos=[] if algo is None else [algo], methods=[] if dst is None else [str(dst)])
    texts = [f"{key}={_yaml(value)}" for key, value in flatten(sets or {}).items()]
    stored = None if config is None else Path(config)
    named = None if preset is None else str(preset)
    request = RunRequest(axes, keys, ours, named, texts, overwrite, resume, stored)
    flags = "env, algo or sets" if config is None else None
    with only_asked((algo, env, *texts), trust, flags=flags, trusting="trust=True"):
        outcome = _carried_out(_only(plan_training(request)), quiet)
    if failures := describe.failures([outcome]):
        raise DstrlError(failures)
    return describe.outcome_json(outcome)


def _only(planned: Sequence[Planned]) -> Planned:
    """Return the only run of a plan. Raises InputError where a preset names several seeds."""
    if len(planned) > 1:
        seeds = ", ".join(str(each.run.config.seed) for each in planned)
        raise InputError(f"seed: the preset names several ({seeds}); choose one, as seed=0")
    return planned[0]


def _carried_out(planned: Planned, quiet: bool) -> Outcome:
    """Train a run, unless nothing is left to do; return how it ended."""
    placement = place_runs([planned], Limits(), this_host())
    if not placement.runs:
        repaired([planned])
        return ended(planned)
    (run,) = placement.runs
    with _torch_settings_restored(), generators_restored():
        (summary,) = train_runs([run], placement.devices[0].name, _Lines(quiet))
    return Outcome(run, summary)


def load_policy(path: str | Path) -> Policy:
    """Return the policy of a run folder (its last) or of a policy file.

    `.act(observation)` gives the action for one observation [obs] or for a batch [N, obs], in the
    environment's bounds. Raises InputError where there is no policy, or a damaged one.
    """
    file = find_policy(Path(path))
    check_policy(file, read_summary(file.parent) or {})
    return Policy.load(file)


class _Lines:
    """A reporter that prints one line for each evaluation and message, or nothing."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def progress(self, step: int, total: int, steps_per_s: float) -> None:
        """Ignore progress between evaluations."""

    def episodes(self, done: int, total: int) -> None:
        """Ignore episodes between evaluations."""

    def evaluation(self, member: int, row: dict[str, Any]) -> None:
        """Print the mean return of an evaluation."""
        self.message(f"step {row['step']:,}  return {row['eval_return_mean']:.2f}")

    def message(self, text: str) -> None:
        """Print a line."""
        if not self.quiet:
            print(text)


def _yaml(value: Any) -> str:
    """Return a value as text that `--set` takes: YAML, of which JSON is a part."""

    def plain(other: Any) -> Any:  # NumPy's numbers and arrays; paths
        return other.tolist() if hasattr(other, "tolist") else str(other)

    return json.dumps(value, default=plain, ensure_ascii=False)


@contextmanager
def _torch_settings_restored() -> Iterator[None]:
    """Undo what training sets for the whole process: threads, and flushing of denormal numbers."""
    import torch

    threads = torch.get_num_threads()
    tiny = torch.tensor(1e-310, dtype=torch.float64)
    flushed = bool(tiny * 1 == 0)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed)
