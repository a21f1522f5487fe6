"""Keeping third parties' chatter off the user's screen and disk while environments are made.

Not a blanket silence: one known Gymnasium warning is dropped, and MuJoCo's messages go to the
``dstrl.mujoco`` logger instead of standard error and a ``MUJOCO_LOG.TXT`` in the working folder.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def version_advice_ignored() -> Iterator[None]:
    """Drop Gymnasium's advice to move to a newer version of an environment, and nothing else.

    The version is the experiment's choice: results of v4 and v5 are not comparable.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*is out of date", DeprecationWarning)
        yield


def log_mujoco_warnings() -> None:
    """Send MuJoCo's warnings to Python's logging, unless the program already handles them.

    Without a handler MuJoCo appends them to ``MUJOCO_LOG.TXT`` in the working folder, beginning
    with a notice about HalfCheetah's model file as soon as that is compiled. Call it before a
    model is loaded. A missing MuJoCo is not an error here.
    """
    try:
        import mujoco
    except ImportError:
        return
    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(logging.getLogger("dstrl.mujoco").info)
