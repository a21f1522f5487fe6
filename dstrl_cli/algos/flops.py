"""Parameters and FLOPs of a run, by the formulas of SOK (Sokar et al. 2022) and RLX (RLx2,
Tan et al. 2023).

Only arithmetic on numbers of connections: no network is built and nothing is timed. Biases are
never counted. `A` and `C` are the FLOPs of one forward pass, for one sample, of the actor and of a
single critic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dstrl_cli.config.sizes import layer_weights
from dstrl_cli.registry import AlgorithmRow

BACKWARD = 2  # a backward pass costs two forward passes (RLX eq. 17)


def kept_weights(row: AlgorithmRow, actor: float, critic: float) -> float:
    """Return how many weights an agent keeps, targets included, for these sizes of its networks.

    It is RLX's model size (RLX Table 5).

    Args:
        row: the algorithm's.
        actor, critic: weights of the actor, and of a single critic.
    """
    return (1 + row.target_actor) * actor + 2 * row.critics * critic


def flops_per_sample(
    row: AlgorithmRow, a: float, c: float, *, policy_delay: int, nstep: int
) -> float:
    """Return the FLOPs of one training iteration on one sample, averaged over the policy delay.

    Critic update (RLX eqs. 15-18, 22-23): TD target, loss and backward pass of every critic.
    Actor update (eqs. 19-21, 24-26): loss, and a backward pass through the actor, every
    `policy_delay` iterations (eq. 13).

    Args:
        row: the algorithm's.
        a, c: FLOPs of one forward pass, for one sample, of the actor and of a single critic.
        policy_delay: critic updates per actor update.
        nstep: steps of the TD target.

    Raises ValueError where `policy_delay` or `nstep` is below 1.
    """
    if policy_delay < 1 or nstep < 1:
        raise ValueError(f"policy_delay = {policy_delay} and nstep = {nstep} must be at least 1")
    forwards = row.actor_forwards + row.actor_forwards_per_extra_step * (nstep - 1)
    critic_update = forwards * a + row.critics * (1 + 1 + BACKWARD) * c
    actor_update = (1 + BACKWARD) * a + row.critics_in_actor_loss * c
    return critic_update + actor_update / policy_delay


def weights(sizes: Sequence[int]) -> int:
    """Return the number of weights of a dense network, biases not counted."""
    return sum(layer_weights(sizes))


def forward_flops(active: Iterable[float]) -> float:
    """Return the FLOPs of a forward pass from the active connections of each layer.

    Two per connection, a multiplication and an addition: the form whose ratios the papers print.
    """
    return 2 * sum(active)


class ActiveCount:
    """The active connections of one role of one member, and their mean over its updates.

    They change at topology updates alone, so the sum over updates is kept up to the last change.

    Args:
        active: active connections before the first update.
    """

    STATE = ("active", "changed_at", "sum_until_then")

    def __init__(self, active: int) -> None:
        self.active = active
        self.changed_at, self.sum_until_then = 0, 0

    def change(self, update: int, active: int) -> None:
        """Note the connections that are active after `update`, counted from 1."""
        self.sum_until_then = self.sum_until(update)
        self.changed_at, self.active = update, active

    def sum_until(self, update: int) -> int:
        """Return the sum over all updates until `update`, itself included."""
        return self.sum_until_then + self.active * (update - self.changed_at)

    def state(self) -> dict[str, int]:
        """Return what `set_state` takes."""
        return {name: getattr(self, name) for name in self.STATE}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Take a state. Raises KeyError where it lacks anything."""
        for name in self.STATE:
            setattr(self, name, state[name])

    def mean(self, updates: int) -> float:
        """Return the mean over the first `updates` updates; before any, what is active now."""
        return self.sum_until(updates) / updates if updates else float(self.active)


@dataclass(frozen=True)
class Connections:
    """Connections of the actor, or of all critics together.

    Attributes:
        active: active ones at the end of the run.
        mean_active: active ones, averaged over the updates of the run.
        dense: those of the dense networks that the ratios compare with; 0: there is no network.
        inactive_gradients: inactive ones whose gradient was formed, summed over the updates that
            formed it.

    Raises ValueError where a number is negative, or active ones are none of the dense network's.
    """

    active: int
    mean_active: float
    dense: int
    inactive_gradients: float = 0

    @property
    def sparsity(self) -> float:
        """The realised sparsity at the end of the run; 0 where there is no network."""
        return 1 - self.active / self.dense if self.dense else 0.0

    def __post_init__(self) -> None:
        numbers = (self.active, self.mean_active, self.inactive_gradients, self.dense)
        if min(numbers) < 0 or self.active > self.dense == 0:
            raise ValueError(
                f"numbers of connections must not be negative, nor active ones be in no network: "
                f"{self}"
            )


def summary_numbers(
    row: AlgorithmRow,
    actor: Connections,
    critics: Connections,
    *,
    batch_size: int,
    updates: int,
    policy_delay: int,
    nstep: int,
) -> dict[str, dict[str, Any]]:
    """Return the blocks `sparsity`, `parameters` and `flops` of a run's summary.json.

    Sparsity, parameters and FLOPs of acting are those of the final policy. Training FLOPs are the
    sum over all updates, each with the connections that were active in it; since the formulas are
    linear in the connections, the mean number gives the exact sum. The ratio divides by as many
    updates of the dense algorithm with one-step targets, which reproduces RLX's SAC numbers (of a
    sparse agent with two-step targets); an untrained run has no ratio. `nstep` counts as if it were
    in force from the first update on.

    `train_total` and `train_ratio` are the papers' formulas, in which the gradient of a weight
    costs nothing where the weight is inactive. `train_total_full` and `train_ratio_full` add these
    gradients, which growing by gradient needs at each topology update: 2 FLOPs per inactive
    connection and sample, as the weights' half of a backward pass costs one forward pass.

    Args:
        row: the algorithm's.
        actor, critics: their connections.
        batch_size: samples per update.
        updates: critic updates of the run.
        policy_delay: critic updates per actor update.
        nstep: steps of the TD target.
    """
    count = max(row.critics, 1)  # an algorithm without critics has no connections of theirs
    a, c = forward_flops([actor.mean_active]), forward_flops([critics.mean_active / count])
    dense_critic = critics.dense // count
    dense_a, dense_c = forward_flops([actor.dense]), forward_flops([dense_critic])
    per_sample = flops_per_sample(row, a, c, policy_delay=policy_delay, nstep=nstep)
    of_dense = flops_per_sample(row, dense_a, dense_c, policy_delay=policy_delay, nstep=1)
    acting = forward_flops([actor.active])
    total = batch_size * updates * per_sample
    left_out = forward_flops([actor.inactive_gradients, critics.inactive_gradients])  # per sample
    return {
        "sparsity": {"actor": actor.sparsity}
        | ({"critic": critics.sparsity} if row.critics else {}),
        "parameters": {
            "sok_active": actor.active + critics.active,
            "sok_dense": actor.dense + critics.dense,
            # a critic's share: Bernoulli masks differ in size
            "rlx_active": int(kept_weights(row, actor.active, critics.active / count)),
            "rlx_dense": kept_weights(row, actor.dense, dense_critic),
        },
        "flops": {
            "train_total": total,
            "train_ratio": per_sample / of_dense if updates else None,
            "train_total_full": total + batch_size * left_out,
            "train_ratio_full": (per_sample + left_out / updates) / of_dense if updates else None,
            "test": acting,
            "test_ratio": acting / dense_a,
        },
    }
