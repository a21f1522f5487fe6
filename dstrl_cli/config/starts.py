"""The keys of a run that name another run: what it starts from, and what it learns from.

Each has a place (a path) and a source: which run and file lay there, filled in when a run is
planned. The source is part of what makes two runs the same run, the place is not.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StartRow:
    """One thing that a run may take from another one.

    Attributes:
        key: the configuration key that holds the place.
        source: the key that holds what was found there.
        usual: which policy file of a run's folder is taken, without its ending.
        shown: what it is called in the overview of a run.
        finished: whether the other run must have finished.
    """

    key: str
    source: str
    usual: str
    shown: str
    finished: bool = True


STARTS: dict[str, StartRow] = {
    "mask": StartRow("init_mask_from", "init_mask_source", "policy", "masks of"),
    "weights": StartRow(
        "init_weights_from", "init_weights_source", "initial", "weights of", finished=False
    ),
    "expert": StartRow("expert", "expert_source", "policy", "expert"),
    "expert_q": StartRow("expert_q", "expert_q_source", "policy", "Q-values of"),
    "prefill": StartRow("prefill_from", "prefill_source", "policy", "first steps by"),
}
"""What a run may take from another one, by the word that folders of runs say it with."""

FRESH = "fresh"
"""As `init_weights_from`: weights that no run without it draws, whatever its seed. A run draws its
weights by its seed, so that masks of the run with the same seed would meet their own again."""

PLACES = tuple(row.key for row in STARTS.values())
SOURCES = tuple(row.source for row in STARTS.values())
