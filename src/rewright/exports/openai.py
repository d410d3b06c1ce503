"""Export in OpenAI's convention: call arguments are JSON text, and calls and results have ids."""

from __future__ import annotations

from pathlib import Path

from rewright.engines.wire import messages_to_wire
from rewright.exports import trl
from rewright.exports.base import ExportSets, Row, Written, write_rows

__all__ = ["export", "row"]


def export(sets: ExportSets, out: Path) -> list[Written]:
    """Write the sets with messages in the format of OpenAI's API."""
    return write_rows(sets, out, row)


def row(given: Row) -> Row:
    """Convert an SFT or preference row."""
    return {key: value if key == "tools" else messages_to_wire(value) for key, value in trl.row(given).items()}
