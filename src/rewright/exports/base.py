"""What an exporter is given and gives back: the sets of a run, and the files that it wrote.

An exporter is a function of `ExportSets` and of the folder to write to. It is one file here, or in another package, and
one registration (kind `exporter`); `rewright export --format NAME` finds it. Most convert row by row: `write_rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rewright.core.errors import InputError
from rewright.core.storage import encode_line, write_atomically
from rewright.pipeline.run_directory import Run

__all__ = ["ExportSets", "Exporter", "Row", "Written", "write_rows"]

Row = dict[str, Any]


class Written(NamedTuple):
    """One file, how many rows it has, and how many the format cannot hold."""

    path: Path
    rows: int
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class ExportSets:
    """The sets of a run; what a tool returned is plain text in them, without control tokens or tags.

    `format`: the name that the exporter was asked for by. `sft`: conversations with `messages` and `tools` in the
    Hugging Face convention. `preferences`: pairs with `prompt`, `chosen`, `rejected` and `tools`; `preferences_heldout`
    measure a reward model and are not to be trained on. `run`: for what else an exporter needs, its recipe and tasks.
    """

    format: str
    run: Run
    sft: Sequence[Row]
    preferences: Sequence[Row]
    preferences_heldout: Sequence[Row]

    def named(self) -> dict[str, Sequence[Row]]:
        """The sets that have rows, by the name of the file that usually holds them."""
        names = ("sft", "preferences", "preferences_heldout")
        return {name: rows for name in names if (rows := getattr(self, name))}


Exporter = Callable[[ExportSets, Path], list[Written]]


def write_rows(sets: ExportSets, out: Path, convert: Callable[[Row], Row | None]) -> list[Written]:
    """Write every set as JSON Lines, row by row. `convert` gives None for a row that the format cannot hold.

    Raises InputError, and writes nothing, where there are rows and the format can hold none of them.
    """
    converted = {name: [convert(row) for row in rows] for name, rows in sets.named().items()}
    if converted and not any(row is not None for rows in converted.values() for row in rows):
        raise InputError(
            f"{sets.run.path}: {sets.format} can hold none of its {sum(map(len, converted.values()))} rows "
            f"(dialect {sets.run.recipe().dialect}): docs/exports.md says what it holds"
        )
    return [_write_lines(out / f"{name}.jsonl", rows) for name, rows in converted.items()]


def _write_lines(path: Path, converted: Sequence[Row | None]) -> Written:
    kept = [row for row in converted if row is not None]
    write_atomically(path, (encode_line(row) for row in kept))
    return Written(path, len(kept), len(converted) - len(kept))
