"""Interface of exporters: their input (`ExportSets`) and output (`Written`).

An exporter is a function `(sets, folder) -> list[Written]`, registered as kind `exporter` for
`rewright export --format NAME`. Exporters that convert row by row use `write_rows`.
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
    """A written file, its number of rows, and the number of rows that the format can't represent."""

    path: Path
    rows: int
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class ExportSets:
    """The data sets of a run. Control tokens and tags in tool results are escaped.

    Attributes:
        format: Name under which the exporter was selected.
        sft: Conversations with `messages` and `tools` in the Hugging Face convention.
        preferences: Pairs with `prompt`, `chosen`, `rejected` and `tools`.
        preferences_heldout: Pairs for evaluating a reward model; not for training.
        run: The run, for its recipe and tasks.
    """

    format: str
    run: Run
    sft: Sequence[Row]
    preferences: Sequence[Row]
    preferences_heldout: Sequence[Row]

    def named(self) -> dict[str, Sequence[Row]]:
        """Return the non-empty sets by their default file name."""
        names = ("sft", "preferences", "preferences_heldout")
        return {name: rows for name in names if (rows := getattr(self, name))}


Exporter = Callable[[ExportSets, Path], list[Written]]


def write_rows(sets: ExportSets, out: Path, convert: Callable[[Row], Row | None]) -> list[Written]:
    """Write every set as JSON Lines. `convert` returns None for a row that the format can't represent.

    Raises InputError and writes nothing if the format can represent none of the rows.
    """
    converted = {name: [convert(row) for row in rows] for name, rows in sets.named().items()}
    if converted and not any(row is not None for rows in converted.values() for row in rows):
        raise InputError(
            f"{sets.run.path}: {sets.format} can represent none of its {sum(map(len, converted.values()))} rows "
            f"(dialect {sets.run.recipe().dialect}): docs/exports.md says what it can represent"
        )
    return [_write_lines(out / f"{name}.jsonl", rows) for name, rows in converted.items()]


def _write_lines(path: Path, converted: Sequence[Row | None]) -> Written:
    kept = [row for row in converted if row is not None]
    write_atomically(path, (encode_line(row) for row in kept))
    return Written(path, len(kept), len(converted) - len(kept))
