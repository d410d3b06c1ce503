"""The `qa` judge (exact match and token F1 of SQuAD, over all golds) and the `token_set_f1` judge of MatchTIR.

Both work on words. `qa` reads a number as one word with its sign and decimal point (-3 is not 3, 1,000 is 1000);
`token_set_f1` is MatchTIR's rule as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from rewright.core.answer_text import parse_plain_number, qa_tokens, shown
from rewright.judging.base import Judgement
from rewright.judging.exact import same

__all__ = ["exact_match", "qa", "set_f1", "token_f1", "token_set_f1", "token_sets"]

_CLOSED_ANSWERS = frozenset({"yes", "no", "noanswer"})
_SHORT_MEASURE = 2


def _values(words: Sequence[str]) -> set[Decimal | None]:
    """The numbers among the words of an answer."""
    return {parse_plain_number(word) for word in words} - {None}


def exact_match(answer: str, gold: str) -> bool:
    """SQuAD exact match: equal after normalisation (`qa_tokens`).

    Where normalisation leaves nothing ("The The", "a") the texts themselves are compared, so that an answer without
    content never matches another.
    """
    words, gold_words = qa_tokens(answer), qa_tokens(gold)
    if not words or not gold_words or parse_plain_number(gold) is not None:
        return same(answer, gold) or (bool(words) and words == gold_words)
    return words == gold_words


def token_f1(answer: str, gold: str) -> float:
    """SQuAD token F1 in [0, 1]: harmonic mean of precision and recall over the bags of normalised words.

    yes / no / noanswer on either side must match exactly (HotpotQA's rule), and where the gold is a number, or a number
    with one word to it ("1.95 m"), that number must occur in the answer.
    """
    if exact_match(answer, gold):
        return 1.0
    words, gold_words = qa_tokens(answer), qa_tokens(gold)
    if any(" ".join(side) in _CLOSED_ANSWERS for side in (words, gold_words)):
        return 0.0
    values = _values(gold_words)
    if len(gold_words) <= _SHORT_MEASURE and values and not values <= _values(words):
        return 0.0
    shared = sum((Counter(words) & Counter(gold_words)).values())
    return 2 * shared / (len(words) + len(gold_words)) if shared else 0.0


def qa(answer: str, golds: Sequence[str]) -> Judgement:
    """Outcome = the best token F1 over `golds`; metrics `exact_match` and `f1`."""
    scores = [token_f1(answer, gold) for gold in golds]
    best = max(range(len(golds)), key=scores.__getitem__)
    f1 = scores[best]
    matched = any(exact_match(answer, gold) for gold in golds)
    if matched:
        reason = f"{shown(answer)} matches the gold answer {shown(golds[best])}"
    else:
        reason = f"{shown(answer)} has token F1 {f1:.3f} with the gold answer {shown(golds[best])}"
    return Judgement(f1, reason, {"exact_match": float(matched), "f1": f1})


_NOT_A_WORD = re.compile(r"[^\w\s]|_")


def token_sets(text: str) -> frozenset[str]:
    """MatchTIR's tokens of a text: lower case, punctuation replaced by spaces, as a set."""
    return frozenset(_NOT_A_WORD.sub(" ", text.lower()).split())


def set_f1(answer: str, gold: str) -> float:
    """MatchTIR's outcome (arXiv 2601.10712) in [0, 1]: F1 of the two sets of tokens, 0 where they share none."""
    tokens, gold_tokens = token_sets(answer), token_sets(gold)
    shared = len(tokens & gold_tokens)
    return 2 * shared / (len(tokens) + len(gold_tokens)) if shared else 0.0


def token_set_f1(answer: str, golds: Sequence[str]) -> Judgement:
    """MatchTIR's outcome: F1 of the sets of tokens, best over `golds` (parity; it can't tell -3 from 3)."""
    best, best_gold = max(((set_f1(answer, gold), gold) for gold in golds), key=lambda scored: scored[0])
    return Judgement(
        best, f"{shown(answer)} has token-set F1 {best:.3f} with {shown(best_gold)}", {"token_set_f1": best}
    )
