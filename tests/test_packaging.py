"""What is shipped: metadata, constraints, a README that a package index can show, light imports."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from readme_samples import README

import dstrl_cli

ROOT = README.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def test_every_constraint_is_one_stable_version():
    pins = constraints()
    assert len(pins) > 40
    for name, pin in pins.items():
        ((operator, version),) = [(each.operator, each.version) for each in pin.specifier]
        assert operator == "=="
        assert not Version(version).is_prerelease, pin
        assert "nightly" not in name


def test_constraints_cover_the_core_and_the_extras_dev_and_video():
    extras = PROJECT["optional-dependencies"]
    for text in (*PROJECT["dependencies"], *extras["dev"], *extras["video"]):
        needed = Requirement(text)
        pin = constraints()[canonicalize_name(needed.name)]
        ((version,),) = [[each.version for each in pin.specifier]]
        assert needed.specifier.contains(version), f"{text} is constrained to {version}"


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["license"]) == ("1.2.0", PROJECT["license"])
    assert citation["version"] == PROJECT["version"] == dstrl_cli.__version__
    assert f"version = {{{PROJECT['version']}}}" in README.read_text()


def test_the_package_says_that_it_is_typed():
    assert (Path(dstrl_cli.__file__).parent / "py.typed").is_file()


def test_the_readme_links_to_nothing_that_a_package_index_lacks():
    text = README.read_text()
    targets = re.findall(r"\]\(([^)]+)\)", text)
    headings = [each.lower() for each in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    anchors = {"#" + re.sub(r"[^a-z0-9 -]", "", each).replace(" ", "-") for each in headings}
    pictures = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "results" / "pictures").iterdir()
    }
    for target in targets:
        assert target.startswith("https://") or target in anchors | pictures, target


@pytest.mark.parametrize(
    "code",
    [
        "import dstrl_cli.report",
        "import dstrl_cli.config.presets, dstrl_cli.config.resolving",
        "import dstrl_cli.runs.folder, dstrl_cli.runs.policy, dstrl_cli.runs.provenance",
        "import dstrl_cli.evaluation.starts, dstrl_cli.streams",
        "from dstrl_cli.cli import main; assert main(['table', 'results/xu-table5']) == 0",
    ],
)
def test_what_reads_runs_loads_no_torch_and_no_gymnasium(code):
    code += "; import sys; print({'torch', 'gymnasium', 'mujoco'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "set()"
