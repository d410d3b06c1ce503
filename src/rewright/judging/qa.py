"""The `qa` judge (exact match and token F1 of SQuAD, over all golds) and the `token_set_f1` judge of MatchTIR.

Both work on words. Where the gold is a plain number, words are not enough: punctuation carries the sign and the
decimal point, so `qa` compares values first (-3 is not 3, 1,000 is 1000).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from rewright.judging.base import Judgement, shown
from rewright.judging.exact import same
from rewright.judging.text import plain_number, squad_form

__all__ = ["exact_match", "qa", "token_f1", "token_set_f1", "token_sets"]

_CLOSED_ANSWERS = frozenset({"yes", "no", "noanswer"})
_NUMBERS = re.compile(r"[-−]?(?:[0-9][0-9,]*)?\.?[0-9]+")


def _values(answer: str) -> list[Decimal | None]:
    """The numbers in an answer."""
    return [plain_number(found) for found in _NUMBERS.findall(answer)]


def exact_match(answer: str, gold: str) -> bool:
    """SQuAD exact match: equal after normalisation.

    Where normalisation leaves nothing ("The The", "a") the texts themselves are compared, so that an answer without
    content never matches another.
    """
    form, gold_form = squad_form(answer), squad_form(gold)
    if (value := plain_number(gold)) is not None:
        return same(answer, gold) or (form == gold_form and value in _values(answer))
    if not form or not gold_form:
        return same(answer, gold)
    return form == gold_form


def token_f1(answer: str, gold: str) -> float:
    """SQuAD token F1 in [0, 1]: harmonic mean of precision and recall over the bags of normalised words.

    yes / no / noanswer on either side must match exactly (HotpotQA's rule), and a gold that is a plain number must
    occur in the answer as a number of that value.
    """
    if exact_match(answer, gold):
        return 1.0
    form, gold_form = squad_form(answer), squad_form(gold)
    if form in _CLOSED_ANSWERS or gold_form in _CLOSED_ANSWERS:
        return 0.0
    value = plain_number(gold)
    if value is not None and value not in _values(answer):
        return 0.0
    words, gold_words = form.split(), gold_form.split()
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


def token_set_f1(answer: str, golds: Sequence[str]) -> Judgement:
    """MatchTIR's outcome: F1 of the sets of tokens, best over `golds` (parity; it can't tell -3 from 3)."""
    tokens = token_sets(answer)
    best, best_gold = 0.0, golds[0]
    for gold in golds:
        gold_tokens = token_sets(gold)
        shared = len(tokens & gold_tokens)
        if shared and (f1 := 2 * shared / (len(tokens) + len(gold_tokens))) > best:
            best, best_gold = f1, gold
    return Judgement(
        best, f"{shown(answer)} has token-set F1 {best:.3f} with {shown(best_gold)}", {"token_set_f1": best}
    )
