"""Rows of question sets: mathematics with a final answer, and questions over an encyclopedia.

What the loaders of several sets (`rewright.benchmarks`) share. A row becomes a `Task` without tools; the recipe
provides the tools. Ids are `<set>-<row id or row number>`.
"""

from __future__ import annotations

from typing import Any

from rewright.core.answer_text import closing_brace
from rewright.core.records import Gold, Task
from rewright.tasks.rows import Row

__all__ = ["FLASHRAG", "competition", "question", "question_task", "supporting_titles", "unwrapped"]

FLASHRAG = "RUC-NLPIR/FlashRAG_datasets"
"""Hugging Face id under which FlashRAG publishes several question sets in one schema."""


def unwrapped(gold: str) -> str:
    """Remove the braces that AutoTraj's files put around every gold answer (`{18}`)."""
    gold = gold.strip()
    while gold.startswith("{") and closing_brace(gold, 1) == len(gold) - 1 and gold[1:-1].strip():
        gold = gold[1:-1].strip()
    return gold


def question_task(
    row: Row,
    source: str,
    text: str,
    answers: list[str],
    judge: str,
    *,
    identity: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> Task:
    """Return the task of a question with a judge. Raises InputError without an answer that is not empty.

    `source` is the name of the set. `identity` is the row's id, None for its number. Metadata of None is left out.
    """
    unique = list(dict.fromkeys(answer.strip() for answer in answers if answer.strip()))
    if not unique:
        raise row.fail("no answer, expected at least one that is not empty")
    return Task(
        id=f"{source}-{identity if identity is not None else row.index}",
        messages=({"role": "user", "content": text},),
        gold=Gold(answers=tuple(unique)),
        source=source,
        split=str(row.get("split") or ""),
        judge=judge,
        metadata={key: value for key, value in (metadata or {}).items() if value is not None},
    )


def competition(row: Row, source: str) -> Task:
    """Return the task of a competition problem: problem or question, and answer, in either case."""
    return question_task(
        row,
        source,
        row.text("problem", "Problem", "question", "Question"),
        [unwrapped(row.text("answer", "Answer"))],
        "math",
        identity=row.optional_text("id", "ID", "problem_idx"),
    )


def _golds(row: Row) -> list[str]:
    """Return FlashRAG's `golden_answers`, or `answer` with `answer_aliases`."""
    golds = row.texts("golden_answers")
    if not golds:
        golds = [*row.texts("answer", "Answer"), *row.texts("answer_aliases")]
    return [unwrapped(gold) for gold in golds]


def question(row: Row, source: str, metadata: dict[str, Any] | None = None) -> Task:
    """Return the task of a question with the judge `qa`: question, and the gold answers in one of the known schemas."""
    return question_task(
        row,
        source,
        row.text("question", "Question"),
        _golds(row),
        "qa",
        identity=row.optional_text("_id", "id", "src_id"),
        metadata=metadata,
    )


def supporting_titles(row: Row) -> list[str] | None:
    """Return the titles of the supporting paragraphs, from pairs or columns of title and sentence, or JSON text."""
    facts = row.get("supporting_facts")
    if isinstance(facts, str):
        facts = row.decoded("supporting_facts", list)
    if isinstance(facts, dict):
        titles = facts.get("title", [])
    elif isinstance(facts, list):
        titles = [fact[0] for fact in facts if isinstance(fact, (list, tuple)) and fact]
    else:
        return None
    return list(dict.fromkeys(str(title) for title in titles))
