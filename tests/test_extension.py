"""Runs that are made longer: equal to one that was long from the start, or refused."""

import csv
from dataclasses import replace

import pytest
import yaml
from resume_samples import copy_while_training, make_run, numbers, train

from dstrl_cli.config import extension
from dstrl_cli.errors import InputError
from dstrl_cli.runs.checkpoint import read_values
from dstrl_cli.runs.folder import read_config
from dstrl_cli.sweep.states import resumed

KEPT = ("keep_checkpoint=true",)


def lengthen(run, path):
    """Plan `run`, which is longer than the one in `path`, to go on there."""
    (planned,) = resumed([replace(run, path=path)], overwrite=False, lengthen=True)
    return planned.run


@pytest.mark.parametrize(
    ("algo", "method", "engine", "sets"),
    [
        ("td3", "our-dst", "sparse", ()),
        ("sac", "dst", "masked", ("nstep=2", "buffer_size=90")),
    ],
)
def test_a_longer_run_equals_one_that_was_long_from_the_start(tmp_path, algo, method, engine, sets):
    # 120 steps end between two evaluations; the longer run has none there
    stop = ("topology.stop_before_end=0", *sets)
    options = {"algo": algo, "engine": engine, "sets": (*stop, *KEPT)}
    assert train(make_run(tmp_path / "run", method, **options))["steps"] == 120
    longer = make_run(tmp_path / "whole", method, **(options | {"steps": 190}))
    going_on = lengthen(longer, tmp_path / "run")
    assert (going_on.start, going_on.step) == ("resume", 120)
    summary = train(going_on)
    assert (summary["status"], summary["steps"], summary["extended_from"]) == ("finished", 190, 120)
    train(longer)
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")
    with (tmp_path / "run" / "eval.csv").open(newline="") as file:
        assert {row["step"] for row in csv.DictReader(file)} == {"0", "70", "140", "190"}
    document = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (document["steps"], document["run"]["extended_from"]) == (190, 120)
    assert read_values(tmp_path / "run" / "checkpoint")["steps"] == 190  # it is kept again


@pytest.mark.parametrize(
    ("method", "sets", "message"),
    [
        ("rlx2", (), r"actor\.topology\.schedule = cosine: it follows the whole length"),
        ("gmp", (), r"actor\.topology\.budget = cubic: it follows the whole length"),
        ("dst", ("topology.swap_end=0.5",), r"actor\.topology\.swap_start, swap_end: they are"),
        ("dst", ("topology.stop_before_end=10",), r"actor\.topology\.stop_before_end = 10"),
        (
            "dst",
            ("topology.stop_before_end=0", "topology.update_interval=8"),
            r"critic\.topology\.update_interval = 8: the last update, number 80,",
        ),
    ],
)
def test_what_depends_on_the_length_refuses_to_be_longer(tmp_path, method, sets, message):
    run = make_run(tmp_path / "run", method, sets=(*KEPT, *sets))
    train(run)
    before = numbers(run.path)
    longer = make_run(tmp_path / "run", method, steps=190, sets=(*KEPT, *sets))
    with pytest.raises(InputError, match=message):
        lengthen(longer, run.path)
    assert numbers(run.path) == before
    assert read_config(run.path).steps == 120


def test_a_score_of_ones_own_episodes_and_a_falling_rate_refuse_to_be_longer(tmp_path):
    config = make_run(tmp_path, "dst").config
    topology = config.critic.topology.model_copy(update={"grow": "mine:Score"})
    critic = config.critic.model_copy(update={"topology": topology})
    rate = make_run(tmp_path, sets=("learning_rate={linear: 0.001}",)).config.learning_rate
    changes = {"critic": critic, "episodes": 3, "learning_rate": rate}
    changed = config.model_copy(update=changes)
    found = " ".join(extension.refusals(changed))
    assert "critic.topology.grow = mine:Score: a score of one's own" in found
    assert "episodes = 3" in found
    assert "learning_rate: it falls" in found


def test_a_run_without_a_checkpoint_cannot_be_made_longer(tmp_path):
    train(make_run(tmp_path / "run", "sst"))
    with pytest.raises(InputError, match="without a checkpoint, which --keep-checkpoint keeps"):
        lengthen(make_run(tmp_path / "run", "sst", steps=190), tmp_path / "run")


def test_what_can_never_be_longer_is_not_asked_for_a_checkpoint(tmp_path):
    sets = (*KEPT, "episodes=2")
    train(make_run(tmp_path / "run", "sst", sets=sets))
    with pytest.raises(InputError, match=r"episodes = 2: they end it, not its steps"):
        lengthen(make_run(tmp_path / "run", "sst", steps=190, sets=sets), tmp_path / "run")


def test_an_unfinished_run_is_finished_before_it_is_made_longer(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", "sst", sets=("checkpoint_every=60",))
    copies = copy_while_training(monkeypatch, tmp_path / "killed", every=1000)
    train(run)
    (copy,) = copies()
    with pytest.raises(InputError, match=r"that is at step 60: let it finish first.*--steps 120"):
        lengthen(make_run(tmp_path / "run", "sst", steps=190), copy)


def test_a_shorter_run_is_another_configuration(tmp_path):
    train(make_run(tmp_path / "run", "sst", sets=KEPT))
    with pytest.raises(InputError, match="steps: 120 -> 90"):
        lengthen(make_run(tmp_path / "run", "sst", steps=90), tmp_path / "run")
