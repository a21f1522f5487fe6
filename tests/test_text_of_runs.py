"""Text that comes from runs stays text: in LaTeX, Markdown, CSV, JSON and on a terminal."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from report_samples import write_run

from dstrl_cli.cli import main
from dstrl_cli.config.printable import printable
from dstrl_cli.report.render import render
from dstrl_cli.report.tables import table
from dstrl_cli.runs.summary import last_status
from dstrl_cli.terminal.screen import screen

STEER = "\x1b]0;owned\x07\x9b31m\u202e\u2028\r"
LATEX = "x\n\\input{/etc/passwd}"
LINK = "[a](javascript:b)<b>&lt;"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Runs whose status, label, environment and settings say what they should not."""
    for seed, status in enumerate((STEER, LATEX, LINK, "finished")):
        write_run(
            tmp_path,
            f"=cmd|'C calc'!A0/td3-@mine/s0.9/seed{seed}",
            {1000: [1.0]},
            status=status,
            config={"method_label": f"={LATEX}{STEER}{LINK}", "device": LATEX + STEER},
        )
    other = "=cmd|'C calc'!A0/td3-@mine/s0.9/seed9"
    write_run(tmp_path, other, {1000: [3.0]}, config={"batch_size": LATEX + STEER + LINK})
    return tmp_path


@pytest.mark.parametrize("style", ["rich", "md", "latex", "csv", "json"])
def test_no_format_holds_a_character_that_steers_a_terminal(results: Path, style: str) -> None:
    text = render(table(results, metric="final"), style)
    steering = {each for each in text if not each.isprintable()} - {"\n"}
    assert steering == set()
    assert "owned" in text or style == "csv"


def test_a_status_starts_no_line_of_latex(results: Path) -> None:
    lines = render(table(results, metric="final"), "latex").splitlines()
    outside = [line for line in lines if not line.startswith("%")]
    assert not any("\\input" in line for line in outside)
    (row,) = [line for line in outside if "calc" not in line and " & " in line]
    assert row.startswith("=x\\textbackslash{}n\\textbackslash{}input\\{/etc/passwd\\}")


def test_markdown_makes_no_link_and_no_html(results: Path) -> None:
    text = render(table(results, metric="final"), "md")
    assert "[a\\](javascript:b)\\<b\\>\\&lt;" in text
    assert "](" not in text.replace("\\](", "")
    assert "<b>" not in text


def test_no_cell_of_csv_is_a_formula(results: Path) -> None:
    (row,) = csv.DictReader(io.StringIO(render(table(results, metric="final"), "csv")))
    assert row["env"] == "'=cmd|'C calc'!A0"
    assert row["method"] == "'@mine"
    assert row["label"].startswith("'=x\\n\\input")
    assert float(row["mean"]) == 2.0  # of the two runs that finished


def test_a_negative_number_stays_a_number_in_csv(tmp_path: Path) -> None:
    write_run(tmp_path, "Hopper-v5/td3-rlx2/s0.9/seed0", {1000: [-1569.125]})
    (row,) = csv.DictReader(io.StringIO(render(table(tmp_path, metric="final"), "csv")))
    assert row["mean"] == "-1569.125"


def test_json_keeps_the_text_itself(results: Path) -> None:
    document = json.loads(render(table(results, metric="final"), "json"))
    assert {each["status"] for each in document["unfinished"]} == {STEER, LATEX, LINK}


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["train", "--env=\x1b]0;t\x07"], "\\x1b]0;t"),
        (["train", "--set=env.kwargs.a=\u202eb"], "\\u202e"),
        (["table", "no\x1bwhere"], "no\\x1bwhere"),
        (["eval", "no\udc80where"], "no\\udc80where"),
    ],
)
def test_a_message_steers_no_terminal(
    empty_folder: Path, arguments: list[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert shown in said
    assert all(each.isprintable() or each == "\n" for each in said)


def test_a_screen_writes_out_control_characters_and_keeps_colours_and_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = screen()
    with console.capture() as capture:
        console.print("[red]a\x1b[2Jb[/red]\nc")
    assert capture.get() == "\x1b[31ma\\x1b[2Jb\x1b[0m\nc\n"


def test_printable_text_is_as_it_was() -> None:
    assert printable("mean ± std – ключ 日本") == "mean ± std – ключ 日本"
    assert printable("a\tb\u200f") == "a\\tb\\u200f"


def test_a_status_is_one_line_where_runs_are_listed(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"status": f"{LATEX}\n9 runs: 9 finished"}))
    assert last_status(tmp_path) == "x\\n\\input{/etc/passwd}\\n9 runs: 9 finished"
