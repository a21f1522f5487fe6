"""The sparse engine against the masked one: same masks, weights and batches, same numbers."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from network_samples import take_events
from torch import Tensor
from update_samples import finish_update, take_update

from dstrl_cli.algos.base import Algorithm
from dstrl_cli.algos.sac import SAC
from dstrl_cli.algos.td3 import TD3
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict
from dstrl_cli.errors import InputError
from dstrl_cli.nets import choice
from dstrl_cli.nets.masked import MaskedNetwork
from dstrl_cli.nets.network import Network
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.nets.sparse import kernels
from dstrl_cli.nets.sparse.engine import SparseNetwork, Topology, selected
from dstrl_cli.replay.base import Transition
from dstrl_cli.replay.batch import Batch
from dstrl_cli.replay.paired import PairedReplay

ALGORITHMS: dict[str, type[Algorithm]] = {"td3": TD3, "sac": SAC}
SET = {"drop": "sign", "grow": "random", "schedule": "constant", "drop_fraction": 0.2}
RIGL = {"drop": "magnitude", "grow": "gradient", "schedule": "cosine"}
STEADY = RIGL | {"drop": "outside_samples:Steady"}
WATCHER = RIGL | {"drop": "outside_samples:Watcher"}
XU = {"drop": "importance", "grow": "importance", "schedule": "constant", "regrow_dropped": False}
XU_ALWAYS = XU | {"accumulate": "critic_update"}
MASKINGS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "none": ({}, {}, "after_step"),
    "magnitude_trim": (SET, SET, "after_step"),
    "online_mask": (RIGL, RIGL, "instead_of_step"),
    "online_mask and an outside score": (STEADY, STEADY, "instead_of_step"),
    "online_mask and importance": (RIGL, XU, "instead_of_step"),
    "magnitude_trim and importance": (SET, XU, "after_step"),
    "online_mask and importance of every update": (RIGL, XU_ALWAYS, "instead_of_step"),
    "online_mask and an outside observer": (WATCHER, WATCHER, "instead_of_step"),
}


def config(masking: str = "none", sparsity: float = 0.9, **keys: Any) -> RunConfig:
    actor, critic, rewire = MASKINGS[masking]
    interval = {"update_interval": 7}
    base: dict[str, Any] = {
        "algo": "td3",
        "method": "test",
        "env": "Any-v0",
        "batch_size": 16,
        "hidden_sizes": [32, 24],
        "steps": 400,
        "learning_starts": 0,
        "policy_delay": 2,
        "rewire": rewire,
        "target_masking": masking.split()[0],
        "actor": {"sparsity": sparsity, "topology": actor | interval if actor else {}},
        "critic": {"sparsity": sparsity, "topology": critic | interval if critic else {}},
    }
    return from_dict(base | keys)


def network(
    engine: type[Network], run: RunConfig, sizes: tuple[int, ...], heads: int = 2
) -> Network:
    return engine(NetworkPlan("critic", sizes, heads, [run], "cpu"))


def pair(run: RunConfig, sizes: tuple[int, ...], heads: int = 2) -> tuple[Network, Network]:
    return network(MaskedNetwork, run, sizes, heads), network(SparseNetwork, run, sizes, heads)


def assert_close(masked: Network, sparse: Network, tolerance: float = 1e-5) -> None:
    for theirs, ours in zip(masked.layers(0), sparse.layers(0), strict=True):
        assert torch.equal(theirs[2], ours[2])
        for a, b in zip(theirs[:2], ours[:2], strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9, 0.95, 0.98])
@pytest.mark.parametrize("sizes", [(3, 16, 16, 1), (376, 32, 24, 17), (5, 40, 1), (23, 64, 64, 1)])
@pytest.mark.parametrize("rows", [1, 5, 64, 100])
def test_forward_and_gradients_agree(sizes: tuple[int, ...], sparsity: float, rows: int) -> None:
    masked, sparse = pair(config(sparsity=sparsity), sizes)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, rows, sizes[0], generator=generator)
    grad = torch.randn(1, 2, rows, sizes[-1], generator=generator)
    for heads in (None, 1):
        torch.testing.assert_close(sparse.forward(x, heads), masked.forward(x, heads))
        given = grad if heads is None else grad[:, :1]
        only = heads is None
        torch.testing.assert_close(
            sparse.backward(given, weights=only, inputs=True),
            masked.backward(given, weights=only, inputs=True),
            rtol=1e-4,
            atol=1e-5,
        )
    torch.testing.assert_close(sparse.predict(x), masked.predict(x))
    torch.testing.assert_close(sparse.target(x), masked.target(x))
    alive = torch.ones(1, dtype=torch.bool)
    for one in (masked, sparse):
        one.forward(x)
        one.backward(grad)
        finish_update(one, alive)
    assert_close(masked, sparse)


@pytest.mark.parametrize("sizes", [(3, 16, 16, 1), (23, 37, 50, 6), (2, 2, 3, 2), (17, 5, 1)])
@pytest.mark.parametrize("rows", [1, 100, 130])
def test_layers_with_every_connection_agree(sizes: tuple[int, ...], rows: int) -> None:
    masked, sparse = pair(config(sparsity=0.0), sizes)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, rows, sizes[0], generator=generator)
    grad = torch.randn(1, 2, rows, sizes[-1], generator=generator)
    torch.testing.assert_close(sparse.predict(x), masked.predict(x))
    for weights in (False, True):
        torch.testing.assert_close(sparse.forward(x), masked.forward(x))
        torch.testing.assert_close(
            sparse.backward(grad, weights=weights, inputs=True),
            masked.backward(grad, weights=weights, inputs=True),
            rtol=1e-4,
            atol=1e-5,
        )
    alive = torch.ones(1, dtype=torch.bool)
    for one in (masked, sparse):
        finish_update(one, alive)
    assert_close(masked, sparse)


def updated_alike(
    pair: tuple[Network, Network], masks: list[Tensor], x: Tensor, grad: Tensor
) -> None:
    """Give two networks masks [1, K, in, out] and three updates; check that they stay equal."""
    for one in pair:
        one.set_masks([0], masks)
        for _ in range(3):
            one.forward(x)
            one.backward(grad)
            finish_update(one)
    assert_close(*pair)


def test_dense_and_sparse_layers_of_one_network_agree() -> None:
    masked, sparse = pair(config(), (9, 20, 14, 3))
    generator = torch.Generator().manual_seed(4)
    masks = [torch.rand(1, 2, i, o, generator=generator) < 0.3 for i, o in ((9, 20), (14, 3))]
    masks.insert(1, torch.ones(1, 2, 20, 14, dtype=torch.bool))
    masks[1][:, 1, 3, 5] = False  # the same layer is dense in one head only
    x, grad = torch.randn(1, 70, 9), torch.randn(1, 2, 70, 3)
    updated_alike((masked, sparse), masks, x, grad)
    torch.testing.assert_close(sparse.forward(x), masked.forward(x))
    torch.testing.assert_close(
        sparse.backward(grad, inputs=True), masked.backward(grad, inputs=True), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("sparsity", [0.0, 0.6])
def test_not_a_number_goes_where_its_connections_lead(sparsity: float) -> None:
    masked, sparse = pair(config(sparsity=sparsity), (6, 12, 9, 2))
    x = torch.randn(1, 70, 6)
    x[0, 3, 2], x[0, 67, 0] = float("nan"), float("inf")
    ours, theirs = sparse.forward(x), masked.forward(x)
    assert ours.isnan().any()
    if sparsity:  # the masked engine multiplies by zero where no connection is
        assert (theirs.isfinite() <= ours.isfinite()).all()
    else:
        assert torch.equal(ours.isnan(), theirs.isnan())
    finite = theirs.isfinite()
    torch.testing.assert_close(ours[finite], theirs[finite])


def test_dense_gradients_agree_where_growth_asks_for_them() -> None:
    masked, sparse = pair(config("online_mask"), (5, 12, 7, 2))
    x, grad = torch.randn(1, 70, 5), torch.randn(1, 2, 70, 2)
    for one in (masked, sparse):
        one.forward(x)
        one.backward(grad)
    for theirs, ours in zip(masked.gradients([0]), sparse.gradients([0]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_moments_agree_where_a_score_asks_for_them() -> None:
    masked, sparse = pair(config("online_mask and an outside score"), (5, 12, 7, 2))
    alive = torch.ones(1, dtype=torch.bool)
    for number in range(3):
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(1, 70, 5, generator=generator)
        grad = torch.randn(1, 2, 70, 2, generator=generator)
        for one in (masked, sparse):
            one.forward(x)
            one.backward(grad)
            finish_update(one, alive)
    for theirs, ours in zip(masked.moments([0]), sparse.moments([0]), strict=True):
        for a, b in zip(theirs, ours, strict=True):
            assert a.count_nonzero() > 0
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)


def test_layers_with_empty_rows_and_columns() -> None:
    run = config(sparsity=0.9)
    masked, sparse = pair(run, (4, 6, 1), heads=1)
    masks = [torch.zeros(1, 1, 4, 6, dtype=torch.bool), torch.zeros(1, 1, 6, 1, dtype=torch.bool)]
    masks[0][..., 1, 2] = masks[0][..., 1, 4] = masks[1][..., 4, 0] = True
    x, grad = torch.randn(1, 3, 4), torch.randn(1, 1, 3, 1)
    updated_alike((masked, sparse), masks, x, grad)
    torch.testing.assert_close(sparse.predict(x), masked.predict(x))


@functools.cache
def batches(nstep: int, count: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(3)
    replay = PairedReplay(1, 300, 5, 2, 0.99)
    for step in range(300):
        ended = torch.tensor([step % 29 == 28])
        replay.add(
            Transition(
                torch.randn(1, 5, generator=generator),
                torch.rand(1, 2, generator=generator) * 2 - 1,
                torch.randn(1, generator=generator),
                torch.randn(1, 5, generator=generator),
                ended & (step % 2 == 0),
                ended,
            )
        )
    n = torch.full((1, 1), nstep)
    return [
        replay.sample(torch.rand(1, 16, generator=generator, dtype=torch.float64), n, nstep)
        for _ in range(count)
    ]


def state(algorithm: Algorithm) -> list[Any]:
    return [algorithm.actor.layers(0), algorithm.critic.layers(0)]


@torch.no_grad()
@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("sparsity", [0.5, 0.95])
def test_a_hundred_updates_agree(algo: str, masking: str, sparsity: float) -> None:
    delay = 2 if algo == "td3" else 1
    run = config(masking, sparsity, algo=algo, policy_delay=delay, nstep=2)
    masked, sparse = (
        ALGORITHMS[algo]([run], 5, 2, engine=engine) for engine in ("masked", "sparse")
    )
    changed = 0
    for batch in batches(2, 100):
        take_update(masked, batch)
        take_update(sparse, batch)
        for theirs, ours in (
            (masked.actor, sparse.actor),
            (masked.critic, sparse.critic),
        ):
            assert_close(theirs, ours, 2e-3)
            mine, others = take_events(ours), take_events(theirs)
            assert mine == others
            changed += len(mine)
    assert bool(changed) == (masking != "none")


def test_moments_of_inactive_connections_do_not_exist_and_grown_ones_start_anew() -> None:
    run = config("online_mask and importance")
    sparse = network(SparseNetwork, run, (5, 12, 7, 1))
    assert isinstance(sparse, SparseNetwork)
    alive = torch.ones(1, dtype=torch.bool)
    before = sparse.active()
    for _ in range(21):
        x = torch.randn(1, 9, 5)
        error = sparse.forward(x) - 1
        sparse.backward(error)
        before_masks = [mask.copy() for mask in sparse.masks]
        finish_update(sparse, alive, error.abs().sum((-2, -1)), 9)
    assert torch.equal(sparse.active(), before)
    grown = [now & ~was for now, was in zip(sparse.masks, before_masks, strict=True)]
    assert any(layer.any() for layer in grown)
    for flat in (sparse.params.flat, sparse.first_moment, sparse.second_moment):
        dense = sparse.dense(sparse.params.topology, flat[: sparse.params.split])
        for layer, new, mask in zip(dense, grown, sparse.masks, strict=True):
            assert (layer[new] == 0).all()
            assert (layer[~mask] == 0).all()


def test_index_arrays_by_hand() -> None:
    #                inputs x outputs
    mask = np.array([[[1, 0], [1, 1], [0, 1]]], dtype=bool)
    topology = Topology.of([mask])
    assert topology.rows.tolist() == [[0, 2, 4]]  # output 0 from inputs 0, 1; output 1 from 1, 2
    assert topology.index.tolist() == [0, 1, 1, 2]
    assert topology.columns.tolist() == [[0, 1, 3, 4]]
    assert topology.source.tolist() == [0, 0, 1, 1]
    assert topology.position.tolist() == [0, 1, 2, 3]
    dense = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    assert selected([dense], [mask]).tolist() == [0, 2, 3, 5]


def test_trimming_keeps_exactly_the_budget_where_magnitudes_are_equal() -> None:
    rows, index = np.array([[0, 2, 4]], np.int32), np.array([0, 1, 0, 1], np.int32)
    online_index = np.array([2, 3, 2, 3], np.int32)
    ones = np.ones(4, np.float32)
    new_rows, new_index = np.empty_like(rows), np.empty(8, np.int32)
    new_value = np.empty(8, np.float32)
    kernels.blend_union(
        rows, index, ones, rows, online_index, ones, np.float32(0.5), np.array([[4]]),
        np.array([0, 2]), new_rows, new_index, new_value,
        np.empty(3, np.int64), np.empty(8, np.int32), np.empty(8, np.float32),
    )  # fmt: skip
    assert new_rows.tolist() == [[0, 4, 4]]
    assert new_index[:4].tolist() == [0, 1, 2, 3]
    assert new_value[:4].tolist() == [0.5] * 4


# --- which engine -------------------------------------------------------------------------------


def test_auto_takes_the_sparse_engine_where_it_pays() -> None:
    assert choice.choose(config("online_mask", 0.95), "cpu").engine == "sparse"
    wide = {"hidden_sizes": [2048, 2048]}
    for sparsity, engine in ((0.2, "masked"), (0.5, "sparse")):
        assert choice.choose(config("online_mask", sparsity, **wide), "cpu").engine == engine
    many = choice.choose(config("online_mask", 0.5, threads=8), "cpu")
    assert (many.engine, many.reason) == ("masked", "50% of the connections are active")
    assert choice.choose(config("online_mask", 0.95), "cuda:0").engine == "masked"
    assert choice.choose(config("online_mask", 0.95), "cpu", members=2).engine == "masked"
    assert choice.choose(config(gradients="dense"), "cpu").engine == "masked"


def test_where_the_sparse_engine_pays_depends_on_width_and_threads() -> None:
    assert [choice.pays_below(width, 1) for width in (8, 256, 1024, 2048, 9999)] == [
        1.0, 1.0, 0.8, 0.5, 0.5
    ]  # fmt: skip
    assert choice.pays_below(512, 1) == pytest.approx(0.9)
    assert choice.pays_below(256, 2) == 1.0  # both are faster on two threads
    assert choice.pays_below(256, 4) == pytest.approx(1.6 / 3.12)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"gradients": "dense"}, "gradients: dense"),
        ({"moments": "keep"}, "moments: keep"),
        ({"initial_targets": "dense"}, "initial_targets: dense"),
        ({"critic": {"topology": SET | {"grow_init": "adam_step"}}}, "grow_init: adam_step"),
        ({"critic": {"topology": SET | {"final_drop": True}}}, "final_drop: true"),
        ({"target_masking": "magnitude_trim", "target_trim": "nonzero"}, "target_trim: nonzero"),
        ({"actor": {"topology": SET}}, "target_masking: none"),
    ],
)
def test_what_the_sparse_engine_refuses(keys: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        choice.choose(config(engine="sparse", **keys), "cpu")
    assert choice.choose(config(**keys), "cpu").engine == "masked"


def test_scores_that_observe_every_update_keep_no_run_from_the_sparse_engine() -> None:
    for masking in ("importance of every update", "an outside observer"):
        chosen = choice.choose(config(f"online_mask and {masking}"), "cpu")
        assert chosen.engine == "sparse"


def test_choosing_for_the_shipped_methods_needs_no_torch() -> None:
    code = """
import sys
from dstrl_cli.config.resolving import resolve
from dstrl_cli.nets.choice import choose
print([choose(resolve(name), "cpu").engine for name in ("our-rlx2", "dst", "dst-official")])
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "['sparse', 'sparse', 'masked']\n"), done.stderr


def test_the_sparse_engine_is_refused_on_an_accelerator() -> None:
    with pytest.raises(InputError, match=r"device: cuda.*use --engine masked"):
        choice.choose(config(engine="sparse"), "cuda")


def test_without_a_compiler_auto_falls_back_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    chosen = choice.choose(config("online_mask", 0.95), "cpu")
    assert chosen.engine == "masked"
    assert chosen.warning is not None
    assert "pip install numba" in chosen.warning
    with pytest.raises(InputError, match="pip install numba"):
        choice.choose(config("online_mask", 0.95, engine="sparse"), "cpu")


@pytest.mark.parametrize("k", range(8))
def test_the_k_th_smallest_magnitude_is_that_of_sorting(k: int) -> None:
    found = [3.0, 1e-40, 0.5, np.inf, 0.5, 0.0, np.nextafter(np.float32(0.5), np.float32(1)), 3.0]
    magnitudes = np.array(found, np.float32)
    assert kernels.smallest.py_func(magnitudes, k) == np.sort(magnitudes)[k]


def test_a_compiler_that_fails_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("cannot cache function")

    monkeypatch.setattr(kernels, "compile_all", broken)
    monkeypatch.setattr(choice, "_ready", set())
    told: list[str] = []
    chosen = choice.choose(config("online_mask", 0.95), "cpu", told.append)
    assert chosen.engine == "masked"
    assert "cannot cache function" in str(chosen.warning)


def test_a_loss_that_is_not_finite_freezes_the_sparse_engine_too() -> None:
    run = config("online_mask", 0.9)
    algorithm = TD3([run], 5, 2, engine="sparse")
    before = state(algorithm)
    batch = batches(1, 1)[0]
    batch.reward[:] = float("nan")
    with torch.no_grad():
        take_update(algorithm, batch)
    assert algorithm.alive.tolist() == [False]
    for was, now in zip(before, state(algorithm), strict=True):
        for old, new in zip(was, now, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
