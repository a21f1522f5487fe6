"""Parameters and FLOPs of a run, by the formulas of SOK (Sokar et al. 2022) and RLX (RLx2,
Tan et al. 2023).

Only arithmetic on layer sizes and active connections: no network is built and nothing is timed.
Biases are never counted. `A` and `C` are the FLOPs of one forward pass, for one sample, of the
actor and of a single critic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dstrl_cli.config.sizes import layer_weights
from dstrl_cli.registry import AlgorithmRow, algorithm

BACKWARD = 2  # a backward pass costs two forward passes (RLX eq. 17)


def kept_weights(row: AlgorithmRow, actor: float, critic: float) -> float:
    """Return all weights kept, targets included, of an actor and a critic of these sizes.

    RLX's model size (RLX Table 5).
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
    """
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
    row = algorithm(algo)
    actor, critics = int(sum(actor_active)), sum(int(sum(active)) for active in critic_active)
    critic = critics / row.critics  # Bernoulli masks differ in size
    dense_actor, dense_critic = weights(dense_actor_sizes), weights(dense_critic_sizes)
    a, c = forward_flops([actor]), forward_flops([critic])
    dense_a, dense_c = forward_flops([dense_actor]), forward_flops([dense_critic])
    per_sample = flops_per_sample(row, a, c, policy_delay=policy_delay, nstep=nstep)
    of_dense = flops_per_sample(row, dense_a, dense_c, policy_delay=policy_delay, nstep=1)
    return {
        "parameters": {
            "sok_active": actor + critics,
            "sok_dense": dense_actor + row.critics * dense_critic,
            "rlx_active": int(kept_weights(row, actor, critic)),
            "rlx_dense": kept_weights(row, dense_actor, dense_critic),
        },
        "flops": {
            "train_total": batch_size * updates * per_sample,
            "train_ratio": per_sample / of_dense,
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
