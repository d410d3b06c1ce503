"""Names of tools that servers accept."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

__all__ = ["MAX_CHARACTERS", "is_valid_name", "valid_name"]

MAX_CHARACTERS: Final = 64


def is_valid_name(name: str) -> bool:
    """Return True for letters, digits, `_` and `-`, at least one and at most 64, which OpenAI-style servers accept."""
    return re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None and len(name) <= MAX_CHARACTERS


def valid_name(name: str, taken: Collection[str] = ()) -> str:
    """Return a name that servers accept (letters, digits, `_` and `-`, at most 64) and that is not `taken`.

    A name that they accept stays as it is unless it is taken.
    """
    inner = re.sub(r"^[^A-Za-z0-9_-]+|[^A-Za-z0-9_-]+$", "", name)
    valid = re.sub(r"[^A-Za-z0-9_-]+", "_", inner)[:MAX_CHARACTERS] or "tool"
    number, unique = 1, valid
    while unique in taken:
        number += 1
        unique = f"{valid[: MAX_CHARACTERS - 4]}_{number}"
    return unique
