"""Around calls of other people's environments: what they may not do to the process that runs them.

An environment may raise anything, end the process with `os._exit`, or change the working folder,
from which dstrl's own relative paths count. Nothing here is specific to Gymnasium. No torch.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import numpy as np

from dstrl_cli.errors import raised_at

real_exit = os._exit
"""Ends the process at once, also while `contained` holds back an environment's own call."""


class Exited(Exception):
    """An environment called `os._exit`."""


@contextmanager
def contained() -> Iterator[None]:
    """Turn a call of `os._exit` into `Exited`, and return to the working folder afterwards.

    Other threads, and processes that the environment forks, may still exit.
    """
    caller = os.getpid(), threading.get_ident()

    def refuse(code: int) -> NoReturn:
        if (os.getpid(), threading.get_ident()) != caller:
            real_exit(code)
        raise Exited(f"it called os._exit({code})")

    before, folder = os._exit, _working_folder()
    os._exit = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = before
        if folder is not None and _working_folder() != folder:
            with suppress(OSError):
                os.chdir(folder)


def _working_folder() -> str | None:
    """Return the working folder, or None where it was deleted."""
    try:
        return os.getcwd()  # noqa: PTH109  # called at every step, and faster than Path.cwd
    except OSError:
        return None


def explain(error: BaseException) -> str:
    """Return an error in one line; without a message, with the file and line that raised it."""
    said = " ".join(str(error).split())
    if said:
        return f"{type(error).__name__}: {said}"
    return f"{type(error).__name__}{raised_at(error, ' at ')}"


def seed_globals(seed: int | None) -> None:
    """Seed the generators of Python and NumPy that environments without their own draw from.

    None leaves them as they are: they belong to a process, in which several runs may train.
    """
    if seed is not None:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  # there is no other way to seed it


def global_generators() -> dict[str, Any]:
    """Return the states of the generators of Python and NumPy that a whole process shares."""
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002  # environments of others use it
    return {"python": random.getstate(), "numpy": numpy}


def set_global_generators(states: Mapping[str, Any]) -> None:
    """Put these generators into the states that `global_generators` returned."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002


def close_quietly(env: object) -> None:
    """Close an environment; what that raises does not matter any more."""
    with suppress(Exception, SystemExit), contained():
        env.close()  # type: ignore[attr-defined]


@contextmanager
def generators_restored() -> Iterator[None]:
    """Leave the generators of Python and NumPy as they were: a program may draw from them."""
    states = global_generators()
    try:
        yield
    finally:
        set_global_generators(states)
