"""Standard output and error as a whole command has them: no output ends a command or a run.

What the encoding of a terminal lacks is replaced, what is written after the reader has gone is
dropped, and programs that read JSON get nothing but JSON.
"""

from __future__ import annotations

import codecs
import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_LACKING = {
    "±": "+-",
    "–": "-",
    "†": "t",
    "‡": "T",
    "§": "S",
    "¶": "P",
    "°": "o",
    "≈": "=",
    "…": "...",
}
"""What dstrl prints of its own beyond ASCII, and what stands for it where it cannot be written."""

_REPLACE = "dstrl-replace"


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_LACKING.get(each, "?") for each in lacking), error.end


codecs.register_error(_REPLACE, _replaced)


class PatientStream:
    """A text stream that drops what cannot be written, and remembers the first cause."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost: OSError | None = None
        with suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors=_REPLACE)

    def write(self, text: str) -> int:
        """Write a text, unless writing failed before."""
        if self.lost is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, unless writing failed before."""
        if self.lost is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        """Drop what is still to come, also what the stream itself holds back until it is closed."""
        self.lost = error
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()

    @property
    def problem(self) -> str | None:
        """Why output was lost; None where none was, or where its reader had gone."""
        if self.lost is None or self.lost.errno == errno.EPIPE:
            return None
        return self.lost.strerror or str(self.lost)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def patient_streams() -> Iterator[PatientStream | None]:
    """Make both streams patient while a command runs; give that of standard output, if there is."""
    before = sys.stdout, sys.stderr
    out, err = (None if each is None else PatientStream(each) for each in before)
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        for each in (out, err):
            if each is not None:
                each.flush()
        sys.stdout, sys.stderr = before


class _Kept:
    """Standard output that is kept for JSON: until `given_back`, it is standard error."""

    def __init__(self) -> None:
        self.stream = sys.stdout
        self.stream.flush()
        try:
            self.descriptor: int | None = os.dup(1)
        except OSError:  # closed from the start
            self.descriptor = None
        self.take()

    def take(self) -> None:
        """Send what Python, C, and processes that are started print to standard error."""
        sys.stdout = sys.stderr
        if self.descriptor is not None:
            with suppress(OSError):
                os.dup2(2, 1)

    def give_back(self) -> None:
        """Undo `take`."""
        sys.stdout = self.stream
        if self.descriptor is None:
            return
        with suppress(OSError, AttributeError, ValueError):
            ctypes.CDLL(None).fflush(None)  # what C holds back was printed before
        os.dup2(self.descriptor, 1)


_kept: list[_Kept] = []


@contextmanager
def kept_for_json(wanted: bool) -> Iterator[None]:
    """While the block runs, let nothing but `emit` write to standard output, if `wanted`.

    That holds for Python and for libraries in C, such as PyBullet, which write to the descriptor
    itself.
    """
    if not wanted or sys.stdout is None or sys.stderr is None:
        yield
        return
    _kept.append(_Kept())
    try:
        yield
    finally:
        kept = _kept.pop()
        kept.give_back()
        if kept.descriptor is not None:
            os.close(kept.descriptor)


def emit(text: str) -> None:
    """Print a result on standard output, also where it is kept for just that."""
    for kept in _kept:
        kept.give_back()
    print(text)
    if sys.stdout is not None:
        sys.stdout.flush()
    for kept in _kept:
        kept.take()
