"""The `answer_correctness` judge: does the answer contain the gold answer? (ToolHop's metric, made stricter.)

ToolHop accepts any answer that contains the gold answer as a substring. This judge differs in three ways:

- It matches whole words and whole numbers: "15" does not contain "5".
- If the gold answer is a number, the answer must contain no other number, except before "the answer is ...".
- If the gold answer is yes or no, the answer must not contain the other word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewright.core.answer_text import parse_plain_number, qa_tokens, shown, strip_answer_prefix
from rewright.judging.base import AnswerJudge, Judgement
from rewright.judging.exact import same

__all__ = ["JUDGE", "answer_correctness", "states"]

_LAST_STATEMENT = re.compile(r".*\banswer\s*(?:is|:|=)\s*:?\s*(?=\S)", re.IGNORECASE | re.DOTALL)
_CLOSED = frozenset({"yes", "no"})


def states(answer: str, gold: str) -> bool:
    """Return True if `answer` equals `gold` or contains it."""
    if same(strip_answer_prefix(answer), gold):
        return True
    lead = _LAST_STATEMENT.match(answer)
    words, gold_words = qa_tokens(answer[lead.end() :] if lead else answer), qa_tokens(gold)
    if not gold_words:
        return False
    if parse_plain_number(gold) is not None:
        numbers = {word for word in words if parse_plain_number(word) is not None}
        return numbers == set(gold_words)
    if gold_words[0] in _CLOSED and len(gold_words) == 1:
        return _CLOSED & set(words) == {gold_words[0]}
    size = len(gold_words)
    return any(words[start : start + size] == gold_words for start in range(len(words) - size + 1))


def answer_correctness(answer: str, golds: Sequence[str]) -> Judgement:
    """Return outcome 1.0 if `answer` contains one of `golds`, else 0.0."""
    for gold in golds:
        if states(answer, gold):
            return Judgement(1.0, f"{shown(answer)} states the gold answer {shown(gold)}")
    return Judgement(0.0, f"{shown(answer)} does not state the gold answer {shown(golds[0])}")


JUDGE = AnswerJudge(answer_correctness, extractor="number_or_text")
