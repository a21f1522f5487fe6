"""A run's rows as named curves, for TensorBoard and Weights & Biases.

Names are those of Stable-Baselines3 where it has the quantity; its rollout numbers are means over
the last 100 episodes. What only dstrl has stands under `dstrl/`, `topology/` and `neurons/`.
"""

from __future__ import annotations

import csv
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

EPISODES = 100
"""Training episodes that rollout numbers average: `stats_window_size` of Stable-Baselines3."""

PROGRESS = {
    "steps_per_s": "time/fps",
    "time_s": "time/time_elapsed",
    "critic_loss": "train/critic_loss",
    "actor_loss": "train/actor_loss",
    "alpha": "train/ent_coef",
    "q_mean": "train/q_mean",
    "nstep": "dstrl/nstep",
    "buffer_size": "dstrl/buffer_size",
    "policy_distance": "dstrl/policy_distance",
    "actor_active": "dstrl/actor_active",
    "critic_active": "dstrl/critic_active",
}
"""Columns of `progress.csv` and their names."""

NOT_CURVES = ("step", "network", "layer", "units")
"""Columns of `neurons.csv` that are no curves."""

Row = Mapping[str, Any]


class Writer(Protocol):
    """Where curves are written to."""

    def add(self, points: Mapping[str, float], step: int) -> None:
        """Write a point of each curve, by its name, at an environment step."""

    def flush(self) -> None:
        """Bring what was written to the disk."""

    def close(self) -> None:
        """End; nothing follows."""


class ScalarSink:
    """A sink that writes curves. What goes wrong in the writer ends it, never the training.

    Args:
        writer: where curves are written to.
        name: what messages call it.
        say: is told, once, that it ended early.
    """

    def __init__(self, writer: Writer, name: str, say: Callable[[str], None]) -> None:
        self._writer: Writer | None = writer
        self._name, self._say = name, say
        self._recent: deque[tuple[float, float, float]] = deque(maxlen=EPISODES)

    def progress(self, row: Row) -> None:
        """Write one evaluation's row of `progress.csv`."""
        self._add({name: row.get(column) for column, name in PROGRESS.items()}, row["step"])
        self._call(lambda writer: writer.flush())

    def evaluation(
        self,
        step: int,
        returns: Sequence[float],
        lengths: Sequence[int],
        success: Sequence[float | None] | None = None,
    ) -> None:
        """Write the means of an evaluation."""
        points = {
            "eval/mean_reward": _mean(returns),
            "eval/mean_ep_length": _mean(lengths),
            "eval/success_rate": _mean(success or ()),
        }
        self._add(points, step)

    def episodes(self, rows: Iterable[Row]) -> None:
        """Write the means over the last training episodes."""
        for row in rows:
            values = (row.get(column) for column in ("return", "length", "success"))
            self._recent.append(tuple(map(_number, values)))  # type: ignore[arg-type]
            returns, lengths, success = (list(column) for column in zip(*self._recent, strict=True))
            points = {
                "rollout/ep_rew_mean": _mean(returns),
                "rollout/ep_len_mean": _mean(lengths),
                "rollout/success_rate": _mean(success),
            }
            self._add(points, row["step"])

    def topology(self, rows: Iterable[Row]) -> None:
        """Write what topology updates changed in each network, over all its layers.

        A layer that comes again is of another update, also where that is of the same step.
        """
        sums: dict[tuple[int, int, str], float] = {}
        seen: Counter[tuple[str, ...]] = Counter()
        for row in rows:
            layer = str(row["step"]), str(row["network"]), str(row["layer"])
            seen[layer] += 1
            for column in ("active", "dropped", "grown"):
                key = int(row["step"]), seen[layer], f"topology/{row['network']}_{column}"
                sums[key] = sums.get(key, 0.0) + _number(row[column])
        for (step, _, name), value in sums.items():
            self._add({name: value}, step)

    def neurons(self, rows: Iterable[Row]) -> None:
        """Write what the neurons of each layer did at an evaluation."""
        for row in rows:
            points = {
                f"neurons/{row['network']}_{row['layer']}_{column}": value
                for column, value in row.items()
                if column not in NOT_CURVES
            }
            self._add(points, row["step"])

    def hashes(self, rows: Iterable[Row]) -> None:
        """Write nothing: digests are no curve."""

    def policy(self, filename: str, tensors: Row, metadata: Mapping[str, str]) -> None:
        """Write nothing: networks are no curve."""

    def checkpoint(self, state: Row) -> None:
        """Bring what was written to the disk: a resumed run goes on here."""
        self._call(lambda writer: writer.flush())

    def summary(self, summary: Row) -> None:
        """End the curves."""
        self.close()

    def close(self) -> None:
        """End the curves; closing twice is harmless."""
        self._call(lambda writer: writer.close())
        self._writer = None

    def _add(self, points: Mapping[str, Any], step: int | str) -> None:
        known = {name: _number(value) for name, value in points.items()}
        finite = {name: value for name, value in known.items() if math.isfinite(value)}
        if finite:
            self._call(lambda writer: writer.add(finite, int(step)))

    def _call(self, what: Callable[[Writer], None]) -> None:
        if self._writer is None:
            return
        try:
            what(self._writer)
        except Exception as error:  # of somebody else's package: the run itself is not harmed
            self._writer = None
            cause = " ".join(str(error).split()) or type(error).__name__
            self._say(f"warning: {self._name} ended early, training goes on: {cause}")


def write_logged(folder: Path, sink: ScalarSink) -> None:
    """Give a sink the rows that the CSV files of a run hold, as if it had been there.

    A run that goes on gets new curves this way, without points that are there twice.
    """
    for step, rows in groupby(_rows(folder / "eval.csv"), lambda row: row["step"]):
        each = list(rows)
        columns = ([_number(row.get(name)) for row in each] for name in ("return", "length"))
        returns, lengths = columns
        success = [_number(row.get("success")) for row in each]
        sink.evaluation(int(step), returns, [int(length) for length in lengths], success)
    for row in _rows(folder / "progress.csv"):
        sink.progress(row)
    sink.episodes(_rows(folder / "episodes.csv"))
    sink.topology(_rows(folder / "topology.csv"))
    sink.neurons(_rows(folder / "neurons.csv"))


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file, nothing where there is no such file."""
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)


def _number(value: Any) -> float:
    """Return a cell as a number, NaN where it is empty."""
    return math.nan if value is None or value == "" else float(value)


def _mean(values: Iterable[Any]) -> float:
    """Return the mean of the numbers that are known, NaN of none."""
    known = [number for number in map(_number, values) if math.isfinite(number)]
    return sum(known) / len(known) if known else math.nan
