"""Networks of a population: `network` is one role of all members, `masked` its dense engine.

Registry of the engines by name, without importing torch.
"""

from __future__ import annotations

ENGINES: dict[str, str] = {"masked": "dstrl_cli.nets.masked:MaskedNetwork"}


def choose_engine(engine: str) -> str:
    """Return the engine that `auto` stands for; any other name is itself."""
    return "masked" if engine == "auto" else engine
