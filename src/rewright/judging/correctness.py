"""The `answer_correctness` judge: does the answer, in whatever sentence, state the gold answer? (ToolHop's measure.)

ToolHop counts an answer as correct that holds the gold answer. Ours asks for whole words and whole numbers, so that
"15" does not hold "5"; for a number gold no other number may stand in the answer, unless "the answer is ..." names it;
for a gold of yes or no the other word must not stand there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewright.core.answer_text import parse_plain_number, qa_tokens, shown, strip_answer_prefix
from rewright.judging.base import Judgement
from rewright.judging.exact import same

__all__ = ["answer_correctness", "states"]

_LAST_STATEMENT = re.compile(r".*\banswer\s*(?:is|:|=)\s*:?\s*(?=\S)", re.IGNORECASE | re.DOTALL)
_CLOSED = frozenset({"yes", "no"})


def states(answer: str, gold: str) -> bool:
    """True where `answer` is the gold answer, or a text that states it."""
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
    """Outcome 1.0 where `answer` states one of `golds`, else 0.0."""
    for gold in golds:
        if states(answer, gold):
            return Judgement(1.0, f"{shown(answer)} states the gold answer {shown(gold)}")
    return Judgement(0.0, f"{shown(answer)} does not state the gold answer {shown(golds[0])}")
