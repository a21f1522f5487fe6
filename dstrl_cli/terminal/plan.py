"""The plan of a sweep: its runs, notes and packing into populations, as tables, words and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from dstrl_cli.config import effects
from dstrl_cli.config.identity import (
    env_folder,
    env_identity,
    env_name,
    noise_label,
    sparsity_label,
)
from dstrl_cli.config.models import RunConfig
from dstrl_cli.registry import algorithm_name
from dstrl_cli.report.words import counted
from dstrl_cli.sweep.memory import format_bytes
from dstrl_cli.sweep.place import Placement
from dstrl_cli.sweep.states import HELD, Planned
from dstrl_cli.terminal.columns import Layout, fitting_table
from dstrl_cli.training.run import Run

MAX_ROWS = 40
"""A plan of more rows than this shows one row for all sparsities of a method."""

LONG_NAME = 24
"""A longer name of a method is broken at its `+`, unless the terminal is at least `WIDE`."""

MAX_NAMED = 10
"""Runs that are named when they go on from their checkpoints."""

WIDE = 100
"""Columns of a terminal."""


# --- runs ---------------------------------------------------------------------------------------


def plan_table(planned: Sequence[Planned], width: int) -> Table:
    """Return a row for each method, environment and sparsity; tasks and seeds are folded.

    `width` is the terminal's.
    """
    rows = _grouped(planned, by_sparsity=True)
    if len(rows) > MAX_ROWS:
        rows = _grouped(planned, by_sparsity=False)
    with_tasks = any(each.run.config.env.task for each in planned)
    headings = [*(["tasks"] if with_tasks else []), "sparsity", "seeds", "runs", "to do"]
    cells = []
    for (method, env, _), group in rows.items():
        configs = [each.run.config for each in group]
        tasks = [_ranges(config.env.task for config in configs)] if with_tasks else []
        sparsities = list(dict.fromkeys(each.run.label.split("/")[2] for each in group))
        long = width < WIDE and len(method) > LONG_NAME
        others = [
            *tasks,
            _ends(sparsities),
            _ranges(config.seed for config in configs),
            str(len(group)),
            str(sum(each.to_do for each in group)),
        ]
        cells.append((method.replace("+", "\n+") if long else method, env, others))
    beside = [[method, env, *others] for method, env, others in cells]
    below = [[f"{method}\n{env}", *others] for method, env, others in cells]
    layouts = [
        Layout(["method", "env", *headings], beside),
        Layout(["method, env", *headings], below),
    ]
    return fitting_table(layouts, width, right=("runs", "to do"))


def _grouped(
    planned: Iterable[Planned], by_sparsity: bool
) -> dict[tuple[str, str, str], list[Planned]]:
    groups: dict[tuple[str, str, str], list[Planned]] = {}
    for each in planned:
        folder, method, sparsity, _ = each.run.label.split("/")
        env = folder.removesuffix(f".task{each.run.config.env.task}")
        groups.setdefault((method, env, sparsity if by_sparsity else ""), []).append(each)
    return groups


def _ends(values: Sequence[str]) -> str:
    """Return a few values in full, of many the first and the last."""
    if len(values) <= 5:
        return ", ".join(values)
    return f"{values[0]} … {values[-1]} ({len(values)})"


def _ranges(numbers: Iterable[int]) -> str:
    """Return distinct whole numbers with ranges folded: `0-4, 7`."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return _ends(["-".join(map(str, each)) for each in ranges])


def plan_line(planned: Sequence[Planned], placement: Placement) -> str:
    """Return in one line how many runs there are, how many are to do, and where they train."""
    to_do = [each for each in planned if each.to_do]
    over = sum(each.run.start == "over" for each in to_do)
    resumed = sum(each.run.start == "resume" for each in to_do)
    held = sum(each.status == HELD for each in to_do)
    done = len(planned) - len(to_do)
    parts = [counted(len(planned), "run"), f"{len(to_do)} to do"]
    parts += [f"{over} of them started over"] if over else []
    parts += [f"{resumed} of them resumed"] if resumed else []
    parts += [f"{held} of them in another dstrl now"] if held else []
    parts += [f"{done} finished before"] if done else []
    where = (
        f"{placement.jobs} at a time on {placement.devices_in_words}"
        if placement.on_cpu
        else f"in {counted(len(placement.populations), 'population')} on "
        f"{placement.devices_in_words}"
    )
    engines = " and ".join(f"{name} ({count})" for name, count in placement.engines.items())
    counts = sorted({run.config.thread_count for run in placement.runs})
    threads = f"{' or '.join(map(str, counts))} {'thread' if counts == [1] else 'threads'} each"
    parts = [", ".join(parts), *([where, f"engine {engines}", threads] if to_do else [])]
    return "; ".join([*parts, *replay_in_words(placement), f"results in {placement.out}"])


def replay_in_words(placement: Placement) -> list[str]:
    """Return how much main memory the replay buffers take that are in use at once, if any."""
    if not placement.main_memory:
        return []
    at_once = placement.at_once
    rows = max(run.config.replay_capacity for each in at_once for run in each.runs)
    size = format_bytes(placement.main_memory)
    several = f", {len(at_once)} at once" if len(at_once) > 1 else ""
    return [f"replay buffer of {rows:,} transitions{several}: {size} of main memory"]


# --- what the user should know ------------------------------------------------------------------


def note_lines(planned: Sequence[Planned]) -> list[str]:
    """Return every note of the runs that are to do once, with the methods that it is for."""
    runs = [each.run for each in planned if each.to_do]
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for note in run.notes:
            found.setdefault(note, {})[_method(run)] = None
    methods = dict.fromkeys(map(_method, runs))
    return [
        f"note: {note}" if len(each) == len(methods) else f"note for {', '.join(each)}: {note}"
        for note, each in found.items()
    ]


def resuming_lines(planned: Sequence[Planned]) -> list[str]:
    """Return at which step runs go on from their checkpoints, of many the first ones."""
    runs = [each.run for each in planned if each.run.start == "resume"]
    more = len(runs) - MAX_NAMED
    lines = [f"{run.label} resumes at step {run.step:,}" for run in runs[:MAX_NAMED]]
    return lines + ([f"and {more} more resume{'s' * (more == 1)}"] if more > 0 else [])


def going_on_lines(planned: Sequence[Planned]) -> list[str]:
    """Return what `--resume` finds in the folder of each run that does not resume, and those."""
    found = []
    for each in planned:
        if not each.to_do:
            steps = f"{each.run.config.steps:,} steps"
            found.append(f"{each.run.label} has finished its {steps}: nothing is left to do")
        elif each.run.start == "over":
            found.append(f"{each.run.label} ({each.status}) left no checkpoint: it starts over")
        elif each.status == "new":
            found.append(f"{each.run.label} has not been started: it starts")
    return [*found, *resuming_lines(planned)]


def damage_lines(planned: Sequence[Planned]) -> list[str]:
    """Return which finished runs have logs that are not what they wrote."""
    return [
        f"warning: {each.run.label} finished, but {', '.join(each.damage)}: the run is left out of "
        "tables; remove its folder to train it again"
        for each in planned
        if each.damage
    ]


def length_lines(planned: Sequence[Planned]) -> list[str]:
    """Return how long each run that is to do is, and all together."""
    configs = [each.run.config for each in planned if each.to_do]
    lengths = dict.fromkeys(map(_length, configs))
    if not lengths:
        return []
    together = f"; {sum(config.steps for config in configs):,} steps in all"
    return [f"length of each run: {' or '.join(lengths)}{together * (len(configs) > 1)}"]


def _length(config: RunConfig) -> str:
    if config.episodes is None:
        return f"{config.steps:,} steps"
    return f"{counted(config.episodes, 'episode')}, at most {config.steps:,} steps"


def topology_lines(planned: Sequence[Planned]) -> list[str]:
    """Return how often topologies change in the runs that are to do, with the methods."""
    first_seeds = {each.run.path.parent: each.run for each in reversed(planned) if each.to_do}
    changes: dict[str, dict[str, None]] = {}
    for run in reversed(first_seeds.values()):
        changes.setdefault(effects.changes_in_words(run.config), {})[_method(run)] = None
    return [
        f"topology in each run of {', '.join(methods)}: {words}"
        for words, methods in changes.items()
    ]


def _method(run: Run) -> str:
    return run.label.split("/")[1]


# --- for programs -------------------------------------------------------------------------------


def plan_json(planned: Sequence[Planned], placement: Placement) -> dict[str, Any]:
    """Return a plan for programs."""
    by_jobs = {"mode": "jobs", "jobs": placement.jobs, "replay_bytes": placement.main_memory}
    return {
        "total": len(planned),
        "to_do": sum(each.to_do for each in planned),
        "device": placement.device,
        **({"where": placement.where} if placement.where else {}),
        "engine": dict(placement.engines),
        "engine_reason": placement.engine_reason,
        "threads": sorted({run.config.thread_count for run in placement.runs}),
        "out": placement.out,
        **(by_jobs if placement.on_cpu else packing_json(placement)),
        "runs": [
            identity(each.run)
            | {
                "status": each.status,
                "to_do": each.to_do,
                "start": each.run.start if each.to_do else None,
                "resumes_at": each.run.step if each.run.start == "resume" else None,
                "topology_changes": {
                    role: effects.topology_changes(each.run.config, role).count
                    for role in effects.roles_of(each.run.config)
                },
                "notes": list(each.run.notes),
                "damage": list(each.damage),
            }
            for each in planned
        ],
    }


def identity(run: Run) -> dict[str, Any]:
    """Return what identifies a run, for programs."""
    config = run.config
    return {
        "path": str(run.path),
        "algo": algorithm_name(config.algo),
        "method": config.method,
        "env": env_identity(config.env.id) + noise_label(config.env.noise_features),
        "task": config.env.task,
        "sparsity": {"actor": config.actor.sparsity, "critic": config.critic.sparsity},
        "seed": config.seed,
        "steps": config.steps,
        "episodes": config.episodes,
    }


# --- populations --------------------------------------------------------------------------------


def packing_table(placement: Placement, width: int) -> Table:
    """Return the populations of a sweep: a row for each, with its memory and device.

    `width` is the terminal's.
    """
    headings = ("methods", "sparsity", "seeds")
    beside, below = [], []
    for number, population in enumerate(placement.populations, start=1):
        configs = [run.config for run in population.runs]
        env, algo = env_label(configs[0]), algorithm_name(configs[0].algo)
        members = str(len(configs))
        who = [
            _two_or_count([config.method for config in configs]),
            _two_or_count([sparsity_label(config).removeprefix("s") for config in configs]),
            _ranges(config.seed for config in configs),
        ]
        where = [format_bytes(population.memory.device), population.device.name]
        beside.append([str(number), env, algo, members, *who, *where])
        named = [f"{name}: {each}" for name, each in zip(headings, who, strict=True)]
        below.append([str(number), "\n".join([f"{env}, {algo}", *named]), members, *where])
    layouts = [
        Layout(["#", "env", "algo", "members", *headings, "memory", "device"], beside),
        Layout(["#", "population", "members", "memory", "device"], below),
    ]
    return fitting_table(layouts, width, right=("#", "members", "memory", "device"))


def _two_or_count(values: Sequence[str]) -> str:
    """Return one or two distinct values in full, of more how many there are."""
    distinct = list(dict.fromkeys(values))
    return ", ".join(distinct) if len(distinct) <= 2 else str(len(distinct))


def packing_lines(placement: Placement) -> list[str]:
    """Return how much memory the devices have, and how the largest population uses it."""
    largest = max(placement.populations, key=lambda each: each.memory.device).memory
    lines = [f"the largest population takes {format_bytes(largest.device)}: {largest.parts()}"]
    if largest.host:
        lines.append(f"its replay buffer takes {format_bytes(largest.host)} of main memory")
    if any(device.memory is None for device in placement.devices):
        lines.append(
            f"the memory of {placement.device} is not known here, so nothing is split: plan for a "
            "size with --device-memory, as in --device-memory 80GB"
        )
    else:
        sizes = [f"{format_bytes(each.memory or 0)} of {each.name}" for each in placement.devices]
        lines.append(f"memory to use: {', '.join(sizes)}")
    return lines


def packing_json(placement: Placement) -> dict[str, Any]:
    """Return the devices and the populations of a sweep for programs."""
    return {
        "mode": "populations",
        "devices": [{"name": each.name, "memory": each.memory} for each in placement.devices],
        "populations": [
            {
                "device": each.device.name,
                "env": env_folder(
                    each.runs[0].config.env.id, noise=each.runs[0].spec.noise_features
                ),
                "algo": algorithm_name(each.runs[0].config.algo),
                "members": len(each.runs),
                "memory": each.memory.as_dict(),
                "runs": [str(run.path) for run in each.runs],
            }
            for each in placement.populations
        ],
    }


def env_label(config: RunConfig) -> str:
    """Return an environment with its noisy features and, beside the first, its task."""
    name, noise = env_name(config.env.id), config.env.noise_features
    task = f", task {config.env.task}" if config.env.task else ""
    return f"{name}{task}{f', {100 * noise:.4g}% noisy features' if noise else ''}"
