"""The package of toys of tests/seams, installed for a command as somebody else's package would be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["rewright"]

TESTS = Path(__file__).parent.parent
TOYS = TESTS / "seams" / "toys"
PROGRAM = "from rewright.cli.main import main; main()"


def rewright(folder: Path, *arguments: object, toys: bool = True) -> subprocess.CompletedProcess[str]:
    """`rewright ARGUMENTS` in `folder`, in an environment in which the package of toys is installed (or is not)."""
    path = os.pathsep.join([*([str(TESTS), str(TOYS)] if toys else []), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
