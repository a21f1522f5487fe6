"""The curve of returns in the terminal while a run trains."""

import io

import pytest
from rich.console import Console

from dstrl_cli.sweep.display import DisplayReporter
from dstrl_cli.terminal.curve import HEIGHT, curve, shown
from dstrl_cli.terminal.display import LiveDisplay


def console(width: int = 80, height: int = 24) -> Console:
    return Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, legacy_windows=False
    )


def drawn(display: LiveDisplay, where: Console) -> list[str]:
    lines = where.render_lines(display._progress.get_renderable(), pad=False)
    return ["".join(segment.text for segment in line) for line in lines]


def test_a_curve_of_points_rises_from_the_lower_left_to_the_upper_right():
    lines = curve([(0, 0.0), (10, 4.0)], 13, braille=False)
    assert lines == [
        "4          **",
        "         **",
        "      ***",
        "    **",
        "0 **",
    ]


def test_braille_holds_four_rows_and_two_columns_of_dots():
    lines = curve([(0, 1.0), (1, 1.0)], 12)
    assert lines[0] == "1 " + "⠉" * 10  # a constant return is a line at the top
    assert [line.strip() for line in lines[1:]] == [""] * (
        HEIGHT - 1
    )  # its number stands there once


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_run_shows_its_curve_above_its_bar_in_terminals_that_are_wide_enough(width):
    where = console(width)
    display = LiveDisplay(where)
    reporter = DisplayReporter(display, 0, ["run"])
    display.start(0, "run", 1000, 0, ["run"])
    for step in range(0, 500, 100):
        reporter.evaluation(0, {"step": step, "eval_return_mean": float(step)})
    lines = drawn(display, where)
    assert max(map(len, lines)) <= width
    assert ("return of evaluations, steps 0 to 400" in lines[0]) == (width >= 80)
    assert len(lines) == (1 + HEIGHT + 1 if width >= 80 else 1)
    display.finish("run", {"status": "finished"})
    assert drawn(display, where) == []


def test_few_evaluations_and_low_terminals_have_no_curve():
    points = [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert shown(points, console()) is not None
    assert shown(points[:2], console()) is None
    assert shown(points, console(height=10)) is None


def test_returns_that_are_no_number_are_not_drawn():
    where = console()
    display = LiveDisplay(where)
    display.start(0, "run", 1000, 0, ["run"])
    for step in range(5):
        display.evaluation(0, "run", {"step": step, "eval_return_mean": float("nan")})
    assert len(drawn(display, where)) == 1
