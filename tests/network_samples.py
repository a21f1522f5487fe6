"""Builders of networks, and of updates for them, that several tests share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from update_samples import finish_update

from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict
from dstrl_cli.nets.masked import MaskedNetwork
from dstrl_cli.nets.network import Network
from dstrl_cli.nets.plan import NetworkPlan

SIZES, ROWS = (5, 8, 7, 2), 6


def run(seed: int = 0, sparsity: float = 0.5, **keys: Any) -> RunConfig:
    """A run whose two networks share the keys `topology` and `initial_mask`."""
    network = {"sparsity": sparsity, "topology": keys.pop("topology", {})}
    network["initial_mask"] = keys.pop("initial_mask", "random")
    network["allocation"] = keys.pop("allocation", "uniform")
    network["dense"] = keys.pop("dense", False)
    network["initial_sparsity"] = keys.pop("initial_sparsity", None)
    base = {"algo": "td3", "method": "test", "env": "Any-v0", "seed": seed, "learning_rate": 1e-2}
    return from_dict(base | {"critic": network} | keys)


def dst(seed: int = 0, sparsity: float = 0.5, **topology: Any) -> RunConfig:
    rule = {"drop": "sign", "grow": "random", "schedule": "constant", "drop_fraction": 0.3}
    rule |= {"update_interval": 4} | topology
    return run(seed, sparsity, topology=rule, target_masking="magnitude_trim")


def rlx2(seed: int = 0, sparsity: float = 0.7, **keys: Any) -> RunConfig:
    rule = {"drop": "magnitude", "grow": "gradient", "schedule": "cosine", "update_interval": 5}
    base: dict[str, Any] = {"rewire": "instead_of_step", "target_masking": "online_mask"}
    base |= {"topology": rule, "initial_mask": "magnitude", "allocation": "erdos_renyi"}
    return run(seed, sparsity, **(base | keys))


def ours(seed: int = 0, sparsity: float = 0.6, **topology: Any) -> RunConfig:
    rule = {"drop": "importance", "grow": "importance", "schedule": "constant"}
    rule |= {"drop_fraction": 0.2, "update_interval": 3, "regrow_dropped": False} | topology
    return run(seed, sparsity, topology=rule, target_masking="magnitude_trim")


OFFICIAL_DST: dict[str, Any] = {
    "sign_split": "official",
    "grow_init": "adam_step",
    "update_offset": 2,
    "drop_fraction": 0.1,
}


def official_dst(**topology: Any) -> RunConfig:
    return dst(**(OFFICIAL_DST | topology)).model_copy(
        update={"gradients": "dense", "moments": "keep", "weight_decay": 1e-2}
    )


def build(*runs: RunConfig, heads: int = 2, sizes: tuple[int, ...] = SIZES) -> MaskedNetwork:
    return MaskedNetwork(NetworkPlan("critic", sizes, heads, runs, "cpu"))


class Data:
    """The same random inputs and regression targets for everyone who asks in the same order."""

    def __init__(self, members: int = 1, heads: int = 2, seed: int = 1) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.members, self.heads = members, heads

    def next(self) -> tuple[Tensor, Tensor]:
        """x [P, B, in] and y [P, K, B, out], the same for all members."""
        x = torch.randn(1, ROWS, SIZES[0], generator=self.generator)
        y = torch.randn(1, self.heads, ROWS, SIZES[-1], generator=self.generator)
        return x.expand(self.members, -1, -1), y.expand(self.members, -1, -1, -1)


def step(network: MaskedNetwork, data: Data, alive: Tensor | None = None) -> None:
    """One update towards the next targets, with the squared error's gradient."""
    x, y = data.next()
    error = network.forward(x) - y
    network.backward(2 * error)
    finish_update(network, alive, error.abs().sum((-2, -1)), ROWS)


def as_module(network: Network, head: int = 0) -> nn.Sequential:
    """One head of the first member, copied into ordinary torch modules."""
    layers: list[nn.Module] = []
    for weight, bias, _ in network.layers(0):
        linear = nn.Linear(weight.shape[1], weight.shape[2])
        with torch.no_grad():
            linear.weight.copy_(weight[head].T)
            linear.bias.copy_(bias[head])
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def soft_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    with torch.no_grad():
        for theirs, ours in zip(target.parameters(), source.parameters(), strict=True):
            theirs.mul_(1 - tau).add_(tau * ours)


def masks_of(network: MaskedNetwork) -> list[Tensor]:
    """Masks [P, K, in, out] per layer, bool, as copies."""
    return [mask > 0 for mask in network.mask.weights]


def copies(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


def moments(network: MaskedNetwork) -> list[list[Tensor]]:
    """First and second moments of the weights per layer, as views."""
    flat = type(network.params)
    adam = network.adam
    return [flat(moment, network.plan).weights for moment in (adam.first, adam.second)]


@dataclass(frozen=True)
class Event:
    """One topology update of one member: counts [K][L]."""

    member: int
    active: list[list[int]]
    dropped: list[list[int]]
    grown: list[list[int]]
    fraction: float


def take_events(network: Network) -> list[Event]:
    """The topology updates since the last call, member by member."""
    return [
        Event(member, active, dropped, grown, change.fraction)
        for change in network.take_changes()
        for member, active, dropped, grown, _ in change.by_member()
    ]
