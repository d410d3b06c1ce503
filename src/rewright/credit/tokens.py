"""Convert turn-level values to token-level arrays and back.

B trajectories, L tokens. A span is a half-open range [start, end) of the tokens generated in one turn. Tool tokens
and padding belong to no span and get 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["per_token", "per_turn", "spans_from_mask"]


_MAX_FLOAT32 = float(np.finfo(np.float32).max)


def per_token(
    advantages: Sequence[ArrayLike], spans: Sequence[Sequence[tuple[int, int]]], length: int
) -> NDArray[np.float32]:
    """Broadcast each turn's advantage to its tokens.

    Args:
        advantages: B arrays (T_i,).
        spans: for each trajectory T_i pairs (start, end), positions in the row.
        length: row length L; tokens beyond it (a truncated response) are dropped.

    Returns float32 (B, length), 0 outside the spans. Raises ValueError if the numbers of spans and advantages differ,
    if an advantage is not a finite float32, or if a span is negative, reversed or overlaps the previous one.
    """
    if len(advantages) != len(spans):
        raise ValueError(f"{len(spans)} lists of spans, but {len(advantages)} advantage arrays: give one each")
    tokens = np.zeros((len(advantages), length), dtype=np.float32)
    for index, (values, ranges) in enumerate(zip(advantages, spans, strict=True)):
        numbers: list[float] = np.asarray(values, dtype=np.float64).tolist()
        if len(numbers) != len(ranges):
            raise ValueError(f"trajectory {index}: {len(ranges)} spans, but {len(numbers)} turn advantages")
        if not all(abs(value) <= _MAX_FLOAT32 for value in numbers):  # False for NaN too
            raise ValueError(f"trajectory {index}: advantages {numbers!r:.200}: expected finite numbers of float32")
        row = tokens[index]
        previous_end = 0
        for value, (start, end) in zip(numbers, ranges, strict=True):
            if not 0 <= start <= end:
                raise ValueError(f"trajectory {index}: span ({start}, {end}) is not a token range")
            if start < previous_end:
                raise ValueError(
                    f"trajectory {index}: span ({start}, {end}) starts before the last turn's end, {previous_end}"
                )
            row[start:end] = value
            previous_end = end
    return tokens


def spans_from_mask(mask: ArrayLike) -> list[list[tuple[int, int]]]:
    """Find the spans of the turns in each row of a (B, L) mask of generated tokens: one span per run of ones.

    Adjacent turns without a tool token between them are returned as one span; a turn without tokens is not detected.
    Raises ValueError unless the mask has two axes.
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
    """Inverse of `per_token`: reduce token values to one value per turn.

    Args:
        values: token values (B, L).
        mask: generated tokens (B, L); each run of ones is a turn.
        how: "first" or "last" takes the value at the turn's first or last token, so that
            `per_turn(per_token(a, spans, L), mask)` is `a`. "sum" adds the values of the turn's tokens, which gives
            turn rewards from token-level rewards.

    Returns B arrays float64 (T_i,). Tokens outside the mask are ignored. Raises ValueError for an unknown `how` and
    for shapes that differ.
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
