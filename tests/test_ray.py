"""Sweeps on Ray, small: one cluster started for a call, wrong input, and files that are collected.

`test_ray_cluster` has several machines.
"""

from __future__ import annotations

import io
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from program_samples import dstrl
from ray_samples import environment, folder, keys, logs, sweep
from rich.console import Console
from sweep_samples import leave, runs

from dstrl_cli.cli import main
from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.machine import Host
from dstrl_cli.runs import lock
from dstrl_cli.runs.summary import read_status, write_summary
from dstrl_cli.sweep.devices import Device
from dstrl_cli.sweep.launcher import End, Note, Placed, Progress
from dstrl_cli.sweep.on_ray import cluster, collected
from dstrl_cli.sweep.on_ray.seat import without_old
from dstrl_cli.sweep.packing import PlannedPopulation, one_each
from dstrl_cli.sweep.place import Limits, place_runs
from dstrl_cli.sweep.plan import Axes
from dstrl_cli.sweep.states import resumed
from dstrl_cli.terminal.sweepview import SweepDisplay

NEEDS_RAY = "needs the extra ray: pip install 'dstrl[ray]'"


def test_a_cluster_that_is_started_for_the_call_gives_the_numbers_of_this_machine(tmp_path):
    pytest.importorskip("ray", reason=NEEDS_RAY)
    arguments = ["--seeds=0-1", "--jobs=1", *keys(200, eval_every=100)]
    elsewhere = sweep(tmp_path, *arguments, "--launcher=ray", f"--out={tmp_path / 'ray'}")
    dstrl(tmp_path, "sweep", *arguments, "--out=local")
    shown, _ = elsewhere.communicate(timeout=300)
    if elsewhere.returncode == 2 and "timed out during startup" in shown:
        pytest.skip(f"this machine is too busy: {shown}")
    assert elsewhere.returncode == 0, shown
    assert "Ray machine" in shown
    assert f"on {socket.gethostname()}: 2DNav-v1/td3-rlx2/s0.95/seed0" in shown
    assert logs(tmp_path / "ray", 2) == logs(tmp_path / "local", 2)
    printed = (folder(tmp_path / "ray", 0) / "log.txt").read_text()
    assert "--- ended" in printed


# --- wrong input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--launcher", "rya"], "unknown launcher 'rya'; did you mean 'ray'? Valid: local, ray"),
        (["--address", "auto"], "--address is for a Ray cluster: add --launcher ray"),
        (["--collect"], "--collect is for a Ray cluster: add --launcher ray"),
    ],
)
def test_options_of_ray_need_the_launcher(empty_folder, capsys, arguments, message):
    assert main(["sweep", "--env", "2DNav-v1", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(empty_folder.iterdir()) == []


def test_without_the_package_one_line_says_what_to_install(empty_folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", "--env", "2DNav-v1", "--launcher", "ray", "--address", "auto"]) == 2
    assert "pip install 'dstrl[ray]'" in " ".join(capsys.readouterr().err.split())
    assert list(empty_folder.iterdir()) == []


def test_nothing_of_ray_is_imported_without_it(tmp_path):
    code = "import sys; from dstrl_cli.cli import main; main(['sweep', '--dry-run', "
    code += "'--env', '2DNav-v1']); print('ray' in sys.modules)"
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
        env=environment(), check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nowhere", "give auto, or HOST:PORT"),
        ("ray://head:10001", "give auto, or HOST:PORT"),
        ("127.0.0.1:1", "nobody answers there"),
    ],
)
def test_an_address_that_nobody_answers_is_one_line(empty_folder, capsys, address, message):
    pytest.importorskip("ray", reason=NEEDS_RAY)
    command = ["sweep", "--env", "2DNav-v1", "--launcher", "ray", "--address", address]
    for more in ([], ["--dry-run"]):
        assert main([*command, *more]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    assert list(empty_folder.iterdir()) == []


@pytest.mark.soak
def test_an_address_where_something_else_answers_is_one_line_in_bounded_time(empty_folder, capsys):
    pytest.importorskip("ray", reason=NEEDS_RAY)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert main(["sweep", "--launcher", "ray", "--address", address]) == 2
    assert "no Ray cluster answers there" in capsys.readouterr().err


# --- what seats say and take --------------------------------------------------------------------


def test_of_several_messages_about_progress_the_last_one_is_sent():
    said = [(3, Progress(1, 9, 1.0)), (3, Note("a")), (3, Progress(2, 9, 1.0)), (3, End("done"))]
    assert without_old(said) == said[1:]


def test_what_ray_says_of_a_lost_seat_is_told_in_one_line():
    pytest.importorskip("ray", reason=NEEDS_RAY)
    from ray.exceptions import RayActorError, RayTaskError

    from dstrl_cli.sweep.on_ray.nodes import in_short

    died = RayActorError(error_msg="The actor died.\n\tclass_name: Seat\n\tpid: 938")
    assert in_short(died) == "The actor died."
    raised = RayTaskError("begin", "Traceback\n  File ...\n", DstrlError("/tmp/dstrl-me: no"))
    assert in_short(raised) == "/tmp/dstrl-me: no"


def test_a_run_takes_its_threads_and_a_population_an_accelerator(tmp_path):
    pytest.importorskip("ray", reason=NEEDS_RAY)
    from dstrl_cli.sweep.on_ray.launcher import _takes, work_of_all

    found = runs(Axes(seeds=(0, 1)), tmp_path, sets=("threads=3", "engine=masked"))
    (alone, _) = one_each(found, Device("cpu"))
    together = PlannedPopulation(found, Device("cuda:1", 10**10), 1, alone.memory)
    assert _takes(alone) == {"num_cpus": 3}
    assert _takes(together) == {"num_cpus": 1, "num_gpus": 1}
    assert work_of_all(together).device == "cuda:0"  # the only one that its seat sees
    assert work_of_all(alone).device == "cpu"


def test_a_run_alone_has_no_more_threads_than_a_machine_of_the_cluster_has_cpus(tmp_path):
    (run,) = runs(
        Axes(), tmp_path, sets=("hidden_sizes=1024,1024", "engine=sparse", "threads=auto")
    )
    planned = resumed([run], overwrite=False)
    for most, threads in ((1, 1), (2, 2)):
        host = Host(cores=4, most_cores=most)
        (placed,) = place_runs(planned, Limits(), host, devices=[Device("cpu")]).runs
        assert placed.config.threads == threads


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        ("torch", "2.13.0+cpu", "2.13.0+cu128", True),
        ("torch", "2.13.0", "2.12.0", False),
        ("python", "3.11.2", "3.11.9", True),
        ("python", "3.11.2", "3.12.2", False),
        ("commit", "abc", None, True),
        ("commit", "abc", "abc+dirty", False),
        ("numba", "0.61", None, False),
    ],
)
def test_versions_are_compared_as_far_as_numbers_depend_on_them(name, one, other, same):
    pytest.importorskip("ray", reason=NEEDS_RAY)
    from dstrl_cli.sweep.on_ray.nodes import _same

    assert _same(name, one, other) == same


def test_the_live_view_has_a_column_for_machines_once_there_is_one():
    out = io.StringIO()
    console = Console(file=out, width=90)
    view = SweepDisplay(console, [(["a/seed0"], 100, 0), (["a/seed1"], 100, 0)])
    view.start(0, "a/seed0", 100, 0, ["a/seed0"])
    console.print(view.view())
    assert out.getvalue().splitlines()[1].split() == ["run", "state", "step", "return", "left"]
    view.placed(0, "a/seed0", "node7")
    out.truncate(0)
    console.print(view.view())
    assert out.getvalue().splitlines()[1].split()[-1] == "on"
    assert out.getvalue().splitlines()[2].split() == ["a/seed0", "running", "-:--", "node7"]


# --- machines -----------------------------------------------------------------------------------


@pytest.fixture
def ray_of(monkeypatch):
    """Makes a stand-in for Ray of machines that are named."""
    pytest.importorskip("ray", reason=NEEDS_RAY)
    from ray_stand_in import StandIn

    from dstrl_cli.sweep.on_ray import launcher, nodes

    def make(*machines: str):
        made = StandIn(list(machines))
        monkeypatch.setattr(nodes, "ray", made)
        monkeypatch.setattr(launcher, "ray", made)
        monkeypatch.setattr(nodes, "on_node", made.on_node)
        return made

    return make


def launched(ray, found, places):
    """Start runs on machines that have been asked, where the seats come to `places`."""
    from dstrl_cli.sweep.on_ray.launcher import RayLauncher

    site = cluster._site(found, collect=False)
    ray.events.clear()
    ray.places += places
    launcher = RayLauncher(site._driver, site._nodes)
    for number, population in enumerate(one_each(found, Device("cpu"))):
        launcher.start(number, population)
    return launcher


def told(launcher) -> list[tuple[int, object]]:
    said = []
    while launcher.busy():
        said += launcher.receive()
    return said


def test_a_machine_that_joins_later_is_asked_before_its_first_run(tmp_path, ray_of):
    ray, found = ray_of("first"), runs(Axes(seeds=(0, 1)), tmp_path)
    launcher = launched(ray, found[:1], ["late"])
    ray.machines.append("late")
    assert told(launcher) == [(0, Placed("late")), (0, End("done"))]
    launcher.start(1, one_each(found, Device("cpu"))[1])
    assert told(launcher) == [(1, Placed("late")), (1, End("done"))]
    asked = [name for name, _ in ray.events]
    assert asked == ["node", "asked", "begin", "receive", "begin", "receive"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "lacks", "message"),
    [
        ("late", {"sees_out": False}, "machine late does not see the folder .*results: put it on"),
        ("late", {"sees_locks": False}, "machine late does not see locks in .*results: mount"),
        ("late", {"commit": "abc"}, "machine late has commit abc instead of"),
        (None, {"missing": "no such package"}, r"machine late has no dstrl \(no such package\)"),
    ],
)
def test_a_machine_that_joins_later_and_does_not_fit_trains_nothing(
    tmp_path, ray_of, place, lacks, message
):
    from ray.exceptions import RayActorError

    ray, out = ray_of("first"), tmp_path / "results"
    launcher = launched(ray, runs(Axes(), out), [place or RayActorError()])
    ray.machines.append("late")
    ray.lacks["late"] = lacks
    with pytest.raises(InputError, match=message):
        told(launcher)
    assert [name for name, _ in ray.events] == ["node", "asked", "killed"]
    assert not launcher.busy()
    assert not out.exists()


def test_a_collected_run_that_another_driver_trained_since_it_was_planned_is_not_started(
    tmp_path, ray_of
):
    from dstrl_cli.sweep.on_ray.launcher import RayLauncher

    ray, (run,) = ray_of("first"), runs(Axes(), tmp_path)
    leave(run, "interrupted")
    (planned,) = resumed([run], overwrite=False)
    write_summary(run.path, {"status": "finished"})
    launcher = RayLauncher(cluster._driver("abc"), SimpleNamespace())
    launcher.start(0, one_each([planned.run], Device("cpu"))[0])
    assert told(launcher) == [(0, End("held"))]
    assert ray.events == []
    assert not lock.in_use(run.path)


def test_seats_that_wait_for_resources_end_at_once_when_all_are_stopped(tmp_path, ray_of):
    from ray_stand_in import PENDING

    ray, found = ray_of("first"), runs(Axes(seeds=(0, 1)), tmp_path)
    launcher = launched(ray, found, ["first", PENDING])
    assert launcher.receive() == [(0, Placed("first"))]
    launcher.stop()
    assert launcher.receive() == [(1, End("interrupted"))]
    assert launcher.receive() == []  # the first has begun
    assert launcher.receive() == [(0, End("done"))]
    assert not launcher.busy()
    assert ("killed", PENDING) in ray.events
    assert ("stop", "first") in ray.events
    assert ("stop", PENDING) not in ray.events


@pytest.mark.parametrize(
    ("out", "expert", "needed"),
    [("/results", None, False), ("results", None, True), ("/results", "experts/a", True)],
)
def test_the_current_folder_is_needed_where_paths_count_from_it(
    tmp_path, ray_of, monkeypatch, out, expert, needed
):
    ray = ray_of("first")
    monkeypatch.chdir(tmp_path)
    (run,) = runs(Axes(), Path(f"{tmp_path}{out}" if out.startswith("/") else out))
    found = [replace(run, config=run.config.model_copy(update={"expert": expert}))]
    cluster._site(found, collect=False)
    assert ray.folders == {"first": str(tmp_path) if needed else None}
    if needed:
        ray.lacks["first"] = {"sees_folder": False}
        remedy = "give --out and runs to start from as absolute paths"
        with pytest.raises(InputError, match=f"see the current folder {tmp_path}.*{remedy}"):
            cluster._site(found, collect=False)


# --- files that are collected -------------------------------------------------------------------


def test_files_of_a_run_come_back_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(collected.tempfile, "gettempdir", lambda: str(tmp_path / "disk"))
    (run,) = runs(Axes(), tmp_path / "results")
    (moved,) = collected.receive("abc", [run], {})
    assert moved.path != run.path
    leave(moved, "finished")
    (moved.path / "checkpoint").mkdir()
    (moved.path / "checkpoint" / "state.safetensors").write_bytes(b"state")
    (moved.path / "log.txt").write_text("printed")
    files = collected.send("abc", [run.label])[run.label]
    assert {"config.yaml", "summary.json", "checkpoint/state.safetensors"} < files.keys()
    assert "log.txt" not in files
    run.path.mkdir(parents=True)
    (run.path / "best.safetensors").write_bytes(b"of another attempt")
    collected.put(run.path, files)
    assert collected.read(run.path) == files
    collected.forget("abc", [run.label])
    assert not moved.path.exists()


def test_runs_wait_in_a_folder_that_nobody_else_can_write_to(tmp_path, monkeypatch):
    monkeypatch.setattr(collected.tempfile, "gettempdir", lambda: str(tmp_path))
    own = collected.folder_of("abc").parent
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)
    with pytest.raises(DstrlError, match="can be written by others"):
        collected.folder_of("abc")
    own.rmdir()
    own.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    with pytest.raises(DstrlError, match="can be written by others"):
        collected.folder_of("abc")


def test_files_that_are_not_a_runs_are_refused(tmp_path):
    for name in ("../evil", "checkpoint/../../evil", "log.txt", "other"):
        with pytest.raises(ValueError, match="is no file of a run"):
            collected.put(tmp_path, {name: b""})
    assert list(tmp_path.iterdir()) == []


def test_what_was_left_on_a_disk_is_fetched_where_it_is_further(tmp_path, monkeypatch):
    monkeypatch.setattr(collected.tempfile, "gettempdir", lambda: str(tmp_path / "disk"))
    one, other = runs(Axes(seeds=(0, 1)), tmp_path / "results")
    there, begun = collected.receive("abc", [one, other], {})
    leave(there, "finished")
    leave(begun, None)
    assert collected.left_behind("abc") == {one.label: float("inf")}
    assert collected.is_further(float("inf"), one.path)
    leave(one, "finished")
    assert not collected.is_further(float("inf"), one.path)
    other.path.mkdir(parents=True)
    assert collected.is_further(5, other.path)


@pytest.fixture
def this_disk(tmp_path, monkeypatch):
    """A machine whose disk is a folder here, as Ray would show it."""

    def on_node(_, function):
        return SimpleNamespace(remote=lambda *arguments: function(*arguments))

    monkeypatch.setattr(collected.tempfile, "gettempdir", lambda: str(tmp_path / "disk"))
    ray = SimpleNamespace(get=lambda found, timeout: found)
    monkeypatch.setitem(sys.modules, "ray", ray)
    nodes = SimpleNamespace(on_node=on_node)
    monkeypatch.setitem(sys.modules, "dstrl_cli.sweep.on_ray.nodes", nodes)


def test_a_run_that_another_driver_holds_is_left_on_its_machine(tmp_path, this_disk):
    one, other = runs(Axes(seeds=(0, 1)), tmp_path / "results")
    leave_all = collected.receive("abc", [one, other], {})
    for run in leave_all:
        leave(run, "finished")
    other.path.mkdir(parents=True)
    with lock.held(other.path):
        cluster._fetch_left_behind(SimpleNamespace(ids=["here"]), "abc", tmp_path / "results")
    assert read_status(one.path) == "finished"
    assert read_status(other.path) is None
    assert collected.left_behind("abc") == {other.label: float("inf")}


def test_what_was_left_of_a_run_that_has_finished_since_does_not_replace_it(
    tmp_path, this_disk, monkeypatch
):
    (run,) = runs(Axes(), tmp_path / "results")
    leave(run, "finished")
    (there,) = collected.receive("abc", [run], {})
    leave(there, "failed")
    monkeypatch.setattr(collected, "read_values", lambda folder: {"steps": 1000})
    assert collected.left_behind("abc") == {run.label: 1000}
    cluster._fetch_left_behind(SimpleNamespace(ids=["here"]), "abc", tmp_path / "results")
    assert read_status(run.path) == "finished"
    assert collected.left_behind("abc") == {}


def test_a_run_that_failed_is_fetched(tmp_path, this_disk):
    (run,) = runs(Axes(), tmp_path / "results")
    (there,) = collected.receive("abc", [run], {})
    leave(there, "failed")
    cluster._fetch_left_behind(SimpleNamespace(ids=["here"]), "abc", tmp_path / "results")
    assert read_status(run.path) == "failed"


def test_files_that_stop_coming_make_no_finished_run(tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr(collected, "write", lambda path, data: names.append(path.name))
    files = dict.fromkeys(["summary.json", "progress.csv", "config.yaml", "topology.csv"], b"")
    collected.put(tmp_path, files)
    assert names[-2:] == ["progress.csv", "summary.json"]


def test_a_results_folder_keeps_the_name_under_which_machines_keep_its_runs(tmp_path):
    name = collected.name_of(tmp_path / "results")
    assert collected.name_of(tmp_path / "results") == name
    assert collected.name_of(tmp_path / "others") != name
