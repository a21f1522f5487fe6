"""`dstrl report`: writes the page, and says what is on it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from dstrl_cli.errors import InputError
from dstrl_cli.page.document import page
from dstrl_cli.report.words import counted
from dstrl_cli.runs.files import check_output, write
from dstrl_cli.sweep.memory import format_bytes
from dstrl_cli.terminal import describe
from dstrl_cli.terminal.screen import screen
from dstrl_cli.terminal.streams import emit


def report(results: Path, out: Path, metric: str | None, overwrite: bool, as_json: bool) -> None:
    """Write a page of the runs in a folder, and say what is on it."""
    if os.path.lexists(out) and not overwrite:
        raise InputError(f"--out {out} exists: choose another, or replace it: --overwrite")
    if not out.parent.is_dir():
        raise InputError(f"--out: folder '{out.parent}' does not exist")
    check_output(out, "--out")
    done = page(results, metric)
    content = done.html.encode()
    write(out, content)
    warnings = [f"warning: not read: {text}" for text in done.unread]
    describe.print_lines(screen(stderr=True), warnings)
    if as_json:
        counts = {"chapters": done.chapters, "runs": done.runs, "unfinished": done.unfinished}
        size = {"bytes": len(content), "unread": list(done.unread)}
        emit(json.dumps({"file": str(out)} | counts | size, indent=2))
        return
    unfinished = f", {done.unfinished} of them unfinished" if done.unfinished else ""
    said = f"{counted(done.runs, 'run')} of {results}{unfinished} in {out}"
    describe.print_lines(screen(), [f"{said} ({format_bytes(len(content))})"])
