"""How much a predicted call resembles a gold call: MatchTIR, section on tool-call similarity.

With Kp, Kg the argument names of the predicted and the gold call and n = |Kg|::

    S = 0                                   if the names differ (upper and lower case are the same)
    S = (1 + keys + values) / (2 + n)       else
        keys   = |Kp & Kg| / |Kp | Kg|      (1 if both are empty)
        values = number of shared names with equal values

so S is 0 or lies in [1 / (2 + n), 1]. Different from the released code: values are compared as JSON (there `True`
equals `1`), and a malformed call is a call with similarity 0.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewright.credit.calls import ReadCall, read_call

__all__ = ["PARITY_WEIGHTS", "Weights", "similarity", "similarity_matrix"]

Weights = tuple[float, float, float]
"""Weights of the three terms: name, argument names, argument values."""

PARITY_WEIGHTS: Weights = (1.0, 1.0, 1.0)

_SMALL = 64
"""Pairs of one tool up to which a plain loop is faster than building arrays (measured)."""


def similarity(pred: Any, gold: Any, *, weights: Weights = PARITY_WEIGHTS) -> float:
    """Similarity in [0, 1] of one predicted and one gold call (MatchTIR, tool-call similarity).

    With weights (wn, wk, wv): (wn + wk * keys + wv * values) / (wn + wk + wv * n). A malformed call gives 0.0.
    Raises ValueError only for unusable weights.
    """
    check_weights(weights)
    read_pred, read_gold = read_call(pred), read_call(gold)
    if read_pred is None or read_gold is None or read_pred.name != read_gold.name:
        return 0.0
    return _pair(read_pred.values, read_gold.values, weights)


def similarity_matrix(preds: Sequence[Any], golds: Sequence[Any], *, weights: Weights = PARITY_WEIGHTS) -> NDArray[Any]:
    """Similarities of all pairs: float64 (P, G), P = len(preds), G = len(golds); either may be 0."""
    check_weights(weights)
    matrix, _ = compare([read_call(call) for call in preds], [read_call(call) for call in golds], weights)
    return matrix


Block = tuple[list[int], list[int]]
"""Rows (predicted) and columns (gold) of the calls of one tool: only these can be similar."""


def compare(
    preds: Sequence[ReadCall | None], golds: Sequence[ReadCall | None], weights: Weights
) -> tuple[NDArray[np.float64], list[Block]]:
    """Similarity matrix (P, G) of calls already read, and its blocks: one per tool that both sides call."""
    matrix = np.zeros((len(preds), len(golds)))
    blocks: dict[str, Block] = {}
    for column, gold in enumerate(golds):
        if gold is not None:
            blocks.setdefault(gold.name, ([], []))[1].append(column)
    for row, pred in enumerate(preds):
        if pred is not None and (block := blocks.get(pred.name)) is not None:
            block[0].append(row)
    shared = [block for block in blocks.values() if block[0]]
    for rows, columns in shared:
        pred_values = [preds[row].values for row in rows]  # type: ignore[union-attr]
        gold_values = [golds[column].values for column in columns]  # type: ignore[union-attr]
        if len(rows) * len(columns) <= _SMALL:
            for row, pred_value in zip(rows, pred_values, strict=True):
                for column, gold_value in zip(columns, gold_values, strict=True):
                    matrix[row, column] = _pair(pred_value, gold_value, weights)
        else:
            matrix[np.ix_(rows, columns)] = _block(pred_values, gold_values, weights)
    return matrix, shared


def _pair(pred: dict[Hashable, Hashable], gold: dict[Hashable, Hashable], weights: Weights) -> float:
    """The formula for two calls of the same name."""
    common = equal = 0
    for key, value in gold.items():
        if key in pred:
            common += 1
            if pred[key] == value:
                equal += 1
    union = len(pred) + len(gold) - common
    keys = common / union if union else 1.0
    name_weight, key_weight, value_weight = weights
    denominator = name_weight + key_weight + value_weight * len(gold)
    if denominator == 0.0:
        return 1.0
    return (name_weight + key_weight * keys + value_weight * equal) / denominator


def _block(
    preds: list[dict[Hashable, Hashable]], golds: list[dict[Hashable, Hashable]], weights: Weights
) -> NDArray[np.float64]:
    """The formula for many calls of one tool: values become integer codes, compared one argument at a time."""
    columns: dict[Hashable, int] = {}
    codes: dict[Hashable, int] = {}
    gold_codes = [
        (
            [columns.setdefault(key, len(columns)) for key in gold],
            [codes.setdefault(value, len(codes)) for value in gold.values()],
        )
        for gold in golds
    ]
    # Missing arguments get codes that no value has and that differ between the two sides: they are never equal.
    gold_KG = np.full((len(columns), len(golds)), -3, dtype=np.int32)
    for index, (where, what) in enumerate(gold_codes):
        gold_KG[where, index] = what
    pred_KP = np.full((len(columns), len(preds)), -2, dtype=np.int32)
    for index, pred in enumerate(preds):
        for key, value in pred.items():
            column = columns.get(key)
            if column is not None:
                pred_KP[column, index] = codes.get(value, -1)
    equal_PG = np.zeros((len(preds), len(golds)))
    common_PG = np.zeros((len(preds), len(golds)))
    for pred_P, gold_G in zip(pred_KP, gold_KG, strict=True):
        equal_PG += pred_P[:, None] == gold_G
        common_PG += (pred_P > -2)[:, None] & (gold_G >= 0)
    pred_size = np.array([len(pred) for pred in preds], dtype=np.float64)[:, None]
    gold_size = np.array([len(gold) for gold in golds], dtype=np.float64)
    union_PG = pred_size + gold_size - common_PG
    keys_PG = np.where(union_PG > 0, common_PG / np.maximum(union_PG, 1.0), 1.0)
    name_weight, key_weight, value_weight = weights
    denominator = name_weight + key_weight + value_weight * gold_size
    numerator = name_weight + key_weight * keys_PG + value_weight * equal_PG
    safe = np.where(denominator > 0, denominator, 1.0)
    return np.where(denominator > 0, numerator / safe, 1.0)


def check_weights(weights: Weights) -> None:
    """Raise ValueError unless `weights` are three finite numbers, none negative, not all zero."""
    if weights is PARITY_WEIGHTS:
        return
    if len(weights) != 3 or not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise ValueError(
            f"weights are {weights!r}: expected three numbers >= 0, not all zero (name, argument names, values)"
        )
