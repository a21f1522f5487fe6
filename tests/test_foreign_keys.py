"""Keys and files of other tools: every one gets an answer that says what to write here."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstrl_cli.cli import main
from dstrl_cli.config.fields import LinearRate
from dstrl_cli.config.foreign import KEYS, counterpart
from dstrl_cli.config.keys import expand
from dstrl_cli.config.presets import load_sweep_preset
from dstrl_cli.config.resolving import resolve
from dstrl_cli.errors import InputError

ZOO = """
defaults: &defaults
  n_timesteps: !!float 1e6
  policy: 'MlpPolicy'
  gamma: 0.98
  buffer_size: 200000
  learning_starts: 10000
  noise_type: 'normal'
  noise_std: 0.1
  gradient_steps: -1
  train_freq: [1, "episode"]
  learning_rate: !!float 1e-3
  policy_kwargs: "dict(net_arch=[400, 300])"

Pendulum-v1:
  <<: *defaults
  n_timesteps: 20000
"""


def answer(setting: str, algo: str = "sac") -> str:
    with pytest.raises(InputError) as error:
        resolve("sst", algo, sets=[setting])
    return str(error.value)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("ent_coef=auto", "write temperature: learned"),
        ("ent_coef=auto_0.1", "write temperature: learned, and alpha: 0.1"),
        ("ent_coef=0.05", "write temperature: fixed, and alpha: 0.05"),
        ("noise_std=0.1", "write exploration_noise: 0.1"),
        ("n_timesteps=20000", "write steps: 20000"),
        ('policy_kwargs="dict(net_arch=[400, 300])"', "write hidden_sizes: [400, 300]"),
        ('policy_kwargs="dict(log_std_init=-3, net_arch=[64])"', "write hidden_sizes: [64]"),
        (
            "policy_kwargs='dict(net_arch=dict(pi=[64], qf=[400, 300]))'",
            "write actor.hidden_sizes: [64], and critic.hidden_sizes: [400, 300]",
        ),
        ("policy_kwargs={net_arch: [400, 300]}", "write hidden_sizes: [400, 300]"),
        ("policy_kwargs={net_arch: {qf: [400]}}", "write critic.hidden_sizes: [400]"),
        ("net_arch=[400, 300]", "write hidden_sizes: [400, 300]"),
        ("n_steps=3", "write nstep: 3"),
        ("target_policy_noise=0.2", "write target_noise: 0.2"),
        ("env_kwargs={continuous: true}", "write env.kwargs.continuous: True"),
        ("policy=MlpPolicy", "leave it out: networks are layers of hidden_sizes with ReLU"),
        ("noise_type=normal", "leave it out: exploration noise is normal"),
        ("use_sde=true", "leave it out: dstrl has nothing like it"),
        ("normalize=true", "leave it out: observations and rewards are used as given"),
        ("n_envs=4", "leave it out: a run has one environment; several runs"),
    ],
)
def test_a_key_of_another_tool_is_answered(setting: str, expected: str) -> None:
    said = answer(setting)
    assert said.startswith("--set: unknown key '")
    assert f"': {expected}" in said
    assert "did you mean" not in said


def test_values_of_other_tools_are_answered() -> None:
    assert "written {linear: 7.3e-4}" in answer("learning_rate=lin_7.3e-4")
    assert "null means minus the number of actions" in answer("target_entropy=auto")


def test_every_counterpart_is_a_key() -> None:
    for name, key in KEYS.items():
        assert expand(key), name
        assert not expand(name), name
    assert counterpart("batch_size", 256) is None
    assert counterpart("exploration_nose", 1) is None


def test_all_keys_of_a_block_are_answered_at_once(tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("config:\n  policy: MlpPolicy\n  gamma: 0.98\n  noise_std: 0.1\n  nose: 1\n")
    with pytest.raises(InputError) as error:
        load_sweep_preset(preset)
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{preset}: unknown key 'policy': leave it out")
    assert lines[1].endswith("unknown key 'noise_std': write exploration_noise: 0.1")
    assert "unknown key 'nose'; did you mean" in lines[2]


def test_a_zoo_file_is_recognised_and_translated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("td3.yml").write_text(ZOO)
    assert main(["train", "--preset=td3.yml", "--env=Pendulum-v1"]) == 2
    said = capsys.readouterr().err
    words = " ".join(said.split())
    assert "td3.yml: 'defaults' holds the settings of an environment, as files of RL-" in words
    assert "put the keys of one under `config:`" in words
    assert "n_timesteps: write steps: 1000000.0" in words
    assert "policy_kwargs: write hidden_sizes: [400, 300]" in words
    assert "gradient_steps" not in words  # it is called the same
    assert [path.name for path in tmp_path.iterdir()] == ["td3.yml"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("learning_rate: 1e-3\nbatch_size: 128\n", "learning_rate, batch_size: at the top of a"),
        ("n_timesteps: 1e6\ngamma: 0.98\n", "n_timesteps, gamma: at the top of a preset there"),
        ("actor: {sparsity: 0.5}\n", "actor: at the top of a preset there is no such key"),
        ("critic.sparsity: 0.5\n", "critic.sparsity: at the top of a preset"),
        ("learning_rate: {linear: 1e-3}\n", "learning_rate: at the top of a preset"),
    ],
)
def test_flat_keys_belong_under_config(tmp_path: Path, text: str, named: str) -> None:
    preset = tmp_path / "flat.yaml"
    preset.write_text(text)
    with pytest.raises(InputError) as error:
        load_sweep_preset(preset)
    first = str(error.value).splitlines()[0]
    assert first.startswith(f"{preset}: {named}")
    assert first.endswith("put it under `config:`")


def test_a_misspelt_key_of_a_preset_keeps_its_suggestion(tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("confg: {steps: 100}\n")
    with pytest.raises(InputError, match=r"unknown key 'confg'; did you mean 'config'\?"):
        load_sweep_preset(preset)


def test_a_zoo_setting_with_these_keys_trains_as_it_says(tmp_path: Path) -> None:
    preset = tmp_path / "pendulum.yaml"
    preset.write_text(
        "config:\n  steps: 20000\n  gamma: 0.98\n  gradient_steps: -1\n"
        "  train_freq: [1, episode]\n  learning_rate: {linear: 1e-3}\n  hidden_sizes: [400, 300]\n"
    )
    config = resolve("dense", preset=load_sweep_preset(preset))
    assert (config.train_freq, config.gradient_steps) == ((1, "episode"), -1)
    assert config.learning_rate == LinearRate(linear=1e-3)
