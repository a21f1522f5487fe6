"""Plans and results in words: short for the screen, whole as JSON. Nothing is run here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from dstrl_cli.config.identity import env_name, sparsity_label
from dstrl_cli.config.models import RunConfig
from dstrl_cli.sweep.memory import size
from dstrl_cli.sweep.place import Place
from dstrl_cli.sweep.plan import Planned, layer_budgets
from dstrl_cli.terminal.display import ending, final_return
from dstrl_cli.terminal.overview import env_label, packing_json
from dstrl_cli.training.run import Outcome, Run

MOST_ROWS = 40
"""A plan of more rows than this shows one row for all sparsities of a method."""


# --- before -------------------------------------------------------------------------------------


def run_overview(runs: Sequence[Run], where: Place) -> RenderableType:
    """Return the resolved configuration of a run, or of one run with several seeds, in short."""
    run, config = runs[0], runs[0].config
    budgets = layer_budgets(config, run.spec)
    late = config.nstep > 1 and config.nstep_delay > 1
    delay = f" from critic update {config.nstep_delay:,} on" if late else ""
    seeds = ", ".join(str(each.config.seed) for each in runs)
    folders = [str(each.path) for each in runs]
    rows = {
        "method": f"{config.method} on {config.algo.upper()}",
        "environment": env_label(config),
        "sparsity": f"actor {config.actor.sparsity:.6g}, critics {config.critic.sparsity:.6g}",
        "active": f"actor {_layers(budgets['actor'])}; each critic {_layers(budgets['critic'])}",
        "n-step": f"{config.nstep}{delay}",
        "steps": f"{config.steps:,}, of which {min(config.learning_starts, config.steps):,} random",
        "seed" if len(runs) == 1 else "seeds": seeds,
        "device": _device(config, where),
        "engine": f"{', '.join(where.engines)}: {where.engine_reason}",
        "folder" if len(runs) == 1 else "folders": "\n".join(folders),
    }
    return _grid(rows)


def _layers(budgets: Sequence[int]) -> str:
    return " + ".join(f"{count:,}" for count in budgets)


def _device(config: RunConfig, where: Place) -> str:
    place = f"{where.device}, {_threads(config.threads)}"
    if where.on_cpu:
        return place
    largest = max(where.populations, key=lambda each: each.memory.device).memory
    on_host = f"; {size(largest.host)} of main memory (replay)" if largest.host else ""
    return f"{place}; {size(largest.device)} of its memory ({largest.parts()}){on_host}"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def warnings(runs: Iterable[Run]) -> list[str]:
    """Return what the user should know before the runs start."""
    runs = list(runs)
    idle = [run for run in runs if run.config.steps <= run.config.learning_starts]
    found = []
    if idle:
        config = idle[0].config
        found.append(
            f"nothing will be trained in {_runs(len(idle))}: steps ({config.steps:,}) do not "
            f"exceed learning_starts ({config.learning_starts:,}); raise --steps or lower it with "
            "--set learning_starts=N"
        )
    if any(run.config.checkpoint_every for run in runs):
        found.append("checkpoint_every has no effect in this version: no checkpoint is written")
    return found


def plan_table(planned: Sequence[Planned]) -> Table:
    """Return a sweep's plan as a table: a row for each method, environment and sparsity."""
    rows = _grouped(planned, by_sparsity=True)
    if len(rows) > MOST_ROWS:
        rows = _grouped(planned, by_sparsity=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("method", "env", "sparsity", "seeds"):
        table.add_column(heading, overflow="fold")
    table.add_column("runs", justify="right")
    table.add_column("to do", justify="right")
    for (method, env, _), group in rows.items():
        sparsities = list(dict.fromkeys(sparsity_label(each.run.config) for each in group))
        seeds = list(dict.fromkeys(str(each.run.config.seed) for each in group))
        to_do = sum(each.to_do for each in group)
        cells = [method, env, _ends(sparsities), _ends(seeds), str(len(group)), str(to_do)]
        table.add_row(*map(Text, cells))
    return table


def _grouped(
    planned: Sequence[Planned], by_sparsity: bool
) -> dict[tuple[str, str, str], list[Planned]]:
    groups: dict[tuple[str, str, str], list[Planned]] = {}
    for each in planned:
        env, method, sparsity, _ = each.run.label.split("/")
        groups.setdefault((method, env, sparsity if by_sparsity else ""), []).append(each)
    return groups


def _ends(values: Sequence[str]) -> str:
    """Return a few values in full, of many the first and the last."""
    if len(values) <= 5:
        return ", ".join(values)
    return f"{values[0]} … {values[-1]} ({len(values)})"


def plan_line(planned: Sequence[Planned], place: Place) -> str:
    """Return how many runs there are, how many are to do, and where."""
    to_do = [each for each in planned if each.to_do]
    over = sum(each.status != "new" for each in to_do)
    done = len(planned) - len(to_do)
    parts = [_runs(len(planned)), f"{len(to_do)} to do"]
    parts += [f"{over} of them started over"] if over else []
    parts += [f"{done} finished before"] if done else []
    count = len(place.populations)
    where = (
        f"{place.jobs} at a time on the {place.device}"
        if place.on_cpu
        else f"in {count} population{'' if count == 1 else 's'} on {place.device}"
    )
    engines = " and ".join(f"{name} ({count})" for name, count in place.engines.items())
    return f"{', '.join(parts)}; {where}; engine {engines}; results in {place.out}"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def plan_json(planned: Sequence[Planned], place: Place) -> dict[str, Any]:
    """Return a plan for programs."""
    return {
        "total": len(planned),
        "to_do": sum(each.to_do for each in planned),
        "device": place.device,
        "engine": dict(place.engines),
        "engine_reason": place.engine_reason,
        "out": place.out,
        **(_jobs_json(place) if place.on_cpu else packing_json(place)),
        "runs": [
            _identity(each.run) | {"status": each.status, "to_do": each.to_do} for each in planned
        ],
    }


def _jobs_json(place: Place) -> dict[str, Any]:
    return {"mode": "jobs", "jobs": place.jobs}


# --- after --------------------------------------------------------------------------------------


def outcome_overview(outcome: Outcome) -> RenderableType:
    """Return how one run ended, in short."""
    run, summary = outcome.run, outcome.summary
    rows = {"status": str(summary.get("status"))}
    if result := final_return(summary):
        rows["return"] = f"{result} in the last evaluation ({episodes(run.config.eval_episodes)})"
    rows |= {
        "sparsity": _sparsity(summary),
        "parameters": _parameters(summary),
        "FLOPs": _flops(summary),
        "time": _time(summary),
        "error": str(summary.get("error") or ""),
        "files": str(run.path),
    }
    return _grid({name: text for name, text in rows.items() if text})


def _time(summary: Mapping[str, Any]) -> str:
    """Return how long a run took and which share of it evaluation had."""
    total, evaluation = summary.get("wall_time_s"), summary.get("evaluation_time_s")
    if not total:
        return ""
    share = "" if evaluation is None else f", {evaluation / total:.0%} of it evaluation"
    return duration(total) + share


def _sparsity(summary: Mapping[str, Any]) -> str:
    parameters = summary.get("parameters") or {}
    if not parameters.get("sok_dense"):
        return ""
    return f"{1 - parameters['sok_active'] / parameters['sok_dense']:.2%} of actor and critics"


def _parameters(summary: Mapping[str, Any]) -> str:
    parameters = summary.get("parameters") or {}
    if not parameters.get("sok_dense"):
        return ""
    return (
        f"{round(parameters['sok_active']):,} of {round(parameters['sok_dense']):,}; with targets "
        f"{round(parameters['rlx_active']):,} of {round(parameters['rlx_dense']):,}"
    )


def _flops(summary: Mapping[str, Any]) -> str:
    flops = summary.get("flops") or {}
    if flops.get("train_total") is None:
        return ""
    train = f"training {flops['train_total']:.3g}{_times(flops.get('train_ratio'))}"
    return f"{train}, acting {flops['test']:.3g}{_times(flops.get('test_ratio'))}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f" ({ratio:.3g}x dense)"


def evaluation_table(statistics: Mapping[str, Mapping[str, float]]) -> Table:
    """Return what the episodes of a policy gave."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in ("mean", "std", "min", "max"):
        table.add_column(name, justify="right")
    for name, values in statistics.items():
        table.add_row(name, *(f"{values[each]:,.2f}" for each in ("mean", "std", "min", "max")))
    return table


def episodes(count: int) -> str:
    """Return `1 episode`, `10 episodes`."""
    return "1 episode" if count == 1 else f"{count} episodes"


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return a run's outcome for programs."""
    return _identity(outcome.run) | dict(outcome.summary)


def failures(outcomes: Iterable[Outcome]) -> str | None:
    """Return which runs did not finish, and why; None where all did."""
    lines = [ending(each.run.label, each.summary) for each in outcomes if not each.finished]
    if not lines:
        return None
    return "\n".join([f"{_runs(len(lines))} did not finish:", *(f"  {line}" for line in lines)])


def duration(seconds: float) -> str:
    """Return a duration as `7 s`, `3:05 min` or `2:03:04 h`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02} h"
    return f"{minutes}:{rest:02} min" if minutes else f"{rest} s"


def _identity(run: Run) -> dict[str, Any]:
    config = run.config
    return {
        "path": str(run.path),
        "algo": config.algo,
        "method": config.method,
        "env": env_name(config.env.id),
        "task": config.env.task,
        "sparsity": {"actor": config.actor.sparsity, "critic": config.critic.sparsity},
        "seed": config.seed,
        "steps": config.steps,
    }


def _grid(rows: Mapping[str, str]) -> Table:
    """Return names and texts in two columns; long texts fold."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows.items():
        grid.add_row(Text(name), Text(text))
    return grid


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Print plain lines, whatever the width and whatever brackets they hold."""
    for line in lines:
        console.print(Text(line), soft_wrap=True)
