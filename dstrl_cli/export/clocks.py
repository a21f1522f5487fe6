"""Clocks: how long one action of exported policies takes, in processor time of one thread.

A clock takes networks and returns the seconds of one action of each: the median of `ROUNDS` rounds,
in which the networks take turns and are each timed for `SECONDS`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from dstrl_cli.export import acting, c_code, npz, onnx_graph
from dstrl_cli.export.network import Network

SECONDS, ROUNDS = 0.05, 3

LIMIT_S = 300
"""Seconds after which a compiler, or a program that is timed, is given up."""

MOST_COMPILED = 2_000_000
"""Connections of a policy that a compiler takes: a million take it about 9 s and 300 MB."""

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c99", "-O2")

Clock = Callable[[Sequence[Network]], list[float]]


class NotMeasured(Exception):
    """A policy cannot be timed here; the text says why."""


def c_clock(networks: Sequence[Network]) -> list[float]:
    """Time the compiled C code. Raises NotMeasured where that is impossible."""
    compiler = find_compiler()
    if compiler is None:
        raise NotMeasured(f"no C compiler was found ({', '.join(COMPILERS)})")
    largest = max(network.connections for network in networks)
    if largest > MOST_COMPILED:
        raise NotMeasured(f"{largest:,} connections take a compiler too long")
    with TemporaryDirectory(prefix="dstrl-export-") as name:
        programs = []
        for number, network in enumerate(networks):
            folder = Path(name) / str(number)
            folder.mkdir()
            programs.append(_compile(compiler, network, folder))
        rounds = [
            [float(_output([program, str(SECONDS)])) for program in programs] for _ in range(ROUNDS)
        ]
    return _medians(rounds)


def onnx_clock(networks: Sequence[Network]) -> list[float]:
    """Time sessions of onnxruntime that compute one action a call."""
    sessions = [onnx_graph.session(onnx_graph.model(network, {})) for network in networks]
    draw = np.random.default_rng(0).standard_normal((1, networks[0].observation_size))
    feed = {onnx_graph.INPUT: draw.astype(np.float32)}
    calls = [lambda session=session: session.run(None, feed) for session in sessions]
    return _medians([acting.seconds_a_call(call, SECONDS) for call in calls] for _ in range(ROUNDS))


def numpy_clock(networks: Sequence[Network]) -> list[float]:
    """Time NumPy in a process of its own: the threads of its products are set at its start."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(threads, "1")
    with TemporaryDirectory(prefix="dstrl-export-") as name:
        files = [Path(name) / f"{number}.npz" for number in range(len(networks))]
        for file, network in zip(files, networks, strict=True):
            file.write_bytes(npz.content(network, {}))
        # -P: no module of the current folder is taken for one of Python's
        command = [sys.executable, "-P", acting.__file__, str(SECONDS), str(ROUNDS)]
        printed = _output([*command, *map(str, files)], environment)
    return _medians([float(each) for each in line.split()] for line in printed.splitlines())


def _medians(rounds: Iterable[Sequence[float]]) -> list[float]:
    return [median(times) for times in zip(*rounds, strict=True)]


def find_compiler() -> str | None:
    """Return the C compiler of this machine, if there is one."""
    return next(filter(None, map(shutil.which, COMPILERS)), None)


_MAIN = """\
#include "policy.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
    static float observation[POLICY_OBSERVATIONS];
    static ACTION action[POLICY_ACTIONS];
    const double seconds = argc > 1 ? atof(argv[1]) : 1;
    double actions = 0;
    clock_t now, begin;
    for (size_t i = 0; i < POLICY_OBSERVATIONS; i++)
        observation[i] = (float)(i % 7) / 3 - 1;
    begin = clock();
    do {
        for (int i = 0; i < 100; i++)
            policy_act(observation, action);
        actions += 100;
        now = clock();
    } while ((double)(now - begin) < seconds * CLOCKS_PER_SEC);
    printf("%.9g\\n", (double)(now - begin) / CLOCKS_PER_SEC / actions);
    return 0;
}
"""


def _compile(compiler: str, network: Network, folder: Path) -> str:
    """Return a program that prints the seconds of one action. Raises NotMeasured."""
    for path, content in c_code.files(network, folder / "policy", []).items():
        path.write_bytes(content)
    (folder / "main.c").write_text(_MAIN)
    sources = [str(folder / each) for each in ("main.c", "policy.c")]
    program, action = str(folder / "program"), f"-DACTION={c_code.action_type(network)}"
    _output([compiler, *FLAGS, action, *sources, "-o", program, "-lm"])
    return program


def _output(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """Return what a program printed. Raises NotMeasured where it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=LIMIT_S, env=environment
        )
    except subprocess.CalledProcessError as error:
        words = (error.stderr or error.stdout).strip().splitlines() or ["no message"]
        raise NotMeasured(f"{Path(command[0]).name} failed: {words[0]}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise NotMeasured(f"{Path(command[0]).name} could not run: {error}") from error
    return done.stdout
