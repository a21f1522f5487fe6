"""Measurements for people (tables), for programs (JSON) and for later (CSV rows)."""

from __future__ import annotations

import csv
import io
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dstrl_cli.bench.measure import Measurement, Ratio
from dstrl_cli.bench.plan import NOTES, PEERS, Work
from dstrl_cli.config.identity import env_name, sparsity_label
from dstrl_cli.config.models import RunConfig
from dstrl_cli.machine import cores
from dstrl_cli.registry import algorithm_name
from dstrl_cli.report.words import counted
from dstrl_cli.runs.files import write
from dstrl_cli.runs.provenance import PACKAGES, versions
from dstrl_cli.terminal.describe import print_lines

CSV_COLUMNS = (
    "work",
    "algo",
    "dst",
    "env",
    "engine",
    "width",
    "sparsity",
    "batch",
    "threads",
    "members",
    "jobs",
    "ms_median",
    "ms_min",
    "ms_max",
    "cpu_ms",
    "steps_per_s",
    "peak_mb",
    "device_mb",
    "arithmetic_floor_ms",
    "checkpoint_s",
    "checkpoint_mb",
    "checkpoint_share",
    "varied",
)
PEER_PACKAGES = (*(peer.package for peer in PEERS.values()), "jax")
UNITS = {"train": "steps/s", "update": "updates/s", "infer": "actions/s"}


# --- the machine --------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Return what the numbers depend on: processor, cores, load before the start, versions."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 2),
        "versions": versions((*PACKAGES, *PEER_PACKAGES)),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine_line(about: dict[str, Any]) -> str:
    """Return the machine in one line, with a word of caution where it was busy."""
    load = about["load"]
    busy = load is not None and load > 0.5 * about["cores"]
    caution = f", BUSY at the start (load {load}): do not trust the times" if busy else ""
    return f"{about['processor']}, {about['cores']} cores{caution}"


# --- what was measured --------------------------------------------------------------------------


def describe(work: Work) -> dict[str, Any]:
    """Return the axes of a work of training or updating; None for what a peer does not have."""
    config = _config(work)
    own = work.contender == "dstrl"
    return {
        "work": work.kind,
        "algo": algorithm_name(config.algo),
        "dst": config.method if own else work.contender,
        "env": env_name(config.env.id),
        "engine": config.engine if own else work.contender,
        "width": "x".join(str(size) for size in dict.fromkeys(config.hidden_sizes)),
        "sparsity": sparsity_label(config).removeprefix("s") if own else "0",
        "batch": config.batch_size,
        "threads": work.threads,
        "members": work.members,
        "jobs": work.jobs,
        "varied": work.varied if own else "",
    }


def _config(work: Work) -> RunConfig:
    assert work.config is not None
    return work.config


def row(measured: Measurement) -> dict[str, Any]:
    """Return a measurement as one row of the CSV file."""
    middle, least, most = measured.milliseconds
    seconds, size = measured.checkpoint or (None, None)
    return describe(measured.work) | {
        "ms_median": middle,
        "ms_min": least,
        "ms_max": most,
        "cpu_ms": measured.cpu_ms,
        "steps_per_s": measured.rate,
        "peak_mb": measured.peak_mb,
        "device_mb": measured.device_mb,
        "arithmetic_floor_ms": measured.floor_ms,
        "checkpoint_s": seconds,
        "checkpoint_mb": None if size is None else size / 1e6,
        "checkpoint_share": measured.checkpoint_share,
    }


def write_csv(path: Path, groups: Sequence[Sequence[Measurement]]) -> None:
    """Write one row per measurement, times with five digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS)
    writer.writeheader()
    for each in (m for group in groups for m in group):
        cells = row(each).items()
        writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in cells})
    write(path, text.getvalue().encode())


def to_json(
    groups: Sequence[Sequence[Measurement]], ratios: Sequence[Ratio], settings: dict[str, Any]
) -> dict[str, Any]:
    """Return everything for programs; ratios refer to measurements by number."""
    flat = [m for group in groups for m in group]
    number = {id(m): index for index, m in enumerate(flat)}
    return {
        **settings,
        "notes": list(NOTES),
        "measurements": [
            row(m)
            | {
                "steps_per_s_min": min(m.rates),
                "steps_per_s_max": max(m.rates),
                "rounds": list(m.rates),
                "peak_gflops": m.peak_gflops,
                "compile_s": m.compile_s,
                "lock_step_ms": None if m.parts is None else dict(m.parts),
            }
            for m in flat
        ],
        "ratios": [
            {
                "measurement": number[id(each.subject)],
                "over": number[id(each.over)],
                "over_label": over(each),
                "speed": each.speed,
                "speed_min": each.least,
                "speed_max": each.most,
                "memory": each.memory,
                "cpu": each.cpu,
            }
            for each in ratios
        ],
    }


# --- tables -------------------------------------------------------------------------------------

PARTS_TITLE = (
    "Where a step's time goes, in ms. The parts are timed one by one, a device waited for after "
    "each: together they take longer than the step above."
)

_LEFT = ("method", "sparsity", "engine", "threads", "members", "runs")


def print_group(console: Console, measured: Sequence[Measurement], found: Sequence[Ratio]) -> None:
    """Print a group's tables: what was measured, where the time goes, and the ratios."""
    config = _config(measured[0].work)
    sizes = "-".join(map(str, config.hidden_sizes))
    what = {"train": "whole steps", "update": "updates"}[measured[0].work.kind]
    title = f"{algorithm_name(config.algo).upper()} on {env_name(config.env.id)}, {what}"
    print_lines(console, [f"{title}: networks {sizes}, batch {config.batch_size}"])
    shown = _shown(measured)
    console.print(_times(measured, shown))
    if (peak := measured[0].peak_gflops) is not None:
        print_lines(console, [f"peak of a core in these rounds: {peak:.0f} GFLOP/s"])
    saved = [m for m in measured if m.checkpoint is not None]
    if saved:
        print_lines(console, [""])
        console.print(_checkpoints(saved, shown))
    split = [m for m in measured if m.parts is not None]
    if split:
        print_lines(console, ["", PARTS_TITLE])
        console.print(_parts(split))
    if found:
        print_lines(console, [""])
        console.print(_ratios(found, shown))
    print_lines(console, ["", *_peer_notes(measured)])


def _peer_notes(measured: Sequence[Measurement]) -> list[str]:
    """Return what the user should know of the peers' numbers."""
    found = []
    for name in dict.fromkeys(m.work.contender for m in measured):
        if name not in PEERS or not PEERS[name].note:
            continue
        seconds = [m.compile_s for m in measured if m.work.contender == name and m.compile_s]
        took = f" Compiling took {max(seconds):.0f} s, which nothing counts." if seconds else ""
        found += [PEERS[name].note + took, ""]
    return found


def _cells(work: Work) -> dict[str, str]:
    """Return the left cells of a work's row by heading."""
    about = describe(work)
    own = work.contender == "dstrl"
    return {
        "method": about["dst"] if own else PEERS[work.contender].label,
        _varied_key([work]): work.varied.partition("=")[2] if own else "",
        "sparsity": about["sparsity"] if own else "",
        "engine": about["engine"] if own else "",
        "threads": "all" if work.threads is None else str(work.threads),
        "members": str(work.members),
        "runs": str(work.jobs),
    }


def _shown(measured: Sequence[Measurement]) -> list[str]:
    """Return the headings whose cells say something: beyond the first ones, those that vary."""
    works = [m.work for m in measured]
    key, cells = _varied_key(works), [_cells(work) for work in works]
    always = {"method", "sparsity", "engine", key}
    names = [_LEFT[0], *([key] if key else []), *_LEFT[1:]]
    return [name for name in names if name in always or {c[name] for c in cells} != {"1"}]


def _varied_key(works: Sequence[Work]) -> str:
    """Return the key whose values are compared; empty where there is none."""
    return next((work.varied.partition("=")[0] for work in works if work.varied), "")


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for heading in left:
        table.add_column(heading, overflow="fold")
    for heading in right:
        table.add_column(heading, justify="right")
    return table


def _times(measured: Sequence[Measurement], shown: Sequence[str]) -> Table:
    floors = measured[0].work.kind == "update" and measured[0].peak_gflops is not None
    unit = UNITS[measured[0].work.kind]
    devices = any(m.device_mb is not None for m in measured)
    right = [unit, "min", "max", "ms", "CPU ms", *(["floor ms", "x floor"] if floors else []), "MB"]
    right += ["device MB"] if devices else []
    table = _table(shown, right)
    for m in measured:
        cells = _cells(m.work)
        rates = [number(rate) for rate in (m.rate, min(m.rates), max(m.rates))]
        floor = [number(m.floor_ms), number(m.over_floor)] if floors else []
        times = [number(m.milliseconds[0]), number(m.cpu_ms)]
        numbers = [*rates, *times, *floor, f"{m.peak_mb:.0f}"]
        on_device = "" if m.device_mb is None else f"{m.device_mb:.0f}"
        numbers += [on_device] if devices else []
        table.add_row(*(Text(cells.get(name, "")) for name in shown), *numbers)
    return table


def _checkpoints(measured: Sequence[Measurement], shown: Sequence[str]) -> Table:
    """Return what a checkpoint takes, and which share of a run's time that is."""
    table = _table(shown, ["checkpoint s", "checkpoint MB", "% of a run"])
    for m in measured:
        cells, (seconds, size) = _cells(m.work), m.checkpoint or (0.0, 0)
        share = f"{100 * (m.checkpoint_share or 0):.2f}"
        numbers = [number(seconds), number(size / 1e6), share]
        table.add_row(*(Text(cells.get(name, "")) for name in shown), *numbers)
    return table


def _parts(measured: Sequence[Measurement]) -> Table:
    """Return the milliseconds of a lock-step's parts, and the floor of its arithmetic."""
    names, shown = list(measured[0].parts or {}), _shown(measured)
    floors = measured[0].floor_ms is not None
    table = _table(shown, [*names, *(["floor"] if floors else [])])
    for m in measured:
        cells = _cells(m.work)
        times = [*(m.parts or {}).values(), *([m.floor_ms or 0.0] if floors else [])]
        numbers = [f"{value:.3f}" if value < 10 else number(value) for value in times]
        table.add_row(*(Text(cells.get(name, "")) for name in shown), *numbers)
    return table


def _ratios(found: Sequence[Ratio], shown: Sequence[str]) -> Table:
    """Return how many times faster, and of how much memory: a block for each comparison."""
    own = {each.subject.work.threads for each in found}
    left = ["over", *(name for name in shown if name != "threads" or len(own) > 1)]
    table = _table(left, ["times", "min", "max", "CPU", "memory"])
    blocks: dict[tuple[str, int], list[Ratio]] = {}
    for each in found:
        blocks.setdefault((over(each), each.subject.work.jobs), []).append(each)
    for block in sorted(blocks, key=lambda block: block[1]):
        for line, each in enumerate(blocks[block]):
            cells = _cells(each.subject.work) | {"over": "" if line else block[0]}
            speeds = [f"{value:.2f}" for value in (each.speed, each.least, each.most)]
            taken = [f"{each.cpu:.2f}", f"{each.memory:.2f}"]
            named = [Text(cells.get(name, "")) for name in left]
            table.add_row(*named, *speeds, *taken)
    return table


def over(ratio: Ratio) -> str:
    """Return what a ratio is over: an engine, a varied key's value, or a peer's best setting."""
    work = ratio.over.work
    if work.contender == "dstrl" and work.varied != ratio.subject.work.varied:
        return work.varied.replace("=", " ")
    if work.contender == "dstrl":
        return "masked"
    how = f"{work.jobs} x " if work.jobs > 1 else ""
    threads = "all threads" if work.threads is None else counted(work.threads, "thread")
    return f"{PEERS[work.contender].label}, {how}{threads}"


def number(value: float | None) -> str:
    """Return a number with about three digits."""
    if value is None:
        return ""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


# --- acting -------------------------------------------------------------------------------------


def acting(measured: Measurement) -> dict[str, Any]:
    """Return what one action of a policy costs: time in microseconds, bytes, memory."""
    path = measured.work.policy
    assert path is not None
    middle, least, most = (1000 * each for each in measured.milliseconds)
    return {
        "policy": str(path),
        "bytes": path.stat().st_size,
        "us_median": middle,
        "us_min": least,
        "us_max": most,
        "actions_per_s": measured.rate,
        "peak_mb": measured.peak_mb,
    }


def acting_table(measured: Sequence[Measurement]) -> Table:
    """Return a row for each policy."""
    table = _table(["policy"], ["us", "min", "max", "actions/s", "bytes", "MB"])
    for each in map(acting, measured):
        times = [number(each[name]) for name in ("us_median", "us_min", "us_max", "actions_per_s")]
        table.add_row(Text(each["policy"]), *times, f"{each['bytes']:,}", f"{each['peak_mb']:.0f}")
    return table
