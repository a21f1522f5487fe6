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

    `update_interval` and `update_offset` count that network's own updates; `stop_before_end` is
    in environment steps. The budget of a layer is its number of connections. By default it stays;
    another `budget` moves it, between two shares of the network's own updates, from what
    `initial_sparsity` gives to what `sparsity` gives. Connections are swapped (some dropped and as
    many grown) after the share `swap_start` and before `swap_end`. `swap_of_growth` is the share of
    what a rising budget grows that is dropped elsewhere at the same time. A neuron keeps the share
    `importance_decay` of its importance whenever some is added. `fan_in` limits the inputs of
    neurons, and `n_of_m` keeps N of every M consecutive ones, which fixes the sparsity.
    `ablate_below` empties neurons that have fewer salient connections (SRigL): a number or, below
    1, a share of a neuron's inputs. `params` are parameters of a user's own scores, which check
    them when a run is about to start.
    """

    drop: Annotated[str, named("drop score", DROP_SCORES)] = "magnitude"
    grow: Annotated[str, named("grow score", GROW_SCORES)] = "random"
    schedule: Annotated[str, named("schedule", SCHEDULES)] = "static"
    drop_fraction: Fraction = 0.5
    budget: Annotated[str, named("budget", BUDGETS)] = "constant"
    budget_start: Share = 0.0
    budget_end: Share = 1.0
    swap_start: Share = 0.0
    swap_end: Share = 1.0
    swap_of_growth: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    update_interval: PositiveInt = 10_000
    update_offset: NonNegativeInt = 0
    stop_before_end: NonNegativeInt = 0
    final_drop: bool = False
    regrow_dropped: bool = True
    grow_init: Literal["zero", "adam_step"] = "zero"
    sign_split: Literal["fraction", "half", "official"] = "fraction"
    accumulate: Literal["topology_update", "critic_update"] = "topology_update"
    td_error: Literal["sum", "mean", "off"] = "sum"
    importance_decay: Share = 1.0
    fan_in: FanIn = "free"
    ablate_below: PositiveFloat | None = None
    n_of_m: NOfMs | None = None
    params: dict[str, Any] = {}  # noqa: RUF012  # pydantic copies it

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
