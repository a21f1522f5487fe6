"""Where people read: a rich console that shows text as text, whatever characters it holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.segment import Segment

from dstrl_cli.config.printable import printable_lines


def screen(stderr: bool = False) -> Console:
    """Return a console; text that comes from files cannot steer the terminal."""
    console = Console(stderr=stderr, highlight=False)
    console.push_render_hook(_Harmless())
    return console


class _Harmless(RenderHook):
    """Writes control characters out before anything is printed."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_WrittenOut(each) for each in renderables]


class _WrittenOut:
    """Something to print, without control characters in its text; colours are not text."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        segments: Iterable[Segment] = console.render(self.inner, options)
        for text, style, control in segments:
            yield Segment(text if control else printable_lines(text), style, control)
