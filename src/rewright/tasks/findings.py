"""What validation finds in a task."""

from __future__ import annotations

from typing import Literal

import msgspec

from rewright.core.records import Task

__all__ = ["Finding", "Notes"]


class Finding(msgspec.Struct, frozen=True):
    """One error or warning. `row` counts tasks (or rows of the file) from 0; `kind` groups findings in reports."""

    severity: Literal["error", "warning"]
    kind: str
    message: str
    row: int
    task_id: str = ""
    tool: str | None = None

    def __str__(self) -> str:
        """Return severity, location and message on one line."""
        where = f"row {self.row}" + (f" ({self.task_id})" if self.task_id else "")
        return f"{self.severity}: {where}: {self.message}"


class Notes:
    """Collects the findings of one task."""

    def __init__(self, row: int, task: Task) -> None:
        self.row, self.task, self.findings = row, task, list[Finding]()

    def error(self, kind: str, message: str, tool: str | None = None) -> None:
        """Add an error."""
        self.findings.append(Finding("error", kind, message, self.row, self.task.id, tool))

    def warning(self, kind: str, message: str, tool: str | None = None) -> None:
        """Add a warning."""
        self.findings.append(Finding("warning", kind, message, self.row, self.task.id, tool))
