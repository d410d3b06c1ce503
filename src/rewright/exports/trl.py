"""TRL, and whatever reads the Hugging Face convention: call arguments are dicts, tool messages have a `name`."""

from __future__ import annotations

from pathlib import Path

from rewright.exports.base import ExportSets, Row, Written, write_rows

__all__ = ["export", "row"]


def export(sets: ExportSets, out: Path) -> list[Written]:
    """Write the sets as they are, without what only Rewright reads."""
    return write_rows(sets, out, row)


def row(given: Row) -> Row:
    """An SFT or preference row with the columns that TRL reads."""
    return {key: given[key] for key in ("messages", "prompt", "chosen", "rejected", "tools") if key in given}
