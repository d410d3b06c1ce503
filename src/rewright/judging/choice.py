"""Choose a judge for a gold answer that names none."""

from __future__ import annotations

import re

from rewright.core.answer_text import option_letter, parse_plain_number

__all__ = ["math_or_qa"]

_CLOSED = ("yes", "no", "noanswer")
_DATES = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}|[0-9]+\s*[-–—]\s*[0-9]+")
_FORMULA = re.compile(
    r"(?!.*[a-z]{2}|.*[0-9]\s+[a-z]|.*[a-z]\.|.*[0-9]\.[0-9]+\.)"  # words, units, abbreviations, versions
    r"[0-9a-z+\-*/().,!%{}|<> ]*[0-9][0-9a-z+\-*/().,!%{}|<> ]*"
)


def math_or_qa(answer: str) -> str:
    """Return `math` for numbers, formulas and option letters, `qa` for words, yes/no, dates, scores and year ranges."""
    plain = answer.strip().rstrip(".")
    if plain.lower() in _CLOSED or _DATES.fullmatch(plain):
        return "qa"
    if parse_plain_number(plain) is not None or option_letter(plain) is not None:
        return "math"
    return "math" if any(sign in answer for sign in "\\$^=") or _FORMULA.fullmatch(plain) else "qa"
