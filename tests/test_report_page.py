"""`dstrl report`: what is on the page, that it loads nothing, and that text of runs stays text."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from policy_samples import M0, M1, write_policy
from report_samples import write_run
from table_samples import SUMMARY, seeds

from dstrl_cli.cli import main
from dstrl_cli.page.charts import thinned, ticks
from dstrl_cli.page.document import page
from dstrl_cli.page.gather import gather
from dstrl_cli.page.html import Markup, element, joined, text
from dstrl_cli.page.masks import png
from dstrl_cli.page.runs import common, without
from dstrl_cli.report.archiving import archive

RLX2 = "Hopper-v5/td3-rlx2/s0.9"
DENSE = "Hopper-v5/td3-dense/s0"
EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&amp;"\'\u202e'


class Read(HTMLParser):
    """What a browser makes of a page: its elements, and the text that is seen."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.seen = ""
        self._hidden = False
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False
        self.seen += "\n"

    def handle_data(self, data: str) -> None:
        self.seen += "" if self._hidden else data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [about for name, about in self.elements if name == tag]


def read(results: Path, metric: str = "final") -> Read:
    return Read(page(results, metric).html)


# --- HTML -----------------------------------------------------------------------------------------


def test_text_becomes_html_that_shows_it() -> None:
    assert text("a<b>&\"'") == "a&lt;b&gt;&amp;&quot;&#x27;"
    assert text("\x1b\n") == "\\x1b\\n"
    assert text(Markup("<b>")) == "<b>"
    assert joined(["<", Markup("<i>")]) == "&lt;<i>"
    made = element("a", "x<", None, href='"><script>', data_box="1", hidden=True, id=None)
    assert made == '<a href="&quot;&gt;&lt;script&gt;" data-box="1" hidden>x&lt;</a>'
    assert element("img", src="a") + element("path", d="M0") == '<img src="a"><path d="M0"/>'


# --- pieces ---------------------------------------------------------------------------------------


def test_ticks_are_round_numbers_within_their_bounds() -> None:
    assert ticks(0, 1000) == [0, 200, 400, 600, 800, 1000]
    assert ticks(-0.7, 1.1) == [-0.5, 0.0, 0.5, 1.0]
    assert ticks(3, 3) == [3]


def test_thinned_points_are_evenly_spaced_and_keep_both_ends() -> None:
    assert thinned(9, 5).tolist() == [0, 2, 4, 6, 8]
    assert thinned(3, 5).tolist() == [0, 1, 2]
    assert thinned(1, 5).tolist() == [0]


def test_a_mask_is_a_picture_of_one_bit_a_connection() -> None:
    data = png(np.array([[1, 0, 0, 0, 0, 0, 0, 0, 1], [0] * 9], bool))
    assert struct.unpack(">II", data[16:24]) == (9, 2)  # wide, high
    start = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    lines = zlib.decompress(data[start + 4 : start + 4 + length])
    white = 0xFF
    assert [line[1] for line in (lines[:3], lines[3:])] == [white ^ 0x80, white]
    assert [line[2] & 0x80 for line in (lines[:3], lines[3:])] == [0, 0x80]


def test_settings_stand_once_where_they_are_shared() -> None:
    one, other = {"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}
    assert common([one, other]) == {"a": "1"}
    assert without(other, {"a": "1"}) == {"b": "3", "c": "4"}


# --- the page -------------------------------------------------------------------------------------


def test_a_page_has_the_table_and_the_curves_of_its_runs(tmp_path: Path) -> None:
    seeds(tmp_path, RLX2, [1.0, 2.0, 6.0], summary=SUMMARY)
    seeds(tmp_path, DENSE, [3.0, 4.0, 5.0], summary=SUMMARY)
    shown = read(tmp_path)
    assert "final: mean return of the last evaluation" in shown.seen
    assert "3.000 ± 2.160 n=3" in shown.seen
    assert "SOK 20 (0.100x)" in shown.seen
    (chart,) = [each for each in shown.all("svg") if "data-curves" in each]
    curves = json.loads(str(chart["data-curves"]))
    assert [curve[:3] for curve in curves] == [
        [0, [0, 1000], [-99, 4]],
        [1, [0, 1000], [-99, 3]],
    ]
    # t(2) = 4.3027, s = sqrt(7): 3 ± 6.572
    assert curves[1][3][1] == pytest.approx(3 - 6.5724, abs=1e-3)
    assert curves[1][4][1] == pytest.approx(3 + 6.5724, abs=1e-3)
    assert [each["data-line"] for each in shown.all("button")] == ["0", "1"]
    assert "Nothing: all runs that are here finished" in shown.seen


def test_a_folder_whose_archive_stands_for_it_has_one_chapter(tmp_path: Path) -> None:
    seeds(tmp_path / "runs", RLX2, [1.0, 2.0, 6.0], summary=SUMMARY)
    (tmp_path / "study").mkdir()
    archive(tmp_path / "runs", tmp_path / "study" / "runs.zip")
    found = gather(tmp_path / "study", None)
    assert [(each.name, len(each.results.runs)) for each in found.chapters] == [("study", 3)]
    shutil.copytree(tmp_path / "runs", tmp_path / "study", dirs_exist_ok=True)
    assert len(gather(tmp_path / "study", None).chapters) == 2


def test_a_page_loads_nothing(tmp_path: Path) -> None:
    seeds(tmp_path, RLX2, [1.0])
    write_policy(tmp_path / RLX2 / "seed0" / "policy.safetensors")
    content = page(tmp_path, "final").html
    shown = Read(content)
    for tag, about in shown.elements:
        for name, value in about.items():
            assert name not in ("srcset", "style", "action", "formaction", "srcdoc"), tag
            if name in ("src", "href"):
                assert str(value).startswith(("data:image/png;base64,", "#")), (tag, value)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp|innerHTML|insertAdjacent|eval\(", content)
    (policy,) = [each for each in shown.all("meta") if "http-equiv" in each]
    assert str(policy["content"]).startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in str(policy["content"])
    assert {tag for tag, _ in shown.elements} & {"link", "iframe", "object", "base"} == set()


def test_text_of_runs_is_no_html(tmp_path: Path) -> None:
    env = "<img src=x onerror=alert(3)>-v5"
    for seed, status in enumerate(("finished", EVIL, "failed")):
        write_run(
            tmp_path,
            f"{env}/td3-<b>mine<b>/s0.9/seed{seed}",
            {0: [1.0], 1000: [2.0]},
            status=status,
            summary={"error": EVIL, "final_return": {"mean": EVIL}, "wall_time_s": EVIL},
            config={"method_label": EVIL, "device": EVIL, "run": {"command": EVIL, EVIL: EVIL}},
        )
    damaged = write_run(tmp_path, f"{env}/td3-sst/s0.9/seed0", {0: [1.0]})
    (damaged / "config.yaml").write_text(f"{EVIL}: [")
    found = page(tmp_path, "final")
    shown = Read(found.html)
    assert len(shown.all("script")) == 1
    assert shown.all("img") == []
    assert not [name for _, about in shown.elements for name in about if name.startswith("on")]
    assert "\u202e" not in found.html
    for value in ("</script><script>alert(1)</script>", "<img src=x onerror=alert(3)>"):
        assert value in shown.seen


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    seeds(tmp_path, RLX2, [1.0, 2.0])
    seeds(tmp_path, DENSE, [3.0])
    for seed, status in ((3, "failed"), (4, None)):
        write_run(
            tmp_path,
            f"{RLX2}/seed{seed}",
            {0: [1.0], 500: [2.0]},
            status=status,
            summary={"error": "the disk is full"},
            config={"run": {"git_commit": f"{seed}" * 40}},
        )
    (tmp_path / RLX2 / "seed1" / "eval.csv").write_text("nonsense\n")
    shown = read(tmp_path)
    assert f"{RLX2}/seed3: failed, 500 of 1,000 steps: the disk is full" in shown.seen
    assert f"{RLX2}/seed4: unfinished" in shown.seen
    assert f"{RLX2}/seed1/eval.csv: " in shown.seen
    other = "Hopper-v5/td3-sst/s0.9"
    for seed in (0, 7):
        write_run(
            tmp_path, f"{other}/seed{seed}", {1000: [2.0]},
            config={"run": {"git_commit": f"{seed}" * 40}},
        )  # fmt: skip
    shown = read(tmp_path)
    assert "Hopper-v5: Dense has no seed 7, others have" in shown.seen
    assert "runs of different commits of dstrl: 000000000000 (1 run), 777777777777" in shown.seen


def test_settings_are_shown_once_and_versions_with_them(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(
            tmp_path,
            f"{RLX2}/seed{seed}",
            {1000: [1.0]},
            config={"batch_size": 111 + seed, "tau": 0.0625},
        )
    write_run(tmp_path, f"{DENSE}/seed0", {1000: [1.0]}, config={"nstep": 7, "tau": 0.0625})
    shown = read(tmp_path)
    assert shown.seen.count("0.0625") == 1
    assert [shown.seen.count(f"batch_size\n{each}\n") for each in (111, 112)] == [1, 1]
    assert "run.versions.dstrl" in shown.seen
    assert "what all 3 runs have alike" in shown.seen
    assert "only of Hopper-v5, TD3 RLx2 s0.9 (2 runs)" in shown.seen


def test_masks_of_the_first_seed_of_each_sparse_line_are_drawn(tmp_path: Path) -> None:
    seeds(tmp_path, RLX2, [1.0, 2.0])
    seeds(tmp_path, DENSE, [1.0])
    for path in (f"{RLX2}/seed0", f"{RLX2}/seed1", f"{DENSE}/seed0"):
        write_policy(tmp_path / path / "policy.safetensors")
    shown = read(tmp_path)
    assert "TD3 RLx2 s0.9, Hopper-v5, seed 0" in shown.seen
    assert "RLx2 s0.9, Hopper-v5, seed 1" not in shown.seen
    assert len(shown.all("img")) == 2  # layers
    assert f"actor: {M0.sum() + int(M1.sum())} of 6 connections" in shown.seen


def test_damaged_policies_are_named_and_the_page_is_made(tmp_path: Path) -> None:
    seeds(tmp_path, RLX2, [1.0])
    (tmp_path / RLX2 / "seed0" / "policy.safetensors").write_bytes(b"no policy")
    assert "policy.safetensors cannot be read" in read(tmp_path).seen


def test_results_folders_and_archives_below_a_folder_are_chapters(tmp_path: Path) -> None:
    seeds(tmp_path / "short", RLX2, [1.0])
    seeds(tmp_path / "deep" / "long", RLX2, [2.0])
    archive = tmp_path / "kept" / "runs.zip"
    archive.parent.mkdir()
    assert main(["archive", str(tmp_path / "short"), "--out", str(archive)]) == 0
    (tmp_path / "kept" / "other.zip").write_bytes(b"PK nothing")
    found = page(tmp_path, "final")
    names = re.findall(r"<h2>(.*?)</h2>", found.html)
    assert names == ["deep/long", "kept/runs.zip", "short", "Not read"]
    assert (found.chapters, found.runs) == (3, 3)
    assert len(found.unread) == 1
    assert found.unread[0].startswith("kept/other.zip: ")
    assert page(archive, "final").chapters == 1
    assert page(tmp_path / "short" / "Hopper-v5", "final").runs == 1


def test_the_current_folder_is_called_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    write_run(tmp_path / "mine", "Hopper-v5/td3-dense/s0/seed0", {1000: [5.0]})
    monkeypatch.chdir(tmp_path / "mine")
    made = page(Path(), "final").html
    assert "<title>dstrl: mine</title>" in made
    assert "<h2>mine</h2>" in made


def test_runs_without_a_number_make_a_page_that_says_so(tmp_path: Path) -> None:
    write_run(tmp_path, f"{RLX2}/seed0", {}, status="failed", summary={"error": "no such device"})
    shown = read(tmp_path)
    assert "takes at least one evaluation" in shown.seen
    assert f"{RLX2}/seed0: failed, 0 of 1,000 steps: no such device" in shown.seen


def test_a_page_of_hundreds_of_runs_stays_small(tmp_path: Path) -> None:
    curve = {step: [float(step % 977)] for step in range(0, 50_000, 50)}
    first = write_run(tmp_path, "Hopper-v5/td3-rlx2/s0.1/seed0", curve, config={"steps": 49_950})
    config = (first / "config.yaml").read_text()
    for number in range(1, 250):
        sparsity, seed = divmod(number, 5)
        copy = tmp_path / f"Hopper-v5/td3-rlx2/s0.{10 + sparsity}/seed{seed}"
        shutil.copytree(first, copy)
        changed = config.replace("seed: 0", f"seed: {seed}")
        changed = changed.replace("sparsity: 0.1\n", f"sparsity: 0.{10 + sparsity}\n")
        (copy / "config.yaml").write_text(changed)
    found = page(tmp_path, "final")
    assert found.runs > 240
    assert len(found.html) < 2_000_000
    assert "evaluations of a curve are shown, evenly spaced" in found.html


# --- the command ----------------------------------------------------------------------------------


def test_the_command_writes_one_file_and_replaces_none_unasked(
    capsys: pytest.CaptureFixture[str], empty_folder: Path
) -> None:
    seeds(Path("results"), RLX2, [1.0])
    assert main(["report", "results"]) == 0
    assert "1 run of results in report.html" in capsys.readouterr().out
    before = Path("report.html").read_bytes()
    assert main(["report", "results"]) == 2
    assert "--out report.html exists" in capsys.readouterr().err
    assert main(["report", "results", "--overwrite", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["runs"], told["bytes"]) == (1, len(before))
    assert Path("report.html").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "results folder nowhere does not exist"),
        (["."], "holds no runs"),
        (["results", "--metric=fina"], "unknown metric 'fina'"),
        (["results", "--out=no/report.html"], "folder 'no' does not exist"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str], empty_folder: Path, arguments: list[str], said: str
) -> None:
    if arguments[0] == "results":
        seeds(Path("results"), RLX2, [1.0])
    assert main(["report", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not list(empty_folder.glob("*.html"))


def test_a_page_needs_neither_torch_nor_matplotlib(tmp_path: Path) -> None:
    seeds(tmp_path / "results", RLX2, [1.0, 2.0])
    code = (
        "from dstrl_cli.cli import main; import sys; assert main(['report', 'results']) == 0; "
        "print({'torch', 'gymnasium', 'matplotlib'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "set()"
