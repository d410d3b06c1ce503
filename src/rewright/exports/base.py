"""Interface of exporters: their input (`ExportSets`, `RunAttempts`) and output (`Written`).

An exporter of training sets is a function `(sets, folder) -> list[Written]`, registered as kind `exporter` for
`rewright export --format NAME`. Those that convert row by row use `write_rows`. An exporter of whole trajectories is
an `AttemptExporter`; those that write a file for each stored file use `write_attempts`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rewright.core.errors import InputError, StorageError
from rewright.core.storage import encode_line, write_atomically
from rewright.exports.attempts import Attempt, AttemptFile, RunAttempts
from rewright.pipeline.run_directory import Run

__all__ = [
    "AttemptExporter",
    "ExportSets",
    "Exporter",
    "Row",
    "RunAttempts",
    "Written",
    "make_folder",
    "portable_line",
    "write_attempts",
    "write_rows",
]

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


@dataclass(frozen=True, slots=True)
class AttemptExporter:
    """Exporter of whole trajectories: candidates and repairs, RL rollouts, evaluations.

    Attributes:
        write: `write(attempts, folder)` writes them and returns the files. It must not hold all of them in memory.
    """

    write: Callable[[RunAttempts, Path], list[Written]]


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


def portable_line(value: Any) -> bytes:
    """Encode a line of JSON that programs may also split with `str.splitlines`, at U+0085, U+2028 and U+2029."""
    line = encode_line(value)
    for character in ("\u0085", "\u2028", "\u2029"):
        line = line.replace(character.encode(), f"\\u{ord(character):04x}".encode())
    return line


def make_folder(path: Path) -> None:
    """Create a folder and its parents if needed. Raises StorageError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise StorageError(f"cannot make {path}: {problem.strerror or problem}") from problem


def write_attempts(
    attempts: RunAttempts,
    out: Path,
    name: str,
    convert: Callable[[Attempt, AttemptFile], Any],
    chunks: Callable[[AttemptFile, Iterable[Any]], Iterator[bytes]] | None = None,
) -> list[Written]:
    """Write one file for each stored file, named after it, atomically.

    Args:
        attempts: the trajectories of a run.
        out: existing folder.
        name: path of the files in `out`, with `{}` for the name of the stored file, such as "{}.jsonl".
        convert: returns the row of a trajectory, or None if the format can't represent it.
        chunks: returns the content of a file from its rows; None for JSON Lines.

    A stored file of which no trajectory can be represented is not written. Raises InputError if that is so for all.
    """
    written: list[Written] = []
    for file in attempts.files:
        total = 0

        def rows(file: AttemptFile = file) -> Iterator[Any]:
            nonlocal total
            for attempt in file:
                total += 1
                row = convert(attempt, file)
                if row is not None:
                    yield row

        found = rows()
        first = next(found, None)
        if first is None:
            continue
        kept = 0

        def counted(first: Any = first, found: Iterator[Any] = found) -> Iterator[Any]:
            nonlocal kept
            for row in itertools.chain([first], found):
                kept += 1
                yield row

        path = out / name.format(file.name)
        make_folder(path.parent)
        write_atomically(path, map(portable_line, counted()) if chunks is None else chunks(file, counted()))
        written.append(Written(path, kept, total - kept))
    if not written:
        raise attempts.nothing_represented()
    return written


def _write_lines(path: Path, converted: Sequence[Row | None]) -> Written:
    kept = [row for row in converted if row is not None]
    write_atomically(path, (encode_line(row) for row in kept))
    return Written(path, len(kept), len(converted) - len(kept))
