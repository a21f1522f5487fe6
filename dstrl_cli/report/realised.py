"""Asked and realised sparsity: which sections of a table hold one and the same network.

A layer has a whole number of connections, so several sparsities may ask for one network, above all
where layers are small.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from dstrl_cli.config.labels import parse_sparsity_label
from dstrl_cli.report.cells import Key, Member
from dstrl_cli.report.runs import LoggedRun
from dstrl_cli.report.table import DENSE, sparsity_title

ASKED = frozenset({"actor.sparsity", "critic.sparsity"})
"""Keys that may differ between runs of one network."""


class Realised:
    """What the runs of a table cell have in common but for the sparsity they were asked for.

    Attributes:
        sparsities: of each (seed, task), the realised sparsity of actor and critics.
    """

    def __init__(self, runs: Sequence[LoggedRun]) -> None:
        self.runs = runs
        found = {(run.identity.seed, run.identity.task): _sparsity(run.summary) for run in runs}
        self.sparsities = {who: each for who, each in found.items() if each is not None}

    @cached_property
    def settings(self) -> list[dict[str, Any]]:
        """The other keys of each run."""
        all_keys = [run.settings for run in self.runs]
        return [{k: v for k, v in keys.items() if k not in ASKED} for keys in all_keys]

    def is_network_of(self, other: Realised) -> bool:
        """Whether both are one network, under different labels.

        The budget of no layer grows with the sparsity, so that networks of equal totals have equal
        layers. Masks that are drawn, each connection by itself, are compared seed by seed.
        """
        both = self.sparsities.keys() & other.sparsities.keys()
        if not both or any(self.sparsities[who] != other.sparsities[who] for who in both):
            return False
        settings = [*self.settings, *other.settings]
        return all(each == settings[0] for each in settings)


def one_network(cells: Mapping[Key, Sequence[Member]]) -> Iterator[str]:
    """Yield a note for all sections of a table in which some runs are one network.

    Args:
        cells: the runs of each cell, and their metric.
    """
    by_row: dict[tuple[str, str, str], dict[str, Realised]] = defaultdict(dict)
    for (algo, sparsity, method, env), members in sorted(cells.items(), key=lambda item: item[0]):
        if sparsity != DENSE:
            by_row[algo, env, method][sparsity] = Realised([run for run, _ in members])
    found: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (algo, env, method), by_label in by_row.items():
        for labels in _groups(by_label):
            found[algo, labels].append(f"{env}/{algo}-{method}")
    for (algo, labels), rows in found.items():
        *first, last = [sparsity_title(label) for label in labels]
        yield f"{algo.upper()}, {', '.join(first)} and {last} are one network in {', '.join(rows)}"


def _groups(by_label: Mapping[str, Realised]) -> list[tuple[str, ...]]:
    """Return the labels that share a network, of each network that has several."""
    groups: list[list[str]] = []
    for label in sorted(by_label, key=parse_sparsity_label):
        for group in groups:
            if by_label[group[0]].is_network_of(by_label[label]):
                group.append(label)
                break
        else:
            groups.append([label])
    return [tuple(group) for group in groups if len(group) > 1]


def _sparsity(summary: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the realised sparsity of actor and critics; older summaries have none."""
    found = summary.get("sparsity")
    if not isinstance(found, Mapping):
        return None
    actor, critic = found.get("actor"), found.get("critic")
    if isinstance(actor, int | float) and isinstance(critic, int | float):
        return actor, critic
    return None
