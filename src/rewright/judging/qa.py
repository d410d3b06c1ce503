"""The `qa` judge (SQuAD exact match and token F1, best over golds) and the `token_set_f1` judge (MatchTIR).

`qa` differs from SQuAD in that a number is one token with its sign and decimal point: -3 differs from 3, and 1,000
equals 1000. `token_set_f1` follows MatchTIR exactly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from rewright.core.answer_text import final_answer, parse_plain_number, qa_tokens, shown
from rewright.core.records import Task, Trajectory, Verdict
from rewright.judging.base import AnswerJudge, Judgement
from rewright.judging.exact import same

__all__ = [
    "QA",
    "TOKEN_SET_F1",
    "answer_metrics",
    "exact_match",
    "qa",
    "set_f1",
    "token_f1",
    "token_set_f1",
    "token_sets",
]

_CLOSED_ANSWERS = frozenset({"yes", "no", "noanswer"})
_MAX_MEASURE_TOKENS = 2


def _values(words: Sequence[str]) -> set[Decimal | None]:
    """Return the numeric values among the tokens of an answer."""
    return {parse_plain_number(word) for word in words} - {None}


def exact_match(answer: str, gold: str) -> bool:
    """SQuAD exact match: equal after normalisation (`qa_tokens`).

    If normalisation leaves no tokens ("The The", "a"), the original texts are compared. Otherwise any two such texts
    would match.
    """
    words, gold_words = qa_tokens(answer), qa_tokens(gold)
    if not words or not gold_words or parse_plain_number(gold) is not None:
        return same(answer, gold) or (bool(words) and words == gold_words)
    return words == gold_words


def token_f1(answer: str, gold: str) -> float:
    """SQuAD token F1 in [0, 1]: harmonic mean of precision and recall over bags of normalised tokens.

    yes, no and noanswer must match exactly on both sides (HotpotQA's rule). If the gold answer is a number, or a number
    with one other token ("1.95 m"), the F1 is 0 unless that number occurs in the answer.
    """
    if exact_match(answer, gold):
        return 1.0
    words, gold_words = qa_tokens(answer), qa_tokens(gold)
    if any(" ".join(side) in _CLOSED_ANSWERS for side in (words, gold_words)):
        return 0.0
    values = _values(gold_words)
    if len(gold_words) <= _MAX_MEASURE_TOKENS and values and not values <= _values(words):
        return 0.0
    shared = sum((Counter(words) & Counter(gold_words)).values())
    return 2 * shared / (len(words) + len(gold_words)) if shared else 0.0


def qa(answer: str, golds: Sequence[str]) -> Judgement:
    """Return the best token F1 over `golds` as the outcome, with the metrics `exact_match` and `f1`."""
    scores = [token_f1(answer, gold) for gold in golds]
    best = max(range(len(golds)), key=scores.__getitem__)
    f1 = scores[best]
    matched = any(exact_match(answer, gold) for gold in golds)
    if matched:
        reason = f"{shown(answer)} matches the gold answer {shown(golds[best])}"
    else:
        reason = f"{shown(answer)} has token F1 {f1:.3f} with the gold answer {shown(golds[best])}"
    return Judgement(f1, reason, {"exact_match": float(matched), "f1": f1})


def answer_metrics(task: Task, trajectory: Trajectory, verdict: Verdict) -> dict[str, float]:
    """The metrics `exact_match` and `f1` of the text that the verdict compared (`Verdict.answer`), whichever judge
    gave it.

    Both are 0 without such a text, as for an answer that a limit cut off, and for an infrastructure failure. For the
    `metrics` of a benchmark of questions (`rewright.benchmarks.Benchmark`).
    """
    answer = final_answer(verdict.answer)
    golds = [gold for gold in task.gold.answers or () if gold.strip()]
    if trajectory.failure is not None or not answer or not golds:
        return {"exact_match": 0.0, "f1": 0.0}
    return qa(answer, golds).metrics


_NOT_A_WORD = re.compile(r"[^\w\s]|_")


def token_sets(text: str) -> frozenset[str]:
    """MatchTIR's tokenisation: lower case, punctuation replaced by spaces, as a set."""
    return frozenset(_NOT_A_WORD.sub(" ", text.lower()).split())


def set_f1(answer: str, gold: str) -> float:
    """MatchTIR's outcome (arXiv 2601.10712) in [0, 1]: F1 of the two token sets, 0 if they are disjoint."""
    tokens, gold_tokens = token_sets(answer), token_sets(gold)
    shared = len(tokens & gold_tokens)
    return 2 * shared / (len(tokens) + len(gold_tokens)) if shared else 0.0


def token_set_f1(answer: str, golds: Sequence[str]) -> Judgement:
    """MatchTIR's outcome: best token-set F1 over `golds`. Does not distinguish -3 from 3; kept for parity."""
    best, best_gold = max(((set_f1(answer, gold), gold) for gold in golds), key=lambda scored: scored[0])
    return Judgement(
        best, f"{shown(answer)} has token-set F1 {best:.3f} with {shown(best_gold)}", {"token_set_f1": best}
    )


QA = AnswerJudge(qa, extractor="auto")
TOKEN_SET_F1 = AnswerJudge(token_set_f1, extractor="auto")
