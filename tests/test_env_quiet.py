"""What other people's environments leave on the disk, and what nobody imports in vain."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LAZY = """
import gymnasium

def make():
    from gymnasium.envs.mujoco.half_cheetah_v4 import HalfCheetahEnv
    return HalfCheetahEnv()

gymnasium.register("Lazy-v0", make)
"""


def test_an_environment_that_imports_mujoco_late_leaves_no_log_and_planes_do_not_import_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "lazy.py").write_text(LAZY)
    program = (
        "import sys; from dstrl_cli.envs import make_batch, spec\n"
        "make_batch(spec('2DNav-v2'), 2).reset([0, 1]); assert 'mujoco' not in sys.modules\n"
        "make_batch(spec('lazy:Lazy-v0'), 1).reset([0])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"lazy.py"}
