"""The README's code, so that tests run what it tells a user to run."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def code_after(marker: str) -> str:
    """Return the code block that follows the comment `<!-- marker -->` in the README."""
    text = README.read_text(encoding="utf-8")
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w*\n(.*?)```", text, re.DOTALL)
    assert found is not None, f"the README has no code block after <!-- {marker} -->"
    return found[1]
