"""Open and read files whose size and type nobody has checked, and remove folders in one operation."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, Final

from rewright.core.errors import InputError, StorageError

__all__ = [
    "MAX_LINE_BYTES",
    "bounded_lines",
    "open_file",
    "read_bounded",
    "refuse_special",
    "remove_folder",
    "special_file_kind",
]

MAX_SMALL_FILE_BYTES: Final = 10_000_000
"""Maximum size of a file that is read at once: a recipe, a state file, the metadata of an index."""

MAX_LINE_BYTES: Final = 256 * 2**20
"""Maximum length of a line. Guards memory against files without line breaks (sparse files, decompression bombs)."""


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises OSError, and InputError for a device or a pipe, which may never end."""
    refuse_special(path)
    return path.open("rb")


def refuse_special(path: Path) -> None:
    """Raise InputError for a device, a pipe or a socket."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # opening the file raises the error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path}: is a {special_file_kind(mode)}: expected a file")


def special_file_kind(mode: int) -> str:
    """Name the type of a special file by its `st_mode`: "pipe", "socket" or "device"."""
    return "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"


def read_bounded(path: Path, max_bytes: int = MAX_SMALL_FILE_BYTES) -> bytes:
    """Read a file of at most `most` bytes. Raises OSError, and InputError for a larger or a special file."""
    with open_file(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InputError(f"{path}: is larger than {max_bytes:,} bytes")
    return data


def bounded_lines(file: IO[bytes], path: Path, number: int = 0) -> Iterator[bytes]:
    """Yield the lines of a file after line `number`. Raises InputError for a line of more than `MAX_LINE_BYTES`."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise InputError(
                f"{path}:{number}: a line of more than {MAX_LINE_BYTES:,} bytes: expected one record per line"
            )
        yield line


def remove_folder(folder: Path) -> None:
    """Remove a folder with its files, all or none of them; nothing if it does not exist.

    It is renamed first: a process that is killed while it deletes the files one by one would leave a folder with some
    of them, which looks complete. What such a process has left is removed by the next call. Raises StorageError if the
    folder cannot be renamed.
    """
    removed = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(removed, ignore_errors=True)
    if folder.exists():
        try:
            folder.rename(removed)
        except OSError as problem:
            raise StorageError(f"cannot remove {folder}: {problem.strerror or problem}") from problem
        shutil.rmtree(removed, ignore_errors=True)
