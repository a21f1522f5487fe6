"""`dstrl eval --perturb`: what each kind does, what a strength may be, rows, figures, refusals."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policy_samples import write_policy

import dstrl_cli
from dstrl_cli.cli import main
from dstrl_cli.envs import make_env, spec
from dstrl_cli.envs.physics import with_physics
from dstrl_cli.errors import InputError
from dstrl_cli.evaluation.perturbations import (
    around,
    half_lost,
    late_actions,
    noisy_actions,
    noisy_observations,
    parse,
)

SMALL = {"hidden_sizes": [16, 16], "batch_size": 16, "learning_starts": 100, "eval_every": 200}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three short runs on a MuJoCo task: dense, and two seeds of a sparse method."""
    out = tmp_path_factory.mktemp("perturb")
    sets = SMALL | {"eval_episodes": 2}
    wanted = [("dense", 0), ("sst", 0), ("sst", 1)]
    done = [
        dstrl_cli.train(
            env="Hopper-v5", dst=dst, seed=seed, sparsity=0.5, steps=200, sets=sets,
            out=out, engine="masked",
        )
        for dst, seed in wanted
    ]  # fmt: skip
    return [Path(run["path"]) for run in done]


def perturbed(capsys: Any, *arguments: str | Path) -> dict[str, Any]:
    assert main(["eval", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


# --- one kind after the other ---------------------------------------------------------------------


def identity(observations: np.ndarray) -> np.ndarray:
    return observations[:, :1]


def test_late_actions_are_those_of_earlier_observations_and_the_first_are_the_middle() -> None:
    late = late_actions(identity, 2.0, [])
    seen = [late(np.array([[each, 9.0], [-each, 9.0]], np.float32)) for each in (0.1, 0.2, 0.3)]
    assert [each.tolist() for each in seen[:2]] == [[[0.0], [0.0]]] * 2
    assert seen[2] == pytest.approx(np.array([[0.1], [-0.1]]))


def test_noise_of_observations_has_the_strength_as_standard_deviation() -> None:
    noisy = noisy_observations(lambda seen: seen, 0.5, [np.random.default_rng(0)])
    drawn = np.concatenate([noisy(np.full((1, 4), 3.0, np.float32)) for _ in range(2000)])
    assert drawn.mean(axis=0) == pytest.approx(3.0, abs=0.05)
    assert drawn.std(axis=0) == pytest.approx(0.5, abs=0.03)


def test_noisy_actions_stay_within_their_bounds() -> None:
    noisy = noisy_actions(identity, 5.0, [np.random.default_rng(0)])
    drawn = np.concatenate([noisy(np.zeros((1, 1), np.float32)) for _ in range(200)])
    assert (drawn.min(), drawn.max()) == (-1.0, 1.0)


def test_an_episodes_noise_depends_neither_on_the_others_nor_on_the_strength() -> None:
    def noise(strength: float, episodes: range, row: int) -> np.ndarray:
        made = around("observation_noise", strength, 7)
        assert made is not None
        return made(lambda seen: seen, episodes)(np.zeros((len(episodes), 3), np.float32))[row]

    alone = noise(1.0, range(2, 3), 0)
    assert noise(1.0, range(3), 2).tolist() == alone.tolist()
    assert noise(2.0, range(2, 3), 0) == pytest.approx(2 * alone)
    assert noise(1.0, range(1, 3), 0).tolist() != alone.tolist()


def test_factors_change_gravity_and_what_follows_from_masses() -> None:
    usual = make_env(spec("InvertedPendulum-v5")).unwrapped
    changed: Any = with_physics(
        make_env(spec("InvertedPendulum-v5")), (("gravity", 0.5), ("mass", 2.0)), "it"
    ).unwrapped
    changed.reset(seed=0)
    assert changed.model.opt.gravity.tolist() == (usual.model.opt.gravity * 0.5).tolist()
    for name in ("body_mass", "body_inertia", "body_subtreemass"):
        before, after = getattr(usual.model, name), getattr(changed.model, name)
        assert after == pytest.approx(2 * before)
    assert changed.model.dof_invweight0 == pytest.approx(usual.model.dof_invweight0 / 2, rel=1e-2)


def test_what_has_no_gravity_or_no_mujoco_model_is_refused() -> None:
    env = make_env(spec("InvertedPendulum-v5"))
    with pytest.raises(InputError, match="has no gravity that it would change"):
        with_physics(env, (("gravity", 0.0), ("gravity", 2.0)), "it")
    with pytest.raises(InputError, match="env 'Pendulum-v1' is no MuJoCo task"):
        with_physics(make_env(spec("Pendulum-v1")), (("mass", 2.0),), "Pendulum-v1")


# --- strengths ------------------------------------------------------------------------------------


def test_strengths_rise_and_hold_the_unperturbed_one() -> None:
    assert parse(["observation_noise=0.2:0.4", "action_delay=3,1-2", "mass = 2,0.5"]) == {
        "observation_noise": [0.0, 0.2, 0.3, 0.4],
        "action_delay": [0, 1, 2, 3],
        "mass": [0.5, 1.0, 2.0],
    }
    assert parse(["gravity"]) == {"gravity": [0.5, 0.75, 1.0, 1.25, 1.5]}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["gravty=2"], "--perturb unknown perturbation 'gravty'; did you mean 'gravity'?"),
        (["mass=2", "mass=3"], "--perturb mass is given twice"),
        (["mass=0"], "--perturb mass: 0 must be above 0"),
        (["action_noise=-0.1"], "--perturb action_noise: -0.1 must be at least 0"),
        (["action_delay=0.5"], "--perturb action_delay: '0.5' is not a whole number"),
        (["action_delay=2000"], "--perturb action_delay: 2000 must be at most 1,000 steps"),
        (["gravity="], "--perturb gravity: '' names no value"),
        (["gravity=nan"], "--perturb gravity: 'nan' is not a number"),
    ],
)
def test_strengths_that_cannot_be_had_are_named(texts: list[str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(texts)
    assert said in str(caught.value)


def test_half_is_lost_below_and_above_where_less_than_half_of_the_gain_is_left() -> None:
    # untrained -10, trained 10: half of the gain is lost below 0
    strengths, returns = [0.5, 0.75, 1.0, 1.25, 1.5], [-4.0, -1.0, 10.0, 0.0, -0.1]
    assert half_lost(strengths, returns, 1.0, -10.0) == {"below": 0.75, "above": 1.5}
    assert half_lost([0, 1], [10, 9], 0, -10.0) == {"below": None, "above": None}
    assert half_lost([0, 1], [10, -90], 0, 10.0) == {"below": None, "above": None}  # gained nothing


# --- the command ----------------------------------------------------------------------------------


def test_unperturbed_rows_are_those_of_plain_eval(capsys: Any, runs: list[Path]) -> None:
    plain = perturbed(capsys, runs[0])["returns"]
    found = perturbed(
        capsys, runs[0], "--perturb=observation_noise=3", "--perturb=mass=4", "--perturb=gravity=2"
    )
    neutral = {"observation_noise": 0, "mass": 1, "gravity": 1}
    for row in found["rows"]:
        same = row["strength"] == neutral[row["perturbation"]]
        assert (row["returns"] == plain) == same, row
    again = perturbed(capsys, runs[0], "--perturb=observation_noise=3")
    assert again["rows"] == found["rows"][:2]


def test_runs_are_compared_as_rows_and_as_a_figure(
    capsys: Any, runs: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    found = perturbed(
        capsys, *runs, "--perturb=action_delay=0,5", "--perturb=mass=3", f"--out={tmp_path}"
    )
    with (tmp_path / "perturb.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 2 * 2  # runs, kinds, strengths, episodes
    assert list(rows[0]) == [
        *("run", "env", "algo", "method", "sparsity", "seed"),
        *("perturbation", "strength", "episode", "return", "length"),
    ]
    told = [value for row in found["rows"] for value in row["returns"]]
    assert [float(row["return"]) for row in rows] == told
    assert [(row["method"], row["sparsity"], row["seed"]) for row in rows[::8]] == [
        ("dense", "s0", "0"),
        ("sst", "s0.5", "0"),
        ("sst", "s0.5", "1"),
    ]
    names = {f"perturb-Hopper-v5.{each}" for each in ("png", "svg", "pdf")}
    assert {each.name for each in tmp_path.iterdir()} == names | {"perturb.csv"}
    drawn = (tmp_path / "perturb-Hopper-v5.svg").read_text()
    assert "TD3 SST s0.5 (n=2)" in drawn
    assert "mean over runs" in drawn


def test_a_person_reads_a_table_and_where_half_is_lost(capsys: Any, runs: list[Path]) -> None:
    assert main(["eval", *map(str, runs), "--perturb=action_delay=7"]) == 0
    shown = capsys.readouterr()
    assert "TD3 SST s0.5 n=2" in shown.out
    assert "action_delay: half of what training gained is lost by TD3 Dense at " in shown.out
    assert "2 episodes from the starts of training's evaluations" in shown.err


def test_a_mean_of_runs_that_differ_in_more_than_their_seed_is_said(
    capsys: Any, runs: list[Path], tmp_path: Path
) -> None:
    place = runs[1].parents[2].name
    other = tmp_path / place / runs[1].relative_to(runs[1].parents[2])
    shutil.copytree(runs[1], other)
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(re.sub(r"(?m)^gamma: .*", "gamma: 0.5", config))
    notes = perturbed(capsys, runs[1], other, "--perturb=mass=2")["notes"]
    assert [each.partition(": ")[2] for each in notes] == [
        "the mean of runs that differ in more than their seed: gamma"
    ]
    policy = shutil.copy(runs[1] / "policy.safetensors", tmp_path)
    (note,) = perturbed(capsys, policy, "--perturb=mass=2")["notes"]
    assert "is lost is not known" in note


def test_a_figure_shows_the_mean_of_each_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    from dstrl_cli.plots.perturbed import Answer, against_strength

    strengths = np.array([0.0, 1.0])
    answers = [
        Answer("Hopper", "mass", "Dense", True, strengths, np.array([[4.0], [2.0]]), 1.0, "x"),
        Answer("Hopper", "mass", "SST", False, strengths, np.array([[4.0, 2], [1, 0]]), 1.0, "x"),
    ]
    (drawing,) = against_strength(answers)
    (axis,) = drawing.figure.axes
    lines = {each.get_label(): list(each.get_ydata()) for each in axis.get_lines()}
    assert lines["Dense (n=1)"] == [4.0, 2.0]
    assert lines["SST (n=2)"] == [3.0, 0.5]
    assert axis.get_lines()[0].get_color() == "#000000"


def test_panels_share_an_axis_that_holds_every_run_and_ticks_of_delays_are_whole() -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    from dstrl_cli.plots.perturbed import Answer, against_strength

    delays, factors = np.array([0.0, 1.0]), np.array([0.5, 1.0])
    many = [
        Answer("Hopper", f"kind{k}", "SST", False, factors, np.ones((2, 3)), 1.0, "x")
        for k in range(4)
    ]
    apart = np.array([[0.0, 10, 20], [0, 0, 0]])  # the interval of its mean reaches beyond -10
    (drawing,) = against_strength(
        [*many, Answer("Hopper", "action_delay", "SST", False, delays, apart, 0.0, "x")]
    )
    axes = drawing.figure.axes
    assert {axis.get_ylim() for axis in axes} == {(-1.0, 21.0)}  # 5 % beyond 0 and 20
    assert [axis.get_subplotspec().rowspan.start for axis in axes] == [0, 0, 0, 1, 1]
    inside = [tick for tick in axes[-1].get_xticks() if 0 <= tick <= 1]
    assert inside == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--perturb=mass"], "--perturb mass = 0.5: env 'MountainCarContinuous-v0' is no MuJoCo"),
        (["--perturb=mass", "--video=a.mp4"], "--video and --perturb"),
        (["--out=x"], "--out x is for the figures of --perturb"),
        (["again"], "2 runs: give one, or compare them with --perturb"),
        (["policy", "--perturb=action_noise"], "is given twice"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    capsys: Any, empty_folder: Path, arguments: list[str], said: str
) -> None:
    write_policy(Path("policy"), env="MountainCarContinuous-v0", task=None)
    assert main(["eval", "policy", *arguments]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert not Path("x").exists()


def test_without_matplotlib_figures_are_refused_before_anything_is_run(
    capsys: Any, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_policy(Path("policy"), env="MountainCarContinuous-v0", task=None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["eval", "policy", "--perturb=action_noise", "--out=x"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert 'matplotlib is not installed: pip install "dstrl[plot]", or leave --out away' in message
    assert not Path("x").exists()
