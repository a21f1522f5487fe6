"""Values as people write them: in YAML, in `--set`, in flags; read exactly, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dstrl_cli.cli import main
from dstrl_cli.config.metrics import parse_metric
from dstrl_cli.config.presets import load_sweep_preset
from dstrl_cli.config.ranges import parse_integers, parse_steps
from dstrl_cli.config.resolving import resolve
from dstrl_cli.config.yamlfile import parse_yaml
from dstrl_cli.errors import InputError

LONG = 9007199254740993
"""2**53 + 1: the first whole number that floating point does not hold."""


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("09007199254740993", LONG),
        ("010", 10),  # octal in YAML 1.1
        ("-007", -7),
        ("+08", 8),
        ("00", 0),
        ("1_000", 1000),
        ("1_000.5", 1000.5),
        ("1e3", 1000.0),  # text in YAML 1.1
        ("1.e3", 1000.0),
        ("010.5", 10.5),
        ("1_", "1_"),
        ("0x10", "0x10"),
        ("0o7", "0o7"),
        ("0b11", "0b11"),
        ("1:30", "1:30"),  # 90 in YAML 1.1
        ("190:20:30.15", "190:20:30.15"),
        ("2024-01-31", "2024-01-31"),  # a date in YAML 1.1
        ("2024-01-31 10:00:00", "2024-01-31 10:00:00"),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("true", True),
        ("'007'", "007"),
    ],
)
def test_yaml_has_none_of_the_surprises_of_yaml_1_1(written: str, value: Any) -> None:
    found = parse_yaml(written, "a test")
    assert found == value
    assert type(found) is type(value)
    assert parse_yaml(f"[{written}]", "a test") == [value]


@pytest.mark.parametrize(
    "written", ["09007199254740993", "9007199254740993", "'9007199254740993.0'"]
)
def test_a_long_seed_is_exact_wherever_it_is_written(tmp_path: Path, written: str) -> None:
    assert resolve("sst", sets=[f"seed={written}"]).seed == LONG
    assert resolve("sst", flags={"seed": written.strip("'")}).seed == LONG
    preset = tmp_path / "mine.yaml"
    preset.write_text(f"config:\n  seed: {written}\n")
    assert resolve("sst", preset=load_sweep_preset(preset)).seed == LONG


def test_long_seeds_of_sweeps_are_exact(tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("sweep:\n  seeds: [09007199254740993, 010]\n")
    assert load_sweep_preset(preset).sweep.seeds == (LONG, 10)
    assert parse_integers("09007199254740993", "--seeds") == [LONG]


def test_a_number_that_lost_digits_is_refused() -> None:
    with pytest.raises(InputError, match=r"seed = .*too large to be exact in this form: write all"):
        resolve("sst", sets=["seed=9.007199254740993e15"])
    assert resolve("sst", sets=["seed=9e15"]).seed == 9 * 10**15
    assert resolve("sst", flags={"seed": "9.007199254740993e15"}).seed == LONG


@pytest.mark.parametrize("written", ["0x10", "0o7", "1:30", "1e-1", "1_", "2024-01-31", "1e400"])
def test_what_is_no_whole_number_is_refused(written: str) -> None:
    with pytest.raises(InputError, match=r"steps = .*must be a whole number"):
        resolve("sst", sets=[f"steps={written}"])


def test_text_keys_take_words_and_say_that_numbers_need_quotes() -> None:
    assert resolve("sst", sets=["method_label=on"]).method_label == "on"
    assert resolve("sst", sets=["method_label='1e3'"]).method_label == "1e3"
    for written in ("1e3", "010", "true"):
        with pytest.raises(InputError, match=r"method_label = .*must be text; .*needs quotes"):
            resolve("sst", sets=[f"method_label={written}"])


def test_flags_read_leading_zeros_as_decimal(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_steps("0100") == 100
    assert parse_metric("last-steps:0125000") == ("last-steps", 125_000)
    assert parse_metric(f"last-steps:{LONG}") == ("last-steps", LONG)
    arguments = ["train", "--env=2DNav-v1", "--seed=09007199254740993", "--steps=0100"]
    assert main([*arguments, "--dry-run", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["seed"], run["steps"]) == (LONG, 100)
