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
        return {"outcome": 0.0, "reason": f"the gold answer can not be read: {golds}", "unread": golds}
    if isinstance(answers, str):
        return {"outcome": 0.0, "reason": f"the answer can not be read: {answers}"}
    same = answer == gold or any(equal(one, other) for one in golds for other in answers)
    return {"outcome": float(same), "reason": "equal" if same else "not equal"}
