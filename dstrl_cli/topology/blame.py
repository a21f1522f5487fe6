"""What goes wrong in somebody else's score, schedule or mask is said with its key and its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from dstrl_cli.errors import DstrlError, described
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
        raise DstrlError(f"{key} = '{name}' failed ({described(error)})") from error


def checked(score: Tensor, mask: Tensor) -> Tensor:
    """Return a score.

    Raises ValueError unless its shape is the mask's [M, K, in, out], and its numbers are floats.
    """
    if score.shape != mask.shape:
        raise ValueError(
            f"a score must be [M, K, in, out], here {list(mask.shape)}, not {list(score.shape)}"
        )
    if not score.is_floating_point():
        raise ValueError(f"a score must be of floats, not {score.dtype}; return score.float()")
    return score
