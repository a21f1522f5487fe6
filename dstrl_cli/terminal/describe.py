"""Plans and results in words: short for the screen, whole as JSON. Nothing is run here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from dstrl_cli.config import effects
from dstrl_cli.config.fields import LinearRate
from dstrl_cli.config.models import NetworkConfig, RunConfig
from dstrl_cli.config.starts import STARTS
from dstrl_cli.registry import algorithm_name
from dstrl_cli.report.table import notably_more
from dstrl_cli.report.words import counted
from dstrl_cli.sweep.launcher import NOT_STARTED
from dstrl_cli.sweep.memory import format_bytes
from dstrl_cli.sweep.place import Placement
from dstrl_cli.sweep.plan import layer_budgets, layers_in_words
from dstrl_cli.terminal import plan
from dstrl_cli.terminal.pace import clock_time
from dstrl_cli.terminal.plan import env_label, identity
from dstrl_cli.terminal.wording import ending, final_return
from dstrl_cli.training.run import Outcome, Run

# --- before -------------------------------------------------------------------------------------


def run_overview(runs: Sequence[Run], placement: Placement) -> RenderableType:
    """Return the resolved configuration of a run, or of one run with several seeds, in short."""
    run, config = runs[0], runs[0].config
    budgets = layer_budgets(config, run.spec)
    late = config.nstep > 1 and config.nstep_delay > 1
    delay = f" from critic update {config.nstep_delay:,} on" if late else ""
    seeds = ", ".join(str(each.config.seed) for each in runs)
    folders = [str(each.path) for each in runs]
    rows = {
        "method": f"{config.method} on {algorithm_name(config.algo).upper()}",
        "environment": env_label(config),
        "sparsity": ", ".join(
            f"{effects.NAMES[role]} {_sparsities(getattr(config, role))}"
            for role in effects.roles_of(config)
        ),
        "active": "; ".join(
            f"{'actor' if role == 'actor' else 'each critic'} "
            f"{_active(getattr(config, role), budgets[role])}"
            for role in effects.roles_of(config)
        ),
        "topology": f"{effects.changes_in_words(config)}, in this run",
        **_starts(config),
        "n-step": f"{config.nstep}{delay}",
        **_length(config),
        **_training(config),
        "seed" if len(runs) == 1 else "seeds": seeds,
        "device": _device(config, placement),
        "engine": f"{', '.join(placement.engines)}: {placement.engine_reason}",
        "folder" if len(runs) == 1 else "folders": "\n".join(folders),
    }
    return _grid(rows)


def _starts(config: RunConfig) -> dict[str, str]:
    """Return which runs a run takes its masks, its weights and more from, where it takes any."""
    sources = {row.shown: getattr(config, row.source) for row in STARTS.values()}
    return {what: source.partition("@")[0] for what, source in sources.items() if source}


def _length(config: RunConfig) -> dict[str, str]:
    """Return the rows that say how long a run is."""
    first = min(config.learning_starts, config.steps)
    acting = "by the learned policy" if config.prefill_from else "random"
    random = f"of which {first:,} {acting}"
    if config.expert:
        random = f"all of the expert, training from step {first:,} on"
    if config.episodes is None:
        return {"steps": f"{config.steps:,}, {random}"}
    return {
        "episodes": f"{config.episodes:,}, unless the steps come to their end before",
        "steps": f"at most {config.steps:,}, {random}",
    }


def _training(config: RunConfig) -> dict[str, str]:
    """Return when a run trains and how its learning rate falls, where either is unusual."""
    rows = {}
    if (config.train_freq, config.gradient_steps) != (1, 1):
        rows["training"] = effects.training_in_words(config)
    if isinstance(config.learning_rate, LinearRate):
        rows["learning rate"] = f"{config.learning_rate.linear:g}, falls linearly to 0"
    return rows


def _sparsities(network: NetworkConfig) -> str:
    """Return a network's sparsity: `0.95`, or `0.95 (0 at first)` where its budget moves."""
    first = f" ({network.initial_sparsity:.6g} at first)" if network.moves_budget else ""
    return f"{network.sparsity:.6g}{first}"


def _active(network: NetworkConfig, budgets: Sequence[int]) -> str:
    """Return the connections per layer; of Bernoulli masks only their expected number is known."""
    layers = layers_in_words(budgets)
    expected = network.initial_mask == "bernoulli" and not network.all_active
    return f"about {layers}" if expected else layers


def _device(config: RunConfig, placement: Placement) -> str:
    used = f"{placement.device}, {counted(config.thread_count, 'thread')}"
    if placement.on_cpu:
        return "; ".join([used, *plan.replay_in_words(placement)])
    largest = max(placement.populations, key=lambda each: each.memory.device).memory
    on_host = f"; {format_bytes(largest.host)} of main memory (replay)" if largest.host else ""
    return f"{used}; {format_bytes(largest.device)} of its memory ({largest.parts()}){on_host}"


def warnings(runs: Iterable[Run]) -> list[str]:
    """Return what the user should know before the runs start."""
    runs = list(runs)
    idle = [run for run in runs if run.config.updates_until(run.config.steps) <= 0]
    found = []
    if idle:
        config = idle[0].config
        longer = "--steps" if config.episodes is None else "--episodes (or --steps)"
        key = "learning_starts" if config.steps <= config.learning_starts else "train_freq"
        value = config.learning_starts if key == "learning_starts" else config.train_every
        found.append(
            f"nothing will be trained in {counted(len(idle), 'run')}: steps ({config.steps:,}) do "
            f"not exceed {key} ({value:,}); raise {longer} or lower it with --set {key}=N"
        )
    return found


# --- after --------------------------------------------------------------------------------------


def outcome_overview(outcome: Outcome) -> RenderableType:
    """Return how one run ended, in short."""
    run, summary = outcome.run, outcome.summary
    rows = {"status": str(summary.get("status"))}
    if result := final_return(summary):
        rows["return"] = (
            f"{result} in the last evaluation ({counted(run.config.eval_episodes, 'episode')})"
        )
        if (rate := summary.get("final_success")) is not None:
            rows["success"] = f"{rate:.0%} of them"
    if run.config.episodes is not None and summary.get("episodes") is not None:
        rows["length"] = (
            f"{counted(summary['episodes'], 'episode')} in {summary.get('steps', 0):,} steps"
        )
    rows |= {
        "sparsity": _sparsity(summary),
        "parameters": _parameters(summary),
        "FLOPs": _flops(summary),
        "time": _time(summary),
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
    active = 100 * parameters["sok_active"] / parameters["sok_dense"]
    critics = "critic" in (summary.get("sparsity") or {"critic": 0})
    return f"{100 - active:.6g}% of {'actor and critics' if critics else 'the actor'}"


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
    total = flops["train_total"]
    train = f"training {total:.3g}{_times(flops.get('train_ratio') if total else None)}"
    if notably_more(full := flops.get("train_total_full"), total):
        more = f"{full:.3g}{_times(flops.get('train_ratio_full'))}"
        train += f", with the gradients of inactive connections {more}"
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


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return a run's outcome for programs."""
    return identity(outcome.run) | dict(outcome.summary)


def failures(outcomes: Sequence[Outcome]) -> str | None:
    """Return that runs did not finish; None where all did.

    Of several runs the display has named each when it ended, with the cause.
    """
    failed = [each for each in outcomes if not each.finished]
    if not failed:
        return None
    if len(outcomes) == 1:
        return f"1 run did not finish:\n  {ending(failed[0].run.label, failed[0].summary)}"
    idle = sum(each.summary == NOT_STARTED for each in failed)
    text = f"{len(failed) - idle} of {len(outcomes)} runs did not finish; they are named above"
    return f"{text}. Not started: {counted(idle, 'run')}" if idle else text


def duration(seconds: float) -> str:
    """Return a duration as `7 s`, `3:05 min` or `2:03:04 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{clock_time(whole)} {'min' if whole < 3600 else 'h'}"


def _grid(rows: Mapping[str, str]) -> Table:
    """Return names and texts in two columns; long texts fold."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows.items():
        grid.add_row(Text(name), Text(text))
    return grid


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Print plain lines, whatever brackets they hold; only a terminal's are wrapped, at words."""
    for line in lines:
        console.print(Text(line), soft_wrap=not console.is_terminal)
