"""Loader of AMC 2023: competition mathematics."""

from __future__ import annotations

from rewright.core.records import Task
from rewright.tasks.formats import RowFormat
from rewright.tasks.question_rows import competition
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]


def to_task(row: Row) -> Task:
    """AMC 2023 (`math-ai/amc23`): id, question, answer (a number, possibly 27.0), url."""
    return competition(row, "amc23")


FORMAT = RowFormat(to_task, (), ("math-ai/amc23", None, "test"))
