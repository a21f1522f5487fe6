"""What the control groups of this process allow: the limits of a container, or of a batch job.

A process has the least of what its group and every group above that one may use. In a container the
path of its group may be the one outside, where only the top of what is mounted here counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

ROOT = Path("/")
"""The folder of `proc` and `sys`."""


def core_quota(root: Path = ROOT) -> int | None:
    """Return how many cores the groups' processor time is worth, rounded up; None: no limit."""
    shares = []
    for group in _groups(root):
        version_1 = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = _words(group / "cpu.max") or [each for f in version_1 for each in _words(group / f)]
        match words:
            case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period):
                shares.append(max(1, math.ceil(int(quota) / int(period))))
    return min(shares, default=None)  # without a limit the quota is "max", or -1 in version 1


def memory_limit(root: Path = ROOT) -> int | None:
    """Return the bytes of main memory that the groups may use; None: no limit."""
    files = ("memory.max", "memory.limit_in_bytes")
    words = [each for group in _groups(root) for file in files for each in _words(group / file)]
    return min((int(each) for each in words if each.isdecimal()), default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's groups and of those above; some may not be there."""
    mounted = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        # version 2 names no controllers, and lies in `unified` where there is version 1, too
        names = [controllers, *controllers.split(",")] if controllers else [".", "unified"]
        below = PurePosixPath(path.lstrip("/"))
        for name in names:
            for group in (below, *below.parents):
                yield mounted / name / group


def _words(file: Path) -> list[str]:
    return _read(file).split()


def _read(file: Path) -> str:
    """Return the text of a file; nothing where there is none."""
    with suppress(OSError, UnicodeDecodeError):
        return file.read_text()
    return ""
