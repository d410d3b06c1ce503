"""Loader of 2WikiMultihopQA: multi-hop questions over Wikipedia and Wikidata."""

from __future__ import annotations

from rewright.core.records import Task
from rewright.tasks.formats import RowFormat
from rewright.tasks.question_rows import FLASHRAG, question, supporting_titles
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]


def to_task(row: Row) -> Task:
    """2WikiMultihopQA: _id, type, question, supporting_facts, evidences, answer; or FlashRAG's golden_answers."""
    return question(row, "2wikimultihopqa", {"type": row.get("type"), "supporting_titles": supporting_titles(row)})


FORMAT = RowFormat(to_task, ("question",), (FLASHRAG, "2wikimultihopqa", "dev"))
