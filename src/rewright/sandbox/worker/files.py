"""Removing what untrusted code has left behind, whatever it has made of it."""

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
    """Remove the folder `path` and everything in it, as far as that goes. Follows no link.

    Code can nest folders deeper than recursion, paths or open descriptors reach. So a folder's own folders are moved
    up, beside it, before it is removed: never more than two are open.
    """
    mark = secrets.token_hex(8)
    names = (f"{mark}-{number}" for number in itertools.count())  # none that the code could have taken
    with contextlib.suppress(OSError):
        top = os.open(path, FOLDER)
        try:
            waiting = _empty(top, top, names)
            while waiting:
                name = waiting.pop()
                with contextlib.suppress(OSError):
                    folder = os.open(name, FOLDER, dir_fd=top)
                    try:
                        waiting += _empty(folder, top, names)
                    finally:
                        os.close(folder)
                    os.rmdir(name, dir_fd=top)
        finally:
            os.close(top)
        Path(path).rmdir()


def _empty(folder: int, top: int, names: Iterator[str]) -> list[str]:
    """Remove the files of `folder` and move its folders into `top`. Returns the new names of these."""
    moved = []
    for entry in os.listdir(folder):
        with contextlib.suppress(OSError):
            try:
                os.unlink(entry, dir_fd=folder)
            except (IsADirectoryError, PermissionError):
                os.chmod(entry, 0o700, dir_fd=folder)  # a folder can be moved and read by whoever may write to it
                name = next(names)
                os.rename(entry, name, src_dir_fd=folder, dst_dir_fd=top)
                moved.append(name)
    return moved
