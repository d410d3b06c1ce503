"""The measured effect of a turn: the outcomes of continuations with it, less those with alternatives. Numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rewright.audit.ranks import area, rounded, spearman, within_groups

__all__ = ["Effects", "ceiling"]

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.intp]

SIGNIFICANT = 2.0
"""An effect is not zero if it is larger than so many of its standard errors."""
_EXACT = 1000
"""Draws that stand for an arm without randomness."""


@dataclass(frozen=True)
class Effects:
    """Outcomes of the draws of N turns.

    Attributes:
        factual: (N, F), continuations after the turn as it was; NaN: no outcome.
        alternatives: (N, K, R), R continuations after each of K other turns; NaN: no outcome.
        factual_exact: (N,), the turn ended the trajectory, so that all F outcomes are the same by necessity.
        alternative_exact: (N, K), the same for alternatives.
        bounds: the least and the largest possible outcome.
    """

    factual: Array
    alternatives: Array
    factual_exact: Bools
    alternative_exact: Bools
    bounds: tuple[float, float] = (0.0, 1.0)

    @cached_property
    def values(self) -> Array:
        """The effects (N,): the mean of the factual outcomes, less the mean over alternatives of their means."""
        return rounded(_mean(self.factual) - _mean(_mean(self.alternatives)))

    @cached_property
    def errors(self) -> Array:
        """Their standard errors (N,), for the alternatives that were taken.

        The variance of an arm counts half a draw at each bound beside its own draws, since 8 equal outcomes of 8 do not
        prove that the next one is equal. The alternatives of a turn share one variance.
        """
        count = len(self.values)
        own = np.where(self.factual_exact, 0.0, self._variance(self.factual))
        number = np.maximum((~np.isnan(self.factual)).sum(axis=1), 1)
        random = np.where(self.alternative_exact[:, :, None], np.nan, self.alternatives)
        pooled = self._variance(random.reshape(count, -1))
        draws = (~np.isnan(random)).sum(axis=2)
        arms = np.maximum((~np.isnan(self.alternatives)).any(axis=2).sum(axis=1), 1)
        with np.errstate(divide="ignore"):
            parts = np.where(draws > 0, pooled[:, None] / draws, 0.0)
        return np.asarray(np.sqrt(own / number + parts.sum(axis=1) / arms**2), dtype=np.float64)

    @cached_property
    def not_zero(self) -> Bools:
        """Whether the effect differs from zero by more than two standard errors (N,)."""
        return self._differ(self.values, self.errors)

    @cached_property
    def harmful(self) -> Bools:
        """Whether it is negative by more than that (N,)."""
        return self.not_zero & (self.values < 0)

    def take(self, chosen: Bools | Codes) -> Effects:
        """The effects of some of the turns."""
        return Effects(
            self.factual[chosen],
            self.alternatives[chosen],
            self.factual_exact[chosen],
            self.alternative_exact[chosen],
            self.bounds,
        )

    def halves(self, random: np.random.Generator) -> tuple[Array, Array]:
        """The effects (N,) from either half of the known draws; NaN where a half has none. Exact arms are in both.

        With several draws after each alternative, each alternative is in both halves with half of its draws. With one
        draw, the alternatives themselves are divided, and the exact ones keep their weight in both halves.
        """
        kept = [np.where(self.factual_exact, _mean(self.factual), half) for half in _halved(self.factual, random)]
        if self.alternatives.shape[2] > 1:
            exact = _mean(self.alternatives)
            parts = _halved(self.alternatives, random)
            others = [_mean(np.where(self.alternative_exact, exact, part)) for part in parts]
        else:
            single = self.alternatives[:, :, 0]
            number = (~np.isnan(single)).sum(axis=1)
            certain = np.where(self.alternative_exact, single, np.nan)
            fixed = (~np.isnan(certain)).sum(axis=1)
            total = np.nansum(certain, axis=1)
            parts = _halved(np.where(self.alternative_exact, np.nan, single), random)
            with np.errstate(invalid="ignore"):
                others = [(total + np.where(number > fixed, (number - fixed) * part, 0)) / number for part in parts]
        return rounded(kept[0] - others[0]), rounded(kept[1] - others[1])

    def reliability(self, random: np.random.Generator, splits: int = 20) -> float:
        """How well the effects would agree with those of a second audit with as many draws, in rank correlation.

        The mean correlation of two halves over random splits, r, stepped up to all draws: 2r / (1 + r)
        (Spearman and Brown). NaN if it is not defined.
        """
        found = []
        for _ in range(splits):
            first, second = self.halves(random)
            both = ~(np.isnan(first) | np.isnan(second))
            if both.sum() > 2:
                found.append(float(spearman(first[both], second[both])[0]))
        half = float(np.mean(found)) if found and not np.isnan(found).any() else float("nan")
        return 2 * half / (1 + half) if half > -1 else float("nan")

    def _variance(self, draws: Array) -> Array:
        """Sample variance of rows (N, D), with half a draw at each bound; that of the bounds for rows without draws."""
        low, high = self.bounds
        known = ~np.isnan(draws)
        number = known.sum(axis=1)
        mean = (np.where(known, draws, 0).sum(axis=1) + (low + high) / 2) / (number + 1)
        squares = np.where(known, (draws - mean[:, None]) ** 2, 0).sum(axis=1)
        ends = ((low - mean) ** 2 + (high - mean) ** 2) / 2
        return np.asarray((squares + ends) / (number + 1), dtype=np.float64)

    @staticmethod
    def _differ(values: Array, errors: Array) -> Bools:
        return np.abs(values) > SIGNIFICANT * errors + 1e-12


def ceiling(
    effects: Effects, groups: Codes, random: np.random.Generator, *, simulations: int = 200, grid: int = 11
) -> dict[str, float]:
    """What a perfect signal would score, given the noise of the effects: {metric: mean over simulations}.

    The chances of success of the two arms of a turn have an unknown distribution over the turns. It is estimated on a
    grid of pairs by maximum likelihood (expectation maximisation). Then chances are drawn for every turn from what its
    own draws leave possible, a second audit of these turns is simulated, and a signal that knows the chances is scored
    on it. Alternatives of one turn count as one arm, which makes the ceiling a little low. Outcomes between the bounds
    vary less than those at the bounds: draws of them count as so many more draws of outcomes at the bounds.

    Args:
        effects: N turns.
        groups: the trajectory of each turn (N,), codes from 0.
        random: the generator.
        simulations: number of simulated audits.
        grid: number of chances between 0 and 1.
    """
    low, high = effects.bounds
    span = high - low if high > low else 1.0
    arms = (
        (effects.factual, effects.factual_exact),
        (effects.alternatives.reshape(len(groups), -1), effects.alternative_exact.all(axis=1)),
    )
    worth = _worth([(draws - low) / span for draws, _ in arms])
    means, counts, number = [], [], []
    for draws, exact in arms:
        means.append(np.clip((np.nan_to_num(_mean(draws)) - low) / span, 0, 1))
        counts.append(np.where(exact, _EXACT, np.maximum((~np.isnan(draws)).sum(axis=1), 1)))
        number.append(np.where(exact, _EXACT, np.minimum(np.rint(counts[-1] * worth), _EXACT - 1)))
    success = [mean * n for mean, n in zip(means, number, strict=True)]
    chances = np.linspace(0, 1, grid)
    safe = np.clip(chances, 1e-4, 1 - 1e-4)
    logs = [
        s[:, None] * np.log(safe) + (n - s)[:, None] * np.log1p(-safe) for s, n in zip(success, number, strict=True)
    ]
    likelihood = (logs[0][:, :, None] + logs[1][:, None, :]).reshape(len(groups), -1)
    likelihood = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
    weights = np.full(grid * grid, 1.0 / (grid * grid))
    for _ in range(200):
        posterior = likelihood * weights
        posterior /= posterior.sum(axis=1, keepdims=True)
        weights = posterior.mean(axis=0)
    posterior = likelihood * weights
    cumulated = np.cumsum(posterior / posterior.sum(axis=1, keepdims=True), axis=1)
    drawn = (random.random((simulations, len(groups), 1)) > cumulated).sum(axis=2).clip(max=grid * grid - 1)
    chosen = chances[drawn // grid], chances[drawn % grid]
    seen = [random.binomial(n.astype(int), p) / n for n, p in zip(number, chosen, strict=True)]
    noise = [_noise(p, n, worth) * (n < _EXACT) for p, n in zip(seen, counts, strict=True)]
    truth, measured = rounded(chosen[0] - chosen[1]), rounded(seen[0] - seen[1])
    not_zero = np.abs(measured) > SIGNIFICANT * np.sqrt(noise[0] + noise[1]) + 1e-12
    rows = []
    for one, other, differs in zip(truth, measured, not_zero, strict=True):
        inside = within_groups(one, other, groups)
        told = differs & (one != 0)
        rows.append(
            (
                spearman(one, other)[0],
                np.nanmedian(inside) if not np.isnan(inside).all() else np.nan,
                area(np.abs(one), differs)[0],
                area(-one, differs & (other < 0))[0],
                np.mean(np.sign(one[told]) == np.sign(other[told])) if told.any() else np.nan,
            )
        )
    names = ("rho", "within", "auc_not_zero", "auc_harmful", "sign")
    columns = np.array(rows).T
    return {name: _mean_of(column) for name, column in zip(names, columns, strict=True)}


def _worth(arms: list[Array]) -> float:
    """How many draws of outcomes 0 and 1 with the same mean one draw is worth; 1 for such outcomes.

    The ratio of their variances, pooled over all rows of `arms` (N, D) with several draws.
    """
    least, own = 0.0, 0.0
    for draws in arms:
        number = (~np.isnan(draws)).sum(axis=1)
        mean = np.nan_to_num(_mean(draws))
        squares = np.where(np.isnan(draws), 0, (draws - mean[:, None]) ** 2).sum(axis=1)
        free = np.maximum(number - 1, 1)
        least += float((number * mean * (1 - mean) / free)[number > 1].sum())
        own += float((squares / free)[number > 1].sum())
    if least <= own:
        return 1.0
    return least / own if own > least / _EXACT else float(_EXACT)


def _noise(mean: Array, number: Array, worth: float) -> Array:
    """The variance of a mean as in `Effects.errors`: with half a draw at each bound."""
    middle = (mean * number + 0.5) / (number + 1)
    squares = number * (mean * (1 - mean) / worth + (mean - middle) ** 2)
    ends = (middle**2 + (1 - middle) ** 2) / 2
    return np.asarray((squares + ends) / (number + 1) / number)


def _mean_of(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _mean(values: Array) -> Array:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1), dtype=np.float64)


def _halved(values: Array, random: np.random.Generator) -> tuple[Array, Array]:
    """The means of two random halves of what is known on the last axis; NaN where a half is empty.

    Of an odd number, either half may be the larger one.
    """
    keys = np.where(np.isnan(values), 2.0, random.random(values.shape))
    mixed = np.take_along_axis(values, np.argsort(keys, axis=-1), axis=-1)  # NaN last
    known = (~np.isnan(values)).sum(axis=-1, keepdims=True)
    middle = (known + random.integers(0, 2, known.shape)) // 2
    first = np.arange(values.shape[-1]) < middle
    return _mean(np.where(first, mixed, np.nan)), _mean(np.where(first, np.nan, mixed))
