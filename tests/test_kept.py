"""Processes that train several runs of a sweep, one after the other."""

import ctypes
import gc
import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from sweep_samples import runs

from dstrl_cli.envs.calls import seed_globals
from dstrl_cli.runs.summary import read_status
from dstrl_cli.sweep.devices import Device
from dstrl_cli.sweep.kept import flush_output, may_share, put_back
from dstrl_cli.sweep.launcher import End
from dstrl_cli.sweep.local import LocalLauncher
from dstrl_cli.sweep.packing import one_each
from dstrl_cli.sweep.plan import Axes

CPU = Device("cpu")
NUMBERS = ("eval.csv", "episodes.csv", "topology.csv", "initial.safetensors", "policy.safetensors")


@pytest.fixture
def launcher() -> Iterator[LocalLauncher]:
    with closing(LocalLauncher()) as made:
        yield made


def train(launcher: LocalLauncher, run) -> str:
    """Train a run to its end; return how its population ended."""
    launcher.start(0, one_each([run], CPU)[0])
    while True:
        for _, message in launcher.receive():
            if isinstance(message, End):
                return message.status


def processes() -> set[int | None]:
    return {child.pid for child in multiprocessing.active_children()}


def numbers(run) -> list[bytes]:
    return [(run.path / name).read_bytes() for name in NUMBERS]


def test_a_run_in_a_kept_process_has_the_numbers_of_one_in_a_new_process(tmp_path, launcher):
    sets = ("topology.update_interval=20",)
    (first,) = runs(Axes(algos=("sac",), methods=("rlx2",)), tmp_path, sets=sets)
    axes = Axes(methods=("our-dst",), envs=("ReacherNav",), seeds=(1,))
    (kept,) = runs(axes, tmp_path / "kept", sets=sets)
    (alone,) = runs(axes, tmp_path / "alone", sets=sets)
    (diverging,) = runs(Axes(seeds=(2,)), tmp_path, sets=("learning_rate=1e30",))

    before = processes()
    assert train(launcher, first) == "done"
    (process,) = processes() - before
    assert train(launcher, kept) == "done"
    assert processes() - before == {process}

    os.kill(process, signal.SIGKILL)  # while it waits: no run is lost
    assert train(launcher, alone) == "done"
    (other,) = processes() - before
    assert other != process
    assert numbers(alone) == numbers(kept)
    assert len((kept.path / "topology.csv").read_text().splitlines()) > 10

    assert train(launcher, diverging) == "done"
    assert read_status(diverging.path) == "diverged"
    assert processes() - before <= {other}
    launcher.close()
    assert not processes() - before


def test_no_process_is_kept_for_code_of_others_or_runs_with_processes_of_their_own(tmp_path):
    (plain,) = runs(Axes(), tmp_path)
    (population,) = one_each([plain], CPU)
    assert may_share(population)
    assert not may_share(replace(population, device=Device("cuda:0")))

    def changed(**keys):
        return replace(plain, config=plain.config.model_copy(update=keys))

    rule = plain.config.actor.topology.model_copy(update={"drop": "mine.scores:Fisher"})
    network = plain.config.actor.model_copy(update={"topology": rule})
    for run in (
        changed(env_workers=1),
        changed(algo="mine:Algorithm"),
        changed(actor=network),
        replace(plain, spec=replace(plain.spec, foreign=True)),
    ):
        assert not may_share(replace(population, runs=[run]))


def test_what_a_run_changes_in_its_process_is_put_back():
    def drawn() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002

    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    found = []
    try:
        for _ in range(2):
            seed_globals(0)
            torch.manual_seed(0)
            torch.set_flush_denormal(True)
            put_back()
            assert float(torch.tensor(1e-39) * 1.0) > 0.0
            found.append(drawn())
        assert all(one != other for one, other in zip(*found, strict=True))
    finally:
        gc.unfreeze()
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


def test_what_c_code_printed_goes_to_the_log_of_its_own_run(capfd):
    ctypes.CDLL(None).puts(b"a warning of a library")
    flush_output()
    assert capfd.readouterr().out == "a warning of a library\n"
