"""What `dstrl export` wrote and what an action costs, in words."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table

from dstrl_cli.export.exporting import Described, Exported
from dstrl_cli.report.words import counted
from dstrl_cli.sweep.memory import format_bytes


def lines(done: Exported) -> Iterator[str]:
    """Yield what was written."""
    about = done.about
    written = ", ".join(f"{path} ({format_bytes(size)})" for path, size in done.files.items())
    step = int(about["step"])
    yield f"{about['algo'].upper()} policy of step {step:,} on {about['env']} in {written}"
    idle = []
    if done.no_output:
        idle.append(f"{counted(done.no_output, 'hidden neuron')} that nothing depends on")
    if done.no_input:
        idle.append(f"{counted(done.no_input, 'constant hidden neuron')} (now in biases)")
    if idle:
        yield f"left out: {' and '.join(idle)}"


def table(done: Exported) -> Table:
    """Return what an action costs, beside a dense policy of the same sizes."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("one action")
    for name in ("exported", "dense", "ratio"):
        shown.add_column(name, justify="right")
    ours, theirs = done.policy, done.dense
    shown.add_row("hidden neurons", _sizes(ours), _sizes(theirs), "")
    for name, a, b in (
        ("active connections", ours.connections, theirs.connections),
        ("multiply-adds", ours.cost.multiply_adds, theirs.cost.multiply_adds),
        ("constants (flash), bytes", ours.cost.constant_bytes, theirs.cost.constant_bytes),
        ("values between layers (RAM), bytes", ours.cost.ram_bytes, theirs.cost.ram_bytes),
    ):
        shown.add_row(name, f"{a:,}", f"{b:,}", f"{a / b:.3g}")
    if ours.seconds is not None and theirs.seconds is not None:
        times = [f"{1e6 * each:.3g}" for each in (ours.seconds, theirs.seconds)]
        shown.add_row(
            "time on one thread here, microseconds", *times, f"{ours.seconds / theirs.seconds:.3g}"
        )
    return shown


def notes(done: Exported) -> Iterator[str]:
    """Yield why something is missing from the table."""
    if done.not_measured is not None:
        yield f"note: the time of an action was not measured: {done.not_measured}"


def _sizes(network: Described) -> str:
    return "-".join(map(str, network.hidden_sizes)) or "none"
