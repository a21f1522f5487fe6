"""Sweeps beside other processes: on the same folders, and with runs that die, fail or print."""

import io
import json
import multiprocessing
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from program_samples import REPOSITORY
from rich.console import Console
from sweep_samples import SMALL, leave, runs

from dstrl_cli.cli import main
from dstrl_cli.errors import InputError
from dstrl_cli.machine import Host
from dstrl_cli.runs import lock
from dstrl_cli.runs.summary import read_summary, write_summary
from dstrl_cli.sweep import launcher, shared
from dstrl_cli.sweep.launcher import End, Episodes, Evaluation, Launcher, OnFailure, execute
from dstrl_cli.sweep.local import LocalLauncher
from dstrl_cli.sweep.place import Limits, place_runs
from dstrl_cli.sweep.plan import Axes
from dstrl_cli.sweep.shared import Ended
from dstrl_cli.sweep.states import Planned, resumed
from dstrl_cli.sweep.status import look
from dstrl_cli.sweep.worker import PipeReporter
from dstrl_cli.terminal.describe import failures
from dstrl_cli.terminal.display import LineDisplay
from dstrl_cli.training.run import Outcome, Run, train

KEEP_GOING = OnFailure()


class Pretended(Launcher):
    """Trains nothing: every population ends at once, in turn as one of `ends` says.

    `done` leaves summaries that say `finished`.
    """

    def __init__(self, *ends: End) -> None:
        self.ends, self.running, self.started = list(ends), {}, []

    def start(self, number, population) -> None:
        self.running[number] = population
        self.started += [run.label for run in population.runs]

    def receive(self, timeout_s=None):
        number, population = self.running.popitem()
        end = self.ends.pop(0)
        for run in population.runs if end.status == "done" else ():
            write_summary(run.path, {"status": "finished", "steps": len(self.started)})
        return [(number, end)]

    def stop(self, at_once=False) -> None: ...

    def busy(self) -> bool:
        return bool(self.running)

    def kill(self) -> None: ...


class Screen(io.StringIO):
    """Calls a function when a text is printed for the first time."""

    def __init__(self, text: str = "", then=None) -> None:
        super().__init__()
        self.text, self.then = text, then

    def write(self, text: str) -> int:
        if self.then is not None and self.text in text:
            then, self.then = self.then, None
            then()
        return super().write(text)


def carry_out(found, launcher, screen: Screen, on_failure=KEEP_GOING) -> list[Outcome]:
    return carry_out_planned(resumed(found, overwrite=False), launcher, screen, on_failure)


def carry_out_planned(planned, launcher, screen: Screen, on_failure=KEEP_GOING) -> list[Outcome]:
    placement = place_runs(planned, Limits(jobs=1), Host(cores=2))
    display = LineDisplay(Console(file=screen, width=200), runs=3, evaluations=False)
    return execute(placement, launcher, display, on_failure)


def statuses(outcomes) -> list[str]:
    return [each.summary["status"] for each in outcomes]


# --- on the same folders ------------------------------------------------------------------------


def test_two_sweeps_at_once_share_the_runs_and_both_have_the_whole_table(tmp_path, capsys):
    keys = [f"--set={key}" for key in (*SMALL, "eval_every=100")]
    what = ["--env=2DNav-v1", "--dst=sst", "--steps=400", "--jobs=1", "--metric=final"]
    arguments = ["sweep", *what, *keys, f"--out={tmp_path}", "--seeds=0,1", "--json"]
    other = subprocess.Popen(
        [sys.executable, "-m", "dstrl_cli", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert main(arguments) == 0
    theirs, _ = other.communicate(timeout=300)
    assert other.returncode == 0
    documents = [json.loads(text) for text in (capsys.readouterr().out, theirs)]
    assert documents[0]["table"] == documents[1]["table"]
    (cell,) = documents[0]["table"]["sections"][0]["rows"][0]["cells"].values()
    assert len(cell["values"]) == 2
    logs = [path.read_text() for path in tmp_path.rglob("log.txt")]
    assert [log.count("--- started") for log in logs] == [1, 1]
    assert list(tmp_path.rglob(".lock")) == []


def test_held_runs_are_waited_for_and_taken_as_they_end_or_taken_over(tmp_path):
    found = runs(Axes(seeds=(0, 1, 2)), tmp_path)
    for run in found:
        leave(run, None)
    descriptors = [lock.acquire(run.path) for run in found]

    def others() -> None:  # they end when the sweep has begun to wait
        for run, status in zip(found, ("finished", "diverged", None), strict=True):
            if status:
                write_summary(run.path, {"status": status})
        for run, descriptor in zip(found, descriptors, strict=True):
            lock.release(run.path, descriptor)

    screen = Screen("waiting for 3 runs that another dstrl trains: ", others)
    launcher = Pretended(End("done"))
    outcomes = carry_out(found, launcher, screen)
    assert statuses(outcomes) == ["finished", "diverged", "finished"]
    assert launcher.started == [found[2].label]


def test_all_held_runs_are_looked_at_with_one_pause(tmp_path, monkeypatch):
    found, pauses = runs(Axes(seeds=(0, 1, 2, 3)), tmp_path), []
    for run in found:
        leave(run, None)
    descriptors = [lock.acquire(run.path) for run in found]

    def sleep(seconds):
        pauses.append(seconds)
        if "waiting for" in screen.getvalue() and len(pauses) == 3:
            for run, descriptor in zip(found, descriptors, strict=True):
                write_summary(run.path, {"status": "finished"})
                lock.release(run.path, descriptor)

    monkeypatch.setattr(lock, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(launcher, "LOOK_EVERY_S", 0.01)
    screen = Screen("waiting for", pauses.clear)
    assert all(each.holder for each in look(found))
    assert len(pauses) == 1
    planned = resumed(found, overwrite=False)
    assert [each.status for each in planned] == ["running"] * 4
    assert len(pauses) == 2
    outcomes = carry_out_planned(planned, Pretended(), screen)
    assert statuses(outcomes) == ["finished"] * 4
    assert len(pauses) == 3


def test_a_run_that_was_to_start_over_is_left_to_who_finished_it(tmp_path):
    (run,) = runs(Axes(), tmp_path)
    leave(run, "interrupted")
    (planned,) = resumed([run], overwrite=False)
    assert planned.run.start == "over"
    write_summary(run.path, {"status": "finished"})
    assert (shared.new_summary(planned.run) or {})["status"] == "finished"
    assert isinstance(shared.again(planned.run), Ended)


def test_a_run_that_was_to_start_over_goes_on_where_another_sweep_has_left_it(
    tmp_path, monkeypatch
):
    (run,) = runs(Axes(), tmp_path)
    leave(run, None)
    (planned,) = resumed([run], overwrite=False)
    assert shared.look(planned.run) is planned.run
    (run.path / "checkpoint").mkdir()
    (run.path / "checkpoint" / "state.safetensors").write_bytes(b"")  # of a sweep that was killed
    further = replace(run, start="resume", step=500)
    monkeypatch.setattr(
        shared, "resumed", lambda found, overwrite: [Planned(further, "unfinished")]
    )
    assert shared.look(planned.run) is further


def test_what_another_sweep_finished_since_it_was_planned_is_not_trained_again(tmp_path):
    found = runs(Axes(seeds=(0, 1)), tmp_path)
    for run in found:
        leave(run, "interrupted")
    planned = resumed(found, overwrite=False)
    assert [each.run.start for each in planned] == ["over", "over"]
    write_summary(found[0].path, {"status": "finished"})
    launcher = Pretended(End("done"))
    outcomes = carry_out_planned(planned, launcher, Screen())
    assert statuses(outcomes) == ["finished", "finished"]
    assert launcher.started == [found[1].label]


def test_what_had_finished_when_it_was_planned_starts_over_where_that_is_wished(tmp_path):
    (run,) = runs(Axes(), tmp_path)
    leave(run, "finished")
    launcher = Pretended(End("done"))
    carry_out_planned(resumed([run], overwrite=True), launcher, Screen())
    assert launcher.started == [run.label]


@pytest.mark.parametrize("begins", ["over", "resume"])
def test_a_run_that_changed_before_its_folder_was_locked_keeps_what_it_has(tmp_path, begins):
    (run,) = runs(Axes(), tmp_path)
    leave(run, "interrupted")
    (planned,) = resumed([run], overwrite=False)
    write_summary(run.path, {"status": "finished"})
    with pytest.raises(InputError, match="another dstrl has trained its run since it was planned"):
        train([replace(planned.run, start=begins)], "cpu", PipeReporter(None))
    assert (read_summary(run.path) or {})["status"] == "finished"
    assert not lock.in_use(run.path)


def test_a_lost_attempt_that_never_began_to_start_over_is_tried_again(tmp_path):
    (run,) = runs(Axes(), tmp_path)
    leave(run, "finished")
    (planned,) = resumed([run], overwrite=True)
    assert shared.again(planned.run) == planned.run  # not that of the run that lies there
    (run.path / "summary.json").unlink()  # which is what an attempt that begins does first
    assert shared.again(planned.run).start == "over"


def test_a_run_that_is_overwritten_and_was_removed_in_part_starts_over(tmp_path):
    (run,) = runs(Axes(), tmp_path)
    leave(run, "finished")
    state = run.path / "checkpoint" / "state.safetensors"
    state.parent.mkdir()
    state.write_bytes(b"")
    (planned,) = resumed([run], overwrite=True)
    shutil.rmtree(state.parent)  # and then the process that began to start it over was killed
    found = shared.look(planned.run)
    assert isinstance(found, Run)
    assert (found.start, found.left.saved) == ("over", None)
    assert shared.look(found) is found


def test_who_loses_the_race_to_overwrite_is_told_how_to_keep_what_is_there(tmp_path):
    (run,) = runs(Axes(), tmp_path)
    leave(run, "interrupted")
    (planned,) = resumed([run], overwrite=True)
    write_summary(run.path, {"status": "finished"})
    with pytest.raises(InputError, match="give the command without --overwrite to go on"):
        train([planned.run], "cpu", PipeReporter(None))


def test_a_run_that_another_sweep_took_while_its_process_started_is_that_ones(tmp_path):
    found = runs(Axes(seeds=(0, 1)), tmp_path)

    class Late(Pretended):
        def receive(self, timeout_s=None):
            if self.ends[0].status == "held":
                leave(found[0], "finished")
            return super().receive(timeout_s)

    launcher = Late(End("held"), End("done"))
    leave(found[1], "interrupted")
    assert statuses(carry_out(found, launcher, Screen())) == ["finished", "finished"]
    assert launcher.started == [found[0].label, found[1].label]


def test_a_single_run_on_a_held_folder_is_refused(tmp_path):
    (run,) = runs(Axes(), tmp_path)
    leave(run, None)
    keys = [f"--set={key}" for key in SMALL]
    with lock.held(run.path):
        assert main(["train", "--env=2DNav-v1", "--steps=200", f"--out={tmp_path}", *keys]) == 2


# --- runs that die or fail ----------------------------------------------------------------------


def test_a_killed_run_is_tried_again_as_often_as_wished_and_a_failed_one_is_not(tmp_path):
    found = runs(Axes(seeds=(0, 1, 2)), tmp_path)
    for run in found:
        leave(run, "interrupted")
    killed, failed = End("lost", "its process was killed by SIGKILL"), End("failed", "too short")
    launcher = Pretended(killed, killed, End("done"), failed, killed, killed, killed)
    screen = Screen()
    outcomes = carry_out(found, launcher, screen, OnFailure(retries=2))
    assert statuses(outcomes) == ["finished", "failed", "failed"]
    assert outcomes[2].summary["error"] == "its process was killed by SIGKILL"
    assert [launcher.started.count(run.label) for run in found] == [3, 1, 3]
    again = f"{found[0].label}: its process was killed by SIGKILL; trying again (2 of 2)"
    assert again in screen.getvalue()


def test_a_run_whose_environments_were_killed_is_tried_again(tmp_path):
    (run,) = runs(Axes(), tmp_path)
    leave(run, "interrupted")

    class Killed(Pretended):
        def receive(self, timeout_s=None):
            if len(self.ends) == 2:
                cause = "environment 0 failed: its worker process was killed by SIGKILL"
                write_summary(run.path, {"status": "failed", "error": cause})
                self.running.clear()
                return [(0, self.ends.pop(0))]
            return super().receive(timeout_s)

    launcher = Killed(End("done"), End("done"))
    (outcome,) = carry_out([run], launcher, Screen(), OnFailure(retries=1))
    assert outcome.finished


def test_the_first_failure_stops_everything_where_that_is_wished(tmp_path):
    found = runs(Axes(seeds=(0, 1, 2)), tmp_path)
    for run in found[:2]:
        leave(run, "interrupted")
    launcher, screen = Pretended(End("done"), End("failed", "too short")), Screen()
    outcomes = carry_out(found, launcher, screen, OnFailure(fail_fast=True))
    assert statuses(outcomes) == ["finished", "failed", "not started"]
    assert "all others are stopped (--fail-fast)" in screen.getvalue()
    assert not found[2].path.exists()
    assert failures(outcomes) == (
        "1 of 3 runs did not finish; they are named above. Not started: 1 run"
    )


def test_an_evaluation_comes_with_the_number_of_episodes_that_were_had_by_then():
    here, there = multiprocessing.Pipe(duplex=False)
    reporter = PipeReporter(there)
    reporter.progress(100, 1000, 10.0)  # what follows within an instant is left out, as it was
    for done in (1, 2):
        reporter.episodes(done, 10)
    reporter.evaluation(0, {"step": 110})
    there.close()
    said = [here.recv() for _ in range(3)]
    assert said[1:] == [Episodes(2, 10), Evaluation(0, {"step": 110})]


# --- what runs print ----------------------------------------------------------------------------

ENVIRONMENT = """
import os, pathlib, signal, gymnasium, numpy
from gymnasium.spaces import Box

class Noisy(gymnasium.Env):
    observation_space = Box(-1, 1, (2,), numpy.float32)
    action_space = Box(-1, 1, (1,), numpy.float32)
    def __init__(self, marker):
        self.marker, self.steps = pathlib.Path(marker), 0
        print("made")
    def reset(self, seed=None, options=None): return self.observation_space.low, {}
    def step(self, action):
        self.steps += 1
        if self.steps == 100 and not self.marker.exists():
            self.marker.touch()
            os.write(2, b"no memory\\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return self.observation_space.low, 0.0, False, self.steps % 10 == 0, {}

gymnasium.register("Noisy-v0", entry_point=Noisy)
"""


@pytest.mark.parametrize("retries", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_what_a_process_printed_before_it_was_killed_is_in_its_log(tmp_path, monkeypatch, retries):
    (tmp_path / "noisy_env.py").write_text(ENVIRONMENT)
    monkeypatch.syspath_prepend(tmp_path)
    keys = (f"env.kwargs.marker={tmp_path / 'killed'}",)
    (run,) = runs(Axes(envs=("noisy_env:Noisy-v0",)), tmp_path / "results", sets=keys)
    (outcome,) = carry_out([run], LocalLauncher(), Screen(), OnFailure(retries=retries))
    assert outcome.finished == (retries == 1)
    log = (run.path / "log.txt").read_text()
    assert re.match(r"--- started [-\d]+ [:\d]+\n", log)
    if retries:
        assert re.search(r"made\nmade\n--- ended [-\d]+ [:\d]+\n$", log)
    else:
        assert "made\nmade\nno memory\n--- ended" in log
        assert log.endswith(": its process was killed by SIGKILL (out of memory?)\n")
        assert (read_summary(run.path) or {})["error"] in log
