"""A learning rate that falls linearly to 0: its key, its values, and the steps that follow it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import training_samples as small
from graph_stand_in import Recordings, eager
from network_samples import run
from population_samples import member, state
from torch import nn
from update_samples import finish_update

from dstrl_cli import envs
from dstrl_cli.algos.base import Algorithm
from dstrl_cli.algos.sac import SAC
from dstrl_cli.config.fields import LinearRate
from dstrl_cli.config.identity import differences
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict, to_dict
from dstrl_cli.config.presets import load_sweep_preset
from dstrl_cli.config.resolving import resolve
from dstrl_cli.envs.base import Step
from dstrl_cli.errors import InputError
from dstrl_cli.nets.adam import Adam
from dstrl_cli.nets.masked import MaskedNetwork
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.nets.sparse.engine import SparseNetwork
from dstrl_cli.registry import ALGORITHMS, load
from dstrl_cli.replay.paired import PairedReplay
from dstrl_cli.runs.policy import Policy
from dstrl_cli.sweep.plan import Axes, expand
from dstrl_cli.training.learner import Learner

# --- the key --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        "learning_rate={linear: 7.3e-4}",
        "learning_rate.linear=7.3e-4",
        "learning_rate={linear: 73e-5}",
    ],
)
def test_a_falling_rate_is_a_mapping(setting: str) -> None:
    config = resolve("sst", sets=[setting])
    assert config.learning_rate == LinearRate(linear=7.3e-4)
    assert to_dict(config)["learning_rate"] == {"linear": 7.3e-4}
    assert from_dict(to_dict(config)) == config


def test_later_layers_replace_the_whole_key(tmp_path: Path) -> None:
    preset = tmp_path / "falls.yaml"
    preset.write_text("config:\n  learning_rate:\n    linear: 1e-3\n")
    loaded = load_sweep_preset(preset)
    assert resolve("sst", preset=loaded).learning_rate == LinearRate(linear=1e-3)
    assert resolve("sst", preset=loaded, sets=["learning_rate=2e-3"]).learning_rate == 2e-3


def test_a_sweep_over_both_kinds_has_readable_folders(tmp_path: Path) -> None:
    preset = tmp_path / "both.yaml"
    preset.write_text("sweep: {set: {learning_rate: [1e-3, {linear: 1e-3}]}}\n")
    axes = Axes(methods=["sst"], envs=["2DNav-v1"])
    labels = [found.label for found in expand(axes, preset=load_sweep_preset(preset))]
    assert [label.split("/")[1] for label in labels] == [
        "td3-sst+learning_rate0.001",
        "td3-sst+learning_rate-linear0.001",
    ]


def test_the_rate_belongs_to_what_a_run_is() -> None:
    constant, falls = resolve("sst"), resolve("sst", sets=["learning_rate={linear: 3e-4}"])
    assert differences(constant, falls) == [
        "learning_rate: 0.0003 -> not set",
        "learning_rate.linear: not set -> 0.0003",
    ]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("lin_7.3e-4", "a rate that falls linearly is written {linear: 7.3e-4}"),
        ("{lin: 1e-3}", "must be a number, or {linear: NUMBER}, which falls to 0 at the end"),
        ("{linear: 0}", "must be a finite number greater than 0"),
        ("{linear: {}}", "must be a number, or {linear: NUMBER}"),
        ("-1", "must be a finite number greater than 0"),
        ("fast", "must be a number, or {linear: NUMBER}"),
        ("true", "must be a finite number greater than 0"),
        (".inf", "must be a finite number greater than 0"),
    ],
)
def test_other_values_are_refused(written: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        resolve("sst", sets=[f"learning_rate={written}"])
    assert str(error.value).startswith("learning_rate = ")
    assert message in str(error.value)


def test_the_rate_is_that_of_the_remaining_progress() -> None:
    """As in Stable-Baselines3: initial * (1 - num_timesteps / total_timesteps)."""
    config = resolve("sst", sets=["learning_rate.linear=8e-4"], flags={"steps": 1000})
    rates = [config.learning_rate_at(step) for step in (0, 250, 500, 1000)]
    assert rates == pytest.approx([8e-4, 6e-4, 4e-4, 0.0])
    assert resolve("sst").learning_rate_at(500) == 3e-4


# --- the steps ------------------------------------------------------------------------------------


def test_adam_at_a_changing_rate_equals_torch() -> None:
    g = torch.Generator().manual_seed(3)
    parameters = torch.randn(2, 5, generator=g)
    theirs = nn.Parameter(parameters.clone())
    adam, optimizer = Adam(parameters, 0.1), torch.optim.Adam([theirs], 0.1)
    for rate in (0.1, 0.05, 0.2, 1e-3, 0.0):
        gradient = torch.randn(2, 5, generator=g)
        adam.set_learning_rate(rate)
        optimizer.param_groups[0]["lr"] = rate
        theirs.grad = gradient.clone()
        optimizer.step()
        adam.step(gradient, torch.tensor([True, True]))
        torch.testing.assert_close(parameters, theirs.detach())


@pytest.mark.parametrize("engine", [MaskedNetwork, SparseNetwork])
@pytest.mark.parametrize("correction", ["network", "connection"])
def test_both_engines_step_by_the_rate_that_was_set(engine: type, correction: str) -> None:
    config = run(0, 0.5, topology={"schedule": "constant"})
    config = config.model_copy(update={"grown_bias_correction": correction})
    found = engine(NetworkPlan("critic", (2, 1), 1, [config], "cpu"))
    found.set_masks([0], [torch.ones(1, 1, 2, 1, dtype=torch.bool)])
    before = found.layers(0)[0][0].clone()
    for rate in (4e-3, 1e-3, 0.0):
        found.set_learning_rate(rate)
        found.forward(torch.ones(1, 1, 2))
        found.backward(torch.full((1, 1, 1, 1), 3.0))
        finish_update(found)
        after = found.layers(0)[0][0].clone()
        # Adam's step by a gradient that stays the same is the rate itself
        torch.testing.assert_close(
            before - after, torch.full((1, 2, 1), rate), rtol=1e-4, atol=1e-8
        )
        before = after


def learners(algo: str) -> Iterator[tuple[Algorithm, Learner]]:
    """The same two members with updates that are executed, and with replayed ones."""
    spec, changes = (
        envs.spec("Pendulum-v1"),
        {"learning_rate": LinearRate(linear=5e-3), "steps": 60},
    )
    members = [member(algo, method, seed, (6, 8)) for seed, method in enumerate(("sst", "rlx2"))]
    configs = [each.model_copy(update=changes) for each in members]
    for capturing in (eager, Recordings()):
        sizes = spec.observation_size, spec.action_size
        algorithm: Algorithm = load(ALGORITHMS, algo)(configs, *sizes)
        yield (
            algorithm,
            Learner(algorithm, PairedReplay(2, 60, *sizes, 0.99, policy_actions=True), capturing),
        )


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_replayed_updates_follow_the_rate(algo: str) -> None:
    """A rate that a graph had taken for a constant would stay that of its capture."""
    (plain, one), (replayed, other) = learners(algo)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for step in range(1, 61):
            observation, following = torch.randn(2, 2, 3, generator=g)
            action, ended = torch.rand(2, 1, generator=g) - 0.5, torch.zeros(2, dtype=torch.bool)
            result = Step(following, torch.ones(2), ended, ended, following)
            moved = [each[0].clone() for each in state(replayed, 0)[::3]]
            for learner in (one, other):
                learner.store(observation, action, result, action)
                if step > 20:
                    learner.follow_schedule(step)
                    learner.update()
            for index in range(2):
                for a, b in zip(state(plain, index), state(replayed, index), strict=True):
                    assert torch.equal(a, b)
    assert float(replayed.actor.adam.learning_rate) == 0.0  # type: ignore[attr-defined]
    last = [each[0] for each in state(replayed, 0)[::3]]
    assert all(torch.equal(a, b) for a, b in zip(moved, last, strict=True))
    if isinstance(replayed, SAC):
        assert float(replayed.temperature.learning_rate) == 0.0


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_a_falling_rate_changes_a_run_and_engines_agree(tmp_path: Path, algo: str) -> None:
    def trained(engine: str, *sets: str) -> dict[str, torch.Tensor]:
        base = small.run("sst", sets=["nstep=1", "batch_size=8", *sets])
        config: RunConfig = base.model_copy(update={"engine": engine, "steps": 60})
        (path,) = small.train([config], tmp_path / f"{engine}{len(list(tmp_path.iterdir()))}")
        policy = Policy.load(path / "policy.safetensors")
        return {"actions": torch.as_tensor(policy.unit_action(torch.linspace(-1, 1, 2).numpy()))}

    falling = "learning_rate.linear=3e-3"
    masked, sparse = trained("masked", falling), trained("sparse", falling)
    torch.testing.assert_close(masked["actions"], sparse["actions"], rtol=1e-3, atol=1e-4)
    constant = trained("masked", "learning_rate=3e-3")
    assert not torch.allclose(masked["actions"], constant["actions"], rtol=1e-3, atol=1e-4)
