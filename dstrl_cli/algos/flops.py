"""Parameters and FLOPs of a run, by the formulas of SOK (Sokar et al. 2022) and RLX (RLx2,
Tan et al. 2023).

Only arithmetic on layer sizes and active connections: no network is built and nothing is timed.
Biases are never counted. `A` and `C` are the FLOPs of one forward pass, for one sample, of the
actor and of a single critic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dstrl_cli.config.sizes import layer_weights
from dstrl_cli.errors import InputError, suggest

NUM_CRITICS = 2
BACKWARD = 2  # a backward pass costs two forward passes (RLX eq. 17)


@dataclass(frozen=True)
class AlgorithmCost:
    """What one training iteration of an algorithm computes (RLX App. C.3, Table 5).

    Attributes:
        actor_copies: actors kept, the target included.
        critic_copies: critics kept, the targets included.
        target_actor_forwards: actor passes for a one-step TD target.
        actor_forwards_per_extra_step: further actor passes for each step beyond the first.
        critics_in_actor_loss: critics that the actor's loss evaluates.
    """

    actor_copies: int
    critic_copies: int
    target_actor_forwards: int
    actor_forwards_per_extra_step: int
    critics_in_actor_loss: int

    def size(self, actor: float, critic: float) -> float:
        """Return all weights kept, targets included, of an actor and a critic of these sizes."""
        return self.actor_copies * actor + self.critic_copies * critic

    def flops_per_sample(self, a: float, c: float, policy_delay: int, nstep: int) -> float:
        """Return the FLOPs of one iteration on one sample, averaged over the policy delay.

        Critic update (RLX eqs. 15-18, 22-23): TD target, loss and backward pass of both critics.
        Actor update (eqs. 19-21, 24-26): loss, and a backward pass through the actor, every
        `policy_delay` iterations (eq. 13).
        """
        forwards = self.target_actor_forwards + self.actor_forwards_per_extra_step * (nstep - 1)
        critic_update = forwards * a + NUM_CRITICS * (1 + 1 + BACKWARD) * c
        actor_update = (1 + BACKWARD) * a + self.critics_in_actor_loss * c
        return critic_update + actor_update / policy_delay


COSTS: dict[str, AlgorithmCost] = {
    "td3": AlgorithmCost(
        actor_copies=2,
        critic_copies=4,
        target_actor_forwards=1,
        actor_forwards_per_extra_step=0,
        critics_in_actor_loss=1,
    ),
    # The entropy of every step of the n-step target needs its own pass of the actor (RLX eq. 11).
    "sac": AlgorithmCost(
        actor_copies=1,
        critic_copies=4,
        target_actor_forwards=1,
        actor_forwards_per_extra_step=1,
        critics_in_actor_loss=2,
    ),
}


def cost(algo: str) -> AlgorithmCost:
    """Return the cost formulas of `algo`; raises InputError for an unknown name."""
    try:
        return COSTS[algo]
    except KeyError:
        raise InputError(suggest("algorithm", algo, COSTS)) from None


def weights(sizes: Sequence[int]) -> int:
    """Return the number of weights of a dense network, biases not counted."""
    return sum(layer_weights(sizes))


def forward_flops(active: Iterable[float]) -> float:
    """Return the FLOPs of a forward pass from the active connections of each layer.

    Two per connection, a multiplication and an addition: the form whose ratios the papers print.
    """
    return 2 * sum(active)


def forward_flops_eq12(sizes: Sequence[int], sparsities: Sequence[float]) -> float:
    """Return the FLOPs of a forward pass as RLX eq. 12 has it: sum of (1 - S)(2I - 1)O."""
    return sum(
        (1 - sparsity) * (2 * inputs - 1) * outputs
        for (inputs, outputs), sparsity in zip(pairwise(sizes), sparsities, strict=True)
    )


def sok_size(actor: float, critic: float) -> float:
    """Return SOK's network size: the actor and two critics, without targets (SOK eq. 10)."""
    return actor + NUM_CRITICS * critic


def rlx_size(algo: str, actor: float, critic: float) -> float:
    """Return RLX's model size, targets included (RLX Table 5)."""
    return cost(algo).size(actor, critic)


def rlx_train_flops(
    algo: str, a: float, c: float, *, batch_size: int, updates: int, policy_delay: int, nstep: int
) -> float:
    """Return the FLOPs of `updates` training iterations (RLX App. C.3).

    TD3 with a policy delay of 2 costs 2.5 A + 8.5 C a sample, SAC (3 + n) A + 10 C. Topology
    changes, target updates and acting are left out as negligible, and n counts as if it held
    from the first update on.
    """
    per_sample = cost(algo).flops_per_sample(a, c, policy_delay, nstep)
    return batch_size * updates * per_sample


def sok_train_flops(
    a: float, c: float, *, batch_size: int, iterations: int, policy_delay: int = 2
) -> float:
    """Return the training FLOPs that SOK print: a forward and a backward pass of each network.

    TD targets and the actor's pass through the critic are not in their number.
    """
    passes = 1 + BACKWARD
    return batch_size * iterations * (passes * NUM_CRITICS * c + passes * a / policy_delay)


def summary_numbers(
    algo: str,
    actor_sizes: Sequence[int],
    critic_sizes: Sequence[int],
    actor_active: Sequence[int],
    critic_active: Sequence[Sequence[int]],
    batch_size: int,
    updates: int,
    policy_delay: int,
    nstep: int,
    dense_actor_sizes: Sequence[int],
    dense_critic_sizes: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """Return the `parameters` and `flops` blocks of a run's summary.json.

    Args:
        algo: name of the algorithm.
        actor_sizes: units of the actor from input to output (SAC: both heads in the output).
        critic_sizes: the same of one critic.
        actor_active: active connections of each layer of the actor.
        critic_active: active connections of each layer, of either critic.
        batch_size: samples per update.
        updates: critic updates of the run.
        policy_delay: critic updates per actor update.
        nstep: steps of the TD target.
        dense_actor_sizes: widths of the dense reference; they differ from the run's own where
            a dense network was made smaller.
        dense_critic_sizes: the same of one critic.

    The ratios are per iteration against the dense one-step reference: only so do RLX's SAC
    numbers, of a two-step sparse agent, come out.

    Raises ValueError where active connections do not fit their layers, InputError for an unknown
    algorithm.
    """
    _check_active("actor", actor_sizes, actor_active)
    for active in critic_active:
        _check_active("critic", critic_sizes, active)
    formulas = cost(algo)
    actor, critics = int(sum(actor_active)), sum(int(sum(active)) for active in critic_active)
    critic = critics / NUM_CRITICS  # Bernoulli masks differ in size
    dense_actor, dense_critic = weights(dense_actor_sizes), weights(dense_critic_sizes)
    a, c = forward_flops([actor]), forward_flops([critic])
    dense_a, dense_c = forward_flops([dense_actor]), forward_flops([dense_critic])
    per_sample = formulas.flops_per_sample(a, c, policy_delay, nstep)
    return {
        "parameters": {
            "sok_active": actor + critics,
            "sok_dense": sok_size(dense_actor, dense_critic),
            "rlx_active": int(formulas.size(actor, critic)),
            "rlx_dense": formulas.size(dense_actor, dense_critic),
        },
        "flops": {
            "train_total": batch_size * updates * per_sample,
            "train_ratio": per_sample
            / formulas.flops_per_sample(dense_a, dense_c, policy_delay, nstep=1),
            "test": a,
            "test_ratio": a / dense_a,
        },
    }


def _check_active(network: str, sizes: Sequence[int], active: Sequence[int]) -> None:
    room = layer_weights(sizes)
    fits = len(active) == len(room) and all(
        0 <= count <= most for count, most in zip(active, room, strict=True)
    )
    if not fits:
        raise ValueError(f"{network}: active connections {list(active)} do not fit layers {room}")
