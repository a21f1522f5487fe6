"""What trains, stopped and gone on with: the same numbers as what was never stopped."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from state_samples import LIMIT, STEPS, STOPS, Trainee, assert_equal_states, both, config

from dstrl_cli.errors import InputError
from dstrl_cli.nets.choice import unsupported_reason
from dstrl_cli.replay.once import OnceReplay

METHODS = ("dense", "tiny", "sst", "dst", "rigl", "rlx2", "rlx-ss", "rlx-set")
METHODS += ("gmp", "gmp-dst", "granet", "rigl-dense", "ne", "our-ne")
METHODS += ("our-dst", "our-rigl", "our-rlx2", "dst-official", "rlx2-official")
EVERY_UPDATE = "critic.topology.accumulate=critic_update"
BY_CONNECTION = "grown_bias_correction=connection"


def check_resumed(folder: Path, method: str, algo: str, engine: str, *sets: str) -> None:
    """Stop a run and go on, again and again; compare it with one that was left alone."""
    run = config(method, algo, sets=sets)
    left_alone, stopped = Trainee([run], engine), Trainee([run], engine)
    for stop in STOPS:
        left_alone.train(stop)
        state = stopped.train(stop).state(0, folder)
        stopped = Trainee([run], engine).train(29)  # has other weights, masks and rows by now
        networks = (stopped.algorithm.actor, stopped.algorithm.critic)
        networks[0].tell(0, "of the initial masks")
        stopped.resume([state])
        assert not any(each.take_messages() or each.take_changes() for each in networks)
        assert_equal_states(both(stopped), both(left_alone))
    for until in (STOPS[-1] + 1, STEPS):
        assert_equal_states(both(stopped.train(until)), both(left_alone.train(until)))
    assert stopped.algorithm.take_metrics() == left_alone.algorithm.take_metrics()


@pytest.mark.parametrize(
    ("method", "algo", "engine", "sets"),
    [
        ("dst", "td3", "sparse", ()),  # a target with a topology of its own
        ("dst", "sac", "masked", ()),
        # online masks, n-step, a buffer that shrinks
        ("our-rlx2", "td3", "masked", (EVERY_UPDATE,)),
        ("our-rlx2", "sac", "sparse", ()),
        ("rigl", "td3", "sparse", (BY_CONNECTION,)),
        ("our-rlx2", "sac", "masked", (BY_CONNECTION,)),
        ("dst-official", "td3", "masked", ()),
        ("rlx2-official", "sac", "masked", ()),
    ],
)
def test_a_run_that_was_stopped_equals_one_that_was_not(
    method: str, algo: str, engine: str, sets: tuple[str, ...], tmp_path: Path
) -> None:
    check_resumed(tmp_path, method, algo, engine, *sets)


@pytest.mark.soak
@pytest.mark.parametrize("sets", [(), (BY_CONNECTION,), (EVERY_UPDATE,)], ids=str)
@pytest.mark.parametrize("engine", ["masked", "sparse"])
@pytest.mark.parametrize("algo", ["td3", "sac"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_on_where_it_stopped(
    method: str, algo: str, engine: str, sets: tuple[str, ...], tmp_path: Path
) -> None:
    try:
        run = config(method, algo, sets=sets)
    except InputError as refused:
        pytest.skip(str(refused))
    if engine == "sparse" and (reason := unsupported_reason(run, "cpu")):
        pytest.skip(reason)
    check_resumed(tmp_path, method, algo, engine, *sets)


def test_the_runs_above_are_stopped_in_the_middle_of_everything() -> None:
    trainee = Trainee([config("our-rlx2")], "masked")
    sizes, steps, changes = {}, {}, {}
    for stop in (0, *STOPS, STEPS):
        trainee.train(stop)
        sizes[stop] = int(trainee.replay.size)
        steps[stop] = trainee.learner.nsteps.max_nstep
        changes[stop] = len(trainee.algorithm.critic.take_changes())
    first, second, _ = STOPS
    assert sizes[first] < first  # it has shrunk
    assert sizes[STEPS] < 70
    assert (steps[first], steps[second]) == (1, 3)
    assert all(changes[stop] > 0 for stop in STOPS)
    official = Trainee([config("dst-official")], "masked")
    finished = []
    for stop in (*STOPS, STEPS):
        official.train(stop)
        finished.append([group.rule.finished for group in official.algorithm.critic.groups])
    assert finished == [[False], [False], [True], [True]]


def test_tensors_that_may_be_captured_keep_their_addresses(tmp_path: Path) -> None:
    trainee = Trainee([config("our-dst", "sac")], "masked").train(STOPS[0])
    again = Trainee(trainee.configs, "masked")

    def addresses() -> list[int]:
        algorithm = again.algorithm
        tensors = [algorithm.alive, *algorithm.sums.values(), again.replay.size]
        tensors += [again.replay.position, algorithm.log_alpha]  # type: ignore[attr-defined]
        for network in (algorithm.actor, algorithm.critic):
            tensors += [network.params.flat, network.mask.flat, network.target_params.flat]
            tensors += [network.adam.first, network.adam.second, network.adam.powers]
            tensors += [network.gradient_mask.flat, network.target_mask.flat]
            tensors += [budget for _, budget, _ in network.trims]
        return [each.data_ptr() for each in tensors]

    before = addresses()
    again.resume([trainee.state(0, tmp_path)])
    assert addresses() == before


# --- populations ----------------------------------------------------------------------------------


# --- populations ----------------------------------------------------------------------------------

MEMBERS = ("dense", "dst", "our-rlx2", "rlx2", "our-dst", "rlx2-official", "our-rlx2", "our-rlx2")


def populations(algo: str) -> list[Trainee]:
    runs = [config(method, algo, seed) for seed, method in enumerate(MEMBERS)]
    runs.append(config("rigl", algo, 8, [BY_CONNECTION]))
    return [Trainee(runs[:4], "masked"), Trainee(runs[4:], "masked")]


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_members_of_two_populations_are_packed_anew(algo: str, tmp_path: Path) -> None:
    before = [each.train(STOPS[0]) for each in populations(algo)]
    places = [(each, member) for each in before for member in range(len(each.configs))]
    orders = [[7, 2, 5, 0], [8], [1, 3, 6, 4]]
    packed = []
    for order in orders:
        states = [places[number][0].state(places[number][1], tmp_path) for number in order]
        configs = [places[number][0].configs[places[number][1]] for number in order]
        packed.append(Trainee(configs, "masked").resume(states))
        for member, state in enumerate(states):  # nothing is lost or changed
            mine = packed[-1].algorithm.state(member)
            assert_equal_states(mine, state["algorithm"])
            assert_equal_states(packed[-1].replay.state(member), state["replay"])
    for each in (*before, *packed):
        each.train(STOPS[0] + 14)
    for order, population in zip(orders, packed, strict=True):
        for member, number in enumerate(order):
            assert_equal_states(both(population, member), both(*places[number]), tolerance=1e-4)


def test_members_that_took_different_numbers_of_updates_are_refused(tmp_path: Path) -> None:
    runs = [config("dst", seed=seed) for seed in (0, 1)]
    states = [
        Trainee([run], "masked").train(stop).state(0, tmp_path)
        for run, stop in zip(runs, (40, 41), strict=True)
    ]
    with pytest.raises(ValueError, match="equally many updates"):
        Trainee(runs, "masked").resume(states)


def test_a_member_that_diverged_stays_frozen_and_keeps_its_metrics(tmp_path: Path) -> None:
    runs = [config("dst", seed=seed) for seed in (0, 1)]
    trainee = Trainee(runs, "masked").train(50)
    trainee.algorithm.alive[1] = False
    trainee.algorithm.sums["critic_loss"][1] = float("nan")
    states = [trainee.state(member, tmp_path) for member in (1, 0)]
    again = Trainee(runs[::-1], "masked").resume(states)
    assert again.algorithm.alive.tolist() == [False, True]
    metrics = again.algorithm.take_metrics()
    assert np.isnan(metrics["critic_loss"][0])
    assert metrics["critic_loss"][1] == trainee.algorithm.take_metrics()["critic_loss"][0]


@pytest.mark.parametrize(("earlier", "later"), [("once", "paired"), ("paired", "once")])
def test_a_run_goes_on_with_a_buffer_of_another_layout(
    earlier: str, later: str, tmp_path: Path
) -> None:
    layouts: dict[str, Any] = {
        "once": functools.partial(OnceReplay, time_limit=LIMIT),
        "paired": None,
    }
    run = config("our-rlx2")
    left_alone = Trainee([run], "masked", layouts[later]).train()
    stopped = Trainee([run], "masked", layouts[earlier]).train(STOPS[0])
    state = stopped.state(0, tmp_path)
    stopped = Trainee([run], "masked", layouts[later]).resume([state]).train()
    assert_equal_states(stopped.algorithm.state(0), left_alone.algorithm.state(0))
    assert stopped.replay.faults() == {}
