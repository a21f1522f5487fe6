"""Runs that train at other times, or at a falling rate, go on where they were killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from resume_samples import copy_while_training, go_on, make_run, numbers, train

FALLING = "learning_rate={linear: 0.001}"


@pytest.mark.parametrize(
    ("algo", "method", "engine", "sets"),
    [
        ("td3", "our-rlx2", "masked", ("train_freq=[1,episode]", "gradient_steps=-1", FALLING)),
        ("sac", "dst", "sparse", ("train_freq=7", "gradient_steps=3", FALLING)),
    ],
)
def test_a_run_that_trains_at_other_times_goes_on_with_the_same_bytes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    algo: str,
    method: str,
    engine: str,
    sets: tuple[str, ...],
) -> None:
    sets = ("checkpoint_every=30", *sets)
    run = make_run(tmp_path / "run", method, algo=algo, engine=engine, sets=sets)
    copies = copy_while_training(monkeypatch, tmp_path / "killed", every=40)
    assert train(run)["status"] == "finished"
    expected, killed = numbers(run.path), copies()
    assert len(killed) >= 3
    assert len(expected["topology.csv"].splitlines()) > 10
    for copy in killed:
        assert go_on(run, copy)["status"] == "finished"
        assert numbers(copy) == expected
