"""Which code a data file may name. A file can name any function of any package: only what its user named is run."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["names_one_of"]


def names_one_of(path: str, trusted: Iterable[str]) -> bool:
    """True where the import path `"package.module:function"` is in `trusted`, or its package is."""
    return any(path == one or path.startswith((f"{one}.", f"{one}:")) for one in trusted)
