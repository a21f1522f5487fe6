"""The marks that a number in a table can carry, and what each of them says."""

from __future__ import annotations

from enum import StrEnum


class Mark(StrEnum):
    """A reservation about a number; a table prints its symbol and, below, its meaning."""

    UNFINISHED = "unfinished"
    LEFT_OUT = "left_out"
    WINDOW = "window"
    UNTRAINED = "untrained"
    MIXED = "mixed"
    TASKS = "tasks"
    FEW_SEEDS = "few_seeds"
    VERSION = "version"
    SPARSITY = "sparsity"
    READ_OFF = "read_off"
    CUT = "cut"

    @property
    def symbol(self) -> str:
        """One character for tables."""
        return _MEANINGS[self][0]

    @property
    def meaning(self) -> str:
        """One line for the legend."""
        return _MEANINGS[self][1]


_MEANINGS: dict[Mark, tuple[str, str]] = {
    Mark.UNFINISHED: ("*", "unfinished runs only"),
    Mark.LEFT_OUT: ("°", "unfinished runs left out"),
    Mark.WINDOW: ("†", "the metric's window is longer than the run, or than its training"),
    Mark.UNTRAINED: ("!", "only the untrained policy was evaluated (steps within learning_starts)"),
    Mark.MIXED: ("#", "the runs of this cell differ in more than seed and task"),
    Mark.TASKS: ("§", "the seeds of this cell do not have the same tasks"),
    Mark.FEW_SEEDS: ("~", "too few seeds for an interval or a standard error"),
    Mark.VERSION: ("‡", "published for another version of the environment"),
    Mark.SPARSITY: ("¶", "published for another sparsity"),
    Mark.READ_OFF: ("≈", "read off a published figure, to about 3 % of its axis"),
    Mark.CUT: ("^", "eval_max_steps ended evaluation episodes before the environment did"),
}


def ordered(marks: set[Mark] | frozenset[Mark]) -> tuple[Mark, ...]:
    """Return marks in the order in which legends list them."""
    return tuple(mark for mark in Mark if mark in marks)
