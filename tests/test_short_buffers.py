"""Targets of more steps than the replay buffer holds are refused when a run is planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstrl_cli.cli import main
from dstrl_cli.config.parse import from_dict, to_dict
from dstrl_cli.config.parts import BufferConfig
from dstrl_cli.config.resolving import resolve
from dstrl_cli.errors import InputError

DYNAMIC = ("buffer.dynamic=true", "nstep=5")


def refusal(*sets: str, algo: str = "td3") -> str:
    with pytest.raises(InputError) as error:
        resolve("sst", algo, sets=sets)
    return str(error.value)


def test_a_buffer_of_fewer_transitions_than_n_is_refused() -> None:
    assert refusal("nstep=5", "buffer_size=2") == (
        "nstep = 5: a target sums the rewards of that many stored steps, and the buffer would hold "
        "fewer (buffer_size = 2); lower nstep, or raise buffer_size (set by --set; buffer_size by "
        "--set)"
    )
    assert "buffer_size = 4" in refusal("nstep=5", "buffer_size=4", algo="sac")
    assert resolve("sst", sets=["nstep=5", "buffer_size=5"]).nstep == 5


def test_a_dynamic_buffer_that_may_shrink_below_n_is_refused() -> None:
    assert "buffer.min_size = 4" in refusal(*DYNAMIC, "buffer.min_size=4")
    # of 7 transitions int(0.5 * 7) = 3 are dropped: 4 are left
    said = refusal(*DYNAMIC, "buffer.min_size=6", "buffer.shrink=0.5")
    assert "(buffer.min_size = 6, from which it may shrink to 4)" in said
    # of 9 transitions 4 are dropped: 5 are left
    sets = (*DYNAMIC, "buffer.min_size=8", "buffer.shrink=0.5")
    assert resolve("sst", sets=sets).buffer.smallest == 5


def test_a_dynamic_buffer_that_never_shrinks_is_held_against_its_size() -> None:
    assert "buffer_size = 4" in refusal(*DYNAMIC, "buffer.min_size=10", "buffer_size=4")
    assert resolve("sst", sets=[*DYNAMIC, "buffer.min_size=10", "buffer_size=5"]).nstep == 5


@pytest.mark.parametrize(
    ("min_size", "shrink", "left"), [(100, 0.1, 91), (10, 0.29, 8), (1, 0.5, 1), (9, 0.9, 1)]
)
def test_the_smallest_size_is_what_shrinking_leaves(
    min_size: int, shrink: float, left: int
) -> None:
    assert BufferConfig(dynamic=True, min_size=min_size, shrink=shrink).smallest == left


def test_a_method_of_its_own_n_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--dst=rlx2", "--env=2DNav-v1", "--set=buffer_size=2"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "nstep = 3" in said
    assert "buffer_size by --set" in said
    assert list(tmp_path.iterdir()) == []


def test_stored_runs_of_this_kind_stay_readable() -> None:
    stored = to_dict(resolve("sst")) | {"nstep": 5, "buffer_size": 2}
    assert from_dict(stored).nstep == 5
