"""The summary of a finished run, made again from its other files.

A run is known to have finished without its summary where its files show all of this:
- there is no checkpoint, from which the run would be resumed;
- the last row of `progress.csv` is whole and is that of the last step: `steps`, or where the run
  counts `episodes`, the step by which `episodes.csv` has that many;
- `eval.csv` has every episode of every evaluation up to that step, and nothing else.
The row of `progress.csv` is the last thing that an evaluation writes, policies included. A run
that is about to write its summary looks the same: ask for the lock of its folder, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dstrl_cli.config.readfile import MAX_TABLE, check_file
from dstrl_cli.runs.checkpoint import CHECKPOINT_FOLDER, has_state
from dstrl_cli.runs.provenance import origin
from dstrl_cli.runs.status import FINISHED

REPAIRED = "repaired"
"""The key of a summary that was made again."""

Row = dict[str, str]


def summary_from_files(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the summary of a finished run as far as its files tell it, marked as repaired.

    None where they do not show that it finished. Parameters and FLOPs stay unknown.

    Args:
        folder: of the run.
        config: its configuration, with the block `run`.
    """
    try:
        last = _last_row(folder / "progress.csv")
        ended = last is not None and _ended(folder, config, int(last["step"]))
    except (OSError, LookupError, TypeError, ValueError):
        return None
    if last is None or not ended or has_state(folder / CHECKPOINT_FOLDER):
        return None
    where = origin(config)
    return {
        "status": FINISHED,
        REPAIRED: True,
        "steps": int(last["step"]),
        "final_return": {
            "mean": _number(last.get("eval_return_mean")),
            "std": _number(last.get("eval_return_std")),
        },
        "wall_time_s": _number(last.get("time_s")),
        "engine": where.get("engine"),
        "device": where.get("device"),
        "error": None,
    }


def _ended(folder: Path, config: Mapping[str, Any], step: int) -> bool:
    """Whether a run ends at a step and has all evaluations up to it."""
    steps, every, count = (config[key] for key in ("steps", "eval_every", "eval_episodes"))
    wanted = config.get("episodes")
    if step != steps and not (wanted and _count_until(step, folder / "episodes.csv") >= wanted):
        return False
    evaluated = [*range(0, step, every), step]
    expected = [(at, episode) for at in evaluated for episode in range(count)]
    lines = _whole_lines(folder / "eval.csv")
    return [_step_and_episode(line) for line in lines[1:]] == expected


def _step_and_episode(line: str) -> tuple[int, int]:
    """Return the first two cells of a row of `eval.csv`; return and length must be numbers, too."""
    step, episode, *others = line.split(",")
    _ = float(others[0]), float(others[1])
    return int(step), int(episode)


def _last_row(file: Path) -> Row | None:
    """Return the last row of a CSV file whose lines are all whole; None where it has none."""
    header, *rows = _whole_lines(file)
    if not rows:
        return None
    return dict(zip(header.split(","), rows[-1].split(","), strict=True))


def _count_until(step: int, file: Path) -> int:
    """Return how many rows of a CSV file are of steps up to `step`."""
    return sum(int(line.split(",", 1)[0]) <= step for line in _whole_lines(file)[1:])


def _whole_lines(file: Path) -> list[str]:
    """Return the lines of a file. Raises ValueError where the last one was cut off."""
    if isinstance(file, Path):  # not in an archive
        check_file(file, MAX_TABLE)
    text = file.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        raise ValueError(f"{file} ends in the middle of a line")
    return text.splitlines()


def _number(text: str | None) -> float | None:
    """Return the number in a cell; None for an empty one."""
    return float(text) if text else None
