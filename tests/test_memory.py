"""Bytes of a population: the arithmetic against the tensors that a real one holds and passes."""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dstrl_cli.config.parse import to_dict
from dstrl_cli.errors import InputError
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.sweep import memory
from dstrl_cli.sweep.memory import format_bytes, parse_size, population_memory
from dstrl_cli.sweep.plan import Axes, expand
from dstrl_cli.training import trainer
from dstrl_cli.training.reporter import Silent

SETS = (
    "engine=masked",
    "hidden_sizes=64,64",
    "batch_size=64",
    "learning_starts=20",
    "buffer_size=1500",
    "eval_episodes=2",
    "topology.update_interval=4",
    "nstep_delay=0",
    "buffer.check_interval=30",
    "buffer.check_batches=2",
    "buffer.min_size=5",
)
WARM = 25
"""Steps after which all buffers that live on have been made."""
LAST = 38
"""Steps in which every rule and every dynamic buffer has been looked at."""

XU = ("dense", "sst", "dst", "our-dst", "rlx2", "our-rlx2")
CASES = {
    "td3": ("td3", XU, ()),
    "sac": ("sac", XU, ()),
    "one step, short memory": ("td3", ("sst", "dense"), ("nstep=1",)),
    "dense gradients": ("td3", ("dst-official", "rlx2-official"), ()),
    "other widths": ("sac", ("rlx2",), ("hidden_sizes=32,96,64", "batch_size=32")),
}


@contextmanager
def population(tmp_path, algo, methods, sets) -> Iterator[tuple[trainer.Population, list]]:
    flags = {"env.id": "Pendulum-v1", "steps": 2000, "sparsity": 0.6, "out": str(tmp_path)}
    axes = Axes(algos=(algo,), methods=methods, seeds=(0,))
    runs = expand(axes, sets=(*SETS, *sets), flags=flags)
    configs = [run.config for run in runs]
    with ExitStack() as folders, torch.no_grad():
        sinks = [
            [folders.enter_context(RunFolder(run.path).create(to_dict(run.config)))] for run in runs
        ]
        made = trainer.Population(configs, sinks, runs[0].spec, "cpu", Silent())
        folders.callback(made.close)
        yield made, configs


def held(root: object) -> int:
    """Return the bytes of all tensors that an object of ours reaches, each storage once."""
    storages: dict[int, int] = {}
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            storages[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes()
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list | tuple):
            waiting += item
        elif type(item).__module__.startswith("dstrl_cli"):
            waiting += vars(item).values()
    return sum(storages.values())


class Peak(TorchDispatchMode):
    """Follows the bytes of the tensors that operations make while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.most = 0
        self.storages: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.follow(tensor.untyped_storage())
        return out

    def follow(self, storage) -> None:
        address, count = storage.data_ptr(), storage.nbytes()
        if count == 0 or address in self.storages:
            return
        self.storages.add(address)
        self.live += count
        self.most = max(self.most, self.live)
        weakref.finalize(storage, self.forget, address, count)

    def forget(self, address: int, count: int) -> None:
        self.storages.discard(address)
        self.live -= count


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_replay_networks_and_random_numbers_are_what_a_population_holds(tmp_path, case):
    with population(tmp_path, *case) as (made, configs):
        need = population_memory(configs, 3, 1)
        assert held(made.replay) == pytest.approx(need.replay, rel=0.02)
        networks = held([made.algorithm.actor, made.algorithm.critic])
        assert networks == pytest.approx(need.networks, rel=0.02)
        assert held(made) == pytest.approx(need.replay + need.networks + need.streams, rel=0.02)


def passing(tmp_path, case) -> tuple[int, list]:
    """Return the most bytes that live only for a while in the steps of a population."""
    with Peak() as peak, population(tmp_path, *case) as (made, configs):
        observation = made.env.reset(made.env_seeds)
        while made.steps < WARM:
            observation = made.advance(observation)
        # activations that a network remembers count as passing
        lasting = held(made) - held([made.algorithm.actor.cache, made.algorithm.critic.cache])
        peak.most = 0
        while made.steps < LAST:
            observation = made.advance(observation)
        return peak.most - lasting, configs


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_updates_topology_and_checks_stay_within_what_is_set_aside(tmp_path, case):
    most, configs = passing(tmp_path, case)
    aside = memory.working_bytes(configs, 3, 1)
    assert aside / 10 < most < aside


def test_one_update_takes_what_is_counted_for_it(tmp_path):
    most, configs = passing(tmp_path, ("td3", ("dense", "sst"), ()))
    assert most == pytest.approx(memory.update_bytes(configs, 3, 1), rel=0.25)


def test_a_buffer_in_main_memory_is_not_counted_on_the_device():
    (run,) = expand(Axes(), flags={"replay_device": "cpu", "steps": 1000})
    need = population_memory([run.config], 17, 6)
    assert (need.replay, need.host) == (0, 4 * 1000 * (17 + 6 + 17 + 6 + 3))
    assert need.device == need.growing + memory.RESERVE


# --- sizes in words -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("80GB", 80 * 10**9),
        ("80GiB", 80 * 2**30),
        ("512MB", 512 * 10**6),
        ("1.5 gb", 1_500_000_000),
        ("85899345920", 80 * 2**30),
        ("2TB", 2 * 10**12),
    ],
)
def test_sizes_are_read(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "GB", "80XB", "-1GB", "0", "0.1", "80 GB each", "1e9", "nan"])
def test_what_is_no_size_is_refused_with_the_flag(text):
    with pytest.raises(InputError, match=r"--device-memory: .* is no size; write 80GB"):
        parse_size(text)


def test_sizes_are_said_in_three_digits():
    shown = [format_bytes(count) for count in (0, 999, 999.6, 29_123_456_789, 5 * 10**15)]
    assert shown == ["0 B", "999 B", "1 kB", "29.1 GB", "5,000 TB"]
