"""What `dstrl bench topology` does, between its command line (`cli`) and the measuring."""

from __future__ import annotations

import csv as csv_module
import io
import json
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from dstrl_cli.bench import show, topology
from dstrl_cli.runs.files import check_output
from dstrl_cli.terminal.describe import print_lines
from dstrl_cli.terminal.screen import screen
from dstrl_cli.terminal.streams import emit

NOTES = (
    "beyond: median processor time of one event, less that of an ordinary update (a buffer check: "
    "all of it). of time: over all updates of a run with the method's own intervals.",
    "ms: of an ordinary update. of FLOPs: RLX App. C.3.2 (iii) over its eq. 13. operations: XU "
    "Sec. IV-D, of both critics, for one pass of importance.",
)


def bench(
    algos: Sequence[str],
    methods: Sequence[str],
    env: str | None,
    sparsity: float | None,
    engine: str | None,
    updates: int,
    sets: Sequence[str],
    csv: Path | None,
    as_json: bool,
) -> None:
    """Measure and print. Raises InputError before anything is measured."""
    if csv is not None:
        check_output(csv, "--csv")
    planned = topology.plan(algos, methods, env, sparsity, engine, sets)
    errors, about = screen(stderr=True), show.machine()
    found = []
    for own, run in planned:
        print_lines(errors, [f"measuring {own.algo} {own.method}"])
        found.append(topology.measure(own, run, updates, lambda line: print_lines(errors, [line])))
        if csv is not None:
            csv.write_text(as_csv(found, about))
    if as_json:
        rows = [row for each in found for row in each.rows()]
        emit(json.dumps({"machine": about, "updates": updates, "costs": rows}, indent=2))
        return
    console = screen()
    print_lines(console, [show.machine_line(about), ""])
    console.print(as_table(found))
    print_lines(console, NOTES)


def as_csv(found: Sequence[topology.MethodCosts], about: object) -> str:
    """Return a row for each kind of event, and the machine."""
    rows = [{**row, "machine": json.dumps(about)} for each in found for row in each.rows()]
    text = io.StringIO()
    writer = csv_module.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_table(found: Sequence[topology.MethodCosts]) -> Table:
    """Return a row for each method and kind of event."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("method", "ms", "event"):
        table.add_column(name, no_wrap=True)
    for name in ("every", "beyond ms", "of time", "of FLOPs", "operations"):
        table.add_column(name, justify="right")
    for each in found:
        for number, cost in enumerate(each.costs):
            own = (
                [f"{each.algo} {each.method}", f"{each.update_ms:.3f}"] if not number else ["", ""]
            )
            table.add_row(
                *own,
                cost.what.removeprefix("buffer "),
                f"{cost.every:,}",
                "" if cost.milliseconds is None else f"{cost.milliseconds:.3f}",
                "" if cost.share is None else f"{cost.share:.3%}",
                f"{cost.flops_share:.3%}",
                "" if cost.operations is None else f"{cost.operations:,}",
            )
    return table
