"""How a run stands, in the words of `summary.json`, of messages and of tables."""

from __future__ import annotations

SUMMARY_FILE = "summary.json"

FINISHED = "finished"
DIVERGED = "diverged"
"""Its networks have values that are no numbers."""
FAILED = "failed"
INTERRUPTED = "interrupted"

RUNNING = "running"
"""A process trains it."""
UNFINISHED = "unfinished"
"""It has no summary, and no process trains it."""
DAMAGED = "damaged"
"""Its summary is there but cannot be read, so that it may have finished or not."""
