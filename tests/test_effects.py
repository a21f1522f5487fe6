"""What a run will and will not do, told before it starts: counts, idle rules, useless keys."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrl_cli.cli import main
from dstrl_cli.config import effects
from dstrl_cli.config.effects import TopologyChanges, notes, topology_changes
from dstrl_cli.config.models import NetworkConfig, RunConfig
from dstrl_cli.config.presets import load_sweep_preset
from dstrl_cli.config.resolving import resolve, resolve_explicit
from dstrl_cli.config.rulekeys import TopologyConfig
from dstrl_cli.errors import InputError
from dstrl_cli.registry import ALGORITHMS
from dstrl_cli.sweep.plan import Axes, expand
from dstrl_cli.topology.rule import Rule


def told(method: str, *sets: str, algo: str = "td3", **flags) -> list[str]:
    flags = {"env.id": "2DNav-v1", "steps": 1_000_000, **flags}
    return notes(*resolve_explicit(method, algo, sets=sets, flags=flags))


def counts(config: RunConfig) -> tuple[int, int]:
    return tuple(topology_changes(config, role).count for role in ("critic", "actor"))


# --- how often topologies change ----------------------------------------------------------------


def test_the_quick_preset_changes_nine_and_four_times():
    preset = load_sweep_preset("quick")
    # 2,500 updates of the critics, the last of which is no change; 1,250 of the actor
    assert counts(resolve("rlx2", preset=preset)) == (9, 4)
    assert counts(resolve("sst", preset=preset)) == (0, 0)
    assert counts(resolve("dense", preset=preset)) == (0, 0)


def test_the_official_code_stops_before_the_end_and_drops_once_more():
    config = resolve("dst-official", flags={"steps": 85_000})
    # 60,000 updates: critics change at 2, 1002, ..., 9002, and drop at 10002
    assert topology_changes(config, "critic") == TopologyChanges(11, last_only_drops=True)
    # 30,000 updates: the actor at 1, 501, ..., 4501, and drops at 5001
    assert topology_changes(config, "actor") == TopologyChanges(11, last_only_drops=True)


@given(
    steps=st.integers(1, 300),
    learning_starts=st.integers(0, 320),
    interval=st.integers(1, 60),
    offset=st.integers(0, 130),
    stop=st.integers(0, 200),
    final_drop=st.booleans(),
    delay=st.integers(1, 3),
)
def test_counts_are_what_the_rule_itself_does(
    steps, learning_starts, interval, offset, stop, final_drop, delay
):
    topology = TopologyConfig(
        schedule="constant",
        update_interval=interval,
        update_offset=offset,
        stop_before_end=stop,
        final_drop=final_drop,
    )
    config = resolve().model_copy(
        update={
            "steps": steps,
            "learning_starts": learning_starts,
            "policy_delay": delay,
            "actor": NetworkConfig(sparsity=0.5, topology=topology),
        }
    )
    end = int((steps - learning_starts - stop) / delay)
    rule, drops = Rule(topology, end), []
    for update in range(1, max(0, steps - learning_starts) // delay + 1):
        if rule.due(update):
            drops.append(update >= end)
            rule.finished = drops[-1]
    assert topology_changes(config, "actor") == TopologyChanges(len(drops), any(drops))


@pytest.mark.parametrize(
    ("method", "steps", "words"),
    [
        ("dense", 30_000, "dense"),
        ("sst", 30_000, "static"),
        ("rlx2", 30_000, "never changes"),
        ("rlx2", 65_001, "changes 4 times in the critics, once in the actor"),
        (
            "dst-official",
            30_000,
            "changes once in the critics (the last one only drops), "
            "once in the actor (the last one only drops)",
        ),
    ],
)
def test_changes_are_told_in_words(method, steps, words):
    assert effects.changes_in_words(resolve(method, flags={"steps": steps})) == words


# --- rules that never act -----------------------------------------------------------------------


def test_a_stop_beyond_the_whole_training_is_told():
    (said,) = told("dst-official", steps=30_000)
    assert said == (
        "the topology of the actor and the critics changes once by dropping alone, then stays as "
        "it is: stop_before_end (50,000 steps) is no less than the 5,000 steps of training"
    )
    assert told("dst-official", steps=1_000_000) == []


def test_intervals_and_delays_beyond_the_run_are_told():
    said = told("rlx2", steps=30_000)
    assert [text.partition(":")[0] for text in said] == [
        "the topology of the actor and the critics never changes",
        "targets of 3 steps never begin",
        "the dynamic buffer never shrinks",
    ]
    assert "is 10,000, and updates are 2,500 (actor) and 5,000 (critics)" in said[0]
    (said,) = told("dst", "actor.topology.update_interval=60000", steps=130_000)
    assert said.startswith("the topology of the actor never changes: update_interval is 60,000")
    assert said.endswith(
        "updates are 52,500 (actor); lower it with --set actor.topology.update_interval=N"
    )
    assert told("rlx2", steps=1_000_000) == []


def test_a_first_change_beyond_the_run_is_told():
    offset = "actor.topology.update_offset=60000"
    (said,) = told("dst", offset, "actor.topology.update_interval=500", steps=130_000)
    assert said == (
        "the topology of the actor never changes: update_offset is 60,000, and updates are 52,500 "
        "(actor); lower it with --set actor.topology.update_offset=N"
    )


@pytest.mark.parametrize(
    ("method", "sets", "said"),
    [
        (
            "rigl",
            ["topology.swap_start=0.5", "topology.swap_end=0.5"],
            "no update lies between swap_start = 0.5 and swap_end = 0.5; lower swap_start, or "
            "raise swap_end",
        ),
        (
            "dst",
            ["topology.update_offset=5", "topology.swap_end=0"],
            "no update lies between swap_start = 0 and swap_end = 0; lower swap_start, or raise "
            "swap_end",
        ),
        (
            "dst",
            ["topology.swap_start=0.9", "topology.stop_before_end=500000"],
            "stop_before_end (500,000 steps) leaves no update after swap_start = 0.9; lower "
            "stop_before_end, or swap_start",
        ),
        (  # 975,000 updates of the critics, 487,500 of the actor
            "rigl",
            ["topology.swap_end=0.005"],
            "update_interval is 10,000, and updates between swap_start and swap_end are 2,437 from "
            "1 on (actor) and 4,874 from 1 on (critics); lower it with --set "
            "topology.update_interval=N",
        ),
        (
            "rigl",
            ["topology.swap_start=0.999"],
            "update_interval is 10,000, and updates between swap_start and swap_end are 486 from "
            "487,014 on (actor) and 974 from 974,026 on (critics); lower it with --set "
            "topology.update_interval=N",
        ),
        (  # the first change is before the window: its offset is no hindrance
            "dst",
            [
                "topology.update_offset=5",
                "topology.swap_start=0.999",
                "topology.update_interval=10000",
            ],
            "update_interval is 10,000, and updates between swap_start and swap_end are 486 from "
            "487,014 on (actor) and 974 from 974,026 on (critics); lower it with --set "
            "topology.update_interval=N",
        ),
    ],
)
def test_a_window_without_changes_is_told(method, sets, said):
    found = [text for text in told(method, *sets) if "never changes" in text]
    assert found == [f"the topology of the actor and the critics never changes: {said}"]


def test_more_steps_help_where_there_are_too_few_updates_for_any_change():
    (said, *_) = told("rigl", "topology.update_interval=2", steps=25_001)
    assert said.endswith("never changes: the run has too few updates; raise --steps")


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_an_interval_is_blamed_only_where_another_one_helps(updates, start, length, stop):
    rule = {"swap_start": start / 80, "swap_end": (start + length) / 80, "stop_before_end": stop}
    topology = TopologyConfig(schedule="constant", update_interval=1, **rule)
    config = resolve().model_copy(
        update={
            "steps": 100 + updates,
            "learning_starts": 100,
            "critic": NetworkConfig(sparsity=0.5, topology=topology),
        }
    )
    never = not topology_changes(config, "critic").count
    assert never == (effects._without_swaps(config, "critic") is not None)


def test_an_offset_is_the_first_change():
    sets = ["topology.update_offset=1000", "topology.update_interval=300"]
    config = resolve("dst", sets=sets, flags={"steps": 27_000})
    # 2,000 updates of the critics: 1000, 1300, 1600, 1900; 1,000 of the actor, the last no change
    assert counts(config) == (4, 0)


def test_a_bias_correction_of_connections_that_never_start_anew_is_told():
    key = "grown_bias_correction=connection"
    assert told("sst", key) == ["grown_bias_correction has no effect: no topology changes"]
    (said,) = told("rlx2-official", key)
    assert said == "grown_bias_correction has no effect: moments is keep"
    assert told("rlx2", key) == []


def test_a_buffer_that_is_never_checked_is_told():
    said = told("sst", "buffer.dynamic=true", "buffer.check_interval=2000000")
    assert said == [
        "the dynamic buffer is never checked: buffer.check_interval is 2,000,000 steps, and the "
        "run has 1,000,000"
    ]


def test_a_run_without_updates_has_no_idle_rules():
    assert told("rlx2", steps=100) == []


# --- keys without effect ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "setting", "said"),
    [
        ("dense", "sparsity=0.9", "sparsity has no effect: all connections are active"),
        ("dense", "topology.drop_fraction=0.3", "topology.drop_fraction has no effect: all conn"),
        ("tiny", "critic.topology.drop=sign", "critic.topology.drop has no effect: all conn"),
        ("sst", "topology.drop_fraction=0.3", "drop_fraction has no effect: topology.schedule is"),
        ("rlx2", "topology.sign_split=half", "sign_split has no effect: topology.drop is magn"),
        ("rlx2", "topology.td_error=off", "td_error has no effect: neither topology.drop nor"),
        ("our-rlx2", "topology.td_error=off", "actor.topology.td_error has no effect: neither"),
        ("dst", "buffer.min_size=7", "buffer.min_size has no effect: buffer.dynamic is false"),
        ("dst", "nstep_delay=7", "nstep_delay has no effect: nstep is 1"),
        ("dst", "alpha=0.5", "alpha has no effect: td3 does not use it"),
        ("sst", "rewire=after_step", "rewire has no effect: no topology changes"),
        ("rlx2", "target_trim=nonzero", "target_trim has no effect: target_masking is"),
        ("dense", "gradients=dense", "gradients has no effect: all connections are active"),
        ("dst", "target_trim=nonzero", None),
        ("dst", "target_noise=0", None),
        ("dst", "topology.sign_split=half", None),
        ("our-rlx2", "critic.topology.td_error=off", None),
        ("tiny", "sparsity=0.5", None),
        ("rlx2", "nstep_delay=7", None),
    ],
)
def test_a_key_that_another_one_switches_off_is_told(method, setting, said):
    env = {"env.id": "HalfCheetah-v5"}
    found = told(method, setting, **env)
    if said is None:
        assert found == []
    else:
        assert len(found) == 1
        assert said in found[0]


def test_keys_of_one_reason_are_told_together_and_only_where_they_were_set():
    assert told("dense") == []
    assert told("dense", "nstep_delay=7", "topology.drop=sign", "sparsity=0.5") == [
        "nstep_delay has no effect: nstep is 1",
        "topology.drop, sparsity have no effect: all connections are active (dense is true)",
    ]


def test_a_learning_rate_that_follows_steps_where_episodes_end_the_run_is_told():
    falling = "learning_rate={linear: 1e-3}"
    assert told("sst", falling) == told("sst", "episodes=200") == []
    (said,) = told("sst", falling, "episodes=200", steps=40_000)
    assert "falls to 0 at step 40,000, at whichever step the 200 episodes end" in said


def test_an_outside_score_may_use_any_key():
    assert told("rlx2", "topology.drop=mine:Mine", "topology.sign_split=half") == []


# --- keys of another algorithm ------------------------------------------------------------------


def planned(*sets: str, algos: tuple[str, ...] = ("td3",), **more) -> list[list[str]]:
    axes = Axes(algos=algos, methods=["sst"], envs=["2DNav-v1"])
    return [list(run.notes) for run in expand(axes, sets=sets, **more)]


@pytest.mark.parametrize(
    ("algo", "setting", "said"),
    [
        ("td3", "alpha=0.3", "alpha is a key of sac, and td3 does not use it; leave it out, or ch"),
        ("td3", "temperature=fixed", "temperature is a key of sac"),
        ("td3", "log_std_bounds=[-5,2]", "log_std_bounds is a key of sac"),
        ("sac", "target_noise=3", "target_noise is a key of td3, and sac does not use it"),
        ("sac", "exploration_noise=0.2", "exploration_noise is a key of td3"),
    ],
)
def test_a_key_that_only_another_algorithm_reads_is_refused(algo, setting, said):
    with pytest.raises(InputError) as error:
        planned(setting, algos=(algo,))
    assert str(error.value).startswith(f"--set {setting}: {said}")


def test_every_key_of_an_algorithm_is_accepted_by_it():
    for algo, row in ALGORITHMS.items():
        if row.needs:  # no run without another one
            continue
        config = resolve("sst", algo)
        for key in row.keys:
            value = json.dumps(getattr(config, key))
            assert len(planned(f"{key}={value}", algos=(algo,))) == 1


def test_a_sweep_of_both_algorithms_takes_the_keys_of_each():
    td3, sac = planned("alpha=0.3", "target_noise=0.1", algos=("td3", "sac"))
    assert td3 == ["alpha has no effect: td3 does not use it"]
    assert sac == ["target_noise has no effect: sac does not use it"]


def test_a_preset_may_hold_keys_of_another_algorithm(tmp_path):
    preset = tmp_path / "both.yaml"
    preset.write_text("sweep: {set: {alpha: [0.1, 0.2]}}\nconfig: {target_noise: 0.1}\n")
    notes = planned(algos=("td3",), preset=load_sweep_preset(preset))
    assert notes == [["alpha has no effect: td3 does not use it"]] * 2


def test_what_an_outside_algorithm_reads_is_not_known():
    with pytest.raises(InputError, match="alpha"):
        effects.refuse_unread(["alpha=0.3"], {"td3"})
    assert effects.refuse_unread(["alpha=0.3"], {"td3", "mine:DDPG"}) is None


def test_the_command_line_refuses_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--env=2DNav-v1", "--algo=sac", "--set=target_noise=3"]) == 2
    assert "sac does not use it" in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


# --- on the screen ------------------------------------------------------------------------------


def test_plans_say_changes_and_notes(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["sweep", "--env=2DNav-v1", "--dst=dense,rlx2", "--sparsity=0.5,0.9", "--dry-run"]
    arguments += ["--steps=65001"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "topology in each run of td3-dense: dense" in shown
    assert "of td3-rlx2: changes 4 times in the critics, once in the actor" in shown
    assert shown.count("sparsity has no effect") == 1
    assert "note for td3-dense: sparsity has no effect" in shown
    assert main([*arguments, "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert runs[0]["notes"] == [
        "sparsity has no effect: all connections are active (dense is true)"
    ]
    assert [run["topology_changes"] for run in runs] == [
        {"actor": 0, "critic": 0},
        *[{"actor": 1, "critic": 4}] * 2,
    ]
    assert main(["train", "--env=2DNav-v1", "--steps=30000", "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "topology never changes, in this run" in shown
    assert "note: the topology of the actor and the critics never changes: update_interval" in shown


def test_effects_need_no_torch():
    code = (
        "import sys; from dstrl_cli.config import effects, resolving; "
        "effects.notes(*resolving.resolve_explicit()); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
