"""Question sets: mathematics with a final answer, and multi-hop questions over an encyclopedia.

Each function converts a row in one of the set's published schemas to a `Task` without tools; the recipe provides the
tools. Ids are `<set>-<row id or row number>`.
"""

from __future__ import annotations

from typing import Any

from rewright.core.answer_text import boxed, closing_brace
from rewright.core.records import Gold, Task
from rewright.judging.choice import math_or_qa
from rewright.tasks.rows import Row

__all__ = ["aime", "amc23", "autotraj", "bamboogle", "gsm8k", "hle", "hotpotqa", "math_problem", "multihop", "musique"]


def _unwrapped(gold: str) -> str:
    """Remove the braces that AutoTraj's files put around every gold answer (`{18}`)."""
    gold = gold.strip()
    while gold.startswith("{") and closing_brace(gold, 1) == len(gold) - 1 and gold[1:-1].strip():
        gold = gold[1:-1].strip()
    return gold


def _task(
    row: Row,
    source: str,
    question: str,
    answers: list[str],
    judge: str,
    *,
    identity: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> Task:
    unique = list(dict.fromkeys(answer.strip() for answer in answers if answer.strip()))
    if not unique:
        raise row.fail("no answer, expected at least one that is not empty")
    return Task(
        id=f"{source}-{identity if identity is not None else row.index}",
        messages=({"role": "user", "content": question},),
        gold=Gold(answers=tuple(unique)),
        source=source,
        split=str(row.get("split") or ""),
        judge=judge,
        metadata={key: value for key, value in (metadata or {}).items() if value is not None},
    )


def gsm8k(row: Row) -> Task:
    """GSM8K (`openai/gsm8k`): question, answer = worked solution, then `#### ` and the number."""
    solution = row.text("answer")
    _, mark, final = solution.rpartition("####")
    if not mark or not final.strip():
        raise row.fail("'answer' has no '#### ' with the final number after it")
    return _task(row, "gsm8k", row.text("question"), [final], "math", identity=row.optional_text("id"))


def math_problem(row: Row) -> Task:
    r"""MATH (`hendrycks/competition_math`, MATH-500): problem, solution with the answer in `\boxed{}`, or answer."""
    answer = _unwrapped(row.optional_text("answer") or boxed(row.text("solution")) or "")
    if not answer or not answer.strip():
        raise row.fail("'solution' holds no \\boxed{} answer, and there is no 'answer'")
    metadata = {"level": row.get("level"), "subject": row.get("subject", "type")}
    return _task(
        row,
        "math",
        row.text("problem"),
        [answer],
        "math",
        identity=row.optional_text("unique_id", "id"),
        metadata=metadata,
    )


def _competition(row: Row, source: str) -> Task:
    return _task(
        row,
        source,
        row.text("problem", "Problem", "question", "Question"),
        [_unwrapped(row.text("answer", "Answer"))],
        "math",
        identity=row.optional_text("id", "ID", "problem_idx"),
    )


def aime(row: Row) -> Task:
    """AIME 2024 and 2025: problem and answer under the names that the published sets use, in either case."""
    return _competition(row, "aime")


def amc23(row: Row) -> Task:
    """AMC 2023 (`math-ai/amc23`): id, question, answer (a number, possibly 27.0), url."""
    return _competition(row, "amc23")


def _golds(row: Row) -> list[str]:
    """Return FlashRAG's `golden_answers`, or `answer` with `answer_aliases`."""
    golds = row.texts("golden_answers")
    if not golds:
        golds = [*row.texts("answer", "Answer"), *row.texts("answer_aliases")]
    return [_unwrapped(gold) for gold in golds]


def _question(row: Row, source: str, metadata: dict[str, Any] | None = None) -> Task:
    return _task(
        row,
        source,
        row.text("question", "Question"),
        _golds(row),
        "qa",
        identity=row.optional_text("_id", "id", "src_id"),
        metadata=metadata,
    )


def _supporting_titles(row: Row) -> list[str] | None:
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


def hotpotqa(row: Row) -> Task:
    """HotpotQA: _id or id, question, answer, type, level, supporting_facts; or FlashRAG's golden_answers."""
    metadata = {"type": row.get("type"), "level": row.get("level"), "supporting_titles": _supporting_titles(row)}
    return _question(row, "hotpotqa", metadata)


def multihop(row: Row) -> Task:
    """2WikiMultihopQA: _id, type, question, supporting_facts, evidences, answer; or FlashRAG's golden_answers."""
    return _question(row, "2wikimultihopqa", {"type": row.get("type"), "supporting_titles": _supporting_titles(row)})


def musique(row: Row) -> Task:
    """MuSiQue: id, question, answer, answer_aliases, paragraphs, question_decomposition; or FlashRAG's schema."""
    steps = row.get("question_decomposition")
    hops = len(steps) if isinstance(steps, list) else None
    return _question(row, "musique", {"hops": hops, "answerable": row.get("answerable")})


def bamboogle(row: Row) -> Task:
    """Bamboogle: Question, Answer; or FlashRAG's question and golden_answers."""
    return _question(row, "bamboogle")


def autotraj(row: Row) -> Task:
    """AutoTraj's records and question files: question, and gold_answer or answer.

    Gold answers are in braces (`{18}`). Numbers and formulas use the judge `math`, words use `qa`.
    """
    gold = row.text("gold_answer", "answer")
    answer = _unwrapped(boxed(gold) or gold)
    return _task(row, "autotraj", row.text("question"), [answer], math_or_qa(answer), identity=row.optional_text("id"))


def hle(row: Row) -> Task | None:
    """Humanity's Last Exam (`cais/hle`): id, question, image, answer, answer_type, category. None if it has an image.

    The official grading uses a language model. Here multiple choice uses the judge `exact`, numbers and formulas
    `math`, words `qa`.
    """
    if row.get("image"):
        return None
    answer = row.text("answer")
    judge = "exact" if row.get("answer_type") == "multipleChoice" else math_or_qa(answer)
    metadata = {"category": row.get("category"), "answer_type": row.get("answer_type")}
    return _task(row, "hle", row.text("question"), [answer], judge, identity=row.optional_text("id"), metadata=metadata)
