"""A tracker in one file: how many rows a stage has logged, in `counts.txt` of the run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Counts:
    """A line for each stage."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "counts.txt"

    def log(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add the line of a stage."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{stage} {len(rows)}\n")
