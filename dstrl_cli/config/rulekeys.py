"""TopologyConfig: the keys of one network's topology rule, checked when they are made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dstrl_cli.config import limits
from dstrl_cli.config.fields import (
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Real,
    Share,
    named,
)
from dstrl_cli.config.limits import FanIn, NOfMs
from dstrl_cli.config.parts import Model
from dstrl_cli.registry import BUDGETS, DROP_SCORES, GROW_SCORES, SCHEDULES


class TopologyConfig(Model):
    """How one network's topology changes: a drop score, a grow score and a schedule.

    The budget of a layer is its number of connections. By default it stays; another `budget` moves
    it from what `initial_sparsity` gives to what `sparsity` gives. Shares of training are shares of
    the network's own updates. A user's own scores check their `params` when a run is about to
    start.
    """

    drop: Annotated[str, named("drop score", DROP_SCORES)] = "magnitude"
    """The score by which connections are dropped."""
    grow: Annotated[str, named("grow score", GROW_SCORES)] = "random"
    """The score by which connections are grown."""
    schedule: Annotated[str, named("schedule", SCHEDULES)] = "static"
    """How the share that is exchanged changes over training; static: nothing is exchanged."""
    drop_fraction: Fraction = 0.5
    """The share of active connections that an update of the topology exchanges, at first."""
    budget: Annotated[str, named("budget", BUDGETS)] = "constant"
    """How the number of connections moves over training."""
    budget_start: Share = 0.0
    """The share of training after which it begins to move."""
    budget_end: Share = 1.0
    """The share of training after which it has arrived."""
    swap_start: Share = 0.0
    """The share of training after which connections are exchanged."""
    swap_end: Share = 1.0
    """The share of training before which they are."""
    swap_of_growth: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    """The share of what a rising budget grows that is dropped elsewhere."""
    update_interval: PositiveInt = 10_000
    """The network's own updates from one change of the topology to the next."""
    update_offset: NonNegativeInt = 0
    """The network's own update of the first change; 0: after one interval."""
    stop_before_end: NonNegativeInt = 0
    """Environment steps before the end without changes."""
    final_drop: bool = False
    """The last change, at the end of the schedule, drops without growing (SOK's code)."""
    regrow_dropped: bool = True
    """Whether what was just dropped may be grown again."""
    grow_init: Literal["zero", "adam_step"] = "zero"
    """The value of a grown connection."""
    sign_split: Literal["fraction", "half", "official"] = "fraction"
    """How many positive and negative weights the score `sign` drops."""
    accumulate: Literal["topology_update", "critic_update"] = "topology_update"
    """When importance is added up."""
    td_error: Literal["sum", "mean", "off"] = "sum"
    """How the TD error of a batch weighs importance."""
    importance_decay: Share = 1.0
    """The share of its importance that a neuron keeps whenever some is added."""
    fan_in: FanIn = "free"
    """A limit on the inputs of a neuron."""
    ablate_below: PositiveFloat | None = None
    """Salient connections, or their share, below which a neuron is emptied (SRigL); null: none."""
    n_of_m: NOfMs | None = None
    """N of every M consecutive inputs of a neuron are kept, which fixes the sparsity."""
    params: dict[str, Any] = {}  # noqa: RUF012  # pydantic copies it
    """Parameters of scores of your own."""

    def __hash__(self) -> int:
        """Hash all keys but `params`, a dict and so unhashable; equality still compares it."""
        return hash(tuple(value for name, value in self if name != "params"))

    @property
    def moves_budget(self) -> bool:
        """Whether the number of connections changes in the course of training."""
        return self.budget != "constant"

    @property
    def budget_window(self) -> tuple[float, float]:
        """The shares of training at which the budget begins to move, and has arrived."""
        return self.budget_start, self.budget_start if self.budget == "at_once" else self.budget_end

    @model_validator(mode="after")
    def _one_limit(self) -> TopologyConfig:
        if reason := limits.clash(self):
            raise ValueError(reason)
        return self

    @model_validator(mode="after")
    def _whole_number_or_share(self) -> TopologyConfig:
        least = self.ablate_below
        if least is not None and least >= 1 and not least.is_integer():
            raise ValueError(
                f"ablate_below = {least:g} is neither a number of connections nor a share of them; "
                "write a whole number from 1 on, or a share below 1"
            )
        return self

    @model_validator(mode="after")
    def _windows_ordered(self) -> TopologyConfig:
        for what in ("budget", "swap"):
            start, end = getattr(self, f"{what}_start"), getattr(self, f"{what}_end")
            if start > end:
                raise ValueError(
                    f"{what}_start = {start:g} is after {what}_end = {end:g}; both are shares of "
                    f"training: lower {what}_start, or raise {what}_end"
                )
        return self

    @model_validator(mode="after")
    def _budget_is_met(self) -> TopologyConfig:
        if self.moves_budget and self.final_drop:
            raise ValueError(
                f"final_drop = true would end below the final sparsity of budget: {self.budget}; "
                "set final_drop: false"
            )
        if self.grow == "none" and self.schedule != "static":
            raise ValueError(
                f"grow: none cannot grow what schedule: {self.schedule} drops; set schedule: "
                "static, or another grow score, such as random"
            )
        return self
