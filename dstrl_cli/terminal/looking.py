"""The commands that look at runs without a table: `plot` and `inspect`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dstrl_cli.config.ranges import parse_names
from dstrl_cli.errors import DstrlError
from dstrl_cli.plots import canvas
from dstrl_cli.report import inside
from dstrl_cli.runs.folder import check_writable
from dstrl_cli.terminal import describe, inspected
from dstrl_cli.terminal.screen import screen
from dstrl_cli.terminal.streams import emit


@dataclass(frozen=True)
class PlotRequest:
    """The options of `dstrl plot` as they were given; None leaves a choice to the runs."""

    kinds: str | None
    formats: str | None
    metric: str | None
    center: str
    normalize: str | None
    targets: Sequence[str]


def plot(results: Path, out: Path, request: PlotRequest, as_json: bool) -> None:
    """Draw the runs in a folder, and say which files were written and what was left out."""
    from dstrl_cli.plots.plotting import Options, plot_results
    from dstrl_cli.plots.targets import parse_targets

    options = Options(
        metric=request.metric,
        center=request.center,
        normalize=request.normalize,
        targets=parse_targets(request.targets),
    )
    if request.kinds is not None:
        options = replace(options, kinds=parse_names(request.kinds, "--kind"))
    if request.formats is not None:
        options = replace(options, formats=parse_names(request.formats, "--format"))
    done = plot_results(results, out, options)
    if as_json:
        left_out, notes = dict(done.left_out), list(done.notes)
        _print_json({"files": list(map(str, done.files)), "left_out": left_out, "notes": notes})
        return
    lines = [str(path) for path in done.files]
    lines += [
        f"no figure of kind {name}: it takes {needs}" for name, needs in done.left_out.items()
    ]
    describe.print_lines(screen(), [*lines, *done.notes])


def inspect(run: Path, out: Path | None, as_json: bool) -> None:
    """Print what is inside the agent of a run, and draw it where a folder is given."""
    if out is not None:
        canvas.check_installed("--out")
        check_writable(out)
    found = inside.look(run)
    names = _input_names(found)
    files: list[Path] = []
    if out is not None:
        from dstrl_cli.plots.inside import draw_inside

        files = draw_inside(found, names, out)
    if as_json:
        _print_json(inspected.as_json(found, names) | {"files": list(map(str, files))})
        return
    console = screen()
    describe.print_lines(console, inspected.heading(found))
    console.print(inspected.layers_table(found, console.width))
    console.print(inspected.size_table(found, console.width))
    lines = [*inspected.training_lines(found), *inspected.change_lines(found)]
    describe.print_lines(console, lines)
    console.print(inspected.inputs_table(found, names, console.width))
    lines = [*inspected.unread_lines(found, names), *(f"note: {each}" for each in found.problems)]
    describe.print_lines(console, [*lines, *map(str, files)])


def _input_names(found: inside.Inside) -> list[str]:
    """Return what the inputs of an agent's networks are: x0, x1, ... where that is not known."""
    from dstrl_cli import envs
    from dstrl_cli.envs.observed import Names, entry_names
    from dstrl_cli.runs.policy import Policy

    policy = Policy.load(found.path)
    known = Names(None, None)
    with suppress(DstrlError):  # an environment that is not installed here
        kwargs, flatten = policy.env_kwargs, policy.env_flatten
        known = entry_names(envs.spec(policy.env, policy.task or 0, kwargs, flatten=flatten))
    return inspected.input_names(known, policy.observation_size, policy.action_size)


def _print_json(document: Mapping[str, Any]) -> None:
    emit(json.dumps(document, indent=2))
