"""Default judge for a gold answer of a data set that does not specify one."""

from __future__ import annotations

import re

from rewright.core.answer_text import parse_plain_number

__all__ = ["default_judge"]


_CHOICES = re.compile(r"[a-z](?:, [a-z])*", re.IGNORECASE)


_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}")


def default_judge(answer: str) -> str:
    """Return `exact` for numbers, dates, yes/no and lettered choices (ordered), else `qa`."""
    plain = answer.strip().rstrip(".")
    closed = plain.lower() in ("yes", "no") or _CHOICES.fullmatch(plain) or _DATE.fullmatch(plain)
    return "exact" if closed or parse_plain_number(plain) is not None else "qa"
