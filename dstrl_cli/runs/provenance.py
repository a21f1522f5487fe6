"""Where a run ran: what `config.yaml` keeps under `run:`. None of it identifies the run."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dstrl_cli import __version__
from dstrl_cli.config.models import RunConfig

PACKAGES = ("torch", "gymnasium", "mujoco", "numpy", "numba")
"""Packages that the numbers and the speed of a run depend on."""


def provenance(config: RunConfig, device: str) -> dict[str, Any]:
    """Return versions, device, processor, engine, threads, git commit and command line.

    Imports nothing.

    Args:
        config: the configuration, its engine and threads already chosen.
        device: the name of the device that was found.
    """
    return {
        "versions": versions(),
        "device": device,
        "processor": processor(),
        "engine": config.engine,
        "threads": config.threads,
        "git_commit": git_commit(),
        "command": _command(),
    }


def origin(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return where a run trained, as its configuration says; empty where that says nothing."""
    found = document.get("run")
    return found if isinstance(found, Mapping) else {}


def _command() -> str:
    """Return the command line: that of `dstrl`, or of the script that trains from Python."""
    program = Path(sys.argv[0])
    ours = program.stem == "dstrl" or program.parent == Path(__file__).parents[1]
    return shlex.join(["dstrl" if ours else program.name, *sys.argv[1:]])


@cache
def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str | None]:
    """Return the versions of dstrl, Python and packages; None where one is not installed."""
    found: dict[str, str | None] = {"dstrl": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


@cache
def processor() -> str:
    """Return the model of this machine's processor, as `Intel(R) Xeon(R) Platinum 8481C`."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


@cache
def git_commit() -> str | None:
    """Return the commit that dstrl's own source is at, `+dirty` where it was changed since.

    None where dstrl does not run from a git checkout of its own.
    """
    here = Path(__file__).resolve()
    source = here.parents[1]  # the whole package
    if _git(source, "ls-files", "--error-unmatch", str(here.relative_to(source))) is None:
        return None  # installed somewhere inside a repository that is not dstrl's
    commit = _git(source, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(source, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"{commit}+dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what a git command printed, or None where it failed or git is missing."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
