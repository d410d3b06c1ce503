"""From turns to tokens and back: advantages on every token of a turn, turn values out of token arrays.

B trajectories, L tokens. A span is a half-open range [start, end) of the tokens that the model wrote in one turn.
Tool tokens and padding belong to no span and get 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["per_token", "per_turn", "spans_from_mask"]


_LARGEST = float(np.finfo(np.float32).max)


def per_token(
    advantages: Sequence[ArrayLike], spans: Sequence[Sequence[tuple[int, int]]], length: int
) -> NDArray[np.float32]:
    """Each turn's advantage on each of its tokens: float32 (B, length), 0 elsewhere.

    `advantages`: B arrays (T_i,). `spans`: for each trajectory T_i pairs (start, end), positions in the row. What lies
    behind `length` (a truncated response) is cut off. Raises ValueError where the numbers of spans and advantages
    differ, for an advantage that float32 cannot hold, and for a span that is negative, ends before it starts, or starts
    before the end of the one before it.
    """
    if len(advantages) != len(spans):
        raise ValueError(f"{len(spans)} lists of spans, but {len(advantages)} advantage arrays: give one each")
    tokens = np.zeros((len(advantages), length), dtype=np.float32)
    for index, (values, ranges) in enumerate(zip(advantages, spans, strict=True)):
        numbers: list[float] = np.asarray(values, dtype=np.float64).tolist()
        if len(numbers) != len(ranges):
            raise ValueError(f"trajectory {index}: {len(ranges)} spans, but {len(numbers)} turn advantages")
        if not all(abs(value) <= _LARGEST for value in numbers):  # False for NaN too
            raise ValueError(f"trajectory {index}: advantages {numbers!r:.200}: expected finite numbers of float32")
        row = tokens[index]
        free = 0
        for value, (start, end) in zip(numbers, ranges, strict=True):
            if not 0 <= start <= end:
                raise ValueError(f"trajectory {index}: span ({start}, {end}) is no token range")
            if start < free:
                raise ValueError(f"trajectory {index}: span ({start}, {end}) starts before the last turn's end, {free}")
            row[start:end] = value
            free = end
    return tokens


def spans_from_mask(mask: ArrayLike) -> list[list[tuple[int, int]]]:
    """The turns of each row of a (B, L) mask of model tokens: every rising edge starts one, every falling edge ends it.

    Two turns with no tool token between them cannot be told apart and come back as one; a turn without tokens is
    not seen.
    """
    array = np.asarray(mask)
    if array.ndim != 2:
        raise ValueError(f"mask has shape {array.shape}: expected (B, L)")
    padded = np.zeros((array.shape[0], array.shape[1] + 2), dtype=np.int8)
    padded[:, 1:-1] = array != 0
    edges = np.diff(padded, axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    spans: list[list[tuple[int, int]]] = [[] for _ in range(array.shape[0])]
    for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True):
        spans[row].append((start, end))
    return spans


def per_turn(
    values: ArrayLike, mask: ArrayLike, *, how: Literal["first", "last", "sum"] = "first"
) -> list[NDArray[Any]]:
    """The inverse of `per_token`: B arrays float64 (T_i,), one number for each turn found in the (B, L) mask.

    "first" and "last" take the value at the turn's first or last token: `per_turn(per_token(a, spans, L), mask)` is
    `a`. "sum" adds the values of its tokens: turn rewards out of token-level rewards. Tokens outside the mask are
    not looked at.
    """
    if how not in ("first", "last", "sum"):
        raise ValueError(f"how is {how!r}: expected 'first', 'last' or 'sum'")
    array = np.asarray(values, dtype=np.float64)
    if array.shape != np.shape(mask):
        raise ValueError(f"values have shape {array.shape}, the mask {np.shape(mask)}: expected the same")
    results = []
    for row, spans in zip(array, spans_from_mask(mask), strict=True):
        if how == "sum":
            numbers = [float(row[start:end].sum()) for start, end in spans]
        else:
            numbers = [float(row[start if how == "first" else end - 1]) for start, end in spans]
        results.append(np.array(numbers, dtype=np.float64))
    return results
