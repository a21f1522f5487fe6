"""What is shown while runs train: lines, bars, time left, and the plan in narrow terminals."""

import io

import pytest
from rich.console import Console, RenderableType

from dstrl_cli.machine import Host
from dstrl_cli.sweep.display import DisplayReporter
from dstrl_cli.sweep.place import Limits, place_runs
from dstrl_cli.sweep.plan import Axes, expand
from dstrl_cli.sweep.states import Planned
from dstrl_cli.terminal import describe, plan
from dstrl_cli.terminal.columns import Layout, fitting_table
from dstrl_cli.terminal.display import LineDisplay, LiveDisplay
from dstrl_cli.terminal.pace import Pace, clock_time, seconds_left
from dstrl_cli.terminal.sweepview import SweepDisplay

ROW = {
    "step": 5000,
    "eval_return_mean": 12.5,
    "eval_return_std": 0.5,
    "steps_per_s": 1234.4,
    "actor_active": 3328,
    "critic_active": 6682,
}
PRUNED = ROW | {"step": 10_000, "critic_active": 6000}

# --- lines --------------------------------------------------------------------------------------


def test_plain_lines_say_each_evaluation_of_a_single_run():
    out = io.StringIO()
    display = LineDisplay(Console(file=out, width=40), runs=1, evaluations=True)
    reporter = DisplayReporter(display, 0, ["somewhere"])
    display.start(0, "somewhere", 10, 5, ["somewhere"])
    reporter.progress(1, 10, 2.0)
    reporter.evaluation(0, ROW)
    assert out.getvalue() == "step 5,000  return 12.5 ± 0.5  1,234 steps/s\n"


def test_plain_lines_say_the_episode_where_episodes_end_the_run():
    out = io.StringIO()
    display = LineDisplay(Console(file=out, width=40), runs=1, evaluations=True)
    reporter = DisplayReporter(display, 0, ["somewhere"])
    reporter.episodes(3, 1200)
    reporter.evaluation(0, ROW)
    assert out.getvalue() == "step 5,000  episode 3/1,200  return 12.5 ± 0.5  1,234 steps/s\n"


def test_active_connections_are_shown_once_they_have_changed():
    out = io.StringIO()
    display = LineDisplay(Console(file=out, width=40), runs=1, evaluations=True)
    for row in (ROW, ROW, PRUNED, PRUNED):
        display.evaluation(0, "somewhere", row)
    ends = [line.rpartition("steps/s")[2].strip() for line in out.getvalue().splitlines()]
    assert ends == ["", "", "active 3,328 + 6,000", "active 3,328 + 6,000"]


def test_runs_that_did_not_finish_are_named_on_the_other_stream():
    out, err = io.StringIO(), io.StringIO()
    display = LineDisplay(Console(file=out), 2, False, errors=Console(file=err, width=20))
    display.finish("a/b", {"status": "finished"})
    display.finish("a/c", {"status": "failed", "error": "the arm fell off"})
    assert out.getvalue() == "finished    a/b  (1/2)\n"
    assert err.getvalue() == "failed      a/c the arm fell off  (2/2)\n"


# --- the live view ------------------------------------------------------------------------------

LABEL = "HalfCheetah-v5/td3-our-rlx2/s0.95/seed0"


def terminal(width: int = 120, height: int = 25, out: io.StringIO | None = None) -> Console:
    file = out or io.StringIO()
    return Console(file=file, width=width, height=height, force_terminal=True, legacy_windows=False)


def drawn(console: Console, view: RenderableType) -> list[str]:
    rendered = console.render_lines(view, pad=False)
    return ["".join(segment.text for segment in line) for line in rendered]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_bar_of_a_single_run_fits_the_terminal(width):
    out = io.StringIO()
    console = terminal(width, out=out)
    with LiveDisplay(console) as display:
        reporter = DisplayReporter(display, 0, [LABEL])
        display.start(0, LABEL, 1_000_000, 0, [LABEL])
        reporter.evaluation(0, ROW)
        reporter.progress(5000, 1_000_000, 1234.4)
        (before,) = drawn(console, display._progress.get_renderable())
        reporter.evaluation(0, PRUNED)
        (after,) = drawn(console, display._progress.get_renderable())
        reporter.message("note [that]")
        display.finish(LABEL, {"status": "finished"})
    assert len(before) <= width
    assert ("5,000/1,000,000" if width >= 80 else "0%") in before.split()
    assert "return 12.5" in before
    assert "active" not in before
    assert ("active 3,328 + 6,000" in after) == (width > 60)
    assert "note [that]" in out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_sweep_shows_state_step_return_and_time_left_of_every_run(width):
    now = [0.0]
    console = terminal(width)
    work = [([label], 1000, 100) for label in "abcd"]
    display = SweepDisplay(console, work, clock=lambda: now[0])
    display.start(0, "a", 1000, 100, ["a"])
    display.start(1, "b", 1000, 100, ["b"])
    display.progress(0, 90, 1000, 900.0)
    assert drawn(console, display.view())[0] == "time left -:--; 4 runs: 2 running, 2 waiting"
    for time, step in ((1.0, 100), (11.0, 200)):
        now[0] = time
        display.progress(0, step, 1000, 10.0)
    display.evaluation(0, "a", ROW)
    display.state("d", "held by process 7 on host")
    display.finish("b", {"status": "failed", "steps": 40, "error": "the arm fell off"})
    headline, names, *rows = drawn(console, display.view())
    assert max(map(len, (headline, names, *rows))) <= width
    counts = "1 running, 1 held, 1 failed, 1 waiting"
    assert headline.startswith(f"time left 4:20; 4 runs: {counts}"[: width - 1])
    assert names.split() == ["run", "state", "step", "return", "left"]
    step = ["20%", "4%"] if width < 80 else ["200/1,000", "40/1,000"]
    # 10 steps/s: 80 s of the first, 90 s of each of c and d, one after the other
    assert rows[0].split() == ["a", "running", step[0], "12.5", "1:20"]
    assert rows[1].split() == ["b", "failed", step[1]]
    assert rows[2].split() == ["c", "waiting"]
    assert rows[3].split()[:3] == ["d", "held", "by"]


@pytest.mark.parametrize(
    ("width", "step"), [(60, "100%"), (80, "100%"), (120, "1,000,000/1,000,000")]
)
def test_a_sweep_shows_the_seeds_of_runs_whose_names_are_too_long(width, step):
    labels = [LABEL, LABEL.replace("seed0", "seed1")]
    console = terminal(width)
    display = SweepDisplay(console, [([label], 1_000_000, 0) for label in labels])
    for label in labels:
        summary = {"status": "finished", "steps": 1_000_000, "final_return": {"mean": 9147.2}}
        display.finish(label, summary)
    headline, _, *rows = drawn(console, display.view())
    assert headline.rstrip() == "time left -:--; 2 runs: 2 finished"
    assert max(map(len, rows)) <= width
    for number, row in enumerate(rows):
        name, state, shown, value = row.split()
        assert name.endswith(f"/s0.95/seed{number}")
        assert (name == labels[number]) == (width >= 80)
        assert (state, shown, value) == ("finished", step, "9,147")


def test_a_sweep_of_one_run_counts_one_run():
    console = terminal()
    display = SweepDisplay(console, [(["a"], 100, 0)])
    assert drawn(console, display.view())[0].rstrip() == "time left -:--; 1 run: 1 waiting"


def test_runs_that_have_no_room_are_counted_and_the_finished_ones_go_first():
    labels = [f"run{number}" for number in range(12)]
    console = terminal(height=8)
    display = SweepDisplay(console, [([label], 100, 0) for label in labels])
    for label in labels[:5]:
        display.finish(label, {"status": "finished"})
    display.start(5, "run5", 100, 0, ["run5"])
    display.finish("run6", {"status": "diverged"})
    lines = drawn(console, display.view())
    assert len(lines) == 7
    assert lines[0].startswith(
        "time left -:--; 12 runs: 1 running, 1 diverged, 5 waiting, 5 finished"
    )
    assert [line.split()[0] for line in lines[2:6]] == ["run5", "run6", "run7", "run8"]
    assert lines[6] == "and 8 more: 3 waiting, 5 finished"


def test_members_of_a_population_share_its_steps_and_end_one_by_one():
    console = terminal()
    display = SweepDisplay(console, [(["a", "b"], 100, 0)])
    display.start(0, "2 runs, as a", 100, 0, ["a", "b"])
    display.progress(0, 10, 100, 1.0)
    display.finish("a", {"status": "diverged", "steps": 10})
    display.progress(0, 20, 100, 1.0)
    _, _, first, second = drawn(console, display.view())
    assert first.split()[:3] == ["a", "diverged", "10/100"]
    assert second.split()[:3] == ["b", "running", "20/100"]


def test_a_bar_counts_episodes_where_they_end_the_run_and_fills_by_what_is_further():
    now = [0.0]
    console = terminal()
    with LiveDisplay(console, clock=lambda: now[0]) as display:
        reporter = DisplayReporter(display, 0, ["a"])
        display.start(0, "a", 1000, 0, ["a"])
        (task,) = display._progress.tasks
        reporter.episodes(0, 10)
        reporter.progress(100, 1000, 10.0)
        assert task.completed == 100
        now[0] = 10.0
        reporter.episodes(4, 10)
        reporter.progress(200, 1000, 10.0)
        assert task.completed == 400
        # 4 episodes in 200 steps: at 10 steps/s the other 6 take 300 steps, 30 s
        (bar,) = drawn(console, display._progress.get_renderable())
        assert "4/10 episodes" in bar
        assert "0:30" in bar


def test_a_sweep_shows_episodes_of_the_runs_that_they_end():
    now = [0.0]
    console = terminal()
    display = SweepDisplay(console, [(["a"], 1000, 0)], clock=lambda: now[0])
    display.start(0, "a", 1000, 0, ["a"])
    display.progress(0, 100, 1000, 10.0)
    now[0] = 10.0
    display.episodes(0, 4, 10)
    display.progress(0, 200, 1000, 10.0)
    *_, row = drawn(console, display.view())
    assert row.split() == ["a", "running", "4/10", "ep", "0:30"]


# --- the time left ------------------------------------------------------------------------------


def test_random_steps_do_not_count_into_the_speed():
    pace = Pace(total=10_000, warm_up=5_000)
    pace.report(4_000, now=0.1)
    assert pace.seconds_left(now=0.1) is None
    pace.report(5_000, now=0.2)
    assert pace.steps_per_s is None
    pace.report(6_000, now=10.2)
    assert pace.steps_per_s == pytest.approx(100)
    assert pace.seconds_left(now=10.2) == pytest.approx(40)
    assert pace.seconds_left(now=15.2) == pytest.approx(35)
    assert pace.seconds_left(now=1000.0) == 0


def test_a_run_of_random_steps_alone_has_a_speed():
    pace = Pace(total=100, warm_up=25_000)
    pace.report(10, now=1.0)
    pace.report(20, now=2.0)
    assert pace.seconds_left(now=2.0) == pytest.approx(8)


def test_a_sweep_takes_as_long_as_its_longest_run_at_least():
    fast, slow, waiting = Pace(200, 0), Pace(1_000, 0), Pace(200, 0)
    for pace in (fast, slow):
        pace.report(0, now=0.0)
        pace.report(100, now=10.0)
    assert seconds_left([], [waiting], [], 10.0) is None
    assert seconds_left([Pace(200, 0)], [waiting], [], 10.0) is None
    assert seconds_left([fast, slow], [], [], 10.0) == pytest.approx(90)
    assert seconds_left([fast], [waiting], [slow], 10.0) == pytest.approx(10 + 20)


def test_times_are_said_as_on_a_clock():
    assert [clock_time(each) for each in (0.4, 65, 3_723)] == ["0:00", "1:05", "1:02:03"]


# --- the plan -----------------------------------------------------------------------------------


def shown(runs, width: int) -> str:
    out = io.StringIO()
    planned = [Planned(run, "new") for run in runs]
    Console(file=out, width=width).print(plan.plan_table(planned, width))
    return out.getvalue()


def test_tasks_and_seeds_of_a_plan_are_ranges():
    axes = Axes(methods=("sst",), envs=("2DNav-v1",), tasks=(0, 1, 2, 4), seeds=(0, 1, 2))
    rows = shown(expand(axes), 80).splitlines()
    assert rows[3].split() == ["td3-sst", "2DNav-v1", "0-2,", "4", "s0.95", "0-2", "12", "12"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_names_of_methods_are_never_broken_in_the_middle(width):
    axes = Axes(envs=("HalfCheetah-v5",), sets={"buffer_size": [10_000, 1_000_000]})
    text = shown(expand(axes, flags={"actor.sparsity": 0.9}), width)
    assert max(map(len, text.splitlines())) <= width
    assert "+buffer_size10000 " in text
    assert "+buffer_size1000000 " in text
    assert ("td3-rlx2+buffer_size1000000" in text) == (width == 120)


@pytest.mark.parametrize("width", [60, 80])
def test_names_of_environments_are_never_broken_in_the_middle(width):
    envs = ("Pendulum-v1", "InvertedDoublePendulum-v5")
    axes = Axes(methods=("rlx2", "our-rlx2"), envs=envs, seeds=(0, 1))
    text = shown(expand(axes, flags={"actor.sparsity": 0.9}), width)
    assert max(map(len, text.splitlines())) <= width
    assert {*envs, "td3-our-rlx2", "a0.9-c0.95"} <= set(text.split())


def test_populations_are_shown_with_whole_words_in_narrow_terminals():
    axes = Axes(methods=("rlx2", "our-rlx2"), envs=("Pendulum-v1",), sparsities=(0.5, 0.9))
    flags = {"device": "cuda", "steps": 200}
    planned = [Planned(run, "new") for run in expand(axes, flags=flags)]
    host = Host(cores=4, memory=64 * 10**9)
    placement = place_runs(planned, Limits(device_memory=10**10), host, dry_run=True)
    for width in (60, 80):
        out = io.StringIO()
        Console(file=out, width=width).print(plan.packing_table(placement, width))
        assert max(map(len, out.getvalue().splitlines())) <= width
        words = {word.strip(",") for word in out.getvalue().split()}
        assert {"Pendulum-v1", "rlx2", "our-rlx2", "cuda:0"} <= words


def test_notes_are_wrapped_in_a_terminal_and_whole_in_a_pipe():
    note = "note for td3-dst: buffer.check_interval has no effect: buffer.dynamic is false"
    for terminal, lines in ((True, 2), (False, 1)):
        out = io.StringIO()
        describe.print_lines(Console(file=out, width=60, force_terminal=terminal), [note])
        assert len(out.getvalue().splitlines()) == lines
        assert out.getvalue().split() == note.split()


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (16, ["a b", "one two three"]),
        (12, ["a b", "one three", "two"]),
        (11, ["a, b", "one", "two", "three"]),
    ],
)
def test_a_table_takes_the_first_layout_that_breaks_no_word(width, expected):
    layouts = [
        Layout(["a", "b"], [["one two", "three"]]),
        Layout(["a, b"], [["one\ntwo\nthree"]]),
    ]
    out = io.StringIO()
    Console(file=out, width=width).print(fitting_table(layouts, width))
    lines = [line for line in out.getvalue().splitlines() if line.strip(" ─")]
    assert [" ".join(line.split()) for line in lines] == expected
