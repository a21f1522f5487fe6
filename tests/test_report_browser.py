"""`dstrl report` in a real browser: curves read by mouse and keys, windows, colours, print."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_samples import Tab, browser, opened
from policy_samples import write_policy
from report_samples import write_run

from dstrl_cli.page.document import page

pytestmark = pytest.mark.skipif(
    browser() is None, reason="no Chromium is installed (chromium, google-chrome)"
)

EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'
TIP = "document.querySelector('.tip:not([hidden])')?.textContent"
CHART = ".charts svg"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with opened(tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of dense and sparse runs, whose text says what it should not."""
    root = tmp_path_factory.mktemp("results")
    for seed in range(3):
        dense = {step: [step / 10 + seed] for step in (0, 500, 1000)}
        write_run(root, f"Hopper-v5/td3-dense/s0/seed{seed}", dense)
        sparse = {step: [step / 20.0] for step in (0, 500, 1000)}
        path = f"Hopper-v5/td3-@mine/s0.9/seed{seed}"
        write_run(root, path, sparse, config={"method_label": EVIL, "device": EVIL})
    write_policy(root / path / "policy.safetensors")
    wide = "HalfCheetah-v5/td3-dense/s0"
    write_run(root, f"{wide}/seed0", {1000: [5.0]}, status="failed", summary={"error": EVIL})
    written = root / "report.html"
    written.write_text(page(root, "final").html)
    return written


def colour(tab: Tab, selector: str, of: str) -> str:
    style = f"getComputedStyle(document.querySelector({selector!r}))"
    return str(tab.run(f"{style}.{of}"))


def painted(path: Path) -> int:
    """Return how many different rows of pixels a PNG has: an empty page has one."""
    data, found = path.read_bytes(), b""
    at = 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            found += data[at + 8 : at + 8 + length]
        at += length + 12
    high = struct.unpack(">I", data[20:24])[0]
    lines = zlib.decompress(found)
    row = len(lines) // high
    return len({lines[k * row + 1 : (k + 1) * row] for k in range(high)})


def test_the_page_runs_its_own_script_alone_and_asks_for_nothing(
    tab: Tab, file: Path, tmp_path: Path
) -> None:
    tab.requests.clear()
    tab.open(file)
    assert tab.problems == []
    asked = [url for url in tab.requests if not url.startswith("data:image/png;base64,")]
    assert asked == [file.absolute().as_uri()]
    assert tab.run("document.title").startswith("dstrl: ")
    assert EVIL in tab.run("document.querySelector('.numbers').textContent")
    assert tab.run("document.images.length") == 2
    assert tab.run("[...document.images].every((each) => each.naturalWidth > 0)")
    tab.picture(tmp_path / "page.png")
    assert painted(tmp_path / "page.png") > 50


def test_the_policy_of_the_page_refuses_other_scripts(tab: Tab, file: Path, tmp_path: Path) -> None:
    forged = tmp_path / "forged.html"
    injected = '<script>document.title = "owned"</script><img src="https://localhost:9/x.png">'
    forged.write_text(file.read_text().replace("<header>", f"{injected}<header>", 1))
    tab.open(forged)
    said, tab.problems[:] = list(tab.problems), []
    assert tab.run("document.title") != "owned"
    assert len([each for each in said if "Content Security Policy" in each]) == 2


def test_a_curve_is_read_by_pointing_at_it(tab: Tab, file: Path) -> None:
    tab.open(file)
    assert tab.run(TIP) is None
    tab.point(".charts figure:last-child svg", 0.55, 0.5)
    lines = tab.run(TIP).split("\n")
    assert lines[0] == "step 500"
    # t(2) = 4.3027, s = 1: 51 ± 2.484
    assert lines[1] == "Dense (n=1-3)*: 51 [48.516, 53.484]"
    assert lines[2] == f"{EVIL} (n=3): 25 [25, 25]"
    tab.point("h1", 0.5, 0.5)
    assert tab.run(TIP) is None


def test_a_curve_is_read_by_keys(tab: Tab, file: Path) -> None:
    tab.open(file)
    last = f"[...document.querySelectorAll({CHART!r})].at(-1)"
    tab.run(f"{last}.focus()")
    for key, step in (
        ("ArrowRight", "0"),
        ("ArrowRight", "500"),
        ("End", "1,000"),
        ("ArrowRight", "1,000"),
        ("ArrowLeft", "500"),
    ):
        tab.press(key)
        assert tab.run(TIP).startswith(f"step {step}\n"), key
    tab.press("Escape")
    assert tab.run(TIP) is None


def test_keys_reach_all_that_can_be_used(tab: Tab, file: Path) -> None:
    tab.open(file)
    reached = []
    for _ in range(200):
        tab.press("Tab")
        name = tab.run("document.activeElement.tagName.toLowerCase()")
        if name == "body":
            break
        assert colour(tab, ":focus", "outlineStyle") == "solid", name
        reached.append(name)
    assert reached[0] == "a"
    assert {"a", "button", "svg", "input", "summary", "div"} <= set(reached)


def test_a_line_is_hidden_and_shown_by_its_button(tab: Tab, file: Path) -> None:
    tab.open(file)
    tab.run("document.querySelectorAll('.legend button')[0].focus()")
    shown = "getComputedStyle(document.querySelector('.charts svg g[data-line=\"0\"]')).display"
    assert tab.run(shown) == "inline"
    tab.press("Enter")
    assert tab.run(shown) == "none"
    tab.point(".charts figure:last-child svg", 0.55, 0.5)
    assert "Dense" not in tab.run(TIP)
    tab.press("Enter")
    assert tab.run(shown) == "inline"


def test_runs_are_filtered_and_sorted(tab: Tab, file: Path) -> None:
    tab.open(file)
    tab.run(
        "const box = document.querySelector('.filter'); box.value = 'DENSE s0 finished';"
        "box.dispatchEvent(new Event('input'))"
    )
    rows = "[...document.querySelectorAll('.runs tbody tr')]"
    assert tab.run(f"{rows}.filter((row) => !row.hidden).length") == 3
    heads = "[...document.querySelectorAll('.runs thead button')]"
    tab.run(f"{heads}.find((each) => each.textContent == 'seed').click()")
    seeds = f"{rows}.map((row) => row.cells[4].textContent).join('')"
    assert tab.run(seeds) == "0001122"
    tab.run(f"{heads}.find((each) => each.textContent == 'seed').click()")
    assert tab.run(seeds) == "2211000"
    assert tab.run("document.querySelector('th[aria-sort]').ariaSort") == "descending"


@pytest.mark.parametrize("wide", [320, 600, 1200, 2400])
def test_nothing_sticks_out_of_a_window(tab: Tab, file: Path, wide: int) -> None:
    tab.open(file, wide)
    assert tab.run("document.documentElement.scrollWidth") <= wide
    box = tab.run(f"document.querySelector({CHART!r}).getBoundingClientRect().toJSON()")
    assert 200 < box["width"] <= wide
    tab.point(CHART, 0.95, 0.5)
    tip = tab.run("document.querySelector('.tip').getBoundingClientRect().toJSON()")
    assert 0 <= tip["left"] < tip["right"] <= wide


def test_in_a_narrow_window_numbers_and_curves_stay_in_sight(tab: Tab, file: Path) -> None:
    tab.open(file, 320)
    names = "[...document.querySelectorAll('.numbers tbody th')]"
    assert tab.run(f"{names}.some((each) => each.textContent.length > 60)")
    assert tab.run(f"Math.max(...{names}.map((each) => each.offsetWidth))") <= 160
    chart = ".charts figure:last-child svg"
    tab.point(chart, 0.55, 0.5)
    box, tip = (
        tab.run(f"document.querySelector({each!r}).getBoundingClientRect().toJSON()")
        for each in (chart, ".tip")
    )
    assert tip["bottom"] <= box["top"] or tip["top"] >= box["bottom"]


def test_the_table_of_runs_fits_a_usual_window(tab: Tab, file: Path) -> None:
    tab.open(file, 1200)
    runs = "document.querySelector('.runs').closest('.wide')"
    assert tab.run(f"{runs}.scrollWidth <= {runs}.clientWidth")


def test_colours_follow_the_system(tab: Tab, file: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        tab.open(file, scheme=scheme)
        dense = colour(tab, ".charts svg .line.cd", "stroke")
        seen[scheme] = (colour(tab, "body", "backgroundColor"), dense)
    assert seen["light"] == ("rgb(255, 255, 255)", "rgb(0, 0, 0)")
    assert seen["dark"] == ("rgb(20, 23, 28)", "rgb(255, 255, 255)")


def test_print_is_light_and_shows_what_is_closed(tab: Tab, file: Path, tmp_path: Path) -> None:
    tab.open(file, scheme="dark")
    closed = "document.querySelectorAll('details:not([open])').length"
    before = tab.run(closed)
    assert before > 2
    tab.run("window.dispatchEvent(new Event('beforeprint'))")
    assert tab.run(closed) == 0
    tab.run("window.dispatchEvent(new Event('afterprint'))")
    assert tab.run(closed) == before
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert colour(tab, "body", "backgroundColor") == "rgb(255, 255, 255)"
    assert colour(tab, "nav", "display") == "none"
    tab.call("Emulation.setEmulatedMedia", media="")
    tab.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_a_page_without_scripts_shows_everything(tab: Tab, file: Path, tmp_path: Path) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(file)
        tab.picture(tmp_path / "page.png", whole=True)
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    assert painted(tmp_path / "page.png") > 100
