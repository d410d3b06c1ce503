"""Loader of MATH: competition mathematics."""

from __future__ import annotations

from rewright.core.answer_text import boxed
from rewright.core.records import Task
from rewright.tasks.formats import RowFormat
from rewright.tasks.question_rows import question_task, unwrapped
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]


def to_task(row: Row) -> Task:
    r"""MATH (`hendrycks/competition_math`, MATH-500): problem, solution with the answer in `\boxed{}`, or answer."""
    answer = unwrapped(row.optional_text("answer") or boxed(row.text("solution")) or "")
    if not answer or not answer.strip():
        raise row.fail("'solution' holds no \\boxed{} answer, and there is no 'answer'")
    metadata = {"level": row.get("level"), "subject": row.get("subject", "type")}
    return question_task(
        row,
        "math",
        row.text("problem"),
        [answer],
        "math",
        identity=row.optional_text("unique_id", "id"),
        metadata=metadata,
    )


FORMAT = RowFormat(to_task, ("problem",), ("HuggingFaceH4/MATH-500", None, "test"))
