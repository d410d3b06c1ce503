"""Compare signals with measured effects: the statistics of an audit's table. Numpy and scipy only.

All signals are compared on the same turns. Intervals are percentiles of a bootstrap of tasks, in which all signals see
the same resamples, so that two of them can be compared.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewright.audit.effects import Effects, ceiling
from rewright.audit.ranks import area, correlation, partial_spearman, ranks, rounded, spearman, within_groups

__all__ = [
    "COVARIATES",
    "FEW_TASKS",
    "Difference",
    "Estimate",
    "SignalRow",
    "Table",
    "coded",
    "compare",
    "estimate",
    "few_tasks",
    "task_weights",
]

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

COVARIATES: Final = ("log_prob", "index", "length")
"""What the partial correlation holds fixed: mean log-probability of a turn, its number, its number of tokens."""
_LEVEL = (2.5, 97.5)
FEW_TASKS: Final = 10
"""With fewer tasks the intervals are too narrow: of a random signal 38 of 60 contain 0 with 2 tasks, 59 with 10."""


class Estimate(NamedTuple):
    """A number with its 95% interval. NaN: not defined, as the interval is of a single task."""

    value: float
    low: float
    high: float

    @property
    def covers_zero(self) -> bool:
        """Whether the interval contains 0."""
        return bool(self.low <= 0 <= self.high)


class Difference(NamedTuple):
    """The pooled rank correlation of one signal less that of another, with its 95% interval (paired)."""

    signal: str
    other: str
    rho: Estimate


@dataclass(frozen=True)
class SignalRow:
    """What a signal says of the effects of the audited turns.

    Attributes:
        signal: its name.
        rho: Spearman's correlation with the effects over all turns.
        corrected: `rho` divided by the root of the reliability of the effects. A perfect signal scores below 1.
        within: the median over trajectories of Spearman's correlation inside a trajectory.
        auc_not_zero: area under the ROC curve of |signal| for effects that are not zero.
        auc_harmful: the area of -signal for effects that are negative.
        sign: share of equal signs among effects that are not zero, where the signal is not 0.
        partial: the rank correlation given log-probability, number and length of the turn.
        band: the range of 95% of `rho` if the signal is shuffled inside each trajectory.
        ess: effective sample size of the signal, (sum |A|)^2 / sum A^2, in turns.
        missing: number of turns without a value, which no signal is compared on.
    """

    signal: str
    rho: Estimate
    corrected: float
    within: Estimate
    auc_not_zero: Estimate
    auc_harmful: Estimate
    sign: float
    partial: Estimate
    band: tuple[float, float]
    ess: float
    missing: int = 0

    @property
    def distinguishable(self) -> bool:
        """Whether `rho` lies outside the band of shuffled signals, and has an interval that does not contain 0."""
        if np.isnan([*self.rho, *self.band]).any():
            return False
        return not (self.band[0] <= self.rho.value <= self.band[1] or self.rho.covers_zero)


@dataclass(frozen=True)
class Table:
    """The comparison. `ceiling` has what a perfect signal would score, by the names of `SignalRow`."""

    rows: list[SignalRow]
    turns: int
    tasks: int
    not_zero: float
    harmful: float
    reliability: float
    ceiling: Mapping[str, float]
    differences: list[Difference] = field(default_factory=list)


def compare(
    signals: Mapping[str, Array],
    effects: Effects,
    *,
    tasks: Sequence[Hashable],
    trajectories: Sequence[Hashable],
    covariates: Mapping[str, Array] | None = None,
    seed: int = 0,
    resamples: int = 2000,
    shuffles: int = 1000,
    simulations: int = 200,
) -> Table:
    """Compare signals with the effects of N turns.

    Args:
        signals: values (N,) by name; NaN where missing. A turn that any signal lacks is left out for all of them.
        effects: the effects of the N turns.
        tasks, trajectories: the task and the trajectory of each turn (N,).
        covariates: values (N,) of `COVARIATES`; one with NaN is left out. A signal is no covariate of itself.
        seed: seed of the bootstrap, the shuffles and the simulations.
        resamples, shuffles, simulations: their numbers.

    Raises ValueError for wrong lengths, and if fewer than 3 turns are left.
    """
    count = len(effects.values)
    for name, values in [*signals.items(), *(covariates or {}).items()]:
        if np.shape(values) != (count,):
            raise ValueError(f"{name} has shape {np.shape(values)}: expected ({count},), one number for each turn")
    signals = {name: rounded(values) for name, values in signals.items()}
    covariates = {name: rounded(values) for name, values in (covariates or {}).items()}
    kept = ~np.isnan(effects.values)
    for values in signals.values():
        kept &= ~np.isnan(values)
    if kept.sum() < 3:
        raise ValueError(f"{int(kept.sum())} turns have an effect and a value of every signal: expected at least 3")
    known, number, random = effects.take(kept), int(kept.sum()), np.random.default_rng(seed)
    task_codes = coded([task for task, keep in zip(tasks, kept, strict=True) if keep])
    groups = coded([one for one, keep in zip(trajectories, kept, strict=True) if keep])
    group_tasks = np.zeros(int(groups.max()) + 1, dtype=np.intp)
    group_tasks[groups] = task_codes
    counts = task_weights(int(task_codes.max()) + 1, resamples, random)
    others = {name: values[kept] for name, values in covariates.items() if not np.isnan(values[kept]).any()}
    work = _Work(
        known,
        groups,
        weights=counts[:, task_codes],
        group_weights=counts[:, group_tasks],
        others=others,
        orders=_orders(groups, shuffles, random),
    )
    reliability = known.reliability(random)
    found, drawn = [], {}
    for name, values in signals.items():
        row, drawn[name] = work.row(
            name, values[kept], reliability, int(np.isnan(values[~np.isnan(effects.values)]).sum())
        )
        found.append(row)
    by_name = {row.signal: row for row in found}
    differences = [
        Difference(one, other, estimate(by_name[one].rho.value - by_name[other].rho.value, drawn[one] - drawn[other]))
        for one, other in itertools.combinations(by_name, 2)
    ]
    return Table(
        found,
        turns=number,
        tasks=int(task_codes.max()) + 1,
        not_zero=float(known.not_zero.mean()),
        harmful=float(known.harmful.mean()),
        reliability=reliability,
        ceiling=ceiling(known, groups, random, simulations=simulations),
        differences=differences,
    )


def coded(labels: Sequence[Hashable]) -> Codes:
    """Return codes from 0 in order of appearance (N,)."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.intp)


def few_tasks(tasks: int) -> str | None:
    """Return a warning for a number of tasks that is too small for intervals; None if it is not."""
    if tasks >= FEW_TASKS:
        return None
    what = "there are no intervals" if tasks < 2 else "the 95% intervals are too narrow"
    return f"warning: {what} with {tasks} task{'s' * (tasks != 1)}: expected at least {FEW_TASKS}"


def task_weights(tasks: int, resamples: int, random: np.random.Generator) -> Array:
    """Return how often each task is drawn in each bootstrap resample (B, tasks).

    One task has no resamples, (0, 1): all would be equal, and their interval would have no width.
    """
    resamples = resamples if tasks > 1 else 0
    return random.multinomial(tasks, np.full(tasks, 1.0 / tasks), size=resamples).astype(np.float64)


class _Work:
    """What is the same for all signals: effects, resamples, shuffles."""

    def __init__(
        self,
        effects: Effects,
        groups: Codes,
        *,
        weights: Array,
        group_weights: Array,
        others: Mapping[str, Array],
        orders: Codes,
    ) -> None:
        self._effects, self._groups, self._weights, self._group_weights = effects, groups, weights, group_weights
        self._others, self._orders = others, orders
        self._ones = np.ones((1, len(groups)))

    def row(self, name: str, values: Array, reliability: float, missing: int) -> tuple[SignalRow, Array]:
        """The row of a signal, and its pooled correlation in every resample (B,)."""
        effects, groups = self._effects, self._groups
        drawn = spearman(values, effects.values, self._weights)
        rho = estimate(float(spearman(values, effects.values)[0]), drawn)
        inside = within_groups(values, effects.values, groups)
        defined = ~np.isnan(inside)
        medians = _medians(inside[defined], self._group_weights[:, defined])
        centre = float(np.median(inside[defined])) if defined.any() else float("nan")
        told = effects.not_zero & (values != 0)
        agree = np.sign(values[told]) == np.sign(effects.values[told])
        others = [one for key, one in self._others.items() if key != name.replace("-", "_")]
        mass = float(np.abs(values).sum())
        scale = float((values**2).sum())
        return SignalRow(
            name,
            rho=rho,
            corrected=rho.value / math.sqrt(reliability) if reliability > 0 else float("nan"),
            within=estimate(centre, medians),
            auc_not_zero=self._area(np.abs(values), effects.not_zero),
            auc_harmful=self._area(-values, effects.harmful),
            sign=float(agree.mean()) if told.any() else float("nan"),
            partial=estimate(
                float(partial_spearman(values, effects.values, others)[0]),
                partial_spearman(values, effects.values, others, self._weights),
            ),
            band=self._band(values),
            ess=mass**2 / scale if scale > 0 else 0.0,
            missing=missing,
        ), drawn

    def _area(self, scores: Array, positive: Any) -> Estimate:
        return estimate(float(area(scores, positive)[0]), area(scores, positive, self._weights))

    def _band(self, values: Array) -> tuple[float, float]:
        """The correlations of the signal shuffled inside its trajectories. Shuffling moves ranks, so they are kept."""
        own, other = ranks(values, self._ones)[0], ranks(self._effects.values, self._ones)
        shuffled = correlation(
            own[self._orders], np.broadcast_to(other, self._orders.shape), np.ones(self._orders.shape)
        )
        known = shuffled[~np.isnan(shuffled)]
        if not len(known):
            return (float("nan"), float("nan"))
        low, high = np.percentile(known, _LEVEL)
        return (float(low), float(high))


def _orders(groups: Codes, shuffles: int, random: np.random.Generator) -> Codes:
    """Random orders of the turns inside their trajectories (S, N): position -> the turn whose value stands there."""
    by_group = np.argsort(groups, kind="stable")
    keys = groups[by_group] + random.random((shuffles, len(groups)))
    found = np.empty(keys.shape, dtype=np.intp)
    found[:, by_group] = by_group[np.argsort(keys, axis=1)]
    return found


def _medians(values: Array, weights: Array) -> Array:
    """Weighted medians (B,) of values (J,); NaN for a row without weight."""
    if not len(values):
        return np.full(len(weights), np.nan)
    order = np.argsort(values)
    ordered, reached = values[order], np.cumsum(weights[:, order], axis=1)
    half = reached[:, -1:] / 2
    last = len(values) - 1
    lower = np.minimum((reached < half - 1e-9).sum(axis=1), last)
    upper = np.minimum((reached < half + 1e-9).sum(axis=1), last)
    return np.where(reached[:, -1] > 0, (ordered[lower] + ordered[upper]) / 2, np.nan)


def estimate(value: float, drawn: Array) -> Estimate:
    """A value with the 95% interval of its bootstrap resamples (B,); NaN as its ends if there are none."""
    known = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(known):
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.percentile(known, _LEVEL)
    return Estimate(value, float(low), float(high))
