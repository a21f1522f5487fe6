"""What `dstrl inspect` found, in tables and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from dstrl_cli.envs.observed import Names
from dstrl_cli.report.inside import STRONGEST, Change, Inside, Layer, Network
from dstrl_cli.report.words import counted

MOST, UNKNOWN = "most\nfan-in", "-"
BLOCKS = " ▁▂▃▄▅▆▇█"
WIDE = 76
"""Columns of a terminal from which FLOPs are shown beside parameters."""
MAX_INPUTS = 40
"""Inputs that are listed one by one; of more, those with the most and fewest connections."""
BAR = 20
SPARK = 24


def heading(found: Inside) -> Iterator[str]:
    """Yield what is looked at, and what stands out."""
    about = found.about
    step = about.get("step", "")
    where = f" of step {int(step):,}" if step.isdigit() else ""
    yield f"{about.get('algo', '?').upper()} agent{where} on {about.get('env', '?')}: {found.path}"
    for network in found.networks:
        for number, layer in enumerate(network.layers):
            if stands_out(layer):
                hub = int(layer.fan_in.argmax())
                yield (
                    f"hub: {network.name}, layer {number}: one neuron of {layer.outputs} "
                    f"(number {hub}) holds {layer.fan_in[hub]} of {layer.inputs} inputs; the "
                    f"median neuron has {np.median(layer.fan_in):.4g}"
                )


def layers_table(found: Inside, width: int) -> Table:
    """Return a row per layer: connections, degrees, the strongest neurons, dead neurons."""
    rows = [
        _layer_cells(network, number)
        for network in found.networks
        for number in range(len(network.layers))
    ]
    columns, shown = _fitting(rows, width), _table()
    for name in columns:
        justify: Any = "left" if name in (LAYER, DEGREES) else "right"
        shown.add_column(name, justify=justify, no_wrap=True)
    for row in rows:
        shown.add_row(*(row[name] for name in columns))
    return shown


LAYER, DENSITY, FAN_OUT, DORMANT = "layer", "of dense", "most\nfan-out", "dormant"
DEGREES = "fan-in 0, 1,\n2-3, 4-7, ..."
LESS_NEEDED = (DENSITY, FAN_OUT, DEGREES)
"""Columns that narrow terminals do not show, the first left out first."""


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)


def _fitting(rows: Sequence[Mapping[str, Text]], width: int) -> list[str]:
    """Return the columns that are known and fit the terminal."""
    known = any(row[DORMANT].plain != UNKNOWN for row in rows)
    columns = [name for name in rows[0] if known or name != DORMANT]
    for name in LESS_NEEDED:
        cells = [[*each.split("\n"), *(row[each].plain for row in rows)] for each in columns]
        if sum(2 + max(map(len, column)) for column in cells) <= width:
            break
        columns.remove(name)
    return columns


def _layer_cells(network: Network, number: int) -> dict[str, Text]:
    layer = network.layers[number]
    style = "bold yellow" if stands_out(layer) else ""
    cells = {
        LAYER: f"{network.name} {number}",
        "active": f"{layer.active:,}",
        DENSITY: f"{layer.active / layer.possible:.3g}",
        "fan-in\nmedian": f"{np.median(layer.fan_in):.4g}",
        MOST: f"{layer.fan_in.max()}/{layer.inputs}",
        FAN_OUT: f"{layer.fan_out.max()}/{layer.outputs}",
        f"top {STRONGEST}\nhold": f"{layer.strongest_share:.0%}",
        "dead": f"{network.dead(number)}/{layer.outputs}",
        DORMANT: UNKNOWN if layer.dormant is None else str(layer.dormant),
        DEGREES: histogram(layer),
    }
    return {name: Text(cell, style if name == MOST else "") for name, cell in cells.items()}


def stands_out(layer: Layer) -> bool:
    """Whether a layer has a hub, and is so sparse that this is remarkable."""
    return layer.hub is not None and layer.active < layer.possible / 2


def histogram(layer: Layer) -> str:
    """Return how many neurons have a fan-in of 0, 1, 2-3, 4-7, ... as a row of blocks."""
    counts = degree_counts(layer)
    return bars([float(count) ** 0.5 for count in counts])  # the root shows a single hub, too


def degree_counts(layer: Layer) -> list[int]:
    """Return how many neurons have a fan-in of 0, of 1, of 2-3, of 4-7, and so on."""
    highest = int(layer.fan_in.max())
    edges = [0, 1]
    while edges[-1] <= highest:
        edges.append(edges[-1] * 2)
    return [int(n) for n in np.histogram(layer.fan_in, [*edges[:-1], edges[-1] - 0.5])[0]]


def bars(values: Sequence[float]) -> str:
    """Return a row of blocks, the largest value whole; what is not zero is seen."""
    top = max([*values, 0.0])
    if top <= 0:
        return BLOCKS[1] * len(values)
    return "".join(
        BLOCKS[max(1, round(value / top * 8))] if value > 0 else BLOCKS[0] for value in values
    )


def size_table(found: Inside, width: int) -> Table:
    """Return connections and FLOPs of a forward pass beside the dense networks."""
    shown = _table()
    shown.add_column("network", no_wrap=True)
    wide = width >= WIDE
    flops = ["FLOPs", "dense"] if wide else []
    for name in ("parameters", "dense", *flops, "ratio", "kept since\nthe start"):
        shown.add_column(name, justify="right", no_wrap=True)
    for network in found.networks:
        kept = "-" if network.kept is None else f"{network.kept:.0%}"
        numbers = [network.active, network.possible, *(network.flops if wide else ())]
        ratio = f"{network.active / network.possible:.3g}"
        shown.add_row(Text(network.name), *(f"{each:,}" for each in numbers), ratio, kept)
    return shown


def training_lines(found: Inside) -> Iterator[str]:
    """Yield the training FLOPs against dense, where the run's summary has them."""
    flops = found.summary.get("flops")
    if isinstance(flops, Mapping):
        total, ratio = flops.get("train_total"), flops.get("train_ratio")
        if isinstance(total, int | float) and isinstance(ratio, int | float):
            yield f"training: {total:.3g} FLOPs, {ratio:.3g} of dense"


def change_lines(found: Inside) -> Iterator[str]:
    """Yield how the topology changed over time, a line per network."""
    if not found.changes:
        yield "topology: never changed, as far as is logged"
    for name, change in found.changes.items():
        share = change.exchanged
        yield (
            f"topology of {name}: {len(share)} updates, step {change.steps[0]:,.0f} to "
            f"{change.steps[-1]:,.0f}; {int(change.grown.sum()):,} connections grown, "
            f"{share.sum():.3g} times all of them; share made new by an update "
            f"{share[0]:.1%} to {share[-1]:.1%} {bars(thinned(change))}"
        )


def thinned(change: Change) -> list[float]:
    """Return the shares of connections made new, at most `SPARK` means over time."""
    share = change.exchanged
    return [float(part.mean()) for part in np.array_split(share, min(SPARK, len(share)))]


# --- inputs -------------------------------------------------------------------------------------


def input_names(known: Names, observations: int, actions: int) -> list[str]:
    """Return the names of the inputs of critics, of which the actor has the first.

    Unknown ones are x0, x1, ... and action 0, action 1, ... So are all observations where the agent
    has others than the environment: features of noise, or those of another version.
    """
    first = known.observations
    if first is None or len(first) != observations:
        first = [f"x{number}" for number in range(observations)]
    return [*first, *(f"action {name}" for name in known.actions or range(actions))]


def inputs_table(found: Inside, names: Sequence[str], width: int) -> Table:
    """Return the connections of every input of the networks (RLX Fig. 10)."""
    shown = _table()
    shown.add_column("input", overflow="fold")
    for network in found.networks:
        shown.add_column(network.name, justify="right")
    counts = input_counts(found, len(names))
    wide = width >= 60
    if wide:
        shown.add_column("all networks", no_wrap=True)
    totals = counts.sum(axis=1)
    for number in listed(totals):
        if number is None:
            shown.add_row(*["..."] * (1 + len(found.networks)))
            continue
        cells = [Text(names[number])]
        cells += [
            Text("" if number >= network.layers[0].inputs else str(counts[number, column]))
            for column, network in enumerate(found.networks)
        ]
        if wide:
            cells.append(Text("█" * round(BAR * totals[number] / max(1, totals.max()))))
        shown.add_row(*cells)
    return shown


def input_counts(found: Inside, inputs: int) -> np.ndarray:
    """Return the connections of each input in each network [inputs, networks]."""
    counts = np.zeros((inputs, len(found.networks)), dtype=np.int64)
    for column, network in enumerate(found.networks):
        degrees = network.layers[0].fan_out
        counts[: len(degrees), column] = degrees
    return counts


def listed(totals: np.ndarray) -> list[int | None]:
    """Return the inputs to list, None for a gap: all, or those with the most and the fewest."""
    if len(totals) <= MAX_INPUTS:
        return list(range(len(totals)))
    ordered = [int(each) for each in np.argsort(-totals, kind="stable")]
    half = MAX_INPUTS // 2
    return [*ordered[:half], None, *ordered[-half:]]


def unread_lines(found: Inside, names: Sequence[str]) -> Iterator[str]:
    """Yield the inputs that no connection of a network reads."""
    for network in found.networks:
        unread = [names[k] for k in np.flatnonzero(network.layers[0].fan_out == 0).tolist()]
        if unread:
            some = ", ".join(unread[:6]) + (", ..." if len(unread) > 6 else "")
            have = "has" if len(unread) == 1 else "have"
            yield f"{network.name}: {counted(len(unread), 'input')} {have} no connection ({some})"


# --- for programs -------------------------------------------------------------------------------


def as_json(found: Inside, names: Sequence[str]) -> dict[str, Any]:
    """Return everything as JSON; degrees are those of each neuron and input in order."""
    return {
        "policy": str(found.path),
        "about": dict(found.about),
        "networks": {network.name: _network_json(network, names) for network in found.networks},
        "topology": {name: _change_json(change) for name, change in found.changes.items()},
        "flops": found.summary.get("flops"),
        "parameters": found.summary.get("parameters"),
        "problems": list(found.problems),
    }


def _network_json(network: Network, names: Sequence[str]) -> dict[str, Any]:
    flops, dense = network.flops
    degrees = network.layers[0].fan_out.tolist()
    return {
        "active": network.active,
        "dense": network.possible,
        "flops": flops,
        "dense_flops": dense,
        "kept_since_start": network.kept,
        "inputs": [
            {"name": name, "connections": degree}
            for name, degree in zip(names, degrees, strict=False)
        ],
        "layers": [_layer_json(network, number) for number in range(len(network.layers))],
    }


def _layer_json(network: Network, number: int) -> dict[str, Any]:
    layer = network.layers[number]
    return {
        "inputs": layer.inputs,
        "outputs": layer.outputs,
        "active": layer.active,
        "max_fan_in": int(layer.fan_in.max()),
        "max_fan_out": int(layer.fan_out.max()),
        "top_ten_share_in": layer.strongest_share,
        "top_ten_share_out": layer.strongest_inputs_share,
        "no_input": network.without_input(number),
        "no_output": network.without_output(number),
        "dead": network.dead(number),
        "dormant": layer.dormant,
        "hub": layer.hub,
        "fan_in": layer.fan_in.tolist(),
        "fan_out": layer.fan_out.tolist(),
    }


def _change_json(change: Change) -> dict[str, Any]:
    return {
        "steps": change.steps.astype(int).tolist(),
        "active": change.active.astype(int).tolist(),
        "dropped": change.dropped.astype(int).tolist(),
        "grown": change.grown.astype(int).tolist(),
    }
