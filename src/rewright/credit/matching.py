"""Which predicted call is paid for which gold call: optimal, greedy or by optimal transport (MatchTIR, assignments).

`match` does one trajectory, `match_many` a batch: the same numbers, the transport problems solved together. P
predicted calls, G gold calls.
"""
# ruff: noqa: N815  (arrays are named by axis)

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rewright.credit.calls import ReadCall, calls_of, read_call
from rewright.credit.similarity import (
    LARGEST,
    PARITY_WEIGHTS,
    Block,
    GoldCalls,
    Row,
    Weights,
    check_weights,
    compare,
    is_finite,
    matrix_of,
)
from rewright.credit.transport import plans

__all__ = ["Assignment", "Match", "match", "match_many"]

Assignment = Literal["optimal", "greedy", "ot"]
Pairs = list[tuple[int, int]]
Problem = tuple[Sequence[Any] | None, Sequence[Any] | None]

_EXACT_FIRST = 1e-9
_EARLY_FIRST = 1e-14
"""Ties between equally good assignments: first towards larger squares (an exact match and a poor one rather than two
halves), then towards earlier predicted calls.

Both are far below any difference that similarities (fractions with small denominators) can have."""


@dataclass(frozen=True, slots=True)
class Match:
    """What the predicted calls of one trajectory are paid.

    `rewards_P`: float64 (P,). `similarity_PG`: float64 (P, G). `pairs`: matched (predicted, gold) indices by predicted
    index for a hard assignment, None for "ot". `plan_PG`: float64 (P, G) transport plan for "ot" (sums to 1; zeros
    where there is nothing to transport), None for a hard assignment.
    """

    rewards_P: NDArray[np.float64]
    similarity_PG: NDArray[np.float64]
    pairs: Pairs | None = None
    plan_PG: NDArray[np.float64] | None = None


def match(
    preds: Sequence[Any],
    golds: Sequence[Any],
    *,
    assignment: Assignment = "optimal",
    unmatched: float = 0.0,
    reg: float = 0.1,
    ot_scale: Literal["raw", "calls"] = "raw",
    weights: Weights = PARITY_WEIGHTS,
) -> Match:
    """Match the predicted calls of one trajectory to the gold calls.

    "optimal": maximum total similarity, one to one (MatchTIR's KM); a pair of similarity 0 is no match; the reward
    of a call is the similarity of its pair, or `unmatched`. Ties go to the assignment with the larger sum of squares
    (rather an exact match and a poor one than two halves), then to earlier predicted calls. "greedy": the rule of the
    released code: pairs in falling order of similarity, ties by lower predicted then lower gold index, taken while
    both are free and the similarity is positive. "ot": entropic transport of uniform marginals 1/P to 1/G with cost
    -S and regularisation `reg`, to a marginal error of 1e-9; reward of call i = sum_j T_ij S_ij, times P with
    `ot_scale="calls"`; `unmatched` plays no part.

    P = 0 gives an empty array; G = 0 gives zeros, whatever `unmatched` is: nothing to be measured against. A malformed
    call never matches and gets min(unmatched, 0). `preds` that are no list are that one call. Raises ValueError for
    settings and for gold calls that are no list, never for predicted calls.
    """
    return match_many(
        [(preds, golds)], assignment=assignment, unmatched=unmatched, reg=reg, ot_scale=ot_scale, weights=weights
    )[0]


def match_many(
    problems: Iterable[Problem],
    *,
    assignment: Assignment = "optimal",
    unmatched: float = 0.0,
    reg: float = 0.1,
    ot_scale: Literal["raw", "calls"] = "raw",
    weights: Weights = PARITY_WEIGHTS,
) -> list[Match]:
    """`match` for a list of (preds, golds): one `Match` each, in order; transport is vectorised over problems."""
    _check_settings(assignment, unmatched, reg, ot_scale)
    read = _read(problems, weights)
    if assignment == "ot":
        return _transported(read, reg, ot_scale)
    matches = []
    for preds, gold in read:
        blocks = compare(preds, gold)
        pairs, rewards = _hard(preds, gold, blocks, assignment, unmatched)
        matches.append(Match(np.array(rewards, dtype=np.float64), matrix_of(len(preds), gold.count, blocks), pairs))
    return matches


def call_rewards(
    problems: Iterable[Problem],
    *,
    assignment: Assignment,
    unmatched: float,
    reg: float,
    ot_scale: Literal["raw", "calls"],
    weights: Weights,
) -> list[list[float]]:
    """`rewards_P` of `match_many` as lists, without what nobody looks at while training (no matrix is built)."""
    _check_settings(assignment, unmatched, reg, ot_scale)
    read = _read(problems, weights)
    if assignment == "ot":
        return [found.rewards_P.tolist() for found in _transported(read, reg, ot_scale)]
    return [_hard(preds, gold, compare(preds, gold), assignment, unmatched)[1] for preds, gold in read]


Read = tuple[list[ReadCall | None], GoldCalls]


def _read(problems: Iterable[Problem], weights: Weights) -> list[Read]:
    """Calls in comparable form. The rollouts of a group share one gold list: it is read once."""
    check_weights(weights)
    problems = list(problems)  # keeps the lists alive, so that their ids stay theirs
    known: dict[int, GoldCalls] = {}
    read: list[Read] = []
    for preds, golds in problems:
        gold = known.get(id(golds))
        if gold is None:
            gold = known[id(golds)] = GoldCalls(() if golds is None else golds, weights)
        read.append(([read_call(call) for call in calls_of(preds)], gold))
    return read


def _transported(read: list[Read], reg: float, ot_scale: str) -> list[Match]:
    """Matches by optimal transport, all problems together."""
    matrices = [matrix_of(len(preds), gold.count, compare(preds, gold)) for preds, gold in read]
    return [
        Match((plan * matrix).sum(axis=1) * (len(matrix) if ot_scale == "calls" else 1.0), matrix, plan_PG=plan)
        for matrix, plan in zip(matrices, plans(matrices, reg), strict=True)
    ]


def _hard(
    preds: list[ReadCall | None], gold: GoldCalls, blocks: list[Block], assignment: str, unmatched: float
) -> tuple[Pairs, list[float]]:
    """Pairs of a hard assignment by predicted index, and the rewards of the predicted calls."""
    rewards = [0.0] * len(preds)
    if unmatched != 0.0 and gold.count:
        rewards = [min(unmatched, 0.0) if call is None else unmatched for call in preds]
    pairs: Pairs = []
    chosen = [_greedy(block.scores) for block in blocks] if assignment == "greedy" else _optimal(blocks)
    for (rows, columns, scores), places in zip(blocks, chosen, strict=True):
        for i, j in places:
            score = scores[i][j]
            if score > 0.0:
                rewards[rows[i]] = float(score)
                pairs.append((rows[i], columns[j]))
    pairs.sort()
    return pairs, rewards


def _optimal(blocks: list[Block]) -> list[Pairs]:
    """Optimal pairs of each block. The costs of all small ones that need the solver are made in one array."""
    chosen: list[Pairs] = []
    waiting: list[tuple[int, list[Row]]] = []
    for _, _, scores in blocks:
        if isinstance(scores, list):
            pairs = _seen(scores)
            if pairs is None:
                waiting.append((len(chosen), scores))
            chosen.append(pairs or [])
        else:
            chosen.append(_solved(-_worth(scores)))
    if waiting:
        entries = chain.from_iterable(line for _, scores in waiting for line in scores)
        costs = -_worth(np.array(list(entries), dtype=np.float64))
        start = 0
        for place, scores in waiting:
            stop = start + len(scores) * len(scores[0])
            chosen[place] = _solved(costs[start:stop].reshape(len(scores), -1))
            start = stop
    return chosen


def _seen(scores: list[Row]) -> Pairs | None:
    """Optimal pairs of a few calls where the answer can be seen; None where it takes the solver."""
    if len(scores[0]) == 1:
        column = [line[0] for line in scores]
        return [(column.index(max(column)), 0)]
    favourites = [line.index(max(line)) for line in scores]
    if len(set(favourites)) == len(favourites):  # everybody gets what suits best: nothing can be better
        return list(enumerate(favourites))
    if len(scores) == 2:
        return list(enumerate(_two(*([_worth(score) for score in line] for line in scores))))
    if len(scores[0]) == 2:
        first, second = _two(
            *([_worth(line[place]) - row * _EARLY_FIRST for row, line in enumerate(scores)] for place in (0, 1))
        )
        return [(first, 0), (second, 1)]
    return None


def _worth(score: Any) -> Any:
    """What a pair (or an array of pairs) counts for in the choice of an assignment."""
    return score * (1.0 + _EXACT_FIRST * score)


def _two(first: list[float], second: list[float]) -> tuple[int, int]:
    """Where two lines of values find their best places, if they must not share one."""
    best_first, best_second = first.index(max(first)), second.index(max(second))
    if best_first != best_second:
        return best_first, best_second
    others = [place for place in range(len(first)) if place != best_first]
    next_first = max(others, key=first.__getitem__)
    next_second = max(others, key=second.__getitem__)
    if first[best_first] + second[next_second] >= second[best_second] + first[next_first]:
        return best_first, next_second
    return next_first, best_second


def _solved(costs_PG: NDArray[np.float64]) -> Pairs:
    """Optimal pairs by scipy's solver (shortest augmenting paths). Changes `costs_PG`."""
    count = len(costs_PG)
    if count > costs_PG.shape[1]:  # else every predicted call has a partner, and none has to stand back
        costs_PG += _stand_back(count)
    rows, columns = _solver()(costs_PG)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


@cache
def _stand_back(count: int) -> NDArray[np.float64]:
    """What later predicted calls cost on top: float64 (count, 1)."""
    return np.arange(count, dtype=np.float64)[:, None] * _EARLY_FIRST


@cache
def _solver() -> Any:
    """scipy's solver, imported on first use: importing scipy.optimize takes longer than importing Rewright."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment


def _greedy(scores: list[Row] | NDArray[np.float64]) -> Pairs:
    """Pairs in falling order of similarity, ties by lower row then lower column, while both are free.

    Done tool by tool: calls of different tools never compete, and rows and columns of a block keep their order.
    """
    # Rounded: equal fractions reached by different sums may differ in the last bit, and are ties.
    if isinstance(scores, list):
        ranked = [(-round(score, 12), i, j) for i, line in enumerate(scores) for j, score in enumerate(line)]
        ranked.sort()
        order = [(i, j) for _, i, j in ranked]
    else:
        falling = np.argsort(-np.round(scores, 12), axis=None, kind="stable")
        order = list(zip(*(places.tolist() for places in np.unravel_index(falling, scores.shape)), strict=True))
    most = min(len(scores), len(scores[0]))
    pairs: Pairs = []
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    for i, j in order:
        if i not in used_rows and j not in used_columns:
            used_rows.add(i)
            used_columns.add(j)
            pairs.append((i, j))
            if len(pairs) == most:
                break
    return pairs


def _check_settings(assignment: str, unmatched: float, reg: float, ot_scale: str) -> None:
    """Raise ValueError with what was given and what is possible."""
    if assignment not in ("optimal", "greedy", "ot"):
        raise ValueError(f"assignment is {assignment!r}: expected 'optimal', 'greedy' or 'ot'")
    if ot_scale not in ("raw", "calls"):
        raise ValueError(f"ot_scale is {ot_scale!r}: expected 'raw' or 'calls'")
    if not (is_finite(reg) and reg > 0.0):
        raise ValueError(f"reg is {reg!r}: expected a number above 0")
    if not is_finite(unmatched) or abs(float(unmatched)) > LARGEST:
        raise ValueError(f"unmatched is {unmatched!r}: expected a finite number (of at most {LARGEST:g})")
