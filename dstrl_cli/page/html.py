"""HTML from Python: text of runs is escaped wherever it enters.

A `Markup` is text that is HTML already, and only this module makes one. Everything else that
becomes a child or an attribute is text, and is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

from dstrl_cli.config.printable import printable

VOID = frozenset({"br", "img", "input", "meta", "path", "line", "circle", "rect"})
"""Elements without children."""


class Markup(str):
    """Text that is HTML."""

    __slots__ = ()


def text(value: Any) -> Markup:
    """Return a value as HTML that shows its text, characters that steer a reader written out."""
    return value if isinstance(value, Markup) else Markup(html.escape(printable(str(value))))


def joined(parts: Iterable[Any]) -> Markup:
    """Return several pieces one after the other."""
    return Markup("".join(map(text, parts)))


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """Return an element; None among children or attributes is left out.

    Attributes are written with `_` for `-`, and with one at the end where Python has the word:
    `class_`, `data_box`. True stands for one without a value.
    """
    shown = ""
    for name, value in attributes.items():
        key = name.rstrip("_").replace("_", "-")
        if value is True:
            shown += f" {key}"
        elif value is not None and value is not False:
            shown += f' {key}="{text(value)}"'
    if tag in VOID:
        return Markup(f"<{tag}{shown}>" if tag in HTML_VOID else f"<{tag}{shown}/>")
    inside = joined(each for each in children if each is not None)
    return Markup(f"<{tag}{shown}>{inside}</{tag}>")


HTML_VOID = frozenset({"br", "img", "input", "meta"})
"""Those of HTML; those of SVG are closed by a slash."""


def raw(tag: str, content: str, **attributes: Any) -> Markup:
    """Return a script or a style of dstrl's own; never with text of a run."""
    return Markup(element(tag, **attributes).removesuffix(f"</{tag}>") + f"{content}</{tag}>")
