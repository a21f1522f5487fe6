"""The packing of a sweep into populations: as a table, in words, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from dstrl_cli.config.identity import env_name, sparsity_label
from dstrl_cli.config.models import RunConfig
from dstrl_cli.sweep.memory import size
from dstrl_cli.sweep.place import Place


def packing_table(where: Place) -> Table:
    """Return the populations of a sweep: a row for each, with its memory and device."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("#", justify="right")
    for heading in ("env", "algo"):
        table.add_column(heading, overflow="fold")
    table.add_column("members", justify="right")
    for heading in ("methods", "sparsity", "seeds"):
        table.add_column(heading, overflow="fold")
    for heading in ("memory", "device"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, population in enumerate(where.populations, start=1):
        configs = [run.config for run in population.runs]
        cells = [
            str(number),
            env_label(configs[0]),
            configs[0].algo,
            str(len(configs)),
            _two_or_count([config.method for config in configs]),
            _two_or_count([sparsity_label(config).removeprefix("s") for config in configs]),
            _two_or_count([str(config.seed) for config in configs]),
            size(population.memory.device),
            population.device.name,
        ]
        table.add_row(*map(Text, cells))
    return table


def _two_or_count(values: Sequence[str]) -> str:
    """Return one or two distinct values in full, of more how many there are."""
    distinct = list(dict.fromkeys(values))
    return ", ".join(distinct) if len(distinct) <= 2 else str(len(distinct))


def packing_lines(where: Place) -> list[str]:
    """Return how much memory the devices have, and what takes that of the largest population."""
    largest = max(where.populations, key=lambda each: each.memory.device).memory
    lines = [f"the largest population takes {size(largest.device)}: {largest.parts()}"]
    if largest.host:
        lines.append(f"its replay buffer takes {size(largest.host)} of main memory")
    if any(device.memory is None for device in where.devices):
        lines.append(
            f"the memory of {where.device} is not known here, so nothing is split: plan for a "
            "size with --device-memory, as in --device-memory 80GB"
        )
    else:
        sizes = [f"{size(each.memory or 0)} of {each.name}" for each in where.devices]
        lines.append(f"memory to use: {', '.join(sizes)}")
    return lines


def packing_json(where: Place) -> dict[str, Any]:
    """Return the devices and the populations of a sweep for programs."""
    return {
        "mode": "populations",
        "devices": [{"name": each.name, "memory": each.memory} for each in where.devices],
        "populations": [
            {
                "device": each.device.name,
                "env": env_name(each.runs[0].config.env.id),
                "algo": each.runs[0].config.algo,
                "members": len(each.runs),
                "memory": each.memory.as_dict(),
                "runs": [str(run.path) for run in each.runs],
            }
            for each in where.populations
        ],
    }


def env_label(config: RunConfig) -> str:
    """Return an environment and, beside the first, its task."""
    name = env_name(config.env.id)
    return f"{name}, task {config.env.task}" if config.env.task else name
