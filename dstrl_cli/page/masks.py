"""Masks of trained agents as small pictures, one agent of each line and environment."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from dstrl_cli.errors import InputError
from dstrl_cli.page.gather import Chapter
from dstrl_cli.page.html import Markup, element, joined
from dstrl_cli.plots.inside import shown
from dstrl_cli.report.inside import Inside, Layer, Network, look
from dstrl_cli.report.runs import LoggedRun
from dstrl_cli.report.table import DENSE
from dstrl_cli.report.tables import method_labels
from dstrl_cli.report.words import counted
from dstrl_cli.runs.policy import POLICY_FILE

MOST_BYTES = 1_500_000
"""Of the pictures of a page; agents beyond it are named only."""

LARGEST, LEAST, CELL = 256, 8, 5
"""Pixels of the longer side of a picture; least of the shorter one; most of a connection."""


class Budget:
    """Bytes that are left for the pictures of a page."""

    def __init__(self) -> None:
        self.left = MOST_BYTES


def masks(chapter: Chapter, budget: Budget) -> Markup | None:
    """Return the masks of the first seed of each sparse line; None where there are no policies."""
    labels = method_labels(chapter.runs)
    blocks: list[Markup] = []
    left_out: list[str] = []
    for run in _chosen(chapter):
        try:
            found = look(chapter.folder(run))
        except InputError as error:
            blocks.append(element("p", f"{run.path}: {error}", class_="bad"))
            continue
        who = run.identity
        task = f", task {who.task}" if who.task else ""
        name = f"{who.algo.upper()} {labels[who.method].label} {who.sparsity}"
        heading = f"{name}, {who.env}{task}, seed {who.seed}"
        block = _agent(found, heading, first=not blocks)
        if len(block) > budget.left:
            left_out.append(heading)
            continue
        budget.left -= len(block)
        blocks.append(block)
    if left_out:
        said = f"not drawn, since the page would grow too large: {'; '.join(left_out)}"
        blocks.append(element("p", said, class_="about"))
    return joined(blocks) if blocks else None


def _chosen(chapter: Chapter) -> Iterator[LoggedRun]:
    """Yield one run of each line and environment that has a policy: a finished one if any is."""
    seen = set()
    for run in sorted(chapter.runs, key=lambda run: not run.finished):
        who = run.identity
        key = (who.algo, who.method, who.sparsity, who.env)
        there = (chapter.folder(run) / POLICY_FILE).is_file()
        if there and who.sparsity != DENSE and key not in seen:
            seen.add(key)
            yield run


def _agent(found: Inside, heading: str, first: bool) -> Markup:
    """Return the masks of one agent: a row for each network, black where a connection is.

    Only those of the `first` agent are seen before they are asked for.
    """
    rows = [_network(network) for network in found.networks]
    return element("details", element("summary", heading), *rows, class_="agent", open=first)


def _network(network: Network) -> Markup:
    share = network.active / network.possible
    kept = "" if network.kept is None else f"; {network.kept:.0%} of them were there at the start"
    said = f"{network.name}: {network.active:,} of {network.possible:,} connections ({share:.1%})"
    pictures = []
    for number, layer in enumerate(network.layers):
        dead = network.dead(number)
        words = f"layer {number}: {layer.active:,} of {layer.possible:,}"
        words += f"; {counted(dead, 'neuron')} without input or output" if dead else ""
        ends = [("end", layer)]
        if network.first is not None and network.first[number].active < layer.possible:
            ends.insert(0, ("start", network.first[number]))
        images = [_picture(each, f"{network.name}, {words}, at the {when}") for when, each in ends]
        when = " (start, end)" if len(ends) > 1 else ""
        pictures.append(element("figure", *images, element("figcaption", words + when)))
    return element("div", element("p", said + kept), element("div", *pictures, class_="masks"))


def _picture(layer: Layer, words: str) -> Markup:
    mask = shown(layer)
    high, wide = mask.shape
    scale = min(CELL, LARGEST / max(high, wide))
    data = base64.b64encode(png(mask)).decode()
    return element(
        "img",
        src=f"data:image/png;base64,{data}",
        alt=words,
        title=words,
        width=max(LEAST, round(wide * scale)),
        height=max(LEAST, round(high * scale)),
        class_="mask",
    )


def png(mask: np.ndarray) -> bytes:
    """Return a picture of one bit a pixel, black where the mask [rows, columns] holds."""
    high, wide = mask.shape
    rows = np.packbits(~mask.astype(bool), axis=1)
    lines = np.concatenate([np.zeros((high, 1), np.uint8), rows], axis=1)  # filter: none
    header = struct.pack(">IIBBBBB", wide, high, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
