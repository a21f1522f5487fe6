"""The figure of what runs reach over the paths through their critics."""

import math
from pathlib import Path

import numpy as np
import pytest
from plot_samples import line, only, request, runs, said

from dstrl_cli.plots import canvas
from dstrl_cli.plots.paths import against_paths, rank_correlation

matplotlib = pytest.importorskip("matplotlib", reason="the extra plot is not installed")

RLX2 = "Hopper-v5/td3-rlx2/s0.9"
HEADER = "step,network,layer,units,dormant,no_input,no_output,max_fan_in,paths,rank,saturated"


def test_what_runs_reach_is_drawn_over_the_paths_through_their_critics(tmp_path: Path):
    ends = {RLX2: [(20, 5.0), (40, 7.0)], RLX2.replace("rlx2", "sst"): [(10, 1.0), (10, 3.0)]}
    for place, seeds in ends.items():
        runs(tmp_path, place, [{1000: value} for _, value in seeds])
        for seed, (paths, _) in enumerate(seeds):
            rows = (f"1000,critic{n},1,1,,0,,4,{paths + side},," for n, side in ((1, -2), (2, 2)))
            text = "\n".join([HEADER, "0,critic1,1,1,,0,,4,99,,", *rows, ""])
            (tmp_path / place / f"seed{seed}" / "neurons.csv").write_text(text)
    drawing = only(list(against_paths(request(tmp_path))))
    (axis,) = drawing.figure.axes
    assert drawing.name == "paths-td3-s0.9"
    seeds = [each for each in axis.get_lines() if each.get_label().startswith("_")]
    drawn = {tuple(each.get_xdata()): tuple(each.get_ydata()) for each in seeds}
    assert drawn == {(20, 40): (5, 7), (10, 10): (1, 3)}
    assert line(axis, "RLx2 (n=2)") == ([30], [6])
    assert line(axis, "SST (n=2)") == ([10], [2])
    assert not axis.texts  # two methods have no rank correlation to speak of
    for number, paths in enumerate((15, 50), 2):
        other = RLX2.replace("rlx2", f"mine{number}")
        runs(tmp_path, other, [{1000: 10.0 * number}])
        rows = f"{HEADER}\n1000,critic1,1,1,,0,,4,{paths},,\n"
        (tmp_path / other / "seed0" / "neurons.csv").write_text(rows)
    (tmp_path / RLX2.replace("rlx2", "mine2") / "seed0" / "summary.json").unlink()
    (axis,) = (figure := only(list(against_paths(request(tmp_path)))).figure).axes
    assert [each.get_text() for each in axis.texts] == ["*", "rho = 0.80 (n=4)"]
    assert "* unfinished runs only" in said(figure)


def test_ties_share_their_ranks():
    # ranks -1.5, 0, 0, 1.5 and -1.5, -0.5, 0.5, 1.5 around their mean
    shared = 4.5 / math.sqrt(4.5 * 5)
    assert rank_correlation(np.array([1, 2, 2, 9]), np.arange(4)) == pytest.approx(shared)
    assert math.isnan(rank_correlation(np.ones(3), np.arange(3)))


@pytest.mark.parametrize(
    ("limits", "labels"),
    [((900, 4100), ["1k", "2k"]), ((30, 3e5), ["100", "1k", "10k", "100k"])],
)
def test_an_axis_by_powers_is_labelled_where_it_spans_less_than_a_decade(limits, labels):
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(*limits)
    canvas.ticks_by_powers(axis.xaxis)
    low, high = limits
    ticks = zip(axis.get_xticks(), axis.get_xticklabels(), strict=True)
    assert [each.get_text() for at, each in ticks if low <= at <= high] == labels
