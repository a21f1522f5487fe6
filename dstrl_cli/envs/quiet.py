"""Keeps messages of Gymnasium and MuJoCo off the user's screen and disk while environments run.

Only two kinds are affected: Gymnasium's advice to use a newer version of an environment is
dropped, and MuJoCo's warnings go to the logger `dstrl.mujoco` instead of standard error and a file
`MUJOCO_LOG.TXT` in the working folder.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def version_advice_ignored() -> Iterator[None]:
    """Drop Gymnasium's advice to move to a newer version of an environment, and nothing else.

    The user chose the version: results of v4 and v5 are not comparable.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*is out of date", DeprecationWarning)
        yield


def log_mujoco_warnings() -> None:
    """Send MuJoCo's warnings to Python's logging, unless the program already handles them.

    Otherwise MuJoCo appends them to `MUJOCO_LOG.TXT` in the working folder; compiling HalfCheetah's
    model file alone gives one. Call this before a model is loaded. Does nothing where MuJoCo
    cannot be imported.
    """
    try:
        import mujoco
    except Exception:  # not installed, or its drawing library is not what MUJOCO_GL says
        return
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(logging.getLogger("dstrl.mujoco").info)
