"""Export to TRL in the Hugging Face convention: call arguments are dicts, and tool messages have a `name`."""

from __future__ import annotations

from pathlib import Path

from rewright.exports.base import ExportSets, Row, Written, write_rows

__all__ = ["export", "row"]


def export(sets: ExportSets, out: Path) -> list[Written]:
    """Write the sets unchanged, without the columns that only Rewright uses."""
    return write_rows(sets, out, row)


def row(given: Row) -> Row:
    """Return an SFT or preference row with the columns that TRL uses."""
    return {key: given[key] for key in ("messages", "prompt", "chosen", "rejected", "tools") if key in given}
