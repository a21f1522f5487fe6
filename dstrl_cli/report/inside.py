"""A look inside an agent: what its masks say of layers, neurons and inputs, and how they changed.

Reads the policy files, `topology.csv` and `neurons.csv` of one run. Biases are not connections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.errors import InputError
from dstrl_cli.report.layerfile import LayerRows, read_layers
from dstrl_cli.runs.checksums import check_policy
from dstrl_cli.runs.policy import INITIAL_FILE, find_policy, read
from dstrl_cli.runs.summary import read_summary

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]

STRONGEST = 10
"""Neurons whose share of a layer's connections is shown."""

HUB_SHARE, HUB_TIMES = 0.5, 4
"""A neuron is a hub that has this share of a layer's inputs, and so many times the mean."""


@dataclass(frozen=True)
class Layer:
    """One layer: its mask [in, out].

    `dormant` is how many of its neurons were dormant at the last evaluation; None: not known.
    """

    mask: Mask
    dormant: int | None = None

    @property
    def inputs(self) -> int:
        """Inputs of the layer."""
        return self.mask.shape[0]

    @property
    def outputs(self) -> int:
        """Neurons of the layer."""
        return self.mask.shape[1]

    @property
    def active(self) -> int:
        """Active connections."""
        return int(self.mask.sum())

    @property
    def possible(self) -> int:
        """Connections of the dense layer."""
        return self.mask.size

    @cached_property
    def fan_in(self) -> Counts:
        """Active connections into each neuron [out]."""
        return np.asarray(self.mask.sum(axis=0, dtype=np.int64))

    @cached_property
    def fan_out(self) -> Counts:
        """Active connections out of each input [in]."""
        return np.asarray(self.mask.sum(axis=1, dtype=np.int64))

    @property
    def strongest_share(self) -> float:
        """The share of its connections that the ten neurons with the largest fan-in hold."""
        return share_of_strongest(self.fan_in)

    @property
    def strongest_inputs_share(self) -> float:
        """The share that the ten inputs with the largest fan-out hold."""
        return share_of_strongest(self.fan_out)

    @property
    def hub(self) -> int | None:
        """The neuron with the largest fan-in, if it is a hub: far from what the layer has."""
        largest = int(self.fan_in.argmax())
        held = self.fan_in[largest]
        mean = self.active / self.outputs
        return largest if held >= max(HUB_SHARE * self.inputs, HUB_TIMES * mean) else None


def share_of_strongest(degrees: Counts) -> float:
    """Return the share of all connections that the ten largest degrees make up; 0 of none."""
    total = int(degrees.sum())
    return float(np.sort(degrees)[-STRONGEST:].sum() / total) if total else 0.0


@dataclass(frozen=True)
class Network:
    """One network: its layers at the end and, where they are known, at the start."""

    name: str
    layers: tuple[Layer, ...]
    first: tuple[Layer, ...] | None

    @property
    def active(self) -> int:
        """Active connections."""
        return sum(layer.active for layer in self.layers)

    @property
    def possible(self) -> int:
        """Connections of the dense network."""
        return sum(layer.possible for layer in self.layers)

    @property
    def flops(self) -> tuple[int, int]:
        """FLOPs of one forward pass of one sample, and those of the dense network."""
        return 2 * self.active, 2 * self.possible

    @property
    def kept(self) -> float | None:
        """The share of the connections at the end that were there at the start."""
        if self.first is None or not self.active:
            return None
        pairs = zip(self.first, self.layers, strict=True)
        return sum(int((a.mask & b.mask).sum()) for a, b in pairs) / self.active

    def without_input(self, layer: int) -> int:
        """Return how many neurons of a layer have no active input: their value is constant."""
        return int((self.layers[layer].fan_in == 0).sum())

    def without_output(self, layer: int) -> int:
        """Return how many neurons of a layer nothing depends on; 0 of the last layer."""
        if layer + 1 == len(self.layers):
            return 0
        return int((self.layers[layer + 1].fan_out == 0).sum())

    def dead(self, layer: int) -> int:
        """Return how many neurons of a layer lack an active input or output."""
        lacking = self.layers[layer].fan_in == 0
        if layer + 1 < len(self.layers):
            lacking = lacking | (self.layers[layer + 1].fan_out == 0)
        return int(lacking.sum())


@dataclass(frozen=True)
class Change:
    """The topology updates of one network.

    Attributes:
        steps: the environment step of each [T].
        active, dropped, grown: connections after it, and what it changed, over all layers [T].
    """

    steps: NDArray[np.float64]
    active: NDArray[np.float64]
    dropped: NDArray[np.float64]
    grown: NDArray[np.float64]

    @property
    def exchanged(self) -> NDArray[np.float64]:
        """The share of the network's connections that each update made new [T]."""
        return self.grown / np.maximum(self.active, 1)


@dataclass(frozen=True)
class Inside:
    """What is inside an agent.

    Attributes:
        path: the policy file.
        about: the metadata of the policy file: environment, algorithm, step.
        networks: actor and critics.
        changes: topology updates by network; of those that had any.
        summary: summary.json, or nothing.
        problems: what could not be used.
    """

    path: Path
    about: Mapping[str, str]
    networks: tuple[Network, ...]
    changes: Mapping[str, Change]
    summary: Mapping[str, Any]
    problems: tuple[str, ...]

    @property
    def observation_size(self) -> int:
        """Entries of an observation."""
        return self.networks[0].layers[0].inputs


def look(run: Path) -> Inside:
    """Look inside the agent of a run folder (at its last evaluation), or of a policy file.

    Raises InputError where there is no policy, or a damaged one.
    """
    file = find_policy(run)
    folder = file.parent
    summary = read_summary(folder) or {}
    check_policy(file, summary)
    tensors, about = read(file)
    problems: list[str] = []
    masks = read_masks(tensors, file)
    firsts = _first_masks(folder / INITIAL_FILE, masks, problems)

    def report(name: str, cause: str) -> None:
        problems.append(f"{name}: {cause}")

    step = float(about["step"]) if about.get("step", "").isdigit() else np.inf
    neurons = read_layers(folder / "neurons.csv", report)
    neurons = neurons.where(neurons["step"] <= step)
    networks = []
    for name, each in masks.items():
        layers = tuple(
            Layer(mask, _dormant(neurons, name, number, mask.shape[1]))
            for number, mask in enumerate(each)
        )
        first = firsts.get(name)
        networks.append(Network(name, layers, tuple(map(Layer, first)) if first else None))
    changes = topology_changes(read_layers(folder / "topology.csv", report), step)
    return Inside(file, about, tuple(networks), changes, summary, tuple(problems))


def read_masks(tensors: Mapping[str, NDArray[Any]], file: Path) -> dict[str, list[Mask]]:
    """Return the masks of each network's layers, the actor's first.

    Raises InputError where the layers of a network do not follow one another.
    """
    numbered: dict[str, dict[int, Mask]] = {}
    for name, tensor in tensors.items():
        network, kind, layer = (*name.split("."), "", "")[:3]
        if kind == "mask" and layer.isdigit():
            numbered.setdefault(network, {})[int(layer)] = tensor != 0
    masks = {
        name: [layers[number] for number in sorted(layers)]
        for name, layers in sorted(numbered.items(), key=lambda item: (item[0] != "actor", item[0]))
    }
    if "actor" not in masks:
        raise InputError(f"policy file {file} holds no actor (no tensor 'actor.mask.0')")
    for name, layers in masks.items():
        whole = sorted(numbered[name]) == list(range(len(layers)))
        flat = all(mask.ndim == 2 and mask.size for mask in layers)
        if not (whole and flat) or any(a.shape[1] != b.shape[0] for a, b in pairwise(layers)):
            raise InputError(f"policy file {file}: the masks of {name} are no layers of a network")
    return masks


def _first_masks(
    file: Path, masks: Mapping[str, Sequence[Mask]], problems: list[str]
) -> dict[str, list[Mask]]:
    """Return the masks at the start; nothing where the file is missing or of other networks."""
    if not file.is_file():
        problems.append(f"{file.name} is missing: how the masks began is not known")
        return {}
    try:
        first = read_masks(read(file)[0], file)
    except InputError as error:
        problems.append(str(error))
        return {}
    shapes = {name: [mask.shape for mask in layers] for name, layers in masks.items()}
    if {name: [mask.shape for mask in layers] for name, layers in first.items()} != shapes:
        problems.append(f"{file.name} holds other networks: not used")
        return {}
    return first


def _dormant(rows: LayerRows, network: str, layer: int, units: int) -> int | None:
    """Return how many of a layer's neurons were dormant, by the last row: it has their share."""
    own = rows.where((rows.network == network) & (rows["layer"] == layer))
    last = own["dormant"][-1:]
    return round(float(last[0]) * units) if len(last) and np.isfinite(last[0]) else None


def topology_changes(rows: LayerRows, until: float = np.inf) -> dict[str, Change]:
    """Return the topology updates of each network up to a step, summed over its layers."""
    found = {}
    for name in dict.fromkeys(rows.network.tolist()):
        own = rows.where((rows.network == name) & (rows["step"] <= until))
        if not len(own):
            continue
        # an update lists its layers in order; several may follow one another at one step
        further = (np.diff(own["layer"]) > 0) & (np.diff(own["step"]) == 0)
        where = np.concatenate([[0], np.cumsum(~further)])
        steps = own["step"][np.concatenate([[True], ~further])]

        def total(column: str, own: LayerRows = own, where: Any = where) -> NDArray[np.float64]:
            return np.bincount(where, weights=np.nan_to_num(own[column])).astype(np.float64)

        found[str(name)] = Change(steps, total("active"), total("dropped"), total("grown"))
    return found
