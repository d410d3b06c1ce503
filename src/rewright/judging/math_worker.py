"""Guarded worker (`rewright.workers.pool`) of the `math` judge: compare two formulas."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from rewright.judging.formula_equality import equal
from rewright.judging.formula_reading import UnreadableFormulaError, readings

__all__ = ["answer"]


@lru_cache(maxsize=4096)
def _read(text: str) -> tuple[Any, ...] | str:
    """Return all readings of a formula, or the reason why it can't be parsed."""
    try:
        return tuple(readings(text))
    except UnreadableFormulaError as problem:
        return str(problem)


def answer(answer: str, gold: str) -> dict[str, Any]:
    """Return `outcome` and `reason`, and `unread` with the reason if the gold answer can't be parsed."""
    golds, answers = _read(gold), _read(answer)
    if isinstance(golds, str):
        return {"outcome": 0.0, "reason": f"the gold answer cannot be parsed: {golds}", "unread": golds}
    if isinstance(answers, str):
        return {"outcome": 0.0, "reason": f"the answer cannot be parsed: {answers}"}
    same = answer == gold or any(equal(left, right) for left in golds for right in answers)
    return {"outcome": float(same), "reason": "equal" if same else "not equal"}
