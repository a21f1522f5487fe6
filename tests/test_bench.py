"""`dstrl bench`: what is measured, the structure of reports, and wrong input. Never times."""

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench_samples import groups, measured

from dstrl_cli.bench import command, measure, plan, plot, show
from dstrl_cli.bench.plan import Work
from dstrl_cli.cli import main
from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.terminal.screen import screen

TINY = [
    "--env=2DNav-v1",
    "--width=16",
    "--batch=16",
    "--seconds=0.02",
    "--repeats=2",
    "--device=cpu",
    "--set=buffer_size=500",
    "--set=learning_starts=60",
]
PARTS = ["act", "env", "store", "sample", "kernels", "losses", "rest"]


@pytest.fixture(autouse=True)
def _screen_in_an_empty_folder(empty_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")


def bench(capsys, *arguments: str) -> dict:
    assert main(["bench", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# --- end to end ---------------------------------------------------------------------------------


def test_update_reports_every_combination(capsys, tmp_path):
    arguments = ["update", *TINY, "--sparsity=0,0.8", "--engine=masked,sparse", "--csv=out.csv"]
    told = bench(capsys, *arguments)
    rows = told["measurements"]
    assert [(row["sparsity"], row["engine"]) for row in rows] == [
        (sparsity, engine) for sparsity in ("0", "0.8") for engine in ("masked", "sparse")
    ]
    for row in rows:
        assert row["work"] == "update"
        assert (row["algo"], row["dst"], row["width"], row["batch"]) == ("td3", "sst", "16", 16)
        assert 0 < row["ms_min"] <= row["ms_median"] <= row["ms_max"]
        assert row["steps_per_s"] == pytest.approx(1000 / row["ms_median"])
        assert len(row["rounds"]) == 2
        assert row["peak_mb"] > 0
        assert row["cpu_ms"] > 0
        assert row["peak_gflops"] > 0
        assert 0 < row["arithmetic_floor_ms"] < row["ms_min"]
    over = [(each["measurement"], each["over"]) for each in told["ratios"]]
    assert over == [(1, 0), (3, 2)]  # sparse over masked
    with (tmp_path / "out.csv").open() as file:
        written = list(csv.DictReader(file))
    assert tuple(written[0]) == show.CSV_COLUMNS
    assert [row["engine"] for row in written] == [row["engine"] for row in rows]


def test_members_share_lock_steps_whose_parts_are_told(capsys, monkeypatch):
    measured = []

    def remembered(*arguments):
        for group in measure.measure(*arguments):
            measured.append(group)
            yield group

    monkeypatch.setattr(command, "measure", remembered)
    arguments = ["train", *TINY, "--members=1,2", "--sparsity=0.5", "--engine=masked"]
    alone, together = bench(capsys, *arguments)["measurements"]
    assert (alone["dst"], alone["members"]) == ("rlx2", 1)
    assert together["members"] == 2
    assert together["steps_per_s"] == pytest.approx(2 * 1000 / together["ms_median"])
    for parts in (alone["lock_step_ms"], together["lock_step_ms"]):
        assert list(parts) == PARTS
        assert all(value >= 0 for value in parts.values())
        assert parts["kernels"] > 0
    assert together["device_mb"] is None
    show.print_group(screen(), measured[0], found=[])
    (heading,) = (line for line in capsys.readouterr().out.splitlines() if "kernels" in line)
    assert heading.split()[-8:] == [*PARTS, "floor"]


def test_the_parts_of_a_sparse_step_are_told_and_its_kernels_stay_as_they_were(capsys):
    from dstrl_cli.nets.sparse import engine, kernels

    arguments = ["train", *TINY, "--dst=dst", "--sparsity=0.5", "--engine=sparse"]
    (row,) = bench(capsys, *arguments)["measurements"]
    assert list(row["lock_step_ms"]) == PARTS
    assert row["lock_step_ms"]["kernels"] > 0
    assert row["lock_step_ms"]["sample"] > 0
    assert engine.kernels is kernels


def test_train_runs_a_real_loop_several_times_at_once(capsys):
    arguments = ["train", *TINY, "--dst=dst", "--sparsity=0.5", "--engine=masked", "--jobs=2"]
    if importlib.util.find_spec("stable_baselines3"):
        arguments.append("--peer=sb3")
    rows = bench(capsys, *arguments)["measurements"]
    own = [row for row in rows if row["dst"] == "dst"]
    assert [(row["work"], row["jobs"]) for row in own] == [("train", 1), ("train", 2)]
    assert all(row["arithmetic_floor_ms"] > 0 for row in own)
    assert [row["lock_step_ms"] is None for row in own] == [False, True]  # of one run
    seconds = own[0]["checkpoint_s"]
    assert seconds > 0
    assert own[0]["checkpoint_share"] == pytest.approx(
        seconds / (600 + seconds)
    )  # every 10 minutes
    assert own[0]["checkpoint_mb"] > 0


def test_infer_reports_time_and_bytes(capsys, tmp_path):
    settings = ["--steps=80", "--set=hidden_sizes=16,16", "--set=learning_starts=60"]
    settings += ["--set=batch_size=16", "--set=eval_every=80", "--set=eval_episodes=1"]
    assert main(["train", "--env=2DNav-v1", "--sparsity=0.5", *settings, "--json"]) == 0
    capsys.readouterr()
    run = "results/2DNav-v1/td3-rlx2/s0.5/seed0"
    (told,) = bench(capsys, "infer", run, "--seconds=0.02", "--repeats=2")["policies"]
    assert told["bytes"] == (tmp_path / run / "policy.safetensors").stat().st_size
    assert 0 < told["us_min"] <= told["us_median"] <= told["us_max"]


def test_a_work_that_fails_is_named(tmp_path):
    work = Work("infer", policy=tmp_path / "absent.safetensors")
    with pytest.raises(DstrlError, match=r"^dstrl infer: .*absent\.safetensors does not exist"):
        list(measure.measure([[work]], seconds=0.02, repeats=1, tell=lambda _: None))


# --- what is measured ---------------------------------------------------------------------------


def test_tables_name_what_was_measured_and_a_varied_key_has_a_column(capsys):
    arguments = ["update", *TINY, "--sparsity=0.5", "--members=2", "--engine=masked"]
    assert main(["bench", *arguments, "--vary=topology.fan_in=free,constant"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("TD3 on 2DNav-v1", "16-16", "members", "updates/s", "sst", "masked"):
        assert words in printed
    assert "method fan_in sparsity engine" in printed
    assert "fan_in free sst constant 0.5" in printed


def test_a_group_shares_algorithm_and_sizes():
    found = groups(algos=["td3", "sac"], widths=[16, 32], engines=["masked"])
    assert [(g[0].config.algo, g[0].config.hidden_sizes) for g in found] == [
        ("td3", (16, 16)),
        ("td3", (32, 32)),
        ("sac", (16, 16)),
        ("sac", (32, 32)),
    ]
    assert [work.kind for work in found[0]] == ["update", "product"]


def test_a_dense_network_is_measured_once():
    (group,) = groups("train", methods=["dense"], sparsities=[0.5, 0.9], engines=["masked"])
    assert [work.kind for work in group] == ["train", "product"]
    assert group[0].config.engine == "masked"


def test_values_of_one_key_are_measured_in_turns_and_compared_with_the_first():
    vary = "topology.fan_in=free,constant"
    (group,) = groups(methods=["sst", "dst"], sparsities=[0.5], engines=["masked"], vary=vary)
    *works, _ = group
    assert [(w.config.method, w.varied, w.config.critic.topology.fan_in) for w in works] == [
        ("sst", "fan_in=free", "free"),
        ("dst", "fan_in=free", "free"),
        ("sst", "fan_in=constant", "constant"),
        ("dst", "fan_in=constant", "constant"),
    ]
    rates = (10.0, 20.0, 15.0, 80.0)
    each = [measured(rate, work=work) for rate, work in zip(rates, works, strict=True)]
    told = measure.ratios(each)
    assert [(r.subject.work, r.over.work, r.speed) for r in told] == [
        (works[2], works[0], 1.5),
        (works[3], works[1], 4.0),
    ]
    assert [show.over(r) for r in told] == ["fan_in free"] * 2
    assert show.row(each[2])["varied"] == "fan_in=constant"


@pytest.mark.parametrize("vary", ["fan_in", "topology.fan_in=free", "=1,2", "gamma=0.9,0.9"])
def test_a_key_to_vary_needs_two_values(vary):
    with pytest.raises(InputError, match=r"^--vary .*: must be a key with two values or more"):
        groups(vary=vary)


def test_auto_is_measured_beside_masked_which_never_runs_several_times():
    (group,) = groups("train", methods=["sst"], sparsities=[0.95], jobs=2)
    engines = [(work.config.engine, work.jobs) for work in group if work.config]
    assert engines == [("sparse", 1), ("masked", 1), ("sparse", 2)]


def test_every_network_changes_its_topology_before_timing():
    (group,) = groups("train", methods=["our-dst"], sparsities=[0.5])
    config = group[0].config
    for network in (config.actor, config.critic):
        assert network.topology.update_offset <= plan.WARM_UP_UPDATES // config.policy_delay
        assert network.topology.update_interval >= 500


def test_a_peer_takes_over_sizes_in_all_its_thread_settings(monkeypatch):
    monkeypatch.setattr(plan, "cores", lambda: 2)
    monkeypatch.setitem(plan.PEERS, "sb3", plan.PEERS["sb3"]._replace(module="torch"))
    (group,) = groups("train", methods=["sst"], engines=["masked"], peers=["sb3"], jobs=2)
    peers = [work for work in group if work.contender == "sb3"]
    assert [(work.threads, work.jobs) for work in peers] == [(1, 1), (2, 1), (1, 2)]
    assert {work.config.hidden_sizes for work in peers} == {(16, 16)}


def test_a_peer_is_measured_where_dstrl_is_if_it_can():
    ((work, *_),) = groups("train", methods=["sst"], engines=["masked"])
    elsewhere = work.config.model_copy(update={"device": "cuda:0"})
    assert plan._plain(elsewhere, plan.PEERS["sb3"]).device == "cuda:0"
    assert plan._plain(elsewhere, plan.PEERS["sbx"]).device == "cpu"


# --- the plot -----------------------------------------------------------------------------------


def test_plot_has_a_panel_for_each_algorithm_and_width(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [
        dict.fromkeys(plot.APART, "")
        | {
            "algo": "td3",
            "width": width,
            "engine": engine,
            "sparsity": sparsity,
            "ms_median": 1.0 + float(sparsity),
            "arithmetic_floor_ms": 0.1 * (1 - float(sparsity)),
        }
        for width in ("16", "32")
        for engine in ("masked", "sparse")
        for sparsity in ("0", "0.5", "0.9")
    ]
    rows.append(rows[-1] | {"sparsity": "a0.5-c0.95"})  # actor and critics differ
    plot.growth(rows, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_methods_and_threads_have_a_line_each_and_peers_their_name(monkeypatch):
    pytest.importorskip("matplotlib")
    drawn = []
    monkeypatch.setattr(plot.canvas, "save", lambda figure, path: drawn.append(figure))
    row = dict.fromkeys(plot.APART, "") | {"algo": "td3", "width": "16", "engine": "sparse"}
    row |= {"arithmetic_floor_ms": None, "sparsity": "0.5", "ms_median": 1.0}
    rows = [row | {"dst": name, "sparsity": s} for name in ("dst", "rigl") for s in ("0", "0.9")]
    plot.growth([*rows, row | {"engine": "sb3", "dst": "sb3"}], Path("growth.png"))
    (axis,) = drawn[0].axes
    assert [line.get_label() for line in axis.get_lines()] == ["sparse, dst", "sparse, rigl", "sb3"]


# --- wrong input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--peer=sbb3"], "did you mean 'sb3'"),
        (["train", "--algo=td4"], "did you mean 'td3'"),
        (["train", "--dst=rlx3"], "did you mean 'rlx2'"),
        (["train", "--algo=bc"], "--algo bc: it learns from a trained run"),
        (["train", "--vary=threads=1,2"], "--vary threads: give --threads 1,2"),
        (["train", "--vary=hidden_sizes=[8, 8],[9, 9]"], "lists cannot be varied"),
        (["train", "--engine=spars"], "did you mean 'sparse'"),
        (["train", "--engine=sparse", "--dst=rlx2-official"], "--engine masked"),
        (["update", "--members=0"], "--members"),
        (["update", "--threads=0"], "threads"),
        (["update", "--width=0"], "hidden_sizes"),
        (["update", "--width=wide"], "--width"),
        (["update", "--set=taau=1"], "did you mean 'tau'"),
        (["update", "--csv=absent/out.csv"], "absent"),
        (["update", "--plot=out.txt"], ".png"),
        (["infer", "nowhere"], "nowhere"),
        (["train", "--env=foreign_samples:Leaves-v0"], "cannot be made (SystemExit: 0)"),
        (["train", "--env=foreign_samples:LeavesAtOnce-v0"], "it called os._exit(0)"),
    ],
)
def test_wrong_input_ends_before_anything_is_measured(arguments, said, capsys, tmp_path):
    assert main(["bench", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_peer_names_the_extra(capsys, monkeypatch):
    absent = plan.PEERS["sbx"]._replace(module="no_such_module")
    monkeypatch.setitem(plan.PEERS, "sbx", absent)
    assert main(["bench", "train", "--peer=sbx"]) == 2
    assert 'pip install "dstrl[bench]"' in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["train"], ["update"], ["infer"]])
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys; from dstrl_cli.cli import main; "
        f"code = main(['bench', *{command!r}, '--help']); "
        "heavy = {'torch', 'gymnasium', 'pandas', 'numpy', 'numba'} & {*sys.modules}; "
        "sys.exit(code or (str(heavy) if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage" in done.stdout
