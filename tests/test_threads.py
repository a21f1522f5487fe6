"""A second thread: updates are shared with it, which changes no number, and `auto` chooses it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from compiled_samples import OBS, compare, config, store
from compiled_samples import learner as learner_of
from numba import int64
from program_samples import REPOSITORY
from resume_samples import go_on, make_run, numbers, stop_at_check, train

from dstrl_cli.algos.base import Algorithm
from dstrl_cli.algos.compiled import shared
from dstrl_cli.compiler import jit
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.resolving import resolve
from dstrl_cli.machine import Host
from dstrl_cli.nets.choice import threads_for, torch_threads
from dstrl_cli.nets.sparse.partner import BUSY, Partner
from dstrl_cli.nets.sparse.pieces import add, read, share
from dstrl_cli.nets.sparse.tables import address_of, numbers_at
from dstrl_cli.replay.compiled import CompiledReplay
from dstrl_cli.sweep.devices import Device
from dstrl_cli.sweep.place import Limits, place_runs
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.sweep.states import Planned
from dstrl_cli.training.learner import Learner

# --- the thread ---------------------------------------------------------------------------------


@jit
def count_up(address: int) -> None:
    numbers_at(address, 1)[0] += 1


def test_a_partner_does_what_is_handed_over_until_it_is_closed() -> None:
    partner, count = Partner(), np.zeros(1, np.int64)
    count_up.compile((int64,))
    partner.wait()  # for nothing
    for _ in range(1000):
        partner.start(address_of(count_up, 1), count.ctypes.data)
        partner.wait()
    assert count[0] == 1000
    partner.start(address_of(count_up, 1), count.ctypes.data)
    partner.close()  # waits
    assert count[0] == 1001
    partner.wait()
    partner.close()


@jit
def meet(address: int, piece: int, worker: int) -> None:
    """Count a piece, and wait for the other thread to be in one, for half a minute at most."""
    words = numbers_at(address, MEETING)
    add(words, 1 + worker, 1)
    looks = 0
    while (read(words, 1) == 0 or read(words, 2) == 0) and looks < 10**10:
        looks += 1
    words[3 + piece] += 1


@jit
def lay_out(address: int) -> None:
    words = numbers_at(address, MEETING)
    share(words[0], words[MEETING - 1], address, PIECES)


PIECES = 7
MEETING = 3 + PIECES + 1
"""Words: a board, pieces by thread, how often each piece was taken, and what to call for it."""


def test_who_waits_for_work_takes_pieces_of_it() -> None:
    partner, words = Partner(), np.zeros(MEETING, np.int64)
    meet.compile((int64, int64, int64))
    lay_out.compile((int64,))
    words[0], words[-1] = partner.address, address_of(meet, 3)
    partner.start(address_of(lay_out, 1), words.ctypes.data)
    partner.wait()
    partner.close()
    assert words[3:-1].tolist() == [1] * PIECES
    assert min(words[1:3]) >= 1
    assert sum(words[1:3]) == PIECES


def test_without_a_second_thread_the_caller_takes_every_piece() -> None:
    words = np.zeros(MEETING, np.int64)
    words[2] = 1  # nobody else is waited for
    meet.compile((int64, int64, int64))
    lay_out.compile((int64,))
    words[-1] = address_of(meet, 3)
    lay_out(words.ctypes.data)
    assert words[1:-1].tolist() == [PIECES, 1, *[1] * PIECES]


FORKS = """
import os, sys
from dstrl_cli.nets.sparse.partner import BUSY, ENDED, Partner

partner = Partner()
partner.words[BUSY], partner.words[ENDED] = 1, 0  # as if it were at work
child = os.fork()
if child == 0:
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
partner.words[BUSY], partner.words[ENDED] = 0, 1
"""


def test_a_forked_process_does_not_wait_for_a_thread_that_it_does_not_have() -> None:
    command = [sys.executable, "-c", FORKS]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "7\n"


@jit
def halve(address: int) -> None:
    numbers = numbers_at(address, 2)
    small = np.float32(1.5e-38) * np.float32(numbers[0])
    numbers[1] = 0 if small * np.float32(0.5) == np.float32(0.0) else 1


def test_a_partner_treats_denormal_numbers_as_the_thread_that_made_it() -> None:
    given = np.ones(2, np.int64)
    halve.compile((int64,))
    flushed = []
    for flush in (True, False):
        torch.set_flush_denormal(flush)
        partner = Partner()
        partner.start(address_of(halve, 1), given.ctypes.data)
        partner.close()
        flushed.append(int(given[1]))
    assert flushed == [0, 1]


# --- updates ------------------------------------------------------------------------------------


def with_two(run: RunConfig) -> Learner:
    """Return the learner of `compiled_samples` for a run with two threads, critics aside."""
    algorithm: Algorithm = learner_of(run, True, 0).algorithm
    found = Learner(algorithm, CompiledReplay(1, 200, OBS, 2, run.gamma), lambda f: f, aside=True)
    for step in range(230):
        store(found, step)
    return found


LARGE = {"hidden_sizes": [200, 190], "actor": {"sparsity": 0.0}, "critic": {"sparsity": 0.2}}
"""Networks that are split after the tiles, too; the actor has every connection."""


@torch.no_grad()
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"nstep": 3},
        {"policy_delay": 3},
        {"target_masking": "magnitude_trim"},
        {"batch_size": 30},  # one tile
        {"batch_size": 600},  # blocks of several
        {"batch_size": 250, **LARGE},
    ],
)
@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_critics_that_learn_while_the_policy_acts_are_the_same(
    algo: str, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    start = Partner.start

    def counting(partner: Partner, *call: int) -> None:
        begun.append(call)
        start(partner, *call)

    monkeypatch.setattr(Partner, "start", counting)
    run = config(algo, **{"policy_delay": 2, **keys})
    one, two = learner_of(run, True), with_two(run.model_copy(update={"threads": 2}))
    updates, observation = 60, torch.linspace(-1, 1, OBS).view(1, -1)
    for step in range(updates):
        acted = []
        for each in (one, two):
            store(each, 1000 + step)
            each.update()
            assert each.compiled is not None
            acted.append([action.clone() for action in each.compiled.act(observation, step)])
        assert all(torch.equal(a, b) for a, b in zip(*acted, strict=True))
    two.wait()
    compare(one.algorithm.state(0), two.algorithm.state(0), 0.0, "")
    assert one.partner is None
    assert len(begun) == updates
    two.close()


@torch.no_grad()
@pytest.mark.parametrize("keys", [{}, {"nstep": 3}, {"target_masking": "magnitude_trim"}])
@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_updates_that_start_before_their_step_are_the_same(algo: str, keys: dict[str, Any]) -> None:
    run = config(algo, **keys)
    one, two = learner_of(run, True), with_two(run.model_copy(update={"threads": 2}))
    early, updates, observation = 0, 60, torch.linspace(-1, 1, OBS).view(1, -1)
    for step in range(updates):
        acted = [each.act(observation, step) for each in (one, two)]
        pair = [[action.clone() for action in actions or ()] for actions in acted]
        assert all(torch.equal(a, b) for a, b in zip(*pair, strict=True))
        two.update_early(1000 + step)
        early += two.started
        for each in (one, two):
            store(each, 1000 + step)
            each.update()
    two.wait()
    compare(one.algorithm.state(0), two.algorithm.state(0), 0.0, "")
    assert torch.equal(one.replay.position, two.replay.position)
    assert torch.equal(one.replay.outcome, two.replay.outcome)
    assert 0 < early < updates  # a few batches hold the newest of 200
    two.close()


def test_an_update_that_reads_the_next_transition_does_not_start_before_it_is_known() -> None:
    two = with_two(config(batch_size=2, threads=2))  # 200 transitions are stored, as many as fit
    assert two.compiled is not None
    numbers, address = two.sampling.array[0], two.compiled.batch.address
    for nstep, last in ((1, 199), (3, 197)):  # of 200 or 198 starts
        starts = last + 1
        numbers[0] = [0.0, (last + 0.5) / starts]
        numbers[1] = [0.0, (last - 0.5) / starts]
        assert shared.reads_next(address, 0, nstep)
        assert not shared.reads_next(address, 1, nstep)
    two.close()


@torch.no_grad()
@pytest.mark.parametrize(("delay", "goes_on"), [(1, False), (5, True)])
def test_an_update_of_the_actor_after_its_step_is_waited_for(delay: int, goes_on: bool) -> None:
    two = with_two(config("sac", policy_delay=delay, threads=2))
    assert two.partner is not None
    for _ in range(4):
        two.update()
        assert bool(two.partner.words[BUSY]) == goes_on
    two.close()


# --- runs ---------------------------------------------------------------------------------------

ONE, TWO = ("threads=1",), ("threads=2",)


@pytest.mark.parametrize(
    ("method", "env", "more"),
    [
        ("rlx2", "InvertedPendulum-v5", ()),
        ("our-dst", "2DNav-v1", ("gradient_steps=2",)),
        ("rlx2", "Pendulum-v1", ("train_freq=[1, episode]", "gradient_steps=-1")),
        ("rlx2", "InvertedPendulum-v5", ("critic.redo_interval=9",)),
        # the end of an episode ends the topology updates where one is planned
        ("rlx2", "InvertedPendulum-v5", ("episodes=9", "learning_starts=20")),
    ],
)
def test_runs_with_one_thread_and_two_have_the_same_files(
    tmp_path: Path, method: str, env: str, more: tuple[str, ...]
) -> None:
    for name, threads in (("one", ONE), ("two", TWO)):
        made = make_run(tmp_path / name, method, engine="sparse", env=env, sets=(*more, *threads))
        assert train(made)["status"] == "finished"
    assert numbers(tmp_path / "one") == numbers(tmp_path / "two")


@pytest.mark.parametrize("check", [58, 59, 66])
def test_a_run_that_is_stopped_beside_an_update_goes_on_as_if_it_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: int
) -> None:
    def made(name: str, threads: tuple[str, ...]) -> Any:
        return make_run(tmp_path / name, engine="sparse", sets=("checkpoint_every=30", *threads))

    train(made("one", ONE))
    stop_at_check(monkeypatch, check)
    with pytest.raises(KeyboardInterrupt):
        train(made("two", TWO))
    monkeypatch.undo()
    assert go_on(made("two", TWO), tmp_path / "two")["status"] == "finished"
    assert numbers(tmp_path / "one") == numbers(tmp_path / "two")


class Breaks(gymnasium.Env):
    """Raises at its 70th step."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    count = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.count += 1
        if self.count == 70:
            raise RuntimeError("it broke")
        seen = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return seen, float(action[0]), False, self.count % 30 == 0, {}


def test_an_environment_that_breaks_beside_an_update_ends_the_run_as_with_one_thread(
    tmp_path: Path,
) -> None:
    gymnasium.register("BreaksBeside-v0", Breaks)
    try:
        ends = []
        for name, threads in (("one", ONE), ("two", TWO)):
            sets = (*threads, "env_workers=0", "eval_every=1000")
            made = make_run(tmp_path / name, engine="sparse", env="BreaksBeside-v0", sets=sets)
            ended = train(made)
            ends.append([ended[key] for key in ("status", "error", "steps", "flops")])
        assert ends[0] == ends[1]
        assert ends[0][0] == "failed"
        assert "it broke" in ends[0][1]
        assert numbers(tmp_path / "one") == numbers(tmp_path / "two")
    finally:
        gymnasium.registry.pop("BreaksBeside-v0")


# --- auto ---------------------------------------------------------------------------------------


def cheetah(seed: int = 0, method: str = "rlx2", algo: str = "td3", *sets: str) -> Any:
    """Return a run as `dstrl train` would plan it."""
    flags = {"env.id": "HalfCheetah-v5", "seed": seed, "device": "cpu"}
    made = prepare(resolve(method, algo, sets=sets, flags=flags), Path(f"run/seed{seed}"))
    return replace(made, path=Path("run") / f"seed{seed}")


def chosen(statuses: str, jobs: int | None = None, cores: int = 2, *sets: str) -> list[Any]:
    """Return the threads of a plan's runs; a letter for each run: new, or finished."""
    planned = [
        Planned(
            cheetah(seed, "rlx2", "td3", "threads=auto", *sets),
            "new" if letter == "n" else "finished",
        )
        for seed, letter in enumerate(statuses)
    ]
    placed = place_runs(planned, Limits(jobs=jobs), Host(cores), devices=[Device("cpu")])
    return [run.config.threads for run in placed.runs]


def test_auto_gives_a_second_thread_to_a_run_that_is_alone_and_gains_by_it() -> None:
    assert threads_for(cheetah().config, "cpu", 2) == 2
    assert threads_for(cheetah().config, "cpu", 1) == 1
    assert threads_for(cheetah().config, "cuda:0", 2) == 1
    assert threads_for(cheetah(0, "rlx2", "td3", "hidden_sizes=[64,64]").config, "cpu", 2) == 2
    assert threads_for(cheetah(0, "rlx2", "sac").config, "cpu", 2) == 2
    assert threads_for(cheetah(0, "dense").config, "cpu", 2) == 2
    assert threads_for(cheetah(0, "rlx2", "td3", "engine=masked").config, "cpu", 2) == 1


def test_auto_looks_at_the_whole_plan_and_not_at_what_is_left_of_it() -> None:
    assert chosen("n") == [2]
    assert chosen("nn") == [1, 1]
    assert chosen("fn") == chosen("ffn") == [1]
    assert chosen("fn", jobs=1) == [2]
    assert chosen("n", None, 1) == [1]
    assert chosen("nn", None, 2, "threads=2") == [2, 2]
    assert chosen("nnn", None, 5) == [1, 1, 1]
    assert chosen("nnn", None, 6) == chosen("nnn", 2, 4) == [2, 2, 2]


def test_torch_has_one_thread_beside_the_sparse_engine() -> None:
    run = cheetah(0, "rlx2", "td3", "threads=2", "engine=sparse").config
    assert torch_threads(run) == 1
    assert torch_threads(run.model_copy(update={"engine": "masked"})) == 2
