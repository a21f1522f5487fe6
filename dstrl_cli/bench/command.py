"""What `dstrl bench` does, between its command line (`cli`) and the measuring."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dstrl_cli.bench import plot, show
from dstrl_cli.bench.measure import Measurement, measure, ratios
from dstrl_cli.bench.plan import NOTES, BenchRequest, Work, groups
from dstrl_cli.report.words import counted
from dstrl_cli.runs.files import check_output
from dstrl_cli.runs.policy import Policy, find_policy
from dstrl_cli.terminal.describe import print_lines
from dstrl_cli.terminal.screen import screen
from dstrl_cli.terminal.streams import emit


@dataclass(frozen=True)
class BenchOptions:
    """How long is measured, and where the numbers go."""

    seconds: float = 3.0
    repeats: int = 5
    as_json: bool = False
    csv: Path | None = None
    plot: Path | None = None


def bench(request: BenchRequest, options: BenchOptions) -> None:
    """Measure training or updating and print the outcome.

    Raises InputError before anything is measured, DstrlError where a measurement fails.
    """
    if options.plot is not None:
        plot.check(options.plot)
    for flag, path in (("--csv", options.csv), ("--plot", options.plot)):
        if path is not None:
            check_output(path, flag)
    about = show.machine()
    with _progress() as tell:
        planned = groups(request, tell)
        measured = []
        for measurements in measure(planned, options.seconds, options.repeats, tell):
            measured.append(measurements)
            _write(measured, options)  # what is measured is not lost, whatever comes
    found = [ratios(group) for group in measured]
    every = [each for group in found for each in group]
    settings = {"machine": about, "seconds": options.seconds, "repeats": options.repeats}
    if options.as_json:
        emit(json.dumps(show.to_json(measured, every, settings), indent=2))
        return
    console = screen()
    rounds = f"median, min and max of {counted(options.repeats, 'round')} of {options.seconds:g} s"
    print_lines(console, [f"{show.machine_line(about)}; {rounds}", ""])
    for group, theirs in zip(measured, found, strict=True):
        show.print_group(console, group, theirs)
    print_lines(console, [*NOTES])


def _write(measured: Sequence[Sequence[Measurement]], options: BenchOptions) -> None:
    """Write the files that were asked for."""
    if options.csv is not None:
        show.write_csv(options.csv, measured)
    if options.plot is not None:
        plot.growth([show.row(m) for group in measured for m in group], options.plot)


def infer(runs: Sequence[Path], options: BenchOptions) -> None:
    """Measure one action of stored policies and print the outcome."""
    policies = [find_policy(run) for run in runs]
    for policy in policies:
        Policy.load(policy)
    works = [Work("infer", policy=policy) for policy in dict.fromkeys(policies)]
    with _progress() as tell:
        (measured,) = measure([works], options.seconds, options.repeats, tell)
    if options.as_json:
        emit(json.dumps({"policies": [show.acting(each) for each in measured]}, indent=2))
    else:
        screen().print(show.acting_table(measured))


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is going on; elsewhere warnings only."""
    console = screen(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("")

        def tell(text: str) -> None:
            if text.startswith("warning: "):
                print_lines(console, [text])
            else:
                bar.update(task, description=text)

        yield tell
