"""What is checked of an environment before anything is written, and what is said of it."""

from __future__ import annotations

import random
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from foreign_samples import Walk, foreign

from dstrl_cli.cli import main
from dstrl_cli.config.resolving import resolve
from dstrl_cli.envs import make_batch, make_env, spec
from dstrl_cli.errors import InputError
from dstrl_cli.sweep.plan import Axes, expand


@pytest.mark.parametrize(
    ("habit", "message"),
    [
        ("old reset", r"reset returned an array of shape \(2,\) .*, not two values .*let reset"),
        ("no info", "the info of reset is None; return a dict"),
        ("complex", "observation of reset is an array .*complex128; return real numbers, such as"),
        ("matrix", r"observation of reset has shape \(1, 2\), but its observation_space \(2,\)"),
        ("nan start", r"observation of reset is not finite \(\[nan, 0.0\]\); return finite"),
        ("four", "step returned 4 values, not five values .*split its `done`"),
        ("vector", r"reward is an array of shape \(2,\) .*mo_gymnasium\.wrappers\.LinearReward"),
        ("no reward", "the reward is None; return one finite number"),
        ("endless reward", "the reward is inf; return one finite number"),
        ("no flag", "terminated is None; return true or false"),
        ("silent", r"reset failed \(AssertionError at foreign_samples\.py:\d+\); mend it"),
        ("spaceless", "its observation_space is None, not a space of Gymnasium; set it in"),
        ("leaves", r"cannot be made \(SystemExit: 0\)"),
        ("leaves at once", r"cannot be made \(Exited: it called os\._exit\(0\)\)"),
        (
            "asserts",
            r"AssertionError at foreign_samples\.py:\d+\).*\(here are gymnasium 1\..*mujoco",
        ),
        ("goals", "observations are Dict, .*--set env.flatten=true"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_its_value_and_a_remedy(
    habit: str, message: str
) -> None:
    name = foreign(habit).partition(":")[2]
    with pytest.raises(InputError, match=rf"env '(foreign_samples:)?{name}'.*{message}"):
        spec(foreign(habit))


@pytest.mark.parametrize("habit", ["sound", "array flags", "says nothing", "does not close"])
def test_what_can_be_trained_on_is_not_refused(habit: str) -> None:
    found = spec(foreign(habit))
    assert (found.notes, found.foreign) == ((), True)


class Passing(gymnasium.Wrapper):
    """Changes nothing."""


def test_a_wrapper_of_others_makes_an_environment_of_gymnasium_theirs() -> None:
    pendulum = gymnasium.spec("Pendulum-v1").entry_point
    wrappers = (Passing.wrapper_spec(),)
    gymnasium.register("Wrapped-v0", pendulum, additional_wrappers=wrappers)
    try:
        assert spec("Wrapped-v0").foreign
    finally:
        del gymnasium.registry["Wrapped-v0"]
    assert not spec("Pendulum-v1").foreign


def test_an_environment_is_checked_once_for_all_runs_of_a_call() -> None:
    made: list[Walk] = []

    def make() -> Walk:
        made.append(Walk())
        return made[-1]

    gymnasium.register("Counted-v0", make)
    try:
        axes = Axes(envs=["Counted-v0"], seeds=range(100), sparsities=[0.5, 0.6])
        assert len(expand(axes)) == 200
    finally:
        del gymnasium.registry["Counted-v0"]
    assert len(made) == 1
    assert made[0].count == 1  # reset twice, then stepped once


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_dry_run_checks_too_and_nothing_is_written(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, f"--env={foreign('vector')}", "--dry-run"]) == 2
    assert main([command, f"--env={foreign('vector')}"]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["import sys; sys.exit(0)", "import os; os._exit(0)"])
def test_a_module_that_exits_while_it_is_imported_is_an_error(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaving.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="module 'leaving' cannot be imported"):
        spec("leaving:Thing-v0")


# Seeds ------------------------------------------------------------------------------------------


def test_starts_that_do_not_follow_seeds_are_told_and_why() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = random.Random(1).random(), np.random.RandomState(1).uniform()
    (unseeded,) = spec(foreign("unseeded")).notes
    (shared,) = spec(foreign("global")).notes
    assert "do not follow seeds (two resets with one seed differ)" in unseeded
    assert "set env.kwargs.seed=run" in unseeded
    (own,) = spec(foreign("own seed"), kwargs={"seed": "run"}).notes
    assert "only that of env.kwargs.seed" in own
    assert "generators of NumPy or Python that a whole process shares" in shared
    assert (random.random(), np.random.uniform()) == expected  # noqa: NPY002


def test_a_run_says_so_before_it_starts() -> None:
    (run,) = expand(Axes(envs=[foreign("unseeded")]))
    assert [note for note in run.notes if "do not follow seeds" in note]


def test_an_argument_may_be_the_seed_of_the_run() -> None:
    name, seeds = foreign("own seed"), {"env.kwargs.seed": ["run"]}
    runs = expand(Axes(envs=[name], seeds=[3, 4], sets=seeds))
    assert [dict(run.spec.kwargs) for run in runs] == [{"seed": 3}, {"seed": 4}]
    assert all(run.config.env.kwargs == {"seed": "run"} for run in runs)
    first = make_env(runs[0].spec).reset()[0][0]
    assert first == np.float32(np.random.default_rng(3).uniform())
    assert dict(spec("Hopper-v5", kwargs={"frame_skip": 2}).for_seed(3).kwargs) == {"frame_skip": 2}


# Dictionaries -----------------------------------------------------------------------------------


def test_flatten_makes_vectors_of_dictionaries() -> None:
    found = spec(foreign("goals"), flatten=True)
    assert found.observation_size == 3
    batch = make_batch(found, 1)
    assert batch.reset([0])[0, 0] == 1.0  # the goal, then the observation: sorted by name
    assert "env.flatten" not in resolve("dst").env.model_fields_set


# Names ------------------------------------------------------------------------------------------


def test_an_unknown_id_names_no_unrelated_one_but_how_others_are_written() -> None:
    with pytest.raises(InputError, match=r"'FetchReach-v4'\. An id of another package is writ"):
        spec("FetchReach-v4")
    with pytest.raises(InputError, match="did you mean 'HalfCheetah-v5'"):
        spec("HalfCheetah-v9")
    with pytest.raises(InputError, match="registers no 'Soumd-v0'; did you mean 'Sound-v0'"):
        spec("foreign_samples:Soumd-v0")
