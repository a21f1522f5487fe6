"""Processes that train several populations, one after the other: which may, and what is put back.

A new process imports torch and loads compiled code, which takes longer than a short run trains. So
a process is kept after populations of which nothing can stay behind, and only for such. Then a run
has the same numbers in a kept process as in a new one.
"""

from __future__ import annotations

import ctypes
import gc
import random
import re
import sys
from collections.abc import Sequence

from dstrl_cli.config.keys import flatten
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import to_dict
from dstrl_cli.machine import give_memory_back
from dstrl_cli.runs.status import FINISHED
from dstrl_cli.runs.summary import read_summary
from dstrl_cli.sweep.packing import PlannedPopulation
from dstrl_cli.training.run import Run

_OUTSIDE = re.compile(r"[\w.]+:[A-Za-z_]\w*")
"""`module:Name`, the form in which a value names code that is not dstrl's."""


def may_share(population: PlannedPopulation) -> bool:
    """Whether a population may train in a process before and after others like it.

    Not where other people's code runs, for that may leave anything behind; nor where processes step
    the environments, or on an accelerator, whose memory only the end of a process returns.
    """
    return population.device.name == "cpu" and not any(
        run.spec.foreign or run.config.env_workers not in ("auto", 0) or _names_code(run.config)
        for run in population.runs
    )


def _names_code(config: RunConfig) -> bool:
    values = flatten(to_dict(config)).values()
    return any(isinstance(each, str) and _OUTSIDE.fullmatch(each) for each in values)


def all_finished(runs: Sequence[Run]) -> bool:
    """Whether every run reached its last step."""
    return all((read_summary(run.path) or {}).get("status") == FINISHED for run in runs)


def put_back() -> None:
    """Make the process as good as new, and let go of what the last run leaves in memory.

    The generators that a whole process shares begin anywhere, as they do in a new one.
    """
    import numpy as np
    import torch

    torch.set_flush_denormal(False)
    torch.default_generator.seed()
    random.seed()
    np.random.seed()  # noqa: NPY002  # there is no other way to seed it
    gc.collect()
    give_memory_back()
    gc.freeze()  # what is left are modules: the next collections need not look at them


def flush_output() -> None:
    """Write out all that was printed, by C code too, so that it goes to the log of its run."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    ctypes.CDLL(None).fflush(None)
