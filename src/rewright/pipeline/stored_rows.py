"""What must hold of the rows and entries that a run directory stores as plain JSON, checked when they are read."""

from __future__ import annotations

from typing import Required, TypedDict

__all__ = ["EvaluationRow", "MetricsRow", "PairRow", "SFTRow", "StageEntry"]


class StageEntry(TypedDict, total=False):
    """What must hold of a finished stage in state.json, whatever else is said of it."""

    done: bool
    seconds: Required[float]
    faults: dict[str, int]
    skipped: bool
    reason: str
    pairs: int
    repaired: int
    hard: int
    rollouts: bool
    accuracies: dict[str, float | None]


class MetricsRow(TypedDict):
    """What must hold of a row of metrics.jsonl."""

    stage: str


class EvaluationRow(MetricsRow):
    """What must hold of an evaluation's row, from which tables and curves are made."""

    success: float
    low: float
    high: float
    calls: float
    tasks: int
    seconds: float


class SFTRow(TypedDict, total=False):
    """What must hold of a row of sft.jsonl for training."""

    input_ids: list[int]
    mask: list[int]


class PairRow(TypedDict, total=False):
    """What must hold of a row of preferences.jsonl for training."""

    split: Required[str]
    matched_format: Required[bool]
    chosen_ids: list[int]
    rejected_ids: list[int]
