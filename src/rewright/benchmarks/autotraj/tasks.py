"""Loader of AutoTraj's question files."""

from __future__ import annotations

from rewright.core.answer_text import boxed
from rewright.core.records import Task
from rewright.judging.choice import math_or_qa
from rewright.tasks.formats import RowFormat
from rewright.tasks.question_rows import question_task, unwrapped
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]


def to_task(row: Row) -> Task:
    """AutoTraj's records and question files: question, and gold_answer or answer.

    Gold answers are in braces (`{18}`). Numbers and formulas use the judge `math`, words use `qa`.
    """
    gold = row.text("gold_answer", "answer")
    answer = unwrapped(boxed(gold) or gold)
    return question_task(
        row, "autotraj", row.text("question"), [answer], math_or_qa(answer), identity=row.optional_text("id")
    )


FORMAT = RowFormat(to_task, ("question",))
