"""Loader of GSM8K: grade-school mathematics."""

from __future__ import annotations

from rewright.core.records import Task
from rewright.tasks.formats import RowFormat
from rewright.tasks.question_rows import question_task
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]


def to_task(row: Row) -> Task:
    """GSM8K (`openai/gsm8k`): question, answer = worked solution, then `#### ` and the number."""
    solution = row.text("answer")
    _, mark, final = solution.rpartition("####")
    if not mark or not final.strip():
        raise row.fail("'answer' has no '#### ' with the final number after it")
    return question_task(row, "gsm8k", row.text("question"), [final], "math", identity=row.optional_text("id"))


FORMAT = RowFormat(to_task, ("question", "answer"), ("openai/gsm8k", "main", "test"))
