"""Loader of MuSiQue: multi-hop questions composed of single ones."""

from __future__ import annotations

from rewright.core.records import Task
from rewright.tasks.formats import RowFormat
from rewright.tasks.question_rows import FLASHRAG, question
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]


def to_task(row: Row) -> Task:
    """MuSiQue: id, question, answer, answer_aliases, paragraphs, question_decomposition; or FlashRAG's schema."""
    steps = row.get("question_decomposition")
    hops = len(steps) if isinstance(steps, list) else None
    return question(row, "musique", {"hops": hops, "answerable": row.get("answerable")})


FORMAT = RowFormat(to_task, ("question",), (FLASHRAG, "musique", "dev"))
