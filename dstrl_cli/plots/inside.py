"""Pictures of an agent: masks at start and end (RLX Fig. 11), inputs (Fig. 10), degrees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dstrl_cli.plots import canvas
from dstrl_cli.plots.canvas import DASHES, plain
from dstrl_cli.plots.request import Drawing
from dstrl_cli.report.inside import Inside, Layer, Network

START, END = "#999999", "#0072B2"
INPUT_WIDTH = 0.16
"""Inches of one input's bar."""
MAX_LABELS = 120
"""Inputs that have their names below the picture; more have numbers on an axis."""


def draw_inside(found: Inside, names: Sequence[str], out: Path) -> list[Path]:
    """Write the pictures of an agent to a folder; return their files."""
    written = []
    with canvas.settings():
        drawings = [*map(masks, found.networks), inputs(found, names), *degrees(found)]
        out.mkdir(parents=True, exist_ok=True)
        for drawing in drawings:
            path = out / f"{drawing.name}.png"
            canvas.save(drawing.figure, path)
            written.append(path)
    return written


def masks(network: Network) -> Drawing:
    """Return the masks of a network, black where a connection is: a row per layer."""
    from matplotlib.ticker import MaxNLocator

    both = [("start", network.first), ("end", network.layers)]
    columns = [(words, layers) for words, layers in both if layers is not None]
    heights = [_height(layer) for layer in network.layers]
    figure, axes = canvas.sheet(
        len(network.layers), len(columns), sum(heights) / len(heights) + 0.65, height_ratios=heights
    )
    for number, row in enumerate(axes):
        for axis, (words, layers) in zip(row, columns, strict=True):
            layer = layers[number]
            axis.imshow(
                shown(layer), cmap="Greys", interpolation="nearest", aspect="auto", vmin=0, vmax=1
            )
            count = f"{layer.active:,} of {layer.possible:,}"
            axis.set_title(f"layer {number}, {words}: {count}", fontsize="small")
            across, down = _sides(layer)
            axis.set_xlabel(across, fontsize="x-small")
            axis.set_ylabel(down, fontsize="x-small")
            bins = max(1, int(4 * _height(layer) / HEIGHT))
            axis.yaxis.set_major_locator(MaxNLocator(bins, integer=True, min_n_ticks=1))
            axis.grid(visible=False)
    figure.suptitle(plain(network.name))
    return Drawing(f"masks-{network.name}", figure)


HEIGHT = 2.7
"""Inches of a square layer."""


def _height(layer: Layer) -> float:
    """Return the inches that a layer is drawn high: as its shape is, but always to be seen."""
    high, wide = shown(layer).shape
    return HEIGHT * max(0.12, high / wide)


def _lies(layer: Layer) -> bool:
    """Whether a layer is drawn with its inputs along the longer, lower side."""
    return layer.inputs > layer.outputs


def shown(layer: Layer) -> np.ndarray:
    """Return a mask as it is drawn: its longer side lies."""
    return layer.mask.T if _lies(layer) else layer.mask


def _sides(layer: Layer) -> tuple[str, str]:
    return ("inputs", "neurons") if _lies(layer) else ("neurons", "inputs")


def inputs(found: Inside, names: Sequence[str]) -> Drawing:
    """Return the connections of every input: a row per network, at the start and at the end."""
    most = max(network.layers[0].inputs for network in found.networks)
    figure, axes = canvas.sheet(len(found.networks), 1, 1.7)
    width = min(16.0, max(4.5, INPUT_WIDTH * most + 1.2))
    room = 1.6 if most <= MAX_LABELS else 0.4
    figure.set_size_inches(width, 1.7 * len(found.networks) + room + 0.6)
    for (axis,), network in zip(axes, found.networks, strict=True):
        end = network.layers[0].fan_out
        at = np.arange(len(end))
        axis.bar(at, end, 0.8, color=END, label="end")
        if network.first is not None:
            start = network.first[0].fan_out
            axis.plot(at, start, "_", color="black", markersize=7, label="start")
        axis.set_title(f"{plain(network.name)}: connections of each input", fontsize="small")
        axis.set_xlim(-0.8, most - 0.2)
        axis.grid(axis="x", visible=False)
        if most <= MAX_LABELS:
            axis.set_xticks(range(most), [""] * most)
    if most <= MAX_LABELS:
        labels = [plain(name) for name in names[:most]]
        axes[-1][0].set_xticks(range(most), labels, rotation=90, fontsize="x-small")
    canvas.legend(figure, [line[0] for line in axes])
    return Drawing("inputs", figure)


def degrees(found: Inside) -> Iterator[Drawing]:
    """Yield a figure of fan-in: the neurons of each layer from the strongest to the weakest."""
    layers = max(len(network.layers) for network in found.networks)
    figure, axes = canvas.sheet(len(found.networks), layers, 1.9)
    for row, network in zip(axes, found.networks, strict=True):
        for number, axis in enumerate(row):
            if number >= len(network.layers):
                axis.remove()
                continue
            if network.first is not None:
                _ranked(axis, network.first[number], START, DASHES[1], "start")
            _ranked(axis, network.layers[number], END, "-", "end")
            layer = network.layers[number]
            axis.set_title(f"{plain(network.name)}, layer {number}", fontsize="small")
            axis.set_ylim(-0.03 * layer.inputs, 1.03 * layer.inputs)
            axis.set_xlabel("neurons by fan-in", fontsize="small")
            axis.locator_params(axis="both", integer=True)
            if layer.outputs == 1:
                axis.set_xticks([1])
        row[0].set_ylabel("inputs held", fontsize="small")
    canvas.legend(figure, [axis for row in axes for axis in row if axis.figure])
    yield Drawing("fan-in", figure)


def _ranked(axis, layer: Layer, color: str, dashes, label: str) -> None:  # type: ignore[no-untyped-def]
    ranked = np.sort(layer.fan_in)[::-1]
    marker = ("_" if label == "start" else "o") if len(ranked) == 1 else ""
    axis.plot(
        np.arange(1, len(ranked) + 1),
        ranked,
        color=color,
        linestyle=dashes,
        marker=marker,
        markersize=12 if marker == "_" else 6,
        label=label,
    )
