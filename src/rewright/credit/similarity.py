"""Similarity of a predicted and a gold call (MatchTIR, section on tool-call similarity).

With Kp, Kg the argument names of the predicted and the gold call and n = |Kg|::

    S = 0                                   if the tool names differ (ignoring case)
    S = (1 + keys + values) / (2 + n)       otherwise
        keys   = |Kp & Kg| / |Kp | Kg|      (1 if both are empty)
        values = number of shared names with equal values

so S is 0 or lies in [1 / (2 + n), 1]. If a gold call lists allowed values (`rewright.credit.allowed`), any of them
counts as equal, and Kg contains the required arguments and the optional ones that the predicted call has. The settings
of a `rewright.credit.comparison.Comparison` say what else is equal. Differences from the released code: values are
compared as JSON (there `True` equals `1`), and a malformed call has similarity 0.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewright.credit.allowed import Allowed, any_of, read_allowed
from rewright.credit.calls import ReadCall, Values, calls_of, read_call
from rewright.credit.comparer import Comparer, comparer_of
from rewright.credit.formula import PARITY_WEIGHTS, Weights, check_weights, formula, jaccard

if TYPE_CHECKING:
    from rewright.credit.comparison import Comparison

__all__ = ["GoldCalls", "compare_calls", "matrix_of", "similarity", "similarity_matrix"]

_MAX_LOOP_PAIRS = 144
"""Number of pairs of one tool up to which a plain loop is faster than building arrays (measured)."""


def similarity(
    pred: Any,
    gold: Any,
    *,
    weights: Weights = PARITY_WEIGHTS,
    compare: Comparison | Mapping[str, Any] | None = None,
    tools: Sequence[Any] | None = None,
) -> float:
    """Compute the similarity in [0, 1] of a predicted and a gold call (MatchTIR, section on tool-call similarity).

    With weights (wn, wk, wv): (wn + wk * keys + wv * values) / (wn + wk + wv * n). A malformed call gives 0.0.
    `compare` are settings of the comparison, `tools` the schemas of the tools for its `defaults`. Raises ValueError for
    invalid weights.
    """
    return float(similarity_matrix([pred], [gold], weights=weights, compare=compare, tools=tools)[0, 0])


def similarity_matrix(
    preds: Sequence[Any],
    golds: Sequence[Any],
    *,
    weights: Weights = PARITY_WEIGHTS,
    compare: Comparison | Mapping[str, Any] | None = None,
    tools: Sequence[Any] | None = None,
) -> NDArray[Any]:
    """Compute the similarities of all pairs of P predicted and G gold calls, float64 (P, G); P and G may be 0.

    The arguments are those of `similarity`. Raises ValueError for invalid weights and for gold calls that are not a
    list.
    """
    check_weights(weights)
    gold = GoldCalls(golds, weights, comparer_of(compare, tools))
    read = gold.read(preds)
    return matrix_of(len(read), gold.count, compare_calls(read, gold))


Row = list[float]


class Block(NamedTuple):
    """The similarities of one tool's calls; calls of different tools have similarity 0.

    `rows` and `columns` are the indices of the predicted and gold calls in the full matrix.
    """

    rows: list[int]
    columns: list[int]
    scores: list[Row] | NDArray[np.float64]


class GoldTool:
    """The gold calls of one tool, their columns in the matrix, and indices for computing small and large blocks."""

    __slots__ = (
        "_coded", "_levels", "allowed", "columns", "comparer", "holders", "name", "names", "sets", "values", "weights"
    )  # fmt: skip

    def __init__(self, weights: Weights, name: str = "", comparer: Comparer | None = None) -> None:
        self.weights = weights
        self.name, self.comparer = name, comparer
        """The tool's name, and the comparer if its calls are compared pair by pair, else None."""
        self.columns: list[int] = []
        self.values: list[Values] = []
        self.sets: list[frozenset[Hashable]] = []
        """The argument names of each call."""
        self.holders: dict[Hashable, dict[Hashable, list[int]]] = {}
        """Argument name -> value -> indices in `values` of the calls that have it."""
        self.names: frozenset[Hashable] | None = None
        """The argument names if all calls have the same (the usual case), else None."""
        self.allowed: list[Allowed] | None = None
        """All calls, if one of them lists allowed values, else None. Such blocks are computed pair by pair."""
        self._levels: dict[frozenset[Hashable], Row] = {}
        self._coded: Coded | None = None

    def add_allowed(self, column: int, call: Allowed) -> None:
        """Add a call with allowed values, in column `column`."""
        if self.allowed is None:
            self.allowed = [any_of(values) for values in self.values]
        self.allowed.append(call)
        self.columns.append(column)

    def add(self, column: int, values: Values) -> None:
        """Add a call with arguments `values`, in column `column`."""
        if self.allowed is not None:
            self.add_allowed(column, any_of(values))
            return
        index, names = len(self.values), frozenset(values)
        self.names = names if index == 0 or self.names == names else None
        self.columns.append(column)
        self.values.append(values)
        self.sets.append(names)
        for name, value in values.items():
            self.holders.setdefault(name, {}).setdefault(value, []).append(index)

    def levels(self, names: frozenset[Hashable]) -> Row:
        """Similarities of a predicted call with argument names `names`, indexed by the number of equal values.

        Requires that `self.names` is not None.
        """
        levels = self._levels.get(names)
        if levels is None:
            assert self.names is not None
            counts = range(len(self.names) + 1)
            levels = self._levels[names] = [formula(names, self.names, count, self.weights) for count in counts]
        return levels

    @property
    def coded(self) -> Coded:
        """Values as integer codes, computed on first use by a large block."""
        if self._coded is None:
            values = self.values
            names = list(dict.fromkeys(name for call in values for name in call))
            codes: dict[Hashable, int] = {}
            for call in values:
                for value in call.values():
                    codes.setdefault(value, len(codes))
            sizes = np.array([len(call) for call in values], dtype=np.float64)
            self._coded = Coded(names, codes, _code_rows(values, names, codes, missing=-3), sizes)
        return self._coded


class Coded(NamedTuple):
    """Integer-coded argument values of the gold calls of one tool.

    Attributes:
        names: all argument names.
        codes: value -> integer code.
        coded: codes, int32 (calls, names).
        sizes: number of arguments of each call, float64 (calls,).
    """

    names: list[Hashable]
    codes: dict[Hashable, int]
    coded: NDArray[np.int32]
    sizes: NDArray[np.float64]


class GoldCalls:
    """Gold calls in comparable form, grouped by tool. Reusable for all trajectories of a task.

    `comparer`: settings of the comparison that are not MatchTIR's. Raises ValueError for gold calls that are not a
    list.
    """

    __slots__ = ("comparer", "count", "tools")

    def __init__(self, golds: Iterable[Any], weights: Weights, comparer: Comparer | None = None) -> None:
        if isinstance(golds, (str, bytes, Mapping)) or not isinstance(golds, Iterable):
            raise ValueError(f"the gold calls are {golds!r:.200}: expected a list of calls")
        if weights is not PARITY_WEIGHTS:  # Python floats: numpy float32 weights would lower the precision
            name_weight, key_weight, value_weight = weights
            weights = float(name_weight), float(key_weight), float(value_weight)
        self.tools: dict[str, GoldTool] = {}
        self.count = 0
        self.comparer = comparer
        if comparer is not None:
            for gold in golds:
                self._add_compared(gold, weights, comparer)
                self.count += 1
            return
        for gold in golds:
            call = read_call(gold)
            if call is not None:
                name, values = call
                tool = self.tools.get(name)
                if tool is None:
                    tool = self.tools[name] = GoldTool(weights)
                tool.add(self.count, values)
            elif (parsed := read_allowed(gold)) is not None:
                name, allowed = parsed
                self.tools.setdefault(name, GoldTool(weights)).add_allowed(self.count, allowed)
            self.count += 1

    def _add_compared(self, gold: Any, weights: Weights, comparer: Comparer) -> None:
        found = comparer.read_gold(gold)
        if found is None:
            return
        name, allowed = found
        tool = self.tools.get(name)
        if tool is None:
            in_pairs = comparer if comparer.compares_pairs(name) else None
            tool = self.tools[name] = GoldTool(weights, name, in_pairs)
        single = not allowed.optional and all(len(values) == 1 for values in allowed.values.values())
        if single and tool.comparer is None:
            tool.add(self.count, {argument: next(iter(values)) for argument, values in allowed.values.items()})
        else:
            tool.add_allowed(self.count, allowed)

    def read(self, preds: Any) -> list[ReadCall | None]:
        """Read predicted calls in the form that is compared with these gold calls."""
        read = read_call if self.comparer is None else self.comparer.read
        return [read(call) for call in calls_of(preds)]


def compare_calls(preds: Sequence[ReadCall | None], golds: GoldCalls) -> list[Block]:
    """Compute the blocks of the similarity matrix, one per tool called on both sides.

    The scores of small blocks are lists, those of large blocks arrays, whichever is faster to compute.
    """
    tools: dict[str, tuple[list[int], list[Values]]] = {}
    for row, pred in enumerate(preds):
        if pred is not None:
            name, values = pred
            if name in tools:
                rows, calls = tools[name]
                rows.append(row)
                calls.append(values)
            elif name in golds.tools:
                tools[name] = [row], [values]
    blocks: list[Block] = []
    for name, (rows, calls) in tools.items():
        tool = golds.tools[name]
        block = _large_block if len(rows) * len(tool.columns) > _MAX_LOOP_PAIRS else _small_block
        if tool.allowed is not None:
            block = _allowed_block
        blocks.append(Block(rows, tool.columns, block(calls, tool)))
    return blocks


def matrix_of(count: int, gold_count: int, blocks: list[Block]) -> NDArray[np.float64]:
    """Assemble the full similarity matrix, float64 (count, gold_count)."""
    if len(blocks) == 1 and np.shape(blocks[0].scores) == (count, gold_count):
        return np.array(blocks[0].scores, dtype=np.float64)
    matrix = np.zeros((count, gold_count))
    flat_indices: list[int] = []
    flat_scores: list[float] = []
    for rows, columns, scores in blocks:
        if not isinstance(scores, list):
            matrix[np.ix_(rows, columns)] = scores
            continue
        for row, row_scores in zip(rows, scores, strict=True):
            start = row * gold_count
            flat_indices.extend([start + column for column in columns])
            flat_scores.extend(row_scores)
    if flat_indices:
        matrix.reshape(-1)[flat_indices] = flat_scores
    return matrix


def _small_block(preds: list[Values], golds: GoldTool) -> list[Row]:
    """Similarities of a few calls of one tool, by a plain loop."""
    scores: list[Row] = []
    holders, count = golds.holders, len(golds.values)
    same = None if golds.names is None else golds.levels(golds.names)
    for pred in preds:
        equal_G = [0] * count
        same_names = len(pred) == len(holders)
        for name, value in pred.items():
            held = holders.get(name)
            if held is None:
                same_names = False
            elif value in held:
                for index in held[value]:
                    equal_G[index] += 1
        if same is not None and same_names:
            scores.append([same[equal] for equal in equal_G])
            continue
        names = frozenset(pred)
        if same is not None:
            levels = golds.levels(names)
            scores.append([levels[equal] for equal in equal_G])
        else:
            pairs = zip(golds.sets, equal_G, strict=True)
            scores.append([formula(names, other, equal, golds.weights) for other, equal in pairs])
    return scores


def _allowed_block(preds: list[Values], golds: GoldTool) -> list[Row]:
    """Similarities of the calls of one tool if some gold calls list allowed values."""
    assert golds.allowed is not None
    scores: list[Row] = []
    for pred in preds:
        names = frozenset(pred)
        row: Row = []
        for values, optional in golds.allowed:
            if golds.comparer is not None:
                row.append(golds.comparer.similarity(golds.name, pred, Allowed(values, optional), golds.weights))
                continue
            equal = sum(value in values[name] for name, value in pred.items() if name in values)
            row.append(formula(names, frozenset(values) - (optional - names), equal, golds.weights))
        scores.append(row)
    return scores


def _large_block(preds: list[Values], golds: GoldTool) -> NDArray[np.float64]:
    """Similarities of many calls of one tool (P, G): integer-coded values, compared one argument at a time."""
    names, codes, gold_GK, size_G = golds.coded
    # Missing predicted (-2) and gold (-3) arguments and values that no gold call has (-1) are never equal.
    pred_PK = _code_rows(preds, names, codes, missing=-2)
    equal_PG = np.zeros((len(preds), len(gold_GK)), dtype=np.int32)
    for pred_P, gold_G in zip(pred_PK.T, gold_GK.T, strict=True):
        equal_PG += pred_P[:, None] == gold_G
    name_weight, key_weight, value_weight = golds.weights
    denominator_G = name_weight + key_weight + value_weight * size_G
    overlap: NDArray[np.float64] | float = 1.0
    if golds.names is None or any(pred.keys() != golds.names for pred in preds):
        overlap = _key_overlap([frozenset(pred) for pred in preds], golds.sets)
    numerator_PG = (name_weight + key_weight * overlap) + (equal_PG if value_weight == 1.0 else value_weight * equal_PG)
    if denominator_G.all():
        return np.asarray(numerator_PG / denominator_G)
    return np.where(denominator_G > 0, numerator_PG / np.where(denominator_G > 0, denominator_G, 1.0), 1.0)


def _code_rows(
    calls: list[Values], names: list[Hashable], codes: dict[Hashable, int], missing: int
) -> NDArray[np.int32]:
    """Integer codes (calls, names): -1 for values without a code, `missing` for absent arguments.

    Arguments not in `names` are ignored.
    """
    get = codes.get
    rows = [
        [get(value, -1) for value in call.values()]
        if list(call) == names
        else [get(call[name], -1) if name in call else missing for name in names]
        for call in calls
    ]
    return np.array(rows, dtype=np.int32).reshape(len(calls), len(names))


def _key_overlap(preds: list[frozenset[Hashable]], golds: list[frozenset[Hashable]]) -> NDArray[np.float64]:
    """|Kp & Kg| / |Kp | Kg| of all pairs, float64 (P, G)."""
    kinds: dict[frozenset[Hashable], int] = {}
    pred_P = [kinds.setdefault(names, len(kinds)) for names in preds]
    gold_G = [kinds.setdefault(names, len(kinds)) for names in golds]
    used_P, index_P = np.unique(pred_P, return_inverse=True)
    used_G, index_G = np.unique(gold_G, return_inverse=True)
    known = list(kinds)
    table = np.array([[jaccard(known[p], known[g]) for g in used_G.tolist()] for p in used_P.tolist()])
    return np.asarray(table[index_P[:, None], index_G[None, :]])
