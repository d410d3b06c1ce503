"""Interface of importers, which read files written by other programs.

An importer is registered as kind `importer`. A plain function `(path, tasks)` that yields trajectories is also
accepted.
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
    """Reader of one file format. Both functions raise InputError with file and row for invalid input.

    Attributes:
        trajectories: `trajectories(path, tasks)` yields the attempts at `tasks` in a file, for
            `rewright import --format`. None if not supported.
        logs: `logs(path, outcome)` yields rows as `rewright.importers.chat_logs.Log`, for `rewright credit --format`.
            `outcome` names the outcome columns. None if not supported.
        conversations: `conversations(path)` yields the attempts in a file as
            `rewright.importers.conversation.Conversation`, for both commands, in place of the two others. With
            `rewright import` tasks are made for attempts that belong to none of the known tasks.
        dialect: Dialect of the texts, or None if the format has none.
    """

    trajectories: Callable[[Path, Sequence[Task]], Iterator[Trajectory]] | None = None
    logs: Callable[[Path, str | Sequence[str] | None], Iterator[Any]] | None = None
    conversations: Callable[[Path], Iterator[Any]] | None = None
    dialect: str | None = None

    def supports(self, use: str) -> bool:
        """Whether it can be used for "trajectories" (import) or "logs" (credit)."""
        return self.conversations is not None or getattr(self, use) is not None


def find_importer(name: str, use: str, setting: str = "--format") -> Importer:
    """Return the importer with that registered name or import path, for `use` ("trajectories" or "logs").

    Raises InputError for an unknown name, with the known names and the closest one, and if the importer does not
    support this use.
    """
    found = find("importer", name, setting=setting)
    if not isinstance(found, Importer):
        if not callable(found):
            raise InputError(f"{setting}: importer {name!r} is a {type(found).__name__}: expected a function")
        found = Importer(trajectories=found)
    if not found.supports(use):
        verb = "credit" if use == "trajectories" else "import"
        raise InputError(
            f"{setting}: {name} is read by rewright {verb} only: expected one of {', '.join(importer_names(use))}"
        )
    return found


def importer_names(use: str) -> list[str]:
    """Return the sorted names of the registered importers that support `use`."""
    importers = {name: find("importer", name) for name in known("importer")}
    return [
        name
        for name, found in importers.items()
        if (found.supports(use) if isinstance(found, Importer) else use == "trajectories")
    ]
