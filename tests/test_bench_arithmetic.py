"""The arithmetic of `dstrl bench`: rates, ratios, what an update is divided into, and its floor."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from bench_samples import REQUEST, groups, measured

from dstrl_cli.bench import breakdown, measure, stopwatch, timing
from dstrl_cli.bench.plan import Work


def test_time_is_of_one_lock_step_of_one_process():
    each = measured(400.0, 800.0, 500.0, work=Work("train", members=2, jobs=2))
    assert each.rate == 500.0
    assert each.milliseconds == pytest.approx((8.0, 5.0, 10.0))


def test_ratio_is_of_medians_and_over_the_rounds():
    fast = measured(10.0, 30.0, 20.0, work=Work("train"), peak_mb=100.0)
    slow = measured(5.0, 5.0, 4.0, work=Work("train"), peak_mb=200.0)
    told = measure.ratio(fast, slow)
    assert (told.speed, told.least, told.most, told.memory) == (4.0, 2.0, 6.0, 0.5)


def test_one_run_is_compared_with_one_run_and_several_with_the_best_use_of_the_machine():
    own, several = Work("train"), Work("train", jobs=2)
    settings = [
        measured(10.0, work=Work("train", "sb3", threads=1)),
        measured(20.0, work=Work("train", "sb3", threads=2)),
        measured(30.0, work=Work("train", "sb3", threads=1, jobs=2)),
    ]
    mine = [measured(100.0, work=own), measured(150.0, work=several)]
    assert [each.speed for each in measure.ratios([*mine, *settings])] == [5.0, 5.0]


def test_several_runs_are_also_compared_with_as_many_runs_of_a_peer_that_is_faster_alone():
    settings = [
        measured(20.0, work=Work("train", "sbx", threads=None)),
        measured(10.0, work=Work("train", "sbx", threads=1, jobs=2)),
    ]
    mine = measured(100.0, work=Work("train", jobs=2))
    told = measure.ratios([mine, *settings])
    assert [(each.over.work.jobs, each.speed) for each in told] == [(2, 10.0), (1, 5.0)]


def test_processor_time_is_compared_for_one_step_of_one_member():
    own = measured(100.0, work=Work("train", members=2), cpu=(3.0, 4.0, 8.0))
    peer = measured(50.0, work=Work("train", "rltools"), cpu=(0.5, 1.0, 9.0))
    assert (own.cpu_ms, peer.cpu_ms) == (4.0, 1.0)
    assert measure.ratio(own, peer).cpu == 2.0


def test_an_update_is_divided_and_what_remains_of_it_are_losses():
    step = {"act": 1.0, "env": 2.0, "update": 10.0, "rest": 0.5}
    one = {"sample": 1.0, "kernels": 3.0}
    told = breakdown.within_update(step, one, updates=2.0)  # two updates a step
    assert told == {
        "act": 1.0, "env": 2.0, "sample": 2.0, "kernels": 6.0, "losses": 2.0, "rest": 0.5
    }  # fmt: skip
    # compiled as a whole, an update may take less time than its kernels called one by one
    assert breakdown.within_update(step, {"kernels": 11.0}, 1.0)["losses"] == 0.0


def test_a_stopwatch_counts_nested_calls_once_and_leaves_no_trace():
    class Worker:
        def outer(self) -> int:
            return self.inner() + 1

        def inner(self) -> int:
            return 1

    worker = Worker()
    watch = stopwatch.Stopwatch(["outer", "inner"])
    places = {name: [stopwatch.Place(worker, name)] for name in ("outer", "inner")}
    with watch.watching(places):
        assert worker.outer() == 2
    assert watch.seconds["outer"] > 0
    assert watch.seconds["inner"] == 0.0
    assert vars(worker) == {}


def test_arithmetic_of_a_dense_and_a_half_sparse_update():
    flops = {}
    for sparsity in (0.0, 0.5):
        ((work, _),) = groups(sparsities=[sparsity], engines=["masked"])
        flops[sparsity] = measure.update_flops(work.config)
        peer = measure.update_flops(work.config, "sb3")
    # 2DNav: 2 observations, 2 actions; TD3 costs 2.5 A + 8.5 C a sample (RLX App. C.3)
    actor, critic = 2 * (2 * 16 + 16 * 16 + 16 * 2), 2 * (4 * 16 + 16 * 16 + 16)
    assert flops[0.0] == peer == 16 * (2.5 * actor + 8.5 * critic)
    assert flops[0.5] == pytest.approx(flops[0.0] / 2, rel=0.01)
    ((work, _),) = groups(methods=["gmp"], sparsities=[0.5], engines=["masked"])
    assert measure.update_flops(work.config) == flops[0.0]  # it begins with all connections
    ((work, _),) = groups(methods=["tiny"], sparsities=[0.5], engines=["masked"])
    assert measure.update_flops(work.config, "sb3") == peer  # whose widths are those of dense runs


def test_floor_is_the_arithmetic_at_the_peak_of_the_threads_in_use():
    ((work, _),) = groups(sparsities=[0.0], engines=["masked"], threads=[2])
    peak = 1e9
    floor = measure.floor_ms(work, peak)
    assert floor == pytest.approx(1000 * measure.update_flops(work.config) / (2 * peak))
    assert measure.floor_ms(Work("product"), peak) is None


def test_floor_of_a_whole_step_is_that_of_its_updates():
    settings = ["train_freq=4", "gradient_steps=8", *REQUEST["sets"]]
    ((work, _),) = groups("train", methods=["sst"], engines=["masked"], sets=settings)
    one = 1000 * measure.update_flops(work.config) / 1e9
    assert measure.floor_ms(work, 1e9) == pytest.approx(2 * one)
    peer = dataclasses.replace(work, contender="sb3")  # takes one update a step
    dense = 1000 * measure.update_flops(work.config, "sb3") / 1e9
    assert measure.floor_ms(peer, 1e9) == pytest.approx(dense)


@pytest.mark.parametrize("make", [torch.tensor, np.array])
def test_rows_are_repeated_until_the_ring_is_full(make):
    ring = make([[1], [2], [3], [0], [0], [0], [0], [0]])
    timing.repeat_rows(ring, 3)
    assert ring[:, 0].tolist() == [1, 2, 3, 1, 2, 3, 1, 2]


def test_a_step_is_done_at_least_once():
    calls = []
    taken = timing.repeat(lambda: calls.append(1), seconds=0.0)
    assert taken.steps == len(calls) == 1
    assert taken.seconds > 0
