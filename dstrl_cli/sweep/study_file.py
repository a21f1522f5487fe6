"""What is kept of a study in the results folder: its plan, and what was decided by it.

One JSON file a study in `until-decided/`, always replaced as a whole. It makes sure that the plan
stays as it was before the first look: who may change it after seeing results can decide anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dstrl_cli.config.readfile import MAX_JSON, parse_json, read_text
from dstrl_cli.errors import InputError
from dstrl_cli.report.comparing import BETTER, CellName
from dstrl_cli.runs import files

FOLDER = "until-decided"
FORMAT = 2
"""Raised where the same runs may be decided otherwise: 1 had units shared by environments."""

Compared = tuple[CellName, CellName]
"""The two cells of a comparison."""

FLAGS = {
    "max_seeds": "--max-seeds",
    "seeds_per_round": "--seeds-per-round",
    "alpha": "--alpha",
    "metric": "--metric",
    "first_seed": "the smallest of --seeds",
    "tasks": "--task",
}
"""What gives each value of a plan."""


@dataclass(frozen=True)
class Record:
    """A comparison and what is known of it: `seeds` of each method were looked at."""

    first: CellName
    second: CellName
    sign: int
    difference: float
    seeds: int


@dataclass(frozen=True)
class StudyFile:
    """The file of a study.

    Attributes:
        results: the results folder.
        design: what is fixed before the first look, as plain values.
        comparisons: the cells compared.
        found: the file that holds the study already; pairs may be written the other way there.
    """

    results: Path
    design: Mapping[str, Any]
    comparisons: tuple[Compared, ...]
    found: Path | None = None

    @classmethod
    def find(
        cls, results: Path, design: Mapping[str, Any], comparisons: Sequence[Compared]
    ) -> StudyFile:
        """Return the file of a study, which may not be there yet.

        Raises InputError where the folder holds a study that shares comparisons with it and has
        another plan, or a file that cannot be read.
        """
        file = cls(results, design, tuple(comparisons))
        own = {frozenset(each) for each in comparisons}
        for path, stored in _stored(results / FOLDER):
            theirs = {frozenset(_pair(each)) for each in stored["comparisons"]}
            if own & theirs:
                file._refuse_other(path, stored, same=own == theirs)
                file = replace(file, found=path)
        return file

    @property
    def path(self) -> Path:
        """Where it lies, or is to lie: its name follows from the comparisons."""
        if self.found is not None:
            return self.found
        first, second = self.comparisons[0]
        text = json.dumps(sorted(sorted(map(list, each)) for each in self.comparisons))
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return self.results / FOLDER / f"{first[2]}_{second[2]}.{digest}.json"

    def _refuse_other(self, path: Path, stored: Mapping[str, Any], same: bool) -> None:
        plan = stored["plan"]
        differing = [
            f"{FLAGS.get(key, key)} {plan.get(key)} -> {value}"
            for key, value in self.design.items()
            if plan.get(key) != value
        ]
        if not same:
            differing.append(
                f"comparisons {len(stored['comparisons'])} -> {len(self.comparisons)}"
                if len(stored["comparisons"]) != len(self.comparisons)
                else "other comparisons beside the same ones"
            )
        if differing:
            raise InputError(
                f"--until-decided: {path} holds a study of these comparisons by another plan "
                f"({'; '.join(differing)}), and a plan must stay as it was before the first look: "
                "give the former values, or another --out"
            )

    def given_up(self) -> set[CellName]:
        """Return the cells of which a run diverged."""
        stored = self._read()
        return {_cell(each) for each in stored["given_up"]} if stored else set()

    def check_decisions(self, records: Sequence[Record]) -> None:
        """Raise InputError where something was decided before that these records do not decide.

        Seeds that are missing now will be trained again, so that only a look that was taken again
        tells.
        """
        stored = self._read()
        if stored is None:
            return
        now = {frozenset((each.first, each.second)): each for each in records}
        for each in stored["comparisons"]:
            pair = _pair(each)
            record = now[frozenset(pair)]
            sign = {word: sign for sign, word in BETTER.items()}[each["better"]]
            then = (sign if record.first == pair[0] else -sign, each["seeds"])
            taken_again = record.sign or record.seeds >= each["seeds"]
            if sign and taken_again and (record.sign, record.seeds) != then:
                raise InputError(
                    f"{self.path}: the runs are not those by which {pair[0][2]} and {pair[1][2]} "
                    f"in {pair[0][3]} were decided at {each['seeds']} seeds; restore them, or "
                    "begin anew with another --out"
                )

    def write(self, records: Sequence[Record], given_up: Collection[CellName]) -> None:
        """Put the file in place. Raises DstrlError where it cannot be written."""
        document = {
            "format": FORMAT,
            "plan": dict(self.design),
            "comparisons": [
                {
                    "first": list(each.first),
                    "second": list(each.second),
                    "better": BETTER[each.sign],
                    "difference": each.difference,
                    "seeds": each.seeds,
                }
                for each in records
            ],
            "given_up": sorted(map(list, given_up)),
        }
        files.refuse_link(self.path.parent)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.not_written(self.path, error) from error
        files.write(self.path, files.as_json(document))

    def _read(self) -> Mapping[str, Any] | None:
        return _read(self.path) if self.path.is_file() else None


def _stored(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield the studies of a folder."""
    for path in sorted(folder.glob("*.json")):
        if not path.name.startswith("."):  # what a killed process left half written
            yield path, _read(path)


def _read(path: Path) -> Mapping[str, Any]:
    """Return a file's content. Raises InputError where it is not that of a study."""
    try:
        stored = parse_json(read_text(path, MAX_JSON))
        if stored["format"] != FORMAT:
            raise ValueError(f"format {stored['format']}, written by another dstrl")
        for each in stored["comparisons"]:
            _pair(each)
            int(each["seeds"])
            if each["better"] not in BETTER.values():
                raise ValueError(f"better: {each['better']}")
        {_cell(each) for each in stored["given_up"]}
        dict(stored["plan"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        cause = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path} cannot be read as a study of --until-decided ({cause}): restore it, or choose "
            "another --out"
        ) from None
    return dict(stored)


def _pair(stored: Mapping[str, Any]) -> Compared:
    return _cell(stored["first"]), _cell(stored["second"])


def _cell(stored: Sequence[Any]) -> CellName:
    algo, sparsity, method, env = map(str, stored)
    return algo, sparsity, method, env
