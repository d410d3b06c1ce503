"""The parts of a turn's text whatever its dialect is, for transcripts and reports of stored trajectories."""

from __future__ import annotations

from typing import NamedTuple

from rewright.dialects import get_dialect
from rewright.dialects.detect import detect_dialect
from rewright.dialects.pieces import PieceDialect

__all__ = ["Split", "split_turn"]


class Split(NamedTuple):
    """`thought` is the text inside thoughts, `rest` that outside of them, `said` that outside thoughts and calls."""

    thought: str
    rest: str
    said: str


def split_turn(text: str) -> Split:
    """Split a turn of any dialect; the marks in it tell which (none: `hermes`, which reads `<think>`)."""
    dialect = get_dialect(detect_dialect(text) or "hermes")
    assert isinstance(dialect, PieceDialect)
    pieces = dialect.pieces(text)
    return Split(
        "\n".join(one.shown for one in pieces if one.kind == "thought"),
        "".join(one.shown for one in pieces if one.kind != "thought"),
        "".join(one.shown for one in pieces if one.kind == "text"),
    )
