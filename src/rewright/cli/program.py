"""How the user can start this program again: for the commands that messages suggest."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["command"]


def command(*words: object, folder: Path | None = None) -> str:
    """Return the shell command `rewright WORDS`, with the path of the program if the shell would not find this one.

    `folder`: the directory in which the user will run it; default: the current one.
    """
    return f"{_program(Path.cwd() if folder is None else folder.resolve())} {shlex.join(map(str, words))}"


def _program(folder: Path) -> str:
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        found = shutil.which("python")
        same = found is not None and Path(found).absolute() == Path(sys.executable).absolute()
        return f"{'python' if same else _shown(Path(sys.executable), folder)} -m rewright"
    if called.name != "rewright" or called == Path(called.name):
        return "rewright"
    found = shutil.which("rewright")
    if found is not None and Path(found).resolve() == called.resolve():
        return "rewright"
    return _shown(called, folder)


def _shown(path: Path, folder: Path) -> str:
    """The path, relative to `folder` if it lies in it."""
    absolute = path.absolute()
    return shlex.quote(str(absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute))
