"""Names of the registry in the help texts of the command line."""

from __future__ import annotations

import sys

from rewright.core.registry import Kind, known

__all__ = ["names_of"]


def names_of(kind: Kind) -> str:
    """`: NAME, NAME` for a help text; empty where no help is asked for, as other packages are imported for it."""
    return f": {', '.join(known(kind))}" if {"--help", "-h"} & set(sys.argv) else ""
