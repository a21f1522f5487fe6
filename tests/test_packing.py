"""Populations: which runs may share one, how memory splits them, and which device gets which."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrl_cli.errors import InputError
from dstrl_cli.machine import Host
from dstrl_cli.sweep.devices import Device, find_devices
from dstrl_cli.sweep.packing import PlannedPopulation, groups, memory_of, pack
from dstrl_cli.sweep.place import Limits, default_jobs, place_runs
from dstrl_cli.sweep.plan import Axes, expand
from dstrl_cli.sweep.states import Planned
from dstrl_cli.training.run import find_device

SMALL = ("hidden_sizes=8,8", "batch_size=8", "learning_starts=50", "eval_episodes=2")
ON_HOST = ("replay_device=cpu",)
GB = 10**9
HOST = Host(cores=4, memory=64 * GB)


def runs(axes: Axes, *, sets: Sequence[str] = (), **flags):
    flags = {"steps": 200, **({} if axes.envs else {"env.id": "2DNav-v1"}), **flags}
    return expand(axes, sets=(*SMALL, *sets), flags=flags)


def planned(found, status: str = "new") -> list[Planned]:
    return [Planned(run, status) for run in found]


def sizes(populations: Sequence[PlannedPopulation]) -> list[int]:
    return [len(each.runs) for each in populations]


# --- what may train together --------------------------------------------------------------------


def test_groups_join_methods_sparsities_and_seeds_and_nothing_else():
    methods = ("dense", "sst", "dst", "our-dst", "rlx2", "our-rlx2")
    together = runs(Axes(methods=methods, sparsities=(0.5, 0.9), seeds=(0, 1)))
    assert [len(group) for group in groups(together)] == [22]

    def lengths(axes: Axes) -> list[int]:
        return [len(group) for group in groups(runs(axes))]

    assert lengths(Axes(algos=("td3", "sac"), seeds=(0, 1))) == [2, 2]
    assert lengths(Axes(tasks=(0, 1))) == [1, 1]
    assert lengths(Axes(methods=("rlx2", "tiny"), sparsities=(0.5,))) == [1, 1]


@pytest.mark.parametrize(
    ("key", "values", "count"),
    [
        ("tau", [0.1, 0.2], 2),
        ("batch_size", [4, 8], 2),
        ("hidden_sizes", [[4], [8]], 2),
        ("replay_device", ["auto", "cpu"], 2),
        ("env_workers", [0, 2], 2),
        ("compile", [False, True], 2),
        ("nstep", [1, 3], 1),
        ("buffer_size", [50, 100], 1),
    ],
)
def test_members_share_what_one_update_and_one_device_share(key, values, count):
    kept = tuple(text for text in SMALL if not text.startswith(key))
    found = [expand(Axes(sets={key: [value]}), sets=kept, flags=SHORT)[0] for value in values]
    assert len(groups(found)) == count


SHORT = {"env.id": "2DNav-v1", "steps": 200}


def test_a_group_keeps_the_order_of_its_runs():
    found = runs(Axes(algos=("td3", "sac"), seeds=(0, 1)))
    assert [run.label for group in groups(found) for run in group] == [run.label for run in found]


# --- what fits ----------------------------------------------------------------------------------


def test_a_group_that_fits_is_one_population_and_one_that_does_not_is_split_evenly():
    found = runs(Axes(seeds=tuple(range(7))))
    whole, alone = memory_of(found), memory_of(found[:1])
    assert sizes(pack(found, [Device("cuda:0", whole.device)])) == [7]
    assert sizes(pack(found, [Device("cuda:0", whole.device - 1)])) == [3, 4]
    assert sizes(pack(found, [Device("cuda:0", alone.device)])) == [1] * 7
    assert sizes(pack(found, [Device("cuda:0")])) == [7]


def test_members_per_device_bounds_populations_that_would_fit():
    found = runs(Axes(seeds=tuple(range(7))))
    assert sizes(pack(found, [Device("cuda:0", 80 * GB)], max_members=3)) == [2, 2, 3]
    assert sizes(pack(found, [Device("cuda:0")], max_members=1)) == [1] * 7
    assert sizes(pack(found, [Device("cuda:0")], max_members=100)) == [7]


LENGTHS = runs(Axes(methods=("dense", "rlx2"), seeds=tuple(range(9))))


@given(
    memory=st.integers(memory_of(LENGTHS[-1:]).device, memory_of(LENGTHS).device),
    devices=st.integers(1, 3),
)
def test_packings_fit_lose_no_run_and_are_as_few_as_memory_allows(memory, devices):
    packed = pack(LENGTHS, [Device(f"cuda:{n}", memory) for n in range(devices)])
    assert [run.label for each in packed for run in each.runs] == [run.label for run in LENGTHS]
    assert all(each.memory.device <= memory for each in packed)
    assert max(sizes(packed)) - min(sizes(packed)) <= 1
    if len(packed) > devices:
        fewer = len(packed) - 1
        ends = [len(LENGTHS) * part // fewer for part in range(fewer + 1)]
        parts = [LENGTHS[a:b] for a, b in pairwise(ends)]
        assert any(memory_of(part).device > memory for part in parts)


def test_a_run_that_fits_nowhere_is_refused_with_sizes_and_remedies():
    (run,) = runs(Axes(envs=("Ant-v5",)), steps=1_000_000)
    with pytest.raises(InputError) as refused:
        place_runs(planned([run]), Limits(), HOST, devices=[Device("cuda:0", 2 * GB)])
    for said in (
        "cuda:0 has 2 GB of memory to use",
        "Ant-v5/td3-rlx2/s0.95/seed0 alone",
        "replay 500 MB",
        "--replay-device cpu",
        "buffer_size (now 1,000,000)",
    ):
        assert said in str(refused.value)
    (moved,) = runs(Axes(envs=("Ant-v5",)), steps=1_000_000, replay_device="cpu")
    where = place_runs(planned([moved]), Limits(), HOST, devices=[Device("cuda:0", 2 * GB)])
    assert where.populations[0].memory.host == 916 * 10**6


# --- several devices ----------------------------------------------------------------------------


def test_no_device_is_idle_while_another_has_members_to_give():
    found = runs(Axes(seeds=tuple(range(5))))
    two = [Device("cuda:0", 80 * GB), Device("cuda:1", 80 * GB)]
    packed = pack(found, two)
    assert [(len(each.runs), each.device.name) for each in packed] == [(2, "cuda:1"), (3, "cuda:0")]
    assert sizes(pack(found[:1], two)) == [1]
    assert pack([], two) == []


def test_devices_too_full_for_a_run_are_left_out_and_so_are_those_without_work():
    found = runs(Axes(seeds=(0, 1)))
    full, free = Device("cuda:0", GB), [Device(f"cuda:{n}", 80 * GB) for n in (1, 2, 3)]
    where = place_runs(planned(found), Limits(), HOST, devices=[full, *free])
    assert where.device == "cuda:1, cuda:2"
    assert [each.device.name for each in where.populations] == ["cuda:1", "cuda:2"]
    assert place_runs(planned(found[:1]), Limits(), HOST, devices=[full, *free]).device == "cuda:1"


def test_populations_fit_the_smallest_device():
    found = runs(Axes(seeds=tuple(range(4))))
    whole = memory_of(found).device
    packed = pack(found, [Device("cuda:0", whole), Device("cuda:1", memory_of(found[:1]).device)])
    assert sizes(packed) == [1] * 4
    assert [each.queue for each in packed] == [0, 1, 0, 1]


def test_the_longest_populations_are_given_away_first():
    short = runs(Axes(algos=("td3", "sac"), tasks=(0, 1)))
    (long,) = runs(Axes(), steps=1000)
    packed = pack([*short, long], [Device("cuda:0"), Device("cuda:1")])
    assert [each.queue for each in packed] == [1, 1, 1, 1, 0]


def test_a_queue_holds_the_populations_of_its_device_and_the_cpu_has_one_for_all_jobs():
    found = runs(Axes(tasks=(0, 1, 2)))
    where = place_runs(planned(found), Limits(), HOST, devices=[Device("cuda:0"), Device("cuda:1")])
    assert [[number for number, _ in queue] for queue in where.queues()] == [[0, 2], [1]]
    where = place_runs(planned(found), Limits(jobs=2), HOST, devices=[Device("cpu")])
    first, second = where.queues()
    assert first is second
    assert len(first) == 3


def test_populations_that_train_at_once_share_the_cores():
    found = [*runs(Axes()), *runs(Axes(tasks=(1,)), sets=("env_workers=7",))]
    where = place_runs(planned(found), Limits(), HOST, devices=[Device("cuda:0"), Device("cuda:1")])
    shared = {each.runs[0].label: each.runs[0].config.env_workers for each in where.populations}
    assert sorted(shared.values()) == [2, 7]
    (alone,) = place_runs(
        planned(found[:1]), Limits(), HOST, devices=[Device("cuda:0")]
    ).populations
    assert alone.runs[0].config.env_workers == "auto"


# --- where --------------------------------------------------------------------------------------


def test_finished_runs_are_in_no_population():
    found = runs(Axes(seeds=(0, 1, 2)))
    states = [*planned(found[:1], "finished"), *planned(found[1:])]
    where = place_runs(states, Limits(), HOST, devices=[Device("cuda:0")])
    settled = {"threads": 1}  # all that is settled for runs of an accelerator
    assert where.runs == [
        replace(run, config=run.config.model_copy(update=settled)) for run in found[1:]
    ]
    assert sizes(where.populations) == [2]
    assert where.engines == {"masked": 2}
    assert (
        place_runs(planned(found, "finished"), Limits(), HOST, devices=[Device("cuda:0")]).runs
        == []
    )


def test_devices_that_are_not_there_are_refused_except_in_a_dry_run():
    (run,) = runs(Axes(), device="cuda:63")
    with pytest.raises(InputError, match=r"device = 'cuda:63'"):
        place_runs(planned([run]), Limits(), HOST)
    where = place_runs(planned([run]), Limits(device_memory=80 * GB), HOST, dry_run=True)
    assert where.devices == [Device("cuda:63", 80 * GB)]
    assert where.device == "cuda:63"
    assert not where.on_cpu
    assert find_devices("cpu", dry_run=True) == [Device("cpu")]
    assert find_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("limits", "flag"),
    [(Limits(device_memory=GB), "--device-memory"), (Limits(members=3), "--members-per-device")],
)
def test_limits_of_accelerators_are_refused_on_the_cpu(limits, flag):
    with pytest.raises(InputError, match=rf"{flag} is for accelerators.*--jobs"):
        place_runs(planned(runs(Axes())), limits, HOST, devices=[Device("cpu")])


def test_one_sweep_takes_one_device():
    found = [*runs(Axes(), device="cpu"), *runs(Axes(seeds=(1,)), device="cuda:0")]
    with pytest.raises(InputError, match="not on cpu and cuda:0"):
        place_runs(planned(found), Limits(), HOST)


def test_replay_buffers_beyond_main_memory_are_refused():
    big = runs(Axes(envs=("Humanoid-v5",)), sets=("buffer_size=1e9",), steps=10**9)
    said = (
        r"buffer_size = 1,000,000,000: main memory has 64 GB.* need 1\.55 TB .* smaller buffer_size"
    )
    with pytest.raises(InputError, match=said):
        place_runs(planned(big), Limits(), HOST, devices=[Device("cpu")])
    moved = runs(Axes(envs=("Humanoid-v5",)), sets=("buffer_size=1e9", *ON_HOST), steps=10**9)
    with pytest.raises(InputError, match="smaller buffer_size, or --replay-device auto"):
        place_runs(planned(moved), Limits(), HOST, devices=[Device("cuda:0", 80 * GB)])


def test_jobs_fill_the_cores_with_threads():
    found = runs(Axes(seeds=(0, 1, 2)), sets=("threads=1",))
    assert default_jobs(found, Host(cores=8)) == 3
    assert default_jobs(found, Host(cores=2)) == 2
    assert default_jobs(runs(Axes(), sets=("threads=1000",)), HOST) == 1


def test_a_machine_of_unknown_memory_refuses_nothing():
    big = runs(Axes(envs=("Humanoid-v5",)), sets=("buffer_size=1e9",), steps=10**9)
    where = place_runs(planned(big), Limits(), Host(cores=1), devices=[Device("cpu")])
    assert where.populations[0].memory.host > HOST.memory
