"""The commit that a run names: that of dstrl's own source, marked where it was changed."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dstrl_cli
from dstrl_cli.config import methods
from dstrl_cli.config.resolving import resolve
from dstrl_cli.runs import provenance as provenance_module
from dstrl_cli.runs.provenance import provenance

PACKAGE = Path(dstrl_cli.__file__).parent
ASK = "from dstrl_cli.runs.provenance import git_commit; print(git_commit())"


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    done = subprocess.run(
        ["git", *who, "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit_seen_by(source: Path) -> str:
    """What a program that imports dstrl from `source` takes for its commit."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", ASK],
        capture_output=True,
        text=True,
        check=True,
        cwd=source.parent,
        env={"PYTHONPATH": str(source), "PATH": "/usr/bin:/bin:/usr/local/bin"},
    )
    return done.stdout.strip()


def test_a_change_anywhere_in_the_package_makes_the_commit_dirty(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, source / "dstrl_cli", ignore=ignored)
    git(tmp_path, "init", "-q", str(source))
    assert commit_seen_by(source) == "None"  # not committed: a repository that is not dstrl's
    (source / ".gitignore").write_text("__pycache__/\n")
    git(source, "add", ".")
    git(source, "commit", "-q", "-m", "all")
    commit = git(source, "rev-parse", "HEAD")
    assert commit_seen_by(source) == commit
    for changed in (source / "dstrl_cli/topology/rule.py", source / "dstrl_cli/errors.py"):
        before = changed.read_text()
        changed.write_text(before + "\n# changed\n")
        assert commit_seen_by(source) == f"{commit}+dirty"
        changed.write_text(before)
    (source / "notes.txt").write_text("outside the package\n")
    assert commit_seen_by(source) == commit


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["/usr/bin/dstrl", "train", "--dst=a b"], "dstrl train '--dst=a b'"),
        ([str(PACKAGE / "__main__.py"), "train"], "dstrl train"),
        ([str(PACKAGE / "cli.py"), "train"], "dstrl train"),
        (["/home/someone/study.py", "--fast"], "study.py --fast"),
    ],
)
def test_the_command_is_that_of_dstrl_or_of_a_script(monkeypatch, arguments, command) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    assert provenance(resolve(), "cpu")["command"] == command


def test_the_processor_is_named_as_the_system_names_it(monkeypatch) -> None:
    provenance_module.processor.cache_clear()
    text = "processor\t: 0\nmodel name\t: Some(R) CPU: 4 GHz\nprocessor\t: 1\nmodel name\t: b\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert provenance_module.processor() == "Some(R) CPU: 4 GHz"
    provenance_module.processor.cache_clear()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "")  # a machine that does not say
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert provenance_module.processor() == "arm"
    provenance_module.processor.cache_clear()


def test_presets_are_found_beside_the_package() -> None:
    assert (methods.presets_dir() / "methods" / "rlx2.yaml").is_file()
    assert methods.presets_dir().parent in (PACKAGE, PACKAGE.parent)
