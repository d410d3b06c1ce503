"""The work of a guarded worker (`rewright.workers.pool`): the scorer of a reasoning-gym set on one answer."""

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

with contextlib.suppress(ImportError):  # here, because afterwards the worker refuses what its import needs
    importlib.import_module("reasoning_gym")


@lru_cache(maxsize=256)
def _scorer(dataset: str, settings: str) -> Callable[[str, dict[str, Any]], float]:
    """The scorer of a set with its settings. Some sets read files of many megabytes before they can score."""
    package = importlib.import_module("reasoning_gym")
    scorer: Callable[[str, dict[str, Any]], float]
    scorer = package.create_dataset(dataset, **decoded(json.loads(settings))).score_answer
    return scorer


def prepare(dataset: str, settings: dict[str, Any], **_: Any) -> None:
    """Make the scorer, which does not depend on the answer."""
    with contextlib.suppress(Exception):  # the request itself says what is wrong
        _scorer(dataset, json.dumps(settings))


def answer(answer: str, dataset: str, entry: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """`outcome` in [0, 1] and `reason`; `missing` names a package that is not installed."""
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
