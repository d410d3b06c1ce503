"""Rows in memory as a log file, and messages of the command line in terms of arguments."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rewright.core.errors import InputError
from rewright.core.storage import encode_line

__all__ = ["as_arguments", "caller_level", "row_file", "without_path"]


@contextmanager
def row_file(given: Any, what: str) -> Iterator[Path]:
    """Yield the path of a log: the one given, or that of a temporary file with the rows given.

    An InputError of the block names the index of the row, as `what[3]`, in the place of the line. Raises InputError for
    what are no rows.
    """
    if isinstance(given, str | Path):
        yield Path(given)
        return
    rows = list(given)
    for number, row in enumerate(rows):
        messages = row if isinstance(row, list) and row else [row]  # a row may be a list of messages
        if not all(isinstance(one, Mapping) for one in messages):
            raise InputError(f"{what}[{number}] is a {type(row).__name__}: expected a row of a log, as a dictionary")
    if not rows:
        raise InputError(f"{what} is empty: expected at least one")
    with tempfile.TemporaryDirectory(prefix="rewright-") as folder:
        path = Path(folder) / "rows.jsonl"
        try:
            path.write_bytes(b"".join(encode_line(row if isinstance(row, list) else dict(row)) for row in rows))
        except TypeError as problem:
            raise InputError(f"{what}: {problem}: expected values that JSON can hold") from None
        try:
            yield path
        except InputError as problem:
            raise InputError(without_path(str(problem), path, what)) from None


def without_path(text: str, path: Path, what: str) -> str:
    """Replace a line of the temporary file by the index of the row."""
    text = re.sub(rf"{re.escape(str(path))}:(\d+)", lambda found: f"{what}[{int(found[1]) - 1}]", text)
    return text.replace(str(path), what)


def as_arguments(text: str) -> str:
    """Name the arguments of the API in the place of the options of the command line."""
    text = re.sub(r"^override '.*?': (.*?)\brl\.credit\b[.:]? ?", r"\1", text)
    text = text.replace("--gold FILE", "gold=").replace("--outcome none", "outcome='none'")
    text = text.replace("--outcome COLUMN (again for a sum)", "outcome=COLUMN (a list for a sum)")
    text = text.replace("say so with --allowed-values", 'say so with the key "allowed" in the place of "arguments"')
    text = text.replace("with --gold", "with gold_calls").replace("--recipe or tasks=FILE", "tasks=")
    return re.sub(r"--(\w+)", r"\1=", text)


def caller_level() -> int:
    """Return the number of frames from the caller of this function up to the caller of the API, for warnings."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "rewright":
        frame, level = frame.f_back, level + 1
    return level
