"""A rule: how the topology of one network changes (a drop score, a grow score, a schedule).

Scores see a `NetworkView` and say which connections matter; `masks.rewire` alone changes masks.
One `Rule` serves the members of a population that share its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from dstrl_cli.config.rulekeys import TopologyConfig
from dstrl_cli.config.windows import Windows
from dstrl_cli.registry import BUDGETS, SCHEDULES, SCORES, load
from dstrl_cli.topology import masks
from dstrl_cli.topology.blame import blamed, checked
from dstrl_cli.topology.kept import join_attributes, take_attributes
from dstrl_cli.topology.limits import layer_limit
from dstrl_cli.topology.moves import Budget, LayerMove
from dstrl_cli.topology.schedules import Schedule
from dstrl_cli.topology.span import Span


@dataclass(frozen=True)
class NetworkView:
    """What a score may see of the M members of a rule, layer by layer from the input on.

    A network has K heads (one of an actor, one for each of the critics) and L layers; a weight
    matrix is [in, out].

    Attributes:
        weights: [M, K, in, out] per layer; zero where inactive.
        masks: [M, K, in, out] per layer, bool: the active connections.
        gradients: of the loss of this update, [M, K, in, out] per layer, or None. At a topology
            update: of all connections, active or not, if the score `needs_gradient`. In `observe`:
            zero where inactive, if the score `observes_gradients`.
        moments: Adam's first and second moment, a pair of [M, K, in, out] per layer, if the score
            `observes_moments`, else None.
        strengths: sums of |weight| over the connections of each neuron, [M, K, n_0] to [M, K, n_L]
            in float64: outgoing ones of input neurons, incoming ones of the others. Given instead
            of weights and masks, which are then empty, where no score reads those in `observe`.
        td_error: sum over the batch of |target - Q| [M, K]; None for an actor.
        batch_size: rows of the batch.
        progress: how far the run is, in [0, 1]: this network's updates so far over those in the
            whole run or, in a run of N episodes, the episodes so far over N, whichever is more.
        uniform: layer -> numbers in [0, 1) [M, K, in, out] from each member's own stream.
        ties: ("drop" or "grow", layer) -> numbers [M, K, in, out] from each member's own stream:
            of equal scores the one with the lower number is taken. None: the one that comes first.
        alive: members that still train [M], bool; the others keep their topology. None: all do.
        targets: connections that each layer is to have after this topology update [M, K], integer,
            where budgets move, else None.
    """

    weights: Sequence[Tensor]
    masks: Sequence[Tensor]
    gradients: Sequence[Tensor] | None = None
    moments: Sequence[tuple[Tensor, Tensor]] | None = None
    strengths: Sequence[Tensor] | None = None
    td_error: Tensor | None = None
    batch_size: int = 1
    progress: float = 0.0
    uniform: Callable[[int], Tensor] | None = None
    ties: Callable[[str, int], Tensor] | None = None
    alive: Tensor | None = None
    targets: Sequence[Tensor] | None = None

    def staying(self, layer: int) -> Tensor:
        """Return the connections [M, K] of a layer that a falling budget leaves: all, or fewer."""
        active = self.masks[layer].sum((-2, -1))
        return active if self.targets is None else torch.minimum(active, self.targets[layer])


class ScoreParams(BaseModel):
    """Parameters of a score of one's own: fields with types and defaults, as in a dataclass.

    They are set by the keys `topology.params.NAME`; a name that is no field is refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


CODE = (BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType, type)
"""Attributes of these types are no state: `__init__` chooses them."""


class Score:
    """Scores the connections of a layer, for dropping or for growing, or both.

    One instance serves one network of the members that share a rule, for the whole run, and may
    keep a state. A score that is named for dropping and for growing is one instance.

    Attributes:
        Params: the model of the score's own parameters.
        needs_gradient: whether dropping or growing reads the gradient of all connections.
        needs_td_error: whether it reads `td_error`, and so fits critics only.
        observes_updates: whether `observe` is called at every update of the network.
        observes_weights: whether `observe` reads weights or masks, and not `strengths` alone.
        observes_gradients: whether `observe` reads the gradients of active connections.
        observes_moments: whether it reads the optimizer's moments, wherever it sees the network.
        config: the keys of the rule.
        params: this score's own parameters.
    """

    Params: ClassVar[type[BaseModel]] = ScoreParams
    needs_gradient = False
    needs_td_error = False
    observes_updates = False
    observes_weights = True
    observes_gradients = False
    observes_moments = False

    def __init__(self, config: TopologyConfig) -> None:
        self.config = config
        self.params: Any = self.Params.model_validate(self.own_params(config))

    @classmethod
    def own_params(cls, config: TopologyConfig) -> dict[str, Any]:
        """Return those of the rule's `params` that this score knows; the others are for another."""
        known = cls.Params.model_fields
        return {key: value for key, value in config.params.items() if key in known}

    def observe(self, view: NetworkView) -> None:
        """See one update of the network (called for every update if `observes_updates`)."""

    def prepare(self, view: NetworkView) -> None:
        """See the network before a topology update, once for all its layers."""

    def drop(self, view: NetworkView, layer: int, fraction: float) -> Tensor:
        """Return drop scores [M, K, in, out]; the lowest active connections are dropped."""
        raise TypeError(f"{type(self).__name__} does not score dropping")

    def grow(self, view: NetworkView, layer: int) -> Tensor:
        """Return grow scores [M, K, in, out]; the highest inactive connections are grown."""
        raise TypeError(f"{type(self).__name__} does not score growing")

    def count(self, view: NetworkView, layer: int, fraction: float) -> Tensor:
        """Return how many connections to swap [M, K]: int(fraction * those that stay)."""
        return masks.whole_part(fraction, view.staying(layer))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of this score, by name: its attributes.

        Numbers, text, tensors, and lists, tuples or dicts of them can be kept. A tensor whose first
        axis has length M holds something of every member; all else is common to the members.
        `config`, `params`, and attributes that are functions, classes or modules are left out.
        """
        left_out = ("config", "params")
        return {
            name: value
            for name, value in vars(self).items()
            if name not in left_out and not isinstance(value, CODE)
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned, of a score that was made with the same keys.

        Tensors are on the network's device; the number of members M may be another one.
        """
        vars(self).update(state)


class Rule:
    """The topology rule of one network for those members that share its settings.

    Args:
        config: the rule's keys.
        end: the network's own updates after which the topology stays as it is (T_end).
        end_share: the same as a share of the run, for runs whose length is given in episodes.
        total: the network's own updates in the whole run, where not `end`.
        moves: how the budget of each layer moves, of each member in order, where budgets do.
        key: of `config` in the run's, for messages.

    Attributes:
        run, move, swap: the whole run, the way of the budgets, and the time in which connections
            are swapped.
        episode_share: episodes so far over those of the whole run; 0 where only steps count.
        arrived: whether the budgets have come to their end, if they move.
        finished: whether the last topology update has happened.
    """

    def __init__(
        self,
        config: TopologyConfig,
        end: int,
        end_share: float = 1.0,
        total: int | None = None,
        moves: Sequence[Sequence[LayerMove]] = (),
        key: str = "topology",
    ) -> None:
        self.config, self.end, self.key = config, end, key
        self.moves = moves
        total = end if total is None else total
        self.windows = windows = Windows(config, total, end)
        self.run = Span((0, total), (0.0, 1.0))
        self.move = Span(windows.move, config.budget_window)
        self.swap = Span(windows.swap, (config.swap_start, min(end_share, config.swap_end)))
        self.budget: Budget = self.made("budget", BUDGETS)
        self.arrived = not moves
        self.episode_share = 0.0
        same = config.drop == config.grow  # one score, one state
        self.drop: Score = self.made("drop", SCORES)
        self.grow: Score = self.drop if same else self.made("grow", SCORES)
        self.scores = (self.drop,) if same else (self.drop, self.grow)
        self.schedule: Schedule = self.made("schedule", SCHEDULES)
        self.needs_gradient = any(score.needs_gradient for score in self.scores)
        self.needs_moments = any(score.observes_moments for score in self.scores)
        self.observers = [score for score in self.scores if score.observes_updates]
        self.observes_gradients = any(score.observes_gradients for score in self.observers)
        self.observes_weights = any(score.observes_weights for score in self.observers)
        self.finished = False

    def made(self, key: str, table: Mapping[str, Any]) -> Any:
        """Return an instance of the class that a key of the rule names."""
        name = getattr(self.config, key)
        with blamed(f"{self.key}.{key}", name):
            return load(table, name)(self.config)

    def state(self, row: int, members: int) -> dict[str, Any]:
        """Return the state of the member at `row` of this rule, which has so many members.

        Raises DstrlError for a score that keeps what cannot be put into a checkpoint.
        """
        # by the class: a score may keep an attribute that is called `state`
        scores = {
            str(number): take_attributes(owner, type(score).state(score), row, members)
            for number, (owner, score) in enumerate(self.owners())
        }
        return {"finished": self.finished, "arrived": self.arrived, "scores": scores}

    def set_state(self, states: Sequence[Mapping[str, Any]], device: str) -> None:
        """Take up the states of this rule's members, in order; tensors are put on `device`."""
        self.finished = states[0]["finished"]
        self.arrived = states[0].get("arrived", not self.moves)
        for number, (owner, score) in enumerate(self.owners()):
            parts = [state["scores"][str(number)] for state in states]
            type(score).set_state(score, join_attributes(owner, parts, device))

    def owners(self) -> list[tuple[str, Score]]:
        """Return the scores, each after the key and the name that chose it."""
        return [(f"{key} = '{name}'", score) for key, name, score in self.named()]

    def named(self) -> list[tuple[str, str, Score]]:
        """Return the key that chose each score, its name, and the score."""
        rows = [(f"{self.key}.{key}", getattr(self.config, key)) for key in ("drop", "grow")]
        return [(*row, score) for row, score in zip(rows, self.scores, strict=False)]

    def due(self, update: int) -> bool:
        """Return whether the network's `update` (from 1) is one of this rule's topology updates.

        `update_offset` is the first one, after which every `update_interval` is one more. Where
        budgets move, intervals are counted from the update at which they begin to, and the update
        at which they arrive is one more.
        """
        if self.finished:
            return False
        if not self.windows.planned(update):
            return self.arrives(update)
        return self.moving(update) or self.swapping(update)

    def moving(self, update: int) -> bool:
        """Return whether budgets are on their way at `update`."""
        if self.arrived:
            return False
        return update >= self.move.updates[0] or self.reached(self.move.shares[0])

    def arrives(self, update: int) -> bool:
        """Return whether budgets come to their end at `update`."""
        return not self.arrived and self.move.done(update, self.episode_share) >= 1

    def reached(self, share_of_run: float) -> bool:
        """Return whether a share of the run is done by its episodes."""
        return self.episode_share > 0 and self.episode_share >= share_of_run

    def swapping(self, update: int) -> bool:
        """Return whether connections are swapped at `update`, if it is a planned one."""
        rule = self.config
        if rule.schedule == "static":
            return False
        if update < rule.update_offset and not rule.moves_budget:
            return False
        begun = update > self.swap.updates[0] or self.reached(self.swap.shares[0])
        return begun and (self.progress(update) < 1 or rule.final_drop)

    def progress(self, update: int) -> float:
        """Return how far `update` is on the way from the first swap to T_end, in [0, 1]."""
        return self.swap.done(update, self.episode_share)

    def run_progress(self, update: int) -> float:
        """Return how far the run is at `update`, in [0, 1]."""
        return self.run.done(update, self.episode_share)

    def fraction(self, update: int) -> float:
        """Return the fraction of active connections to exchange at `update`."""
        planned = self.windows.planned(update) and self.swapping(update)
        if self.config.moves_budget and not planned:
            return 0.0
        with blamed(f"{self.key}.schedule", self.config.schedule):
            fraction = self.schedule.fraction(self.progress(update))
            if not 0 <= fraction <= 1:
                raise ValueError(f"a fraction must lie in [0, 1], not be {fraction!r}")
        return fraction

    def observe(self, view: NetworkView) -> None:
        """Let the scores that observe updates see one."""
        for key, name, score in self.named():
            if score.observes_updates:
                with blamed(key, name):
                    score.observe(view)

    def change(self, view: NetworkView, update: int) -> list[masks.Rewired]:
        """Carry out the topology update that is due at `update`: return each layer's new mask.

        With `final_drop`, the first change due at or after T_end drops without growing and is the
        last one (SOK's code).
        """
        last = self.progress(update) >= 1 and self.config.final_drop
        self.finished = last
        fraction = self.fraction(update)
        if self.moving(update):
            view = replace(view, targets=self.targets(view, update))
            self.arrived = self.arrives(update)
        for key, name, score in self.named():
            with blamed(key, name):
                score.prepare(view)
        return [self.rewired(view, layer, fraction, last) for layer in range(len(view.masks))]

    def targets(self, view: NetworkView, update: int) -> list[Tensor]:
        """Return the connections that each layer is to have after `update`, [M, K].

        They never go back on their way. At its end they are exact.
        """
        moved = self.moved(update)
        found = []
        for layer, mask in enumerate(view.masks):
            active = mask.sum((-2, -1))
            moves = [member[layer] for member in self.moves]
            wanted = active.new_tensor([move.target(moved) for move in moves]).unsqueeze(-1)
            rises = active.new_tensor([move.rises for move in moves]).unsqueeze(-1) > 0
            onward = torch.where(rises, torch.maximum(wanted, active), wanted.minimum(active))
            wanted = wanted.expand_as(active) if self.arrives(update) else onward
            if view.alive is not None:
                wanted = torch.where(view.alive.unsqueeze(-1), wanted, active)
            found.append(wanted)
        return found

    def moved(self, update: int) -> float:
        """Return which share of their way the budgets have gone at `update`, in [0, 1]."""
        with blamed(f"{self.key}.budget", self.config.budget):
            moved = self.budget.moved(self.move.done(update, self.episode_share))
            if not 0 <= moved <= 1:
                raise ValueError(f"a share of the way must lie in [0, 1], not be {moved!r}")
        return moved

    def rewired(self, view: NetworkView, layer: int, fraction: float, last: bool) -> masks.Rewired:
        """Return the new mask of one layer."""
        with blamed(f"{self.key}.drop", self.config.drop):
            drop_score = checked(self.drop.drop(view, layer, fraction), view.masks[layer])
            count = self.drop.count(view, layer, fraction)
        with blamed(f"{self.key}.grow", self.config.grow):
            grow_score = checked(self.grow.grow(view, layer), view.masks[layer])
        target = None if view.targets is None else view.targets[layer]
        if target is not None and self.config.swap_of_growth:
            of_grown = self.config.swap_of_growth
            growth = (target - view.masks[layer].sum((-2, -1))).clamp(min=0)
            count = count + masks.whole_part(of_grown / (1 - of_grown), growth)
        if view.alive is not None:
            count = count * view.alive.unsqueeze(-1)
        old = view.masks[layer]
        inputs, outputs = old.shape[-2:]
        limit = layer_limit(self.config, inputs, outputs, layer, len(view.masks))
        found = masks.rewire(
            view.masks[layer],
            drop_score,
            grow_score,
            count,
            regrow_dropped=self.config.regrow_dropped,
            target=target,
            grow=not last,
            ties=view.ties and (view.ties("drop", layer), view.ties("grow", layer)),
            limit=limit,
        )
        if limit is None or view.alive is None:
            return found
        return found.only_for(view.alive, old)
