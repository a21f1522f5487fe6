"""Small members of every method, without an environment, and batches for their updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from update_samples import take_update

from dstrl_cli.algos.base import Algorithm
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict
from dstrl_cli.registry import ALGORITHMS, load
from dstrl_cli.replay.base import Replay, Transition
from dstrl_cli.replay.batch import Batch
from dstrl_cli.replay.paired import PairedReplay

OBS, ACT, ROWS = 5, 2, 16
UPDATES = 12

SET = {"drop": "sign", "grow": "random", "schedule": "constant", "drop_fraction": 0.3}
RIGL = {"drop": "magnitude", "grow": "gradient", "schedule": "cosine", "drop_fraction": 0.5}
XU = {"drop": "importance", "grow": "importance", "schedule": "constant", "drop_fraction": 0.2}

METHODS: dict[str, dict[str, Any]] = {
    "dense": {"actor.dense": True, "critic.dense": True},
    "sst": {},
    "dst": {"actor": SET, "critic": SET, "target_masking": "magnitude_trim"},
    "our-dst": {"actor": SET, "critic": XU, "target_masking": "magnitude_trim"},
    "rlx2": {
        "actor": RIGL,
        "critic": RIGL,
        "target_masking": "online_mask",
        "rewire": "instead_of_step",
        "initial_mask": "magnitude",
        "nstep": 3,
    },
    "our-rlx2": {
        "actor": RIGL,
        "critic": XU | {"accumulate": "critic_update"},
        "target_masking": "online_mask",
        "rewire": "instead_of_step",
        "nstep": 2,
    },
    "dst-official": {
        "actor": SET | {"grow_init": "adam_step", "sign_split": "official", "update_offset": 1},
        "critic": SET | {"grow_init": "adam_step", "sign_split": "official", "update_offset": 2},
        "target_masking": "magnitude_trim",
        "initial_mask": "bernoulli",
        "gradients": "dense",
        "moments": "keep",
    },
}
SPARSITIES = dict(zip(METHODS, (0.0, 0.8, 0.5, 0.6, 0.7, 0.4, 0.5), strict=True))


def member(algo: str, method: str, seed: int, intervals: tuple[int, int] = (2, 4)) -> RunConfig:
    """A small run; `intervals` are those of the actor's and the critics' topology updates."""
    keys = dict(METHODS[method])
    initial_mask = keys.pop("initial_mask", "random")
    networks = {}
    for role, interval in zip(("actor", "critic"), intervals, strict=True):
        networks[role] = {
            "sparsity": SPARSITIES[method],
            "allocation": "uniform",
            "initial_mask": initial_mask,
            "dense": keys.pop(f"{role}.dense", False),
            "topology": keys.pop(role, {}) | {"update_interval": interval},
        }
    base = {
        "algo": algo,
        "method": method,
        "env": "Any-v0",
        "seed": seed,
        "batch_size": ROWS,
        "hidden_sizes": [12, 10],
        "learning_rate": 3e-3,
        "policy_delay": 2 if algo == "td3" else 1,
    }
    return from_dict(base | networks | keys)


def population(algo: str) -> list[RunConfig]:
    return [member(algo, method, seed) for seed, method in enumerate(METHODS)]


def build(runs: Sequence[RunConfig]) -> Algorithm:
    built: Algorithm = load(ALGORITHMS, runs[0].algo)(runs, OBS, ACT)
    return built


def replay_of(runs: Sequence[RunConfig], steps: int = 120) -> Replay:
    """Every member's own transitions, by its seed."""
    replay: Replay = PairedReplay(len(runs), 100, OBS, ACT, 0.99)
    sources = [torch.Generator().manual_seed(run.seed) for run in runs]
    for _ in range(steps):
        drawn = torch.stack([torch.randn(2 * OBS + ACT + 2, generator=g) for g in sources])
        observation, following, action, rest = drawn.split((OBS, OBS, ACT, 2), dim=-1)
        ended = rest[:, 1] > 1.2
        replay.add(
            Transition(
                observation, action.tanh(), rest[:, 0], following, ended & (rest[:, 0] > 0), ended
            )
        )
    return replay


def batches(runs: Sequence[RunConfig], count: int = UPDATES) -> list[Batch]:
    """n-step from the fifth update on, by each member's own numbers."""
    replay = replay_of(runs)
    sources = [torch.Generator().manual_seed(100 + run.seed) for run in runs]
    found = []
    for number in range(count):
        numbers = torch.stack([torch.rand(ROWS, generator=g, dtype=torch.float64) for g in sources])
        n = [run.nstep if number >= 4 else 1 for run in runs]
        found.append(replay.sample(numbers, torch.tensor(n).unsqueeze(1), max(n)))
    return found


def state(algorithm: Algorithm, index: int) -> list[Tensor]:
    """Weights, biases and masks of one member, as copies."""
    networks = (algorithm.actor, algorithm.critic)
    return [
        part.clone() for network in networks for layer in network.layers(index) for part in layer
    ]


def targets(algorithm: Algorithm, index: int) -> Tensor:
    """What one member's target critics say of fixed inputs."""
    x = torch.linspace(-1, 1, 4 * (OBS + ACT)).view(1, 4, -1)
    return algorithm.critic.target(x.expand(len(algorithm.configs), -1, -1))[index].clone()


def train(algorithm: Algorithm, sequence: Sequence[Batch]) -> None:
    with torch.no_grad():
        for batch in sequence:
            take_update(algorithm, batch)
