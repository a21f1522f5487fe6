"""From a resolved configuration to a trained run: device, engine, folder, training.

Every run starts here, alone or in a sweep. The training loop itself is in `training.trainer`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import to_dict
from dstrl_cli.errors import DstrlError, InputError, described
from dstrl_cli.nets.choice import choose
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.runs.left import NOTHING, Left
from dstrl_cli.runs.provenance import provenance
from dstrl_cli.runs.status import FAILED, FINISHED, INTERRUPTED
from dstrl_cli.runs.summary import about, read_summary

if TYPE_CHECKING:
    from dstrl_cli.envs import EnvSpec
    from dstrl_cli.training.reporter import Reporter
    from dstrl_cli.training.sinks import Sink

Summary = Mapping[str, Any]

OUT_OF_MEMORY_REMEDY = (
    "out of memory: use --replay-device cpu, fewer --members-per-device, or a smaller buffer_size"
)

_NO_SUMMARY: Summary = {"status": FAILED, "error": "its summary.json cannot be read"}


@dataclass(frozen=True)
class Run:
    """One run that is about to start.

    Attributes:
        config: the configuration, layer sizes resolved.
        spec: its environment.
        path: its folder.
        label: its folder relative to the results, for messages.
        start: `new`: the folder holds no run; `over`: what it holds is replaced; `resume`: the run
            in it goes on from its checkpoint.
        step: where it goes on.
        evaluated: the step of its last evaluation before that.
        left: what its folder held when it was planned.
        notes: what the user should know before it starts.
        needs: runs that must have finished before, since it takes something from them.
    """

    config: RunConfig
    spec: EnvSpec
    path: Path
    label: str
    start: Literal["new", "over", "resume"] = "new"
    step: int = 0
    evaluated: int = -1
    left: Left = NOTHING
    notes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: Run
    summary: Summary

    @property
    def finished(self) -> bool:
        """Whether the run reached its last step."""
        return self.summary.get("status") == FINISHED


def find_device(name: str) -> str:
    """Return the torch device that `--device` names; `auto` prefers an accelerator.

    Raises InputError for a device that this machine does not have.
    """
    if name == "cpu":
        return name
    count = accelerators()
    if name == "auto":
        return "cuda:0" if count else "cpu"
    index = int(name.partition(":")[2] or 0)
    if not count:
        raise InputError(
            f"device = {name!r}: no CUDA device is available here; use --device cpu or auto"
        )
    if index >= count:
        valid = ", ".join(f"cuda:{number}" for number in range(count))
        raise InputError(f"device = {name!r}: this machine has {valid}")
    return f"cuda:{index}"


def accelerators() -> int:
    """Return the number of CUDA devices here; torch is imported only if it could use any."""
    if version("torch").endswith("+cpu"):
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def train(runs: Sequence[Run], device: str, reporter: Reporter) -> list[Summary]:
    """Train runs that fit one population, in this process; return their summaries, in order.

    The engine is chosen here: what is trained, and each `config.yaml`, has it instead of `auto`.

    Raises:
        InputError: before anything is trained, for a folder that may not be written or that another
            process has changed since the run was planned, or an engine that cannot be had.
        DstrlError: where memory did not suffice, with the remedy.
        Exception: whatever else stopped the training.

    When it raises after training began, every run has a summary.
    """
    from dstrl_cli.training import trainer, writers

    if len({(run.start == "resume", run.step, run.evaluated) for run in runs}) > 1:
        raise DstrlError("these runs are at different steps, and cannot train in lock-step")
    choices = [choose(run.config, device, reporter.message, members=len(runs)) for run in runs]
    for warning in dict.fromkeys(choice.warning for choice in choices if choice.warning):
        reporter.message(f"warning: {warning}")
    configs = [
        run.config.model_copy(update={"engine": choice.engine})
        for run, choice in zip(runs, choices, strict=True)
    ]
    with ExitStack() as folders:
        opened: list[RunFolder] = []
        states: list[dict[str, Any]] = []
        for run, config in zip(runs, configs, strict=True):
            now = provenance(config, device_name(device))
            document, folder = to_dict(config) | {"run": now}, RunFolder(run.path)
            opened.append(folders.enter_context(folder))
            if run.start == "resume":
                states.append(folder.resume(document, run.left))
                _say_changed(run, states[-1]["made_by"], now, reporter)
            else:
                folder.create(document, run.start == "over", run.left)
        try:
            sinks: list[list[Sink]] = []
            for run, config, folder in zip(runs, configs, opened, strict=True):
                curves = writers.open_sinks(
                    config, run.path, run.label, reporter.message, run.start == "resume"
                )
                for each in curves:
                    folders.callback(each.close)
                sinks.append([folder, *curves])
            trainer.train(configs, sinks, runs[0].spec, device, reporter, states=states or None)
        except BaseException as error:
            if remedy := out_of_memory(error):
                _leave_summaries(opened, configs, remedy, over_failed=True)
                raise remedy from error
            _leave_summaries(opened, configs, error)
            raise
        summaries = [read_summary(run.path) or _NO_SUMMARY for run in runs]
        for folder, config, summary in zip(opened, configs, summaries, strict=True):
            if summary.get("status") == FINISHED and not config.keep_checkpoint:
                with suppress(DstrlError, OSError):  # it then stays, which does no harm
                    folder.remove_checkpoint()
    return summaries


def _say_changed(
    run: Run, then: Mapping[str, Any], now: Mapping[str, Any], reporter: Reporter
) -> None:
    """Say which versions and device are not those with which a run's checkpoint was written."""
    pairs = {name: (then["versions"].get(name), new) for name, new in now["versions"].items()}
    pairs["device"] = then["device"], now["device"]
    changed = [f"{name} {old} -> {new}" for name, (old, new) in pairs.items() if old != new]
    if changed:
        reporter.message(
            f"warning: {run.label}: since its checkpoint has changed: {', '.join(changed)}; its "
            "numbers may differ from those of a run that was not stopped"
        )


NO_MEMORY = ("allocate memory", "out of memory", "ALLOC_FAILED")
"""Parts of the messages of plain RuntimeErrors that libraries raise when memory runs out."""


def out_of_memory(error: BaseException) -> DstrlError | None:
    """Return an error with the remedy if memory ran out, in `error` or in what caused it."""
    import torch

    each: BaseException | None = error
    while each is not None:
        by_message = isinstance(each, RuntimeError) and any(word in str(each) for word in NO_MEMORY)
        if by_message or isinstance(each, torch.OutOfMemoryError | MemoryError):
            return DstrlError(f"{OUT_OF_MEMORY_REMEDY} ({explain(each)})")
        each = each.__cause__ or each.__context__
    return None


def _leave_summaries(
    folders: Sequence[RunFolder],
    configs: Sequence[RunConfig],
    error: BaseException,
    over_failed: bool = False,
) -> None:
    """Write summaries of runs that stopped before the trainer wrote them.

    With `over_failed`, the error in the summaries of failed runs is replaced by this one.
    """
    status = INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
    end = {"status": status, "error": explain(error) if status == FAILED else None}
    for folder, config in zip(folders, configs, strict=True):
        written = read_summary(folder.path)
        if written is None or (over_failed and written.get("status") == status):
            with suppress(DstrlError, OSError):  # the disk is full, or the folder gone
                folder.summary({**about(config), **(written or {}), **end})


def device_name(device: str) -> str:
    """Return the device with the name of its hardware, as `cuda:0 (NVIDIA H200)`."""
    import torch

    if not device.startswith("cuda"):
        return device
    return f"{device} ({torch.cuda.get_device_name(device)})"


def explain(error: BaseException) -> str:
    """Return an error in one line; for an unexpected one also its type, file and line."""
    return str(error) if isinstance(error, DstrlError) else described(error)


def quiet() -> None:
    """Keep third parties' warnings off the user's screen."""
    warnings.simplefilter("ignore")
