"""Registered names for help texts of the command line."""

from __future__ import annotations

import sys

from rewright.core.registry import Kind, known

__all__ = ["names_of"]


def names_of(kind: Kind) -> str:
    """Return `: NAME, NAME` for a help text. Empty unless help is requested, because listing imports other packages."""
    return f": {', '.join(known(kind))}" if {"--help", "-h"} & set(sys.argv) else ""
