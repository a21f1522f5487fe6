"""Sweeps: which runs a request means, the states of their folders, and running them here."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dstrl_cli.config.parse import to_dict
from dstrl_cli.config.presets import load_sweep_preset
from dstrl_cli.config.ranges import parse_numbers
from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.machine import Host
from dstrl_cli.runs.folder import RunFolder, read_status, read_summary
from dstrl_cli.sweep import plan
from dstrl_cli.sweep.devices import Device
from dstrl_cli.sweep.launcher import End, Launcher, Note, execute, summary_of
from dstrl_cli.sweep.local import LocalLauncher
from dstrl_cli.sweep.place import Limits, place_runs
from dstrl_cli.sweep.plan import Axes, expand, fresh, resumed
from dstrl_cli.terminal.display import LineDisplay, LiveDisplay
from dstrl_cli.training.run import Outcome, _leave_summaries, out_of_memory

SMALL = ("hidden_sizes=8,8", "batch_size=8", "learning_starts=50", "eval_episodes=2")
SHORT = {"env.id": "2DNav-v1", "steps": 200}


def runs(axes: Axes, out: Path = Path("results"), **options):
    flags = {"steps": 200, "out": str(out), **options.pop("flags", {})}
    if not axes.envs:
        flags["env.id"] = "2DNav-v1"
    return expand(axes, sets=(*SMALL, *options.pop("sets", ())), flags=flags, **options)


def labels(axes: Axes, **options) -> list[str]:
    return [run.label for run in runs(axes, **options)]


# --- which runs ---------------------------------------------------------------------------------


def test_a_range_of_sparsities_is_nine_runs():
    found = labels(Axes(sparsities=parse_numbers("0.15:0.95", "--sparsity")))
    assert found == [
        f"2DNav-v1/td3-rlx2/s{value}/seed0"
        for value in (0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)
    ]


def test_every_combination_once_and_a_dense_method_once_for_all_sparsities():
    axes = Axes(methods=("dense", "our-rlx2"), sparsities=(0.5, 0.9), seeds=(0, 1))
    assert sorted(labels(axes)) == [
        "2DNav-v1/td3-dense/s0/seed0",
        "2DNav-v1/td3-dense/s0/seed1",
        "2DNav-v1/td3-our-rlx2/s0.5/seed0",
        "2DNav-v1/td3-our-rlx2/s0.5/seed1",
        "2DNav-v1/td3-our-rlx2/s0.9/seed0",
        "2DNav-v1/td3-our-rlx2/s0.9/seed1",
    ]


def test_swept_tasks_are_named_in_the_folder():
    assert labels(Axes(tasks=(0, 3))) == [
        "2DNav-v1.task0/td3-rlx2/s0.95/seed0",
        "2DNav-v1.task3/td3-rlx2/s0.95/seed0",
    ]


def test_algorithms_keep_their_own_default_sparsity():
    assert labels(Axes(algos=("td3", "sac"))) == [
        "2DNav-v1/td3-rlx2/s0.95/seed0",
        "2DNav-v1/sac-rlx2/s0.9/seed0",
    ]


def test_networks_that_lambdas_size_are_filed_under_their_own_sparsity():
    sets = ["hidden_sizes=256,256"]
    for role in ("actor", "critic"):
        sets += [f"{role}.allocation=lambda", f"{role}.lambdas=[7,64]"]
    flags = {"env.id": "HalfCheetah-v5"}
    (run,) = expand(Axes(methods=("sst",)), sets=sets, flags=flags)
    # layers 17x256, 256x256, 256x6: 7 * 273 + 64 * 512 of them, the last one dense
    actor = round(1 - (7 * 273 + 64 * 512 + 256 * 6) / (17 * 256 + 256 * 256 + 256 * 6), 3)
    assert run.config.actor.sparsity == actor
    assert run.label == f"HalfCheetah-v5/td3-sst/a{actor}-c{run.config.critic.sparsity}/seed0"
    (dense,) = expand(Axes(methods=("dense",)), sets=sets, flags=flags)
    assert dense.label == "HalfCheetah-v5/td3-dense/s0/seed0"


def test_seeds_and_tasks_are_copies_that_differ_in_nothing_else():
    axes = Axes(methods=("dense", "our-rlx2"), tasks=(0, 3), sparsities=(0.5, 0.9), seeds=(0, 7))
    together = runs(axes)
    assert len(together) == 2 * 2 + 2 * 2 * 2
    for run in together:
        config = run.config
        alone = Axes(
            methods=(config.method,),
            tasks=(config.env.task,),
            sparsities=(config.actor.sparsity,),
            seeds=(config.seed,),
        )
        (same,) = runs(alone)
        assert (same.config, same.spec) == (config, run.spec)


def test_every_task_is_checked_before_anything_runs():
    with pytest.raises(InputError, match=r"env\.task = 11: .*set by --task"):
        runs(Axes(methods=("sst", "dst"), tasks=(0, 11)))


def test_a_suffix_names_swept_keys_briefly_and_apart():
    assert plan.suffix({"nstep": 5}, ["nstep"]) == "+nstep5"
    assert plan.suffix(
        {"critic.topology.drop_fraction": 0.1}, ["critic.topology.drop_fraction"]
    ) == ("+drop_fraction0.1")
    keys = ["actor.topology.drop_fraction", "critic.topology.drop_fraction"]
    assert plan.suffix(dict.fromkeys(keys, 0.5), keys) == (
        "+actor.topology.drop_fraction0.5+critic.topology.drop_fraction0.5"
    )
    assert plan.suffix({"hidden_sizes": [64, 32]}, ["hidden_sizes"]) == "+hidden_sizes64x32"
    assert plan.suffix({"td_error": "off"}, ["td_error"]) == "+td_error-off"
    assert plan.suffix({"buffer.dynamic": True}, ["buffer.dynamic"]) == "+dynamic-true"


def preset(tmp_path: Path, text: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_sweep_preset(path)


def test_a_preset_gives_axes_that_set_and_flags_override(tmp_path):
    mine = preset(tmp_path, "sweep: {dst: [rlx2], sparsity: [0.5, 0.8], set: {nstep: [1, 3]}}")
    assert labels(Axes(), preset=mine) == [
        "2DNav-v1/td3-rlx2+nstep1/s0.5/seed0",
        "2DNav-v1/td3-rlx2+nstep3/s0.5/seed0",
        "2DNav-v1/td3-rlx2+nstep1/s0.8/seed0",
        "2DNav-v1/td3-rlx2+nstep3/s0.8/seed0",
    ]
    fixed = labels(Axes(sparsities=(0.7,)), preset=mine, sets=("nstep=2",))
    assert fixed == ["2DNav-v1/td3-rlx2/s0.7/seed0"]


def test_a_flag_beats_an_axis_of_the_preset(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("sweep:\n  dst: sst\n  task: 0-2\n  seeds: 0-1\n")
    flags = {"env.task": 1, "seed": 7}
    found = labels(Axes(), preset=load_sweep_preset(mine), flags=flags)
    assert found == ["2DNav-v1.task1/td3-sst/s0.95/seed7"]


def test_one_run_cannot_guess_among_a_presets_methods(tmp_path):
    mine = preset(tmp_path, "sweep: {dst: [sst, rlx2]}")
    with pytest.raises(InputError, match=r"--dst: preset 'mine' names several \(sst, rlx2\)"):
        plan.refuse_several(Axes(), {}, [], mine)
    plan.refuse_several(Axes(methods=("sst",)), {}, [], mine)


def test_one_run_cannot_guess_among_a_presets_tasks_and_keys(tmp_path):
    mine = preset(tmp_path, "sweep: {task: 0-1, set: {nstep: [1, 3]}}")
    with pytest.raises(InputError, match=r"--task: preset 'mine' names several \(0, 1\)"):
        plan.refuse_several(Axes(), {}, [], mine)
    with pytest.raises(InputError, match=r"--set nstep: preset 'mine' names several \(1, 3\)"):
        plan.refuse_several(Axes(), {"env.task": "1"}, [], mine)
    plan.refuse_several(Axes(), {"env.task": "1"}, ["nstep=3"], mine)


def test_runs_that_would_share_a_folder_are_refused():
    with pytest.raises(InputError, match="share the folder"):
        expand(Axes(sets={"tau": [0.00512345678901, 0.00512345678902]}), flags=SHORT)


def test_a_budget_that_cannot_be_met_names_the_network():
    with pytest.raises(InputError, match=r"critic\.sparsity = 0\.95: .* choose a lower sparsity"):
        runs(Axes(methods=("tiny",)))
    with pytest.raises(InputError, match=r"actor\.sparsity: the budget of a layer 2x8 is 0"):
        runs(Axes(sparsities=(1 - 1e-9,)))


# --- the states of the folders ------------------------------------------------------------------


def leave(run, status: str | None, **changes) -> None:
    config = run.config.model_copy(update=changes)
    with RunFolder(run.path).create(to_dict(config)) as folder:
        if status:
            folder.summary({"status": status})


def test_finished_runs_are_skipped_and_unfinished_ones_start_over(tmp_path):
    found = runs(Axes(seeds=(0, 1, 2, 3)), tmp_path)
    leave(found[0], "finished")
    leave(found[1], "interrupted")
    leave(found[2], None)
    planned = resumed(found, overwrite=False)
    assert [each.status for each in planned] == ["finished", "interrupted", "unfinished", "new"]
    assert [each.to_do for each in planned] == [False, True, True, True]
    assert [each.run.replace for each in planned] == [False, True, True, False]
    assert all(each.to_do for each in resumed(found, overwrite=True))


def test_new_runs_beside_others_of_the_same_sparsity_are_found(tmp_path):
    found = runs(Axes(seeds=(0, 1), sparsities=(0.5, 0.9)), tmp_path)
    leave(found[0], "finished")
    planned = resumed(found, overwrite=False)
    assert [each.status for each in planned] == ["finished", "new", "new", "new"]
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match="is not a folder"):
        resumed(runs(Axes(), tmp_path / "taken"), overwrite=False)


def test_another_configuration_stops_a_sweep_before_it_starts(tmp_path):
    found = runs(Axes(seeds=(0, 1)), tmp_path)
    leave(found[1], "finished", tau=0.5)
    with pytest.raises(InputError, match=r"tau: 0\.5 -> 0\.005"):
        resumed(found, overwrite=False)
    assert [each.to_do for each in resumed(found, overwrite=True)] == [True, True]


def test_a_single_run_never_starts_over_by_itself(tmp_path):
    found = runs(Axes(), tmp_path)
    assert [each.status for each in fresh(found, overwrite=False)] == ["new"]
    leave(found[0], "interrupted")
    with pytest.raises(InputError, match="--overwrite"):
        fresh(found, overwrite=False)
    assert fresh(found, overwrite=True)[0].run.replace


def test_a_run_in_use_is_left_alone(tmp_path):
    (run,) = runs(Axes(), tmp_path)
    with RunFolder(run.path).create(to_dict(run.config)):
        for states in (fresh, resumed):
            with pytest.raises(InputError, match="in use"):
                states([run], overwrite=True)


# --- running ------------------------------------------------------------------------------------

BROKEN = """
import os, signal, gymnasium, numpy
from gymnasium.spaces import Box

class Broken(gymnasium.Env):
    observation_space = Box(-1, 1, (2,), numpy.float32)
    action_space = Box(-1, 1, (1,), numpy.float32)
    def __init__(self, how): self.how, self.steps = how, 0
    def reset(self, seed=None, options=None): return self.observation_space.low, {}
    def step(self, action):
        self.steps += 1
        if self.steps > 60 and self.how == "dies": os.kill(os.getpid(), signal.SIGKILL)
        if self.steps > 60 and self.how == "raises": raise RuntimeError("the arm fell off")
        return self.observation_space.low, 0.0, False, self.steps % 10 == 0, {}

for how in ("dies", "raises", "works"):
    gymnasium.register(f"Broken-{how}-v0", entry_point=Broken, kwargs={"how": how})
"""


CPU = Device("cpu")
LIKE_ACCELERATORS = [Device("cpu", 4 * 10**9)] * 2
"""Two devices as far as the plan can tell; what trains on them is the population code."""


def carry_out(found, devices, display=None) -> list[Outcome]:
    planned = resumed(found, overwrite=False)
    placement = place_runs(planned, Limits(jobs=3), Host(cores=2), devices=devices)
    with display or LineDisplay(Console(file=io.StringIO()), runs=3, evaluations=False) as shown:
        return execute(placement, LocalLauncher(), shown)


class Elsewhere(Launcher):
    """Trains nothing: every population says a word, and ends in the order of its start."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.running: list[int] = []
        self.most = 0
        self.interrupted = False

    def start(self, number, population) -> None:
        self.started.append(number)
        self.running.append(number)
        self.most = max(self.most, len(self.running))

    def receive(self):
        number = self.running.pop(0)
        if number == 2:
            raise KeyboardInterrupt
        return [(number, Note("hello")), (number, End("failed", "no such place"))]

    def interrupt(self) -> None:
        self.interrupted = True


def test_the_loop_keeps_every_queue_busy_whatever_starts_the_populations(tmp_path):
    found = runs(Axes(seeds=(0, 1)), tmp_path)
    out, elsewhere = io.StringIO(), Elsewhere()
    planned = resumed(found, overwrite=False)
    placement = place_runs(planned, Limits(jobs=1), Host(cores=8), devices=[CPU])
    display = LineDisplay(Console(file=out, width=200), runs=2, evaluations=False)
    outcomes = execute(placement, elsewhere, display)
    assert (elsewhere.started, elsewhere.most) == ([0, 1], 1)
    assert [each.summary["error"] for each in outcomes] == ["no such place"] * 2
    assert f"{found[0].label}: hello" in out.getvalue()
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_ends_what_runs_and_passes_through(tmp_path):
    elsewhere = Elsewhere()
    planned = resumed(runs(Axes(seeds=(0, 1, 2, 3)), tmp_path), overwrite=False)
    placement = place_runs(planned, Limits(jobs=2), Host(cores=8), devices=[CPU])
    display = LineDisplay(Console(file=io.StringIO()), runs=4, evaluations=False)
    with pytest.raises(KeyboardInterrupt):
        execute(placement, elsewhere, display)
    assert elsewhere.interrupted
    assert (elsewhere.started, elsewhere.most) == ([0, 1, 2, 3], 2)


def statuses(outcomes) -> list[str]:
    return [each.summary["status"] for each in outcomes]


@pytest.fixture
def broken_envs(tmp_path, monkeypatch):
    (tmp_path / "broken_env.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    return {how: f"broken_env:Broken-{how}-v0" for how in ("dies", "raises", "works")}


def test_failing_and_dying_runs_stop_no_other(tmp_path, broken_envs):
    found = runs(Axes(envs=tuple(broken_envs.values())), tmp_path / "results")
    out = io.StringIO()
    display = LineDisplay(Console(file=out, width=60), runs=3, evaluations=False)
    outcomes = carry_out(found, [CPU], display)
    assert statuses(outcomes) == ["failed", "failed", "finished"]
    assert [read_status(run.path) for run in found] == ["failed", "failed", "finished"]
    assert "killed by SIGKILL" in outcomes[0].summary["error"]
    assert "the arm fell off" in outcomes[1].summary["error"]
    assert "(3/3)" in out.getvalue()


def test_populations_on_two_devices_and_a_second_call_does_what_is_left(tmp_path, broken_envs):
    envs = (broken_envs["dies"], broken_envs["works"])
    found = runs(Axes(envs=envs, seeds=(0, 1)), tmp_path / "results")
    out = io.StringIO()
    display = LiveDisplay(Console(file=out, width=90, force_terminal=True), runs=4, work=[])
    outcomes = carry_out(found, LIKE_ACCELERATORS, display)
    assert [each.run.label for each in outcomes] == [run.label for run in found]
    assert statuses(outcomes) == ["failed", "failed", "finished", "finished"]
    assert [read_status(run.path) for run in found] == statuses(outcomes)
    assert all("killed by SIGKILL" in each.summary["error"] for each in outcomes[:2])
    assert "2 runs, as Broken-works-v0" in out.getvalue()
    again = carry_out(found, LIKE_ACCELERATORS)
    assert [each.run.label for each in again] == [run.label for run in found[:2]]
    assert statuses(again) == ["failed", "failed"]


def test_more_jobs_than_runs_are_no_trouble(tmp_path):
    assert statuses(carry_out(runs(Axes(), tmp_path), [CPU])) == ["finished"]
    assert carry_out(runs(Axes(), tmp_path), [CPU]) == []


def test_a_member_of_a_population_trains_as_it_does_alone(tmp_path):
    alone, together = (
        runs(Axes(seeds=(0, 1)), tmp_path / where, sets=("engine=masked",))
        for where in ("alone", "together")
    )
    assert statuses(carry_out(alone, [CPU])) == ["finished"] * 2
    assert statuses(carry_out(together, LIKE_ACCELERATORS[:1])) == ["finished"] * 2
    for one, other in zip(alone, together, strict=True):
        first, second = (
            [float(row.split(",")[2]) for row in lines(run, "eval.csv")] for run in (one, other)
        )
        assert first == pytest.approx(second, rel=1e-3)
        assert len(first) == 4


def lines(run, name: str) -> list[str]:
    return (run.path / name).read_text().splitlines()[1:]


def test_what_members_left_outlives_the_death_of_their_population(tmp_path):
    found = runs(Axes(seeds=(0, 1, 2)), tmp_path)
    leave(found[0], "failed")
    before = [read_summary(run.path) for run in found]
    leave(found[1], "diverged")
    leave(found[2], None)
    end = End("failed", "its process was killed")
    ends = [summary_of(run, end, old) for run, old in zip(found, before, strict=True)]
    assert [each["status"] for each in ends] == ["failed", "diverged", "failed"]
    assert [each.get("error") for each in ends] == [None, None, "its process was killed"]
    assert [read_status(run.path) for run in found] == ["failed", "diverged", "failed"]


def test_a_refused_population_leaves_its_folders_alone(tmp_path):
    (run,) = runs(Axes(), tmp_path)
    leave(run, "finished")
    summary = summary_of(run, End("refused", "in use"), read_summary(run.path))
    assert summary == {"status": "failed", "error": "in use"}
    assert read_status(run.path) == "finished"


def test_memory_that_runs_out_is_told_with_the_remedy(tmp_path):
    cause = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    wrapped = DstrlError("OutOfMemoryError: CUDA out of memory")
    wrapped.__cause__ = cause
    for error in (cause, wrapped, RuntimeError("can't allocate memory: you tried"), MemoryError()):
        told = out_of_memory(error)
        assert told is not None
        assert "fewer --members-per-device" in str(told)
    assert out_of_memory(RuntimeError("CUDA error: device lost")) is None
    (run,) = runs(Axes(), tmp_path)
    with RunFolder(run.path).create(to_dict(run.config)) as folder:
        folder.summary({"status": "failed", "steps": 7, "error": "CUDA out of memory"})
        _leave_summaries([folder], told, over_failed=True)
    assert (read_summary(run.path) or {})["steps"] == 7
    assert "--replay-device cpu" in (read_summary(run.path) or {})["error"]


def test_an_interrupted_sweep_leaves_valid_folders(tmp_path):
    command = [
        sys.executable,
        "-m",
        "dstrl_cli.cli",
        "sweep",
        "--env",
        "2DNav-v1",
        "--seeds",
        "0-2",
    ]
    command += ["--jobs", "2", "--steps", "1e6", "--out", str(tmp_path), "--metric", "final"]
    for key in (*SMALL, "eval_every=100"):
        command += ["--set", key]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = tmp_path / "2DNav-v1" / "td3-rlx2" / "s0.95"
    wait_for(lambda: all((first / f"seed{k}" / "policy.safetensors").exists() for k in (0, 1)))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors
    assert [read_status(first / f"seed{k}") for k in range(3)] == ["interrupted"] * 2 + [None]
    summary = json.loads((first / "seed0" / "summary.json").read_text())
    assert summary["final_return"]["mean"] < 0


def wait_for(condition, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
