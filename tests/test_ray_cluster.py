"""Sweeps on a Ray cluster of four machines of one CPU each; machines and drivers are killed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra ray: pip install 'dstrl[ray]'")

from ray_samples import ENDLESS, Cluster, cluster, ended, folder, holder, keys, logs, sweep
from sweep_samples import wait_for

import dstrl_cli
from dstrl_cli.runs.checkpoint import CHECKPOINT_FOLDER, has_state
from dstrl_cli.runs.summary import read_status

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc"),
]

STEPS, SEEDS = 6_000, 5
NAMES = ("two", "three", "four")
SWEEP = [f"--seeds=0-{SEEDS - 1}", *keys(STEPS)]


@pytest.fixture(scope="module")
def machines() -> Iterator[Cluster]:
    with cluster(*NAMES) as made:
        yield made


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> list[bytes]:
    """The logs of a sweep on this machine."""
    out = tmp_path_factory.mktemp("local")
    ended(sweep(out, *SWEEP, f"--out={out}"), code=0)
    return logs(out, SEEDS)


def started(machines: Cluster, out: Path, *arguments: str):
    where = ["--launcher=ray", f"--address={machines.address}", f"--out={out}"]
    return sweep(out.parent, *where, *(arguments or SWEEP))


def machine_to_lose(machines: Cluster, out: Path) -> str | None:
    """A machine without the cluster's head that trains a run whose checkpoint is written."""
    holders = [each for each in (holder(out, seed) for seed in range(SEEDS)) if each]
    return next((name for each in holders if (name := machines.machine_of(each)) in NAMES), None)


def test_the_runs_of_a_lost_machine_go_on_elsewhere_with_the_same_bytes(
    machines, expected, tmp_path
):
    out = tmp_path / "results"
    process = started(machines, out)
    wait_for(lambda: machine_to_lose(machines, out) is not None)
    lost = machine_to_lose(machines, out)
    assert lost is not None
    machines.lose(lost)
    shown = ended(process, code=0)
    print(shown)
    machines.add(lost)
    assert f"on {lost}: " in shown
    assert "was lost; trying again (1 of 3)" in shown
    assert "resumes at step" in shown
    assert [read_status(folder(out, seed)) for seed in range(SEEDS)] == ["finished"] * SEEDS
    assert logs(out, SEEDS) == expected


def test_a_killed_driver_is_started_again_and_goes_on(machines, expected, tmp_path):
    out = tmp_path / "results"
    process = started(machines, out)
    wait_for(lambda: holder(out, 0) is not None)
    process.kill()
    process.communicate()
    shown = ended(started(machines, out), code=0)
    print(shown)
    assert "resume" in shown
    assert logs(out, SEEDS) == expected


def test_ctrl_c_saves_and_stops_all(machines, tmp_path):
    out = tmp_path / "results"
    process = started(machines, out, "--seeds=0-3", *keys(ENDLESS))
    wait_for(lambda: all(holder(out, seed) for seed in range(4)))
    process.send_signal(signal.SIGINT)
    shown = ended(process, code=130)
    assert shown.splitlines()[-1] == "interrupted"
    runs = [folder(out, seed) for seed in range(4)]
    assert [read_status(run) for run in runs] == ["interrupted"] * 4
    assert all(has_state(run / CHECKPOINT_FOLDER) for run in runs)


def test_files_are_collected_and_a_run_that_died_with_its_disk_starts_again(
    machines, expected, tmp_path
):
    out = tmp_path / "results"
    process = started(machines, out, *SWEEP, "--collect")

    def place() -> str | None:
        found = [machine for machine in NAMES if machines.trains(machine)]
        return found[0] if found else None

    wait_for(lambda: place() is not None)
    lost = place()
    assert lost is not None
    machines.lose(lost)
    shown = ended(process, code=0)
    print(shown)
    machines.add(lost)
    assert "starts again from step 0: it left no checkpoint" in shown
    assert logs(out, SEEDS) == expected


def test_what_a_killed_driver_did_not_collect_is_fetched_by_the_next(machines, expected, tmp_path):
    out = tmp_path / "results"
    process = started(machines, out, *SWEEP, "--collect")
    wait_for(lambda: sum(map(machines.trains, ("one", *NAMES))) == 4)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(map(machines.trains, ("one", *NAMES))))
    shown = ended(started(machines, out, *SWEEP, "--collect"), code=0)
    print(shown)
    assert "resume" in shown
    assert logs(out, SEEDS) == expected


def test_a_machine_that_is_lost_while_a_sweep_begins_is_left_out(machines, tmp_path):
    machines.lose("four")  # which Ray notices later
    try:
        arguments = ["--seeds=0", *keys(200, eval_every=100)]
        shown = ended(started(machines, tmp_path / "results", *arguments), code=0)
    finally:
        machines.add("four")
    assert read_status(folder(tmp_path / "results", 0)) == "finished"
    assert "on four" not in shown


@pytest.mark.parametrize(
    ("package", "message"),
    [
        ("raise ImportError('no such package')", "machine odd has no dstrl (no such package): "),
        (
            f"__version__, __path__ = '0.0.9', {dstrl_cli.__path__!r}",
            f"machine odd has dstrl 0.0.9 instead of {dstrl_cli.__version__}",
        ),
    ],
)
def test_a_machine_that_does_not_fit_is_one_line(machines, tmp_path, package, message):
    theirs = tmp_path / "theirs"
    (theirs / "dstrl_cli").mkdir(parents=True)
    (theirs / "dstrl_cli" / "__init__.py").write_text(package)
    machines.add("odd", PYTHONPATH=str(theirs))
    try:
        shown = ended(started(machines, tmp_path / "results"), code=2)
    finally:
        machines.lose("odd")
    assert message in shown
    assert len(shown.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_a_machine_that_joins_later_is_asked_before_it_trains(machines, tmp_path):
    out = tmp_path / "results"
    theirs = tmp_path / "theirs"
    (theirs / "dstrl_cli").mkdir(parents=True)
    (theirs / "dstrl_cli" / "__init__.py").write_text("raise ImportError('no such package')")
    process = started(machines, out, "--seeds=0-3", *keys(ENDLESS))
    wait_for(lambda: machine_to_lose(machines, out) is not None)
    lost = machine_to_lose(machines, out)
    assert lost is not None
    machines.add("late", PYTHONPATH=str(theirs))
    machines.lose(lost)
    try:
        shown = ended(process, code=2)
    finally:
        machines.lose("late")
        machines.add(lost)
    assert "machine late has no dstrl (no such package): " in shown
    assert "on late: " not in shown
