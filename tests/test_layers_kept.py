"""No layer of a run is left without connections, and the user is told where that took something."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from training_samples import run, train

from dstrl_cli.cli import main
from dstrl_cli.training.reporter import Silent


class Heard(Silent):
    """A reporter that keeps what the user should read."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        """Keep a message."""
        self.texts.append(text)


def topology(folder: Path) -> list[dict[str, str]]:
    with (folder / "topology.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_final_drop_keeps_one_connection_of_every_layer_and_says_so(tmp_path: Path) -> None:
    # 80 updates of the critics and 40 of the actor; the last change drops every connection
    sets = ["topology.drop_fraction=1", "topology.stop_before_end=40"]
    heard = Heard()
    (folder,) = train([run("dst-official", sets=sets)], tmp_path, reporter=heard)
    last = {(row["network"], row["layer"]): row["active"] for row in topology(folder)}
    assert len(last) == 9
    kept = [text for text in heard.texts if "was to be dropped" in text]
    assert len(kept) == list(last.values()).count("1") > 0
    assert kept[0].startswith("dst-official seed 0: the last connection of ")
    assert kept[0].endswith(", layer 0, was to be dropped and was kept")


def test_masks_that_were_drawn_again_are_told_at_the_start(tmp_path: Path) -> None:
    sparse = {"sparsity": 0.99, "allocation": "uniform", "initial_mask": "bernoulli"}
    configs = [
        config.model_copy(
            update={
                "actor": config.actor.model_copy(update=sparse),
                "critic": config.critic.model_copy(update=sparse),
            }
        )
        for config in (run("dst", seed) for seed in range(3))
    ]
    heard = Heard()
    paths = train(configs, tmp_path, reporter=heard)
    assert heard.texts
    assert all("and was drawn again" in text for text in heard.texts)
    for folder in paths:
        assert all(int(row["active"]) > 0 for row in topology(folder))


def test_the_plan_calls_the_count_of_bernoulli_masks_an_expectation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["train", "--dst=dst", "--env=2DNav-v1", "--dry-run", "--sparsity=0.9"]
    assert main([*arguments, "--set=critic.initial_mask=bernoulli"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "active actor 512 + 5,632 + 512; each critic about 1,024 + 5,402 + 256" in said
    assert main(arguments) == 0
    assert "about" not in capsys.readouterr().out
