"""What an importer is: a reader of files that another program wrote.

An importer is one file here, or in another package, and one registration (kind `importer`). A function of a path and of
tasks, which yields trajectories, is one too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory
from rewright.core.registry import find, known

__all__ = ["Importer", "find_importer", "importer_names"]


@dataclass(frozen=True, slots=True)
class Importer:
    """How the files of one format are read. Both functions raise InputError with file and row for what is not read.

    `trajectories(path, tasks)`: the attempts in a file, each of one of the tasks, for `rewright import --format`.
    `logs(path, outcome)`: its rows as `rewright.importers.chat_logs.Log`, for `rewright credit --format`; `outcome`
    names the columns of the outcome. None where a format is not read for that. `dialect`: the one that the texts are
    written in, where the format has one.
    """

    trajectories: Callable[[Path, Sequence[Task]], Iterator[Trajectory]] | None = None
    logs: Callable[[Path, str | Sequence[str] | None], Iterator[Any]] | None = None
    dialect: str | None = None


def find_importer(name: str, use: str, setting: str = "--format") -> Importer:
    """The importer of a registered name or import path, for `use` ("trajectories" or "logs").

    Raises InputError for an unknown name, with the known ones and the nearest, and for a format that is not read for
    this use.
    """
    found = find("importer", name, setting=setting)
    if not isinstance(found, Importer):
        if not callable(found):
            raise InputError(f"{setting}: importer {name!r} is a {type(found).__name__}: expected a function")
        found = Importer(trajectories=found)
    if getattr(found, use) is None:
        verb = "credit" if use == "trajectories" else "import"
        raise InputError(
            f"{setting}: {name} is read by rewright {verb} only: expected one of {', '.join(importer_names(use))}"
        )
    return found


def importer_names(use: str) -> list[str]:
    """The registered formats that are read for `use`, sorted."""
    return [name for name in known("importer") if getattr(find("importer", name), use, use == "trajectories")]
