"""Loader of HotpotQA: multi-hop questions over Wikipedia."""

from __future__ import annotations

from rewright.core.records import Task
from rewright.tasks.formats import RowFormat
from rewright.tasks.question_rows import question, supporting_titles
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]


def to_task(row: Row) -> Task:
    """HotpotQA: _id or id, question, answer, type, level, supporting_facts; or FlashRAG's golden_answers."""
    metadata = {"type": row.get("type"), "level": row.get("level"), "supporting_titles": supporting_titles(row)}
    return question(row, "hotpotqa", metadata)


FORMAT = RowFormat(to_task, ("question",), ("hotpotqa/hotpot_qa", "distractor", "validation"))
