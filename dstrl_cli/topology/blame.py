"""What goes wrong in somebody else's score or schedule is said with its key and its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from dstrl_cli.errors import DstrlError, raised_at
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
        cause = f"{type(error).__name__}: {error}{raised_at(error, ', ')}"
        raise DstrlError(f"topology.{key} = '{name}' failed ({cause})") from error


def checked(score: Tensor, mask: Tensor) -> Tensor:
    """Return a score. Raises ValueError unless its shape is the mask's [M, K, in, out]."""
    if score.shape != mask.shape:
        raise ValueError(
            f"a score must be [M, K, in, out], here {list(mask.shape)}, not {list(score.shape)}"
        )
    return score
