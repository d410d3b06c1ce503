"""Remove folders that untrusted code has written, of any depth and mode."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["remove_tree"]

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def remove_tree(path: str) -> None:
    """Remove the folder `path` and its contents. Follows no links and ignores errors.

    Code can nest folders more deeply than recursion, path lengths or open descriptors allow. Subfolders are therefore
    moved up next to their parent before that is removed, so that at most two folders are open.
    """
    prefix = secrets.token_hex(8)
    names = (f"{prefix}-{number}" for number in itertools.count())  # unpredictable, so that they do not exist already
    with contextlib.suppress(OSError):
        top = os.open(path, FOLDER)
        try:
            pending = _empty(top, top, names)
            while pending:
                name = pending.pop()
                with contextlib.suppress(OSError):
                    folder = os.open(name, FOLDER, dir_fd=top)
                    try:
                        pending += _empty(folder, top, names)
                    finally:
                        os.close(folder)
                    os.rmdir(name, dir_fd=top)
        finally:
            os.close(top)
        Path(path).rmdir()


def _empty(folder: int, top: int, names: Iterator[str]) -> list[str]:
    """Remove the files of `folder` and move its subfolders into `top`. Returns the new names of the subfolders."""
    moved = []
    for entry in os.listdir(folder):
        with contextlib.suppress(OSError):
            try:
                os.unlink(entry, dir_fd=folder)
            except (IsADirectoryError, PermissionError):
                os.chmod(entry, 0o700, dir_fd=folder)  # moving and reading a folder needs write permission
                name = next(names)
                os.rename(entry, name, src_dir_fd=folder, dst_dir_fd=top)
                moved.append(name)
    return moved
