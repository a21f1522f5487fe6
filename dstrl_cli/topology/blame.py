"""What goes wrong in somebody else's score or schedule is said with its key and its name."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from dstrl_cli.errors import DstrlError
from dstrl_cli.registry import is_outside


@contextmanager
def blamed(key: str, name: str) -> Iterator[None]:
    """Raise what goes wrong in somebody else's code as a DstrlError that names it and its key."""
    try:
        yield
    except DstrlError:
        raise
    except Exception as error:
        if not is_outside(name):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise DstrlError(
            f"topology.{key} = '{name}' failed ({type(error).__name__}: {error}, "
            f"{Path(frame.filename).name}:{frame.lineno})"
        ) from error


def checked(score: Tensor, mask: Tensor) -> Tensor:
    """Return a score. Raises ValueError unless its shape is the mask's [M, K, in, out]."""
    if score.shape != mask.shape:
        raise ValueError(
            f"a score must be [M, K, in, out], here {list(mask.shape)}, not {list(score.shape)}"
        )
    return score
