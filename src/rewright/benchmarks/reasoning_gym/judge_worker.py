"""Guarded worker (`rewright.workers.pool`): runs the scorer of a reasoning-gym data set on one answer."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from rewright.benchmarks.reasoning_gym.entries import decoded

__all__ = ["answer", "prepare"]

with contextlib.suppress(ImportError):  # at module level, because the worker's audit hook would block the import later
    importlib.import_module("reasoning_gym")


@lru_cache(maxsize=256)
def _scorer(dataset: str, settings: str) -> Callable[[str, dict[str, Any]], float]:
    """Return the scorer of a data set with its settings. Cached, because some sets load large files."""
    package = importlib.import_module("reasoning_gym")
    scorer: Callable[[str, dict[str, Any]], float]
    scorer = package.create_dataset(dataset, **decoded(json.loads(settings))).score_answer
    return scorer


def prepare(dataset: str, settings: dict[str, Any], **_: Any) -> None:
    """Create the scorer before the time limit of the answer starts."""
    with contextlib.suppress(Exception):  # `answer` reports the error
        _scorer(dataset, json.dumps(settings))


def answer(answer: str, dataset: str, entry: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return `outcome` in [0, 1] and `reason`, or `missing` with the name of a package that is not installed."""
    try:
        outcome = float(_scorer(dataset, json.dumps(settings))(answer, decoded(entry)))
    except ModuleNotFoundError as problem:
        if problem.name != "reasoning_gym":
            raise
        return {"missing": "reasoning-gym"}
    if math.isnan(outcome):
        return {"outcome": 0.0, "reason": f"the scorer of {dataset} returned NaN"}
    outcome = min(max(outcome, 0.0), 1.0)
    return {"outcome": outcome, "reason": f"the scorer of {dataset} gives {outcome:g}"}
