"""Repeats the first updates of a stored run and compares what both wrote: `dstrl verify`.

The whole configuration trains, with its own number of steps, so that schedules stay as they were;
it is ended early, after an evaluation that the run itself had. On the CPU, with the same engine and
number of threads, all rows are then equal to the last digit.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dstrl_cli.config.parse import to_dict
from dstrl_cli.config.readfile import MAX_TABLE, MAX_YAML, read_text
from dstrl_cli.config.stored import ADDED_KEYS, FORMAT, parse_document
from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.report.words import counted
from dstrl_cli.runs.checksums import differing_logs
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.runs.provenance import origin, provenance
from dstrl_cli.runs.summary import CONFIG_FILE, read_summary
from dstrl_cli.training.run import Run, device_name, find_device

UPDATES = 2_000
"""Updates of the critics that are repeated at least, unless the run has fewer."""

COMPARED = ("episodes.csv", "topology.csv", "hashes.csv", "neurons.csv", "eval.csv")
"""The files that are compared; of differences at the same step the first file's is told."""

HASHES = ("weights", "masks")

ROUNDED = 1e-6
"""How far a return may be from that of an older run, as a share of itself or of its length.

Files without the column `success` were written when rewards were rounded to float32 before they
were summed; a rounded reward is off by a share of 6e-8 at most.
"""

Row = Mapping[str, str]


@dataclass(frozen=True)
class Difference:
    """The first row that differs.

    Attributes:
        step: environment steps.
        file: the name of the file.
        where: what else the row is about, as `network critic1, layer 0`.
        column: the first of its columns that differs; empty where one has no such row.
        theirs, ours: the values of the stored and of the repeated run; None for a missing row.
    """

    step: int
    file: str
    where: str
    column: str
    theirs: str | None
    ours: str | None


@dataclass(frozen=True)
class Verification:
    """What comparing a run with its repetition gave.

    Attributes:
        step: environment steps through which both were compared.
        rows: compared rows of each file.
        hashes: compared digests of weights and masks.
        absent: files that the run does not have, and that are not compared.
        difference: the first one; None where all is equal.
        theirs, ours: where the run and its repetition trained: versions, device, processor, ...
        notes: what the reader should know.
    """

    step: int
    rows: Mapping[str, int]
    hashes: int
    absent: tuple[str, ...]
    difference: Difference | None
    theirs: Mapping[str, Any]
    ours: Mapping[str, Any]
    notes: tuple[str, ...]


def verify(run: Run, updates: int, say: Callable[[str], None]) -> Verification:
    """Repeat the beginning of a stored run in a temporary folder, and compare.

    Args:
        run: the run, its configuration read from its folder.
        updates: of the critics, to be repeated at least: training ends at the next evaluation that
            the run logged, or at its last one.
        say: receives a line about the progress at every evaluation, and messages.

    Raises:
        InputError: the run logged nothing to compare, a file of it cannot be read, or this machine
            lacks the kind of device that it trained on.
        DstrlError: the training failed.
    """
    document = parse_document(read_text(run.path / CONFIG_FILE, MAX_YAML))
    theirs = origin(document)
    until = _last_step(run, updates)
    device = _device(run, str(theirs.get("device", "cpu")))
    with TemporaryDirectory(prefix="dstrl-verify-") as scratch:
        config = run.config.model_copy(update={"out": scratch, "checkpoint_every": 0})
        again = replace(run, config=config, path=Path(scratch) / "run")
        ours = provenance(config, device_name(device))
        _train(again, ours, device, until, say)
        stored = {name: _rows(run.path / name, until) for name in COMPARED}
        repeated = {name: _rows(again.path / name, until) or [] for name in COMPARED}
    there = {name: rows for name, rows in stored.items() if rows is not None}
    rows = {name: len(each) for name, each in there.items()}
    found = [_first_difference(name, each, repeated[name]) for name, each in there.items()]
    rounded = [name for name, each in there.items() if each and _is_rounded(each[0])]
    return Verification(
        step=until,
        rows=rows,
        hashes=len(HASHES) * rows.get("hashes.csv", 0),
        absent=tuple(name for name in COMPARED if name not in rows),
        difference=min(filter(None, found), key=lambda each: each.step, default=None),
        theirs=theirs,
        ours=ours,
        notes=(*_notes(run, document, theirs), *_rounded_notes(rounded)),
    )


def _notes(run: Run, document: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    if document.get("format", 1) < FORMAT:
        yield (
            f"its {CONFIG_FILE} has format {document.get('format', 1)} of an older dstrl, and was "
            f"brought up to {FORMAT}"
        )
    if added := [key for key in ADDED_KEYS if key.partition(".")[0] not in document]:
        yield f"keys that did not exist then do what it did: {', '.join(added)}"
    if resumed := theirs.get("resumed"):
        steps = ", ".join(f"{each['step']:,}" for each in resumed)
        yield f"it was stopped and went on at step {steps}; shown is where it began"
    if str(theirs.get("device", "cpu")).startswith("cuda"):
        yield "it trained on an accelerator, where equal numbers are not promised"
    summary = read_summary(run.path) or {}
    if restarts := summary.get("restarts"):
        yield (
            f"{counted(restarts, 'episode')} began anew where it was stopped, since the state of "
            "the environment could not be kept: what follows is not repeated"
        )
    for name, cause in differing_logs(run.path, summary):
        yield f"{name} is {cause}"


def _rounded_notes(files: Sequence[str]) -> Iterator[str]:
    if files:
        yield (
            f"returns in {', '.join(files)} are compared to {ROUNDED:g} of their size: the older "
            "dstrl that wrote them rounded each reward to float32"
        )


def _device(run: Run, trained_on: str) -> str:
    """Return the device to train on: of the kind that the run was trained on."""
    if not trained_on.startswith("cuda"):
        return "cpu"
    try:
        return find_device("cuda")
    except InputError as error:
        raise InputError(
            f"run {run.path} trained on {trained_on}, and no CUDA device is available here: "
            "verify it on a machine that has one"
        ) from error


# --- training again -----------------------------------------------------------------------------


class _Enough(DstrlError):
    """Ends a training that went as far as was wanted."""


class _Until:
    """A reporter that ends the training after the evaluation at step `last`."""

    def __init__(self, last: int, say: Callable[[str], None]) -> None:
        self.last, self.say = last, say

    def progress(self, step: int, total: int, steps_per_s: float) -> None:
        """Ignore progress between evaluations."""

    def episodes(self, done: int, total: int) -> None:
        """Ignore episodes."""

    def evaluation(self, member: int, row: Mapping[str, Any]) -> None:
        """Tell how far the training is; it ends here where that is far enough."""
        self.say(f"step {row['step']:,} of {self.last:,} repeated")
        if row["step"] >= self.last:
            raise _Enough(f"ended at step {self.last}, as was wanted")

    def message(self, text: str) -> None:
        """Pass a message on."""
        self.say(text)


def _train(
    run: Run, ours: Mapping[str, Any], device: str, until: int, say: Callable[[str], None]
) -> None:
    """Train a run up to its evaluation at step `until`."""
    from dstrl_cli.training import trainer

    document = to_dict(run.config) | {"run": ours}
    with RunFolder(run.path).create(document) as folder, suppress(_Enough):
        trainer.train([run.config], [[folder]], run.spec, device, _Until(until, say))


def _last_step(run: Run, updates: int) -> int:
    """Return the step of the evaluation after which there were enough updates.

    It is the last evaluation where the run has none so late. Evaluations are taken from
    `progress.csv`, whose row is what an evaluation writes last.
    """
    logged = _rows(run.path / "progress.csv") or _rows(run.path / "eval.csv") or []
    steps = sorted({int(row["step"]) for row in logged})
    if not steps:
        raise InputError(f"run {run.path} logged no evaluation: there is nothing to compare")
    done = _updates_by_step(run)
    enough = (step for step in steps if done(step) >= updates)
    return next(enough, steps[-1])


def _updates_by_step(run: Run) -> Callable[[int], int]:
    """Return a function that gives the updates of the critics up to a step of a run.

    A fixed number after episodes is counted by the episodes that the run logged.
    """
    config = run.config
    if not config.trains_after_episodes or config.gradient_steps < 0:
        return config.updates_until
    ends = [int(row["step"]) for row in _rows(run.path / "episodes.csv") or []]

    def until(step: int) -> int:
        trained = sum(config.learning_starts < end <= step for end in ends)
        return trained // config.train_every * config.gradient_steps

    return until


# --- comparing ----------------------------------------------------------------------------------


def _rows(file: Path, until: float = math.inf) -> list[Row] | None:
    """Return the whole rows of a CSV file through step `until`; None where there is no file.

    Raises InputError where a line of it is no row.
    """
    try:
        text = read_text(file, MAX_TABLE, "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    lines = text[: text.rfind("\n") + 1].splitlines()
    found: list[Row] = []
    for number, row in enumerate(csv.DictReader(lines), 2):
        if None in row or None in row.values() or not row.get("step", "").isdecimal():
            raise InputError(f"{file} is damaged: line {number} is no row of it")
        if int(row["step"]) <= until:
            found.append(row)
    return found


def _first_difference(name: str, theirs: Sequence[Row], ours: Sequence[Row]) -> Difference | None:
    """Return the first difference of the rows of a file; None where all are equal.

    Columns that only one of them has are not compared.
    """
    for stored, repeated in zip_longest(theirs, ours):
        if stored is None or repeated is None:
            row = stored or repeated
            lines = _as_line(stored), _as_line(repeated)
            return Difference(int(row["step"]), name, _where(row), "", *lines)
        for column in stored:
            if column in repeated and not _same(stored, repeated, column):
                step = min(int(stored["step"]), int(repeated["step"]))
                values = stored[column], repeated[column]
                return Difference(step, name, _where(stored), column, *values)
    return None


def _same(stored: Row, repeated: Row, column: str) -> bool:
    """Whether two rows have the same text in a column, or the same number.

    Returns that an older dstrl summed are the same where only the rounding of rewards differs.
    """
    if stored[column] == repeated[column]:
        return True
    try:
        one, other = float(stored[column]), float(repeated[column])
        allowed = 0.0
        if column == "return" and _is_rounded(stored):
            allowed = ROUNDED * max(abs(one), float(stored["length"]))
    except ValueError:
        return False
    return abs(one - other) <= allowed


def _is_rounded(row: Row) -> bool:
    """Whether a row of episodes was written when rewards were rounded to float32."""
    return "return" in row and "success" not in row


def _as_line(row: Row | None) -> str | None:
    return None if row is None else ",".join(row.values())


def _where(row: Row) -> str:
    """Return which of the rows of its step this is."""
    return ", ".join(f"{key} {row[key]}" for key in ("episode", "network", "layer") if key in row)
