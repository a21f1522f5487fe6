"""Exports a policy file in one of the formats, and says what it costs beside a dense policy."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dstrl_cli.config.printable import printable
from dstrl_cli.errors import InputError, suggest
from dstrl_cli.export import c_code, clocks, npz, onnx_graph
from dstrl_cli.export.clocks import Clock, NotMeasured
from dstrl_cli.export.cost import Cost, dense_cost
from dstrl_cli.export.network import Network, check_overflow, dense_like, needed_part
from dstrl_cli.runs.checksums import check_policy
from dstrl_cli.runs.files import check_output, write
from dstrl_cli.runs.policy import Policy, find_policy
from dstrl_cli.runs.summary import read_summary

About = Mapping[str, str]


@dataclass(frozen=True)
class Format:
    """One format: the files that `--out` names, their content, the cost and the clock.

    Attributes:
        paths: from what `--out` names to the files that are written.
        files: their content, from the network, `--out` and what is known of the policy.
        cost: what one action costs.
        clock: times one action of each of several networks.
        check: raises InputError where something is missing that the format needs.
    """

    paths: Callable[[Path], list[Path]]
    files: Callable[[Network, Path, About], dict[Path, bytes]]
    cost: Callable[[Network], Cost]
    clock: Clock
    check: Callable[[], None] = lambda: None


FORMATS = {
    "onnx": Format(
        lambda out: [out],
        lambda network, out, about: {out: onnx_graph.model(network, about)},
        dense_cost,
        clocks.onnx_clock,
        onnx_graph.check_packages,
    ),
    "npz": Format(
        lambda out: [out],
        lambda network, out, about: {out: npz.content(network, about)},
        dense_cost,
        clocks.numpy_clock,
    ),
    "c": Format(
        c_code.paths,
        lambda network, out, about: c_code.files(
            network, out, [f"{key}: {value}" for key, value in about.items()]
        ),
        c_code.cost,
        clocks.c_clock,
    ),
}


@dataclass(frozen=True)
class Described:
    """A network in numbers.

    Attributes:
        hidden_sizes: neurons of its hidden layers.
        connections: its active connections.
        cost: what one action costs.
        seconds: processor time of one action on this machine, None where it was not measured.
    """

    hidden_sizes: list[int]
    connections: int
    cost: Cost
    seconds: float | None


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        format: name of the format.
        about: what is known of the policy.
        files: bytes of each file that was written.
        policy: what was exported.
        dense: a dense policy of the same sizes, written in the same way.
        no_output: hidden neurons left out because nothing depends on them.
        no_input: hidden neurons left out because they are constant.
        not_measured: why there are no times, if there are none.
    """

    format: str
    about: About
    files: Mapping[Path, int]
    policy: Described
    dense: Described
    no_output: int
    no_input: int
    not_measured: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the same for programs."""
        return asdict(self) | {"files": {str(path): size for path, size in self.files.items()}}


def export(run: Path, format_: str, out: Path, overwrite: bool = False) -> Exported:
    """Write the policy of a run, or a policy file, to the file or files that `out` names.

    Raises:
        InputError: before anything is written: a policy that cannot be read or overflows, an
            unknown format, a missing package, a file that exists or cannot be written.
        DstrlError: a file cannot be written after all.
    """
    if format_ not in FORMATS:
        raise InputError(suggest("--format", format_, FORMATS))
    chosen = FORMATS[format_]
    file = find_policy(run)
    check_policy(file, read_summary(file.parent) or {})
    policy = Policy.load(file)
    network = needed_part(policy)
    check_overflow(network, f"policy file {file}")
    _check_free(chosen.paths(out), file, overwrite)
    chosen.check()
    about = _about(policy)
    files = chosen.files(network, out, about)
    for path, content in files.items():
        write(path, content)
    networks = [network, dense_like(policy)]
    times, reason = _times(chosen.clock, networks)
    described = [
        Described(each.hidden_sizes, each.connections, chosen.cost(each), seconds)
        for each, seconds in zip(networks, times, strict=True)
    ]
    sizes = {path: len(content) for path, content in files.items()}
    idle = (network.no_output, network.no_input)
    return Exported(format_, about, sizes, described[0], described[1], *idle, reason)


def _check_free(paths: Sequence[Path], policy: Path, overwrite: bool) -> None:
    """Raise InputError where a file could not be written, or would replace one unasked."""
    for path in paths:
        if os.path.lexists(path) and not overwrite:
            raise InputError(f"--out {path} exists: choose another, or replace it: --overwrite")
        if path.exists() and path.samefile(policy):
            raise InputError(f"--out {path} is the policy file itself: choose another")
        check_output(path, "--out")


def _times(clock: Clock, networks: Sequence[Network]) -> tuple[Sequence[float | None], str | None]:
    """Return the seconds of one action of each network, and why there are none."""
    try:
        return clock(networks), None
    except NotMeasured as error:
        return [None] * len(networks), str(error)


def _about(policy: Policy) -> dict[str, str]:
    """Return what is known of a policy, without path or time."""
    known = {
        "algo": printable(policy.algo),
        "env": printable(policy.env),
        "task": "" if policy.task is None else str(policy.task),
        "step": str(policy.step),
        "observation_size": str(policy.observation_size),
        "action_size": str(policy.action_size),
        "action_dtype": str(policy.action_low.dtype),
    }
    if policy.env_kwargs:
        known["env_kwargs"] = json.dumps(policy.env_kwargs, sort_keys=True)
    if policy.env_flatten:
        known["observation"] = "a vector made by FlattenObservation of Gymnasium"
    if policy.env_noise_features:
        known["env_noise_features"] = f"{policy.env_noise_features:g}"
    return known
