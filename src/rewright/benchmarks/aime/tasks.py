"""Loader of AIME 2024 and 2025: competition mathematics."""

from __future__ import annotations

from rewright.core.records import Task
from rewright.tasks.formats import RowFormat
from rewright.tasks.question_rows import competition
from rewright.tasks.rows import Row

__all__ = ["AIME24", "AIME25"]


def to_task(row: Row) -> Task:
    """AIME 2024 and 2025: problem and answer under the names that the published sets use, in either case."""
    return competition(row, "aime")


AIME24 = RowFormat(to_task, (), ("HuggingFaceH4/aime_2024", None, "train"))
AIME25 = RowFormat(to_task, (), ("math-ai/aime25", None, "test"))
