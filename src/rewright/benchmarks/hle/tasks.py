"""Loader of Humanity's Last Exam: questions of experts, without those that have an image."""

from __future__ import annotations

from rewright.core.records import Task
from rewright.judging.choice import math_or_qa
from rewright.tasks.formats import RowFormat
from rewright.tasks.question_rows import question_task
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]


def to_task(row: Row) -> Task | None:
    """Humanity's Last Exam (`cais/hle`): id, question, image, answer, answer_type, category. None if it has an image.

    The official grading uses a language model. Here multiple choice uses the judge `exact`, numbers and formulas
    `math`, words `qa`.
    """
    if row.get("image"):
        return None
    answer = row.text("answer")
    judge = "exact" if row.get("answer_type") == "multipleChoice" else math_or_qa(answer)
    metadata = {"category": row.get("category"), "answer_type": row.get("answer_type")}
    return question_task(
        row, "hle", row.text("question"), [answer], judge, identity=row.optional_text("id"), metadata=metadata
    )


FORMAT = RowFormat(to_task, ("question", "answer"), ("cais/hle", None, "test"))
