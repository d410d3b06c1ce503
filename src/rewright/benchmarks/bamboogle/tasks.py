"""Loader of Bamboogle: two-hop questions that search engines answer wrongly."""

from __future__ import annotations

from rewright.core.records import Task
from rewright.tasks.formats import RowFormat
from rewright.tasks.question_rows import FLASHRAG, question
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]


def to_task(row: Row) -> Task:
    """Bamboogle: Question, Answer; or FlashRAG's question and golden_answers."""
    return question(row, "bamboogle")


FORMAT = RowFormat(to_task, (), (FLASHRAG, "bamboogle", "test"))
