"""The `exact` judge: equal plain numbers, equal option letters, or equal text after normalisation."""

from __future__ import annotations

from collections.abc import Sequence

from rewright.core.answer_text import normalize_exact, option_letter, parse_plain_number, shown, strip_answer_prefix
from rewright.judging.base import AnswerJudge, Judgement

__all__ = ["JUDGE", "exact", "same"]


def same(answer: str, gold: str) -> bool:
    """Return True for equal plain numbers (`1,000` and `1000`, `5` and `5.0`), options or normalised texts.

    A number never equals text that is not a number. An empty answer equals nothing.
    """
    left, right = parse_plain_number(answer), parse_plain_number(gold)
    if left is not None or right is not None:
        return left is not None and right is not None and left == right
    option, gold_option = option_letter(answer), option_letter(gold)
    if option is not None and gold_option is not None:
        return option.casefold() == gold_option.casefold()
    form = normalize_exact(answer)
    return form != "" and form == normalize_exact(gold)


def exact(answer: str, golds: Sequence[str]) -> Judgement:
    """Return outcome 1.0 if `answer` equals one of `golds`, else 0.0. "The answer is X." and "**X**" equal X."""
    for gold in golds:
        if same(answer, gold) or same(strip_answer_prefix(answer), strip_answer_prefix(gold)):
            return Judgement(1.0, f"{shown(answer)} equals the gold answer {shown(gold)}")
    return Judgement(0.0, f"{shown(answer)} is not the gold answer {shown(golds[0])}")


JUDGE = AnswerJudge(exact, extractor="auto")
