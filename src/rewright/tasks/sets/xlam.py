"""Format `xlam`: xlam-function-calling-60k (APIGen), single-turn questions with gold calls.

Columns: query, tools and answers (JSON texts, or decoded), id. Parameters are flat, with Python's types. Rows without
answers (as in sets of irrelevance in this shape) are tasks in which no call is right.
"""

from __future__ import annotations

from rewright.core.records import Task
from rewright.dialects.literals import decode_value
from rewright.tasks.formats import RowFormat
from rewright.tasks.function_rows import FunctionSet, Said, call_of, conversation_task, offered_tools
from rewright.tasks.rows import Row

__all__ = ["FORMAT", "to_task"]

SET = FunctionSet("xlam", "Salesforce/xlam-function-calling-60k", "cc-by-4.0")


def to_task(row: Row) -> Task:
    """Convert one row to a task. Ids are `xlam-<id>`."""
    query = row.text("query")
    answers = row.values.get("answers")
    if answers is None:
        raise row.fail(f"no key 'answers'; it has {', '.join(map(repr, row.values)) or 'none'}")
    try:
        answers = decode_value(answers) if isinstance(answers, str) else answers
    except ValueError as problem:
        raise row.fail(f"'answers' is not JSON: {problem}") from None
    if not isinstance(answers, list):
        raise row.fail("'answers' is not a list of calls, expected objects with name and arguments")
    calls = tuple(call_of(row, answer, f"'answers'[{number}]") for number, answer in enumerate(answers))
    said = [Said("user", query), *([Said("assistant", "", calls)] if calls else [])]
    return conversation_task(row, SET, offered_tools(row, "tools"), said, identity=row.optional_text("id"))


FORMAT = RowFormat(to_task, columns=("query", "tools", "answers"), hub=(SET.identity, "dataset", "train"))
