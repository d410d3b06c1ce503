"""Credit signals: one number per turn, computed from whole trajectories. `matched` is MatchTIR's signal.

A signal is a function of a batch of trajectories, which may belong to several tasks::

    @register("signal", "short_thoughts")               # from rewright.core.registry import register
    def short_thoughts(trajectories: Sequence[CreditTrajectory]) -> list[list[float]]:
        return [[1.0 / (1 + len(turn.text or "")) for turn in rollout.turns] for rollout in trajectories]

It returns a `TurnSignal`, or one sequence of T rewards per trajectory, with NaN for rewards that could not be
computed. Its other arguments are its settings, which a recipe sets if a class for them is declared with
`rewright.credit.with_settings`. Its values exclude the outcome, which is added once, before advantages
are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewright.core.errors import RewrightError
from rewright.core.registry import known
from rewright.credit.formula import MAX_MAGNITUDE, as_floats
from rewright.credit.lookup import find_function, validated
from rewright.credit.matching import Matching, match_many
from rewright.credit.resources import Resources, resources_for
from rewright.credit.rewards import add_outcomes, turn_rewards_many, turn_rewards_of_matches
from rewright.credit.trajectories import CreditTrajectory

__all__ = ["KINDS", "Signal", "TurnSignal", "find_signal", "matched", "outcome", "signal_names", "turn_signal"]

Array = NDArray[np.float64]
Kind = Literal["reward", "value", "advantage"]

KINDS: Final = ("reward", "value", "advantage")
"""Kinds of signals: the reward of a turn, the value of the state after it, or its advantage."""


@dataclass(frozen=True, slots=True)
class TurnSignal:
    """One number per turn of B trajectories.

    Attributes:
        values: B arrays float64 (T_i,).
        missing: B arrays bool (T_i,), True where the number could not be computed; the value there is 0.
        kind: "reward", "value" (of the state after the turn) or "advantage".
        initial: float64 (B,), the values of the states before the first turn; NaN if unknown. Only for kind "value".
            None: all are unknown. Where it is unknown, the reward of the first turn with a value is missing.
        stats: metrics to log.
        provenance: the signal's name and settings.
        details: the intermediate results, one entry per trajectory (a `Match` for `matched`), if requested.
        causes: why a number of a trajectory is missing, by its index; only of trajectories where that is known.
        added: B arrays (T_i,), advantages beside rewards or values, which a sum of signals of several kinds has.
    """

    values: list[Array]
    missing: list[NDArray[np.bool_]]
    kind: Kind = "reward"
    initial: ArrayLike | None = None
    stats: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    details: list[Any] | None = None
    causes: Mapping[int, str] = field(default_factory=dict)
    added: list[Array] | None = None

    @classmethod
    def of(cls, values: Iterable[ArrayLike], **fields: Any) -> TurnSignal:
        """Build a signal from values with NaN for missing numbers. `fields`: the other attributes.

        Raises ValueError for a row that is not a one-dimensional sequence of numbers.
        """
        arrays, masks = [], []
        for index, row in enumerate(values):
            try:
                array = as_floats(row).copy()
            except (TypeError, ValueError, OverflowError) as problem:
                raise ValueError(f"values[{index}] is {row!r:.200}: expected numbers ({problem})") from None
            if array.ndim != 1:
                raise ValueError(f"values[{index}] has shape {array.shape}: expected one number for each turn, (T,)")
            mask = np.isnan(array)
            array[mask] = 0.0
            arrays.append(array)
            masks.append(mask)
        return cls(arrays, masks, **fields)

    @property
    def rewards(self) -> list[Array]:
        """Turn rewards, B arrays (T_i,): rewards unchanged, values as differences, zeros for advantages.

        A missing number gives reward 0. The difference of a value is to the last known value before it, so gaps are
        bridged; without one (`initial` included) it is 0, and missing (`missing_rewards`).
        """
        if self.kind == "reward":
            return [row.copy() for row in self.values]
        if self.kind == "advantage":
            return [np.zeros(len(row)) for row in self.values]
        return [_differences(*parts) for parts in zip(self.values, self.missing, self.starts, strict=True)]

    @property
    def starts(self) -> list[float]:
        """The values of the states before the first turn (B,), NaN if unknown (`initial`)."""
        if self.initial is None:
            return [math.nan] * len(self.values)
        return [float(start) for start in np.asarray(self.initial, dtype=np.float64)]

    @property
    def missing_rewards(self) -> list[NDArray[np.bool_]]:
        """Which of `rewards` are missing, B arrays (T_i,): where a number is, and the first difference of a value whose
        start is unknown."""
        if self.kind != "value":
            return self.missing
        masks = []
        for mask, start in zip(self.missing, self.starts, strict=True):
            known = np.flatnonzero(~mask)
            is_first = np.arange(len(mask)) == known[0] if len(known) else np.zeros(len(mask), dtype=bool)
            masks.append(mask | is_first if math.isnan(start) else mask)
        return masks

    @property
    def advantages(self) -> list[Array] | None:
        """The advantages that are added to those of an estimator, B arrays (T_i,); None if there are none."""
        return self.values if self.kind == "advantage" else self.added

    @property
    def marked_rewards(self) -> list[Array]:
        """`rewards`, with NaN where one is missing (`missing_rewards`)."""
        pairs = zip(self.rewards, self.missing_rewards, strict=True)
        return [np.where(mask, np.nan, row) if mask.any() else row for row, mask in pairs]


Signal = Callable[..., TurnSignal | Iterable[ArrayLike]]
"""A function of `Sequence[CreditTrajectory]` and keyword settings."""


def turn_signal(
    trajectories: Iterable[CreditTrajectory],
    signal: str | Signal = "matched",
    *,
    outcomes: Iterable[float | None] | None = None,
    resources: Resources | None = None,
    **settings: Any,
) -> TurnSignal:
    """Compute a signal for the turns of B trajectories.

    Args:
        trajectories: B trajectories.
        signal: a registered name ("matched", "outcome"), an import path "package.module:function", or a function.
        outcomes: (B,), added to the last turn's reward, as in MatchTIR; None: not added. (The outcomes stored in the
            trajectories are only inputs of the signal.)
        resources: what a signal may need besides the trajectories, such as a model that scores tokens.
        settings: keyword arguments of the signal.

    Raises ValueError for an unknown signal (listing the known ones), a resource that the signal needs and that is not
    given, a signal that raises or returns wrong shapes or values that are not finite, a wrong number of outcomes, and
    outcomes for a signal that is not a reward. Errors of Rewright's own (`RewrightError`, as of a server that is down)
    are passed on.
    """
    batch = list(trajectories)
    function = find_signal(signal)
    name = signal if isinstance(signal, str) else getattr(signal, "__qualname__", repr(signal))
    provided = resources_for(function, name, resources)
    settings = validated("signal", name, function, settings)
    try:
        returned = function(batch, **provided, **settings)
        result = returned if isinstance(returned, TurnSignal) else TurnSignal.of(returned)
    except RewrightError:  # a server that is down, say
        raise
    except Exception as problem:  # user code can raise anything
        if function in (matched, outcome) and isinstance(problem, ValueError):  # the message already names the setting
            raise
        raise ValueError(f"signal {name!r} failed: {type(problem).__name__}: {problem}") from problem
    result = _checked(name, result, batch)
    if outcomes is not None:
        if result.kind != "reward":
            raise ValueError(f"signal {name!r} gives no rewards ({result.kind}): outcomes cannot be added to it")
        result = replace(result, values=add_outcomes(result.values, list(outcomes)))
    result = replace(result, provenance={"signal": name, "settings": settings, **result.provenance})
    if result.kind != "value":
        return result
    unknown = {
        index: "the value of the state before its first turn is unknown"
        for index, (own, whole) in enumerate(zip(result.missing, result.missing_rewards, strict=True))
        if (own != whole).any()
    }
    return replace(result, causes=unknown | dict(result.causes))


def signal_names() -> list[str]:
    """Return the sorted names of the registered signals, including those of installed packages."""
    return known("signal")


def find_signal(signal: str | Signal) -> Signal:
    """Look up a signal (see `find_function`). Raises ValueError listing the known names."""
    return find_function("signal", signal)


def matched(
    trajectories: Sequence[CreditTrajectory],
    *,
    aggregate: Literal["mean", "sum"] = "mean",
    details: bool = False,
    **matching: Unpack[Matching],
) -> TurnSignal:
    """Compute MatchTIR's turn rewards from matched calls (`rewright.credit.turn_rewards`), without outcomes.

    The kind is "reward", and no number is missing: a trajectory without gold calls has rewards 0.

    Args:
        trajectories: B trajectories.
        aggregate: "mean" or "sum" of the call rewards of a turn.
        details: keep the `Match` of each trajectory.
        matching: the settings of `rewright.credit.match`.
    """
    turns, golds = [trajectory.calls for trajectory in trajectories], [trajectory.golds for trajectory in trajectories]
    tools = [trajectory.tools for trajectory in trajectories]
    compare = matching.get("compare")
    given = compare.get("defaults") if isinstance(compare, Mapping) else getattr(compare, "defaults", False)
    if given is True and tools and not any(tools):
        raise ValueError(
            "compare.defaults is true, and no trajectory has the schemas of its tools: expected the defaults, as "
            "{tool: {argument: default}}"
        )
    matches = None
    if details:
        matches = match_many(
            [
                ([call for turn in trajectory_turns for call in turn], gold, known)
                for trajectory_turns, gold, known in zip(turns, golds, tools, strict=True)
            ],
            **matching,
        )
        values = turn_rewards_of_matches(turns, matches, aggregate=aggregate)
    else:
        values = turn_rewards_many(turns, golds, tools=tools, aggregate=aggregate, **matching)
    return TurnSignal(values, [np.zeros(len(row), dtype=bool) for row in values], details=matches)


def outcome(trajectories: Sequence[CreditTrajectory]) -> TurnSignal:
    """Return zero turn rewards, so that only the outcome, which is added later, is rewarded (as in GRPO)."""
    return TurnSignal.of([np.zeros(len(trajectory.turns)) for trajectory in trajectories])


def _differences(values: Array, missing: NDArray[np.bool_], previous: float) -> Array:
    """Return differences of consecutive known values, (T,); 0 where unknown. `previous` is the initial value or NaN."""
    differences = np.zeros(len(values))
    for turn, (value, is_missing) in enumerate(zip(values.tolist(), missing.tolist(), strict=True)):
        if is_missing:
            continue
        if not math.isnan(previous):
            differences[turn] = value - previous
        previous = value
    return differences


def _checked(name: str, signal: TurnSignal, trajectories: Sequence[CreditTrajectory]) -> TurnSignal:
    """Return the signal with arrays, 0 where a number is missing.

    Raises ValueError for a wrong kind, wrong shapes, advantages in two places, or non-finite values.
    """
    if signal.kind not in KINDS:
        raise ValueError(f"signal {name!r} has the kind {signal.kind!r}: expected one of {', '.join(KINDS)}")
    if signal.kind == "advantage" and signal.added is not None:
        raise ValueError(f"signal {name!r} has `added` beside advantages: expected their sum as its values")
    count = len(trajectories)
    named = (
        ("values", signal.values),
        ("missing", signal.missing),
        ("details", signal.details),
        ("added", signal.added),
    )
    for what, rows in named:
        if rows is not None and len(rows) != count:
            raise ValueError(f"signal {name!r} has {len(rows)} {what}: expected {count}, one for each trajectory")
    _check_initial(name, signal.initial, count)
    masks = [np.asarray(mask, dtype=bool) for mask in signal.missing]
    values = _checked_rows(name, "values", signal.values, masks, trajectories)
    added = None
    if signal.added is not None:
        added = _checked_rows(name, "added", signal.added, masks, trajectories)
    return replace(signal, values=values, missing=masks, added=added)


def _checked_rows(
    name: str,
    what: str,
    given: Sequence[ArrayLike],
    masks: Sequence[NDArray[np.bool_]],
    trajectories: Sequence[CreditTrajectory],
) -> list[Array]:
    """Return B rows of numbers (T_i,), 0 where one is missing. Raises ValueError for others than finite numbers."""
    try:
        rows = [as_floats(row) for row in given]
    except (TypeError, ValueError, OverflowError) as problem:
        raise ValueError(f"signal {name!r}: {what} is {given!r:.200}: expected numbers ({problem})") from None
    _check_shapes(name, what, rows, trajectories)
    _check_shapes(name, "missing", masks, trajectories)
    if rows and np.concatenate(masks).any():
        rows = [np.where(mask, 0.0, row) for row, mask in zip(rows, masks, strict=True)]
    if rows and not (np.abs(np.concatenate(rows)) <= MAX_MAGNITUDE).all():  # False for NaN too
        index, row = next((i, row) for i, row in enumerate(rows) if not (np.abs(row) <= MAX_MAGNITUDE).all())
        raise ValueError(
            f"signal {name!r}: {what}[{index}] is {row.tolist()!r:.200}: expected finite numbers, and missing set "
            "where there is none"
        )
    return rows


def _check_shapes(name: str, what: str, rows: Sequence[NDArray[Any]], trajectories: Sequence[CreditTrajectory]) -> None:
    for index, (row, trajectory) in enumerate(zip(rows, trajectories, strict=True)):
        if row.shape != (len(trajectory.turns),):
            raise ValueError(
                f"signal {name!r}: {what}[{index}] has shape {row.shape}: expected ({len(trajectory.turns)},), "
                "one for each turn"
            )


def _check_initial(name: str, initial: ArrayLike | None, count: int) -> None:
    """Raise ValueError unless there is one number for each of `count` trajectories, or NaN, or no `initial`."""
    if initial is None:
        return
    if np.shape(initial) != (count,):
        raise ValueError(f"signal {name!r}: initial has shape {np.shape(initial)}: expected ({count},)")
    try:
        starts = np.asarray(initial, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as problem:
        raise ValueError(f"signal {name!r}: initial is {initial!r:.200}: expected numbers ({problem})") from None
    if not (np.isnan(starts) | (np.abs(starts) <= MAX_MAGNITUDE)).all():
        raise ValueError(f"signal {name!r}: initial is {starts.tolist()!r:.200}: expected finite numbers, or NaN")
