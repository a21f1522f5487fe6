"""`dstrl list`, and what is said to flags that other tools have."""

import json
import subprocess
import sys

import pytest

from dstrl_cli.cli import main
from dstrl_cli.config.foreign import KEYS
from dstrl_cli.config.keys import FREE_FORM, MACROS, keys
from dstrl_cli.config.resolving import resolve
from dstrl_cli.config.starts import STARTS
from dstrl_cli.registry import SCORES


def listed(capsys, what: str) -> dict[str, dict]:
    assert main(["list", what, "--json"]) == 0
    return {item["name"]: item for item in json.loads(capsys.readouterr().out)[what]}


def test_methods_scores_envs_and_presets_are_listed(capsys):
    methods = listed(capsys, "methods")
    assert list(methods)[:3] == ["dense", "sst", "dst"]
    assert methods["our-rlx2"]["label"] == "Our RLx2"
    assert methods["dst-official"]["algorithms"] == ["td3"]
    assert listed(capsys, "scores").keys() == SCORES.keys()
    assert listed(capsys, "scores")["importance"]["networks"] == ["critic"]
    assert {"2DNav-v1", "Ant-v2"} <= listed(capsys, "envs").keys()
    assert "two seeds" in listed(capsys, "presets")["quick"]["description"]


def test_every_key_is_listed_with_type_and_default(capsys):
    found = listed(capsys, "keys")
    hidden = {"algo", "method", *(row.source for row in STARTS.values())}
    assert set(found) == {*keys(), *FREE_FORM, *MACROS} - hidden
    assert found["nstep"] == {
        "name": "nstep",
        "type": "whole number >= 1, <= 20",
        "default": 3,
        "meaning": "Steps of the critics' targets (RLx2).",
    }
    assert all(each["meaning"].endswith(".") for each in found.values())
    assert found["tau"]["type"] == "number > 0, <= 1"
    assert found["rewire"]["type"] == "after_step|instead_of_step"
    assert (
        found["critic.topology.grow"]["type"] == "random|gradient|importance|drawn_importance|none"
    )
    assert found["actor.topology.grow"]["type"] == "random|gradient|none"  # no TD error of its own
    assert found["env.kwargs"]["type"] == "names and values"
    assert found["env_workers"]["type"] == "auto|N"
    assert found["metric"]["type"].startswith("last-steps:STEPS|last-evals:COUNT|")
    assert found["env.id"]["default"] == resolve().env.id
    assert "topology.drop" in found


@pytest.mark.parametrize("width", ["60", "80", "200"])
@pytest.mark.parametrize("what", ["methods", "scores", "keys", "presets", "envs"])
def test_lists_fit_the_terminal_and_break_no_word(capsys, monkeypatch, what, width):
    names = listed(capsys, what)
    monkeypatch.setenv("COLUMNS", "1000")
    assert main(["list", what]) == 0
    whole = capsys.readouterr().out.splitlines()[3:]  # without the headings
    monkeypatch.setenv("COLUMNS", width)
    assert main(["list", what]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown[:-1])) <= int(width)
    words = {word for line in shown for word in line.split()}
    assert names.keys() <= words
    assert {word for line in whole for word in line.split()} <= words


def test_an_unknown_list_names_the_known_ones(capsys):
    assert main(["list", "kees"]) == 2
    assert "did you mean 'keys'? Valid: envs, keys, methods" in capsys.readouterr().err


def test_lists_need_no_torch():
    code = (
        "import sys; from dstrl_cli.cli import main; "
        "[main(['list', what]) for what in ('methods', 'envs', 'scores', 'keys', 'presets')]; "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0


# --- flags of other tools -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--total-timesteps", "use --steps N"),
        ("--total_timesteps", "use --steps N"),
        ("--env-id", "use --env ID"),
        ("--eval-freq", "use --set eval_every=VALUE"),
        ("--lr", "use --set learning_rate=VALUE"),
        ("--learning-rate", "use --set learning_rate=VALUE"),
        ("--buffer-size", "use --set buffer_size=VALUE"),
        ("--batch-size", "use --set batch_size=VALUE"),
        ("--nstep", "use --set nstep=VALUE"),
        ("--drop-fraction", "use --set topology.drop_fraction=VALUE"),
        ("--n-envs", "use --seeds 0-4"),
        ("--num-envs", "use --seeds 0-4"),
        ("--sparsty", "use --sparsity"),
    ],
)
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_an_unknown_flag_is_answered_with_ours(capsys, command, flag, said):
    assert main([command, f"{flag}=1"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {flag}: no such flag of dstrl {command}; {said}")
    assert captured.out == ""


def test_a_flag_that_nobody_knows_and_one_that_the_command_lacks_get_no_hint(capsys):
    assert main(["train", "--foo=1"]) == 2
    assert "No such option: --foo" in capsys.readouterr().err
    assert main(["table", "--lr=1"]) == 2
    assert "No such option: --lr" in capsys.readouterr().err


def test_hints_name_keys_that_exist():
    assert set(KEYS.values()) <= {*keys(), *MACROS}


@pytest.mark.parametrize("command", ["train", "sweep", "eval", "table", "list", "bench train"])
@pytest.mark.parametrize("width", ["60", "80", "100"])
def test_help_cuts_nothing(capsys, monkeypatch, command, width):
    monkeypatch.setenv("COLUMNS", width)
    main([*command.split(), "--help"])
    shown = capsys.readouterr().out
    assert "--help" in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= int(width)
