"""Text that comes from files, made safe to show."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Return a text in one line, with every character that a terminal would obey written out.

    An escape becomes `\x1b`, a newline `\n`, a mark that turns the direction of writing `\u202e`,
    and a byte of a file's name that is no UTF-8 `\udc80`.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _written_out(each) for each in text)


def printable_lines(text: str) -> str:
    """Return a text of several lines, each of them `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
