"""What a process may use of its machine, as its control groups limit it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dstrl_cli import machine

MB = 1 << 20


@pytest.fixture
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Write `/proc/self/cgroup` and files below `/sys/fs/cgroup` of a system in a folder."""
    texts = {"proc/self/cgroup": groups}
    texts |= {f"sys/fs/cgroup/{name}": f"{text}\n" for name, text in files.items()}
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


JOB = "0::/system.slice/slurm/job_7/step_0\n"
IN_DOCKER = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n"


@pytest.mark.usefixtures("sixteen_cores")
@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        (JOB, {"system.slice/slurm/job_7/step_0/cpu.max": "400000 100000"}, 4),
        (JOB, {"system.slice/slurm/job_7/cpu.max": "250000 100000"}, 3),
        (JOB, {"system.slice/cpu.max": "20000 100000"}, 1),
        (
            JOB,
            {
                "system.slice/slurm/job_7/step_0/cpu.max": "max 100000",
                "system.slice/slurm/job_7/cpu.max": "800000 100000",
                "system.slice/cpu.max": "600000 100000",
            },
            6,
        ),
        (JOB, {"cpu.max": "6400000 100000"}, 16),
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/../../job\n", {"cpu.max": "200000 100000"}, 2),
        (JOB, {"system.slice/cpu.max": "what is this"}, 16),
        (JOB, {}, 16),
        ("", {}, 16),
        (
            "4:cpu,cpuacct:/job_7\n0::/\n",
            {
                "cpu,cpuacct/job_7/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/job_7/cpu.cfs_period_us": "100000",
            },
            3,
        ),
        (
            IN_DOCKER,
            {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"},
            2,
        ),
        (IN_DOCKER, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
        ("1:cpu:/\n0::/a\n", {"unified/a/cpu.max": "500000 100000"}, 5),
    ],
)
def test_cores_are_those_that_the_quotas_of_all_groups_leave(tmp_path, groups, files, cores):
    assert machine.cores(system(tmp_path, groups, files)) == cores


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        (JOB, {"system.slice/slurm/job_7/memory.max": str(64 * MB)}, 64 * MB),
        (JOB, {"memory.max": "max", "system.slice/memory.max": str(32 * MB)}, 32 * MB),
        ("0::/\n", {"memory.max": str(16 * MB)}, 16 * MB),
        (IN_DOCKER, {"memory/memory.limit_in_bytes": str(8 * MB)}, 8 * MB),
        (IN_DOCKER, {"memory/docker/abc/memory.limit_in_bytes": str(4 * MB)}, 4 * MB),
        (IN_DOCKER, {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        (JOB, {}, None),
    ],
)
def test_memory_is_the_least_that_groups_and_machine_have(tmp_path, groups, files, limit):
    whole = machine.main_memory(tmp_path / "without groups")
    assert machine.main_memory(system(tmp_path, groups, files)) == (limit or whole)


def test_lines_that_name_no_group_limit_nothing(tmp_path):
    assert machine.cores(system(tmp_path, "no group\n", {})) == machine.cores(tmp_path / "none")


def test_a_file_that_cannot_be_read_limits_nothing(tmp_path):
    found = system(tmp_path, JOB, {"cpu.max/is a folder": "", "memory.max/is a folder": ""})
    assert machine.cores(found) == machine.cores(tmp_path / "without groups")
