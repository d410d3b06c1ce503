"""The statistics of an audit: against scipy, and on a world in which the true effects are known."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import stats

from rewright.audit.effects import Effects
from rewright.audit.ranks import area, partial_spearman, rounded, spearman, within_groups
from rewright.audit.table import Table, compare, few_tasks

TURNS, TASKS, PER_TASK = 8, 50, 2


class World:
    """Trajectories of 8 turns. 2 or 3 turns of each matter: one may harm. Fluent turns do not matter more."""

    def __init__(self, seed: int, *, factual: int = 8, k: int = 4, repeat: int = 2) -> None:
        random = np.random.default_rng(seed)
        count = TASKS * PER_TASK
        truth = np.zeros((count, TURNS))
        for row in truth:
            places = random.choice(TURNS, size=random.integers(2, 4), replace=False)
            row[places] = random.choice([0.2, 0.35, 0.5], size=len(places))
            if random.random() < 0.5:
                row[places[0]] = -0.35
        base = random.uniform(0.25, 0.5, size=(count, 1))
        kept = np.clip(base + np.clip(truth, 0, None), 0, 1)
        other = np.clip(base - np.clip(truth, None, 0), 0, 1)
        self.truth = (kept - other).ravel()
        self.kept, self.other = kept.ravel(), other.ravel()
        size = count * TURNS
        self.effects = Effects(
            random.binomial(1, kept.reshape(size, 1), (size, factual)).astype(float),
            random.binomial(1, other.reshape(size, 1, 1), (size, k, repeat)).astype(float),
            np.zeros(size, dtype=bool),
            np.zeros((size, k), dtype=bool),
        )
        self.log_prob = random.normal(size=size)
        self.covariates = {
            "log_prob": self.log_prob,
            "index": np.tile(np.arange(TURNS, dtype=float), count),
            "length": random.integers(5, 40, size).astype(float),
        }
        self.tasks = np.repeat(np.arange(TASKS), PER_TASK * TURNS).tolist()
        self.trajectories = np.repeat(np.arange(count), TURNS).tolist()
        self.random = random

    def table(self, **more: object) -> Table:
        signals = {
            "truth": self.truth,
            "random": self.random.random(len(self.truth)),
            "fluency": self.log_prob + 0.3 * self.random.normal(size=len(self.truth)),
        }
        return compare(
            signals,
            self.effects,
            tasks=self.tasks,
            trajectories=self.trajectories,
            covariates=self.covariates,
            **more,  # type: ignore[arg-type]
        )


@cache
def small() -> Table:
    return World(1).table()


def row(table: Table, name: str):
    return next(one for one in table.rows if one.signal == name)


def test_rank_statistics_are_those_of_scipy() -> None:
    random = np.random.default_rng(0)
    left, right, third = random.integers(0, 6, (3, 60)).astype(float)
    assert spearman(left, right)[0] == pytest.approx(stats.spearmanr(left, right)[0])
    positive = right > 3
    pairs = stats.mannwhitneyu(left[positive], left[~positive]).statistic / (positive.sum() * (~positive).sum())
    assert area(left, positive)[0] == pytest.approx(pairs)
    residuals = [
        stats.rankdata(one)
        - np.poly1d(np.polyfit(stats.rankdata(third), stats.rankdata(one), 1))(stats.rankdata(third))
        for one in (left, right)
    ]
    assert partial_spearman(left, right, [third])[0] == pytest.approx(stats.pearsonr(*residuals)[0])
    groups = np.repeat(np.arange(10), 6)
    for group, found in enumerate(within_groups(left, right, groups)):
        assert found == pytest.approx(stats.spearmanr(left[groups == group], right[groups == group])[0], nan_ok=True)


def test_a_weight_counts_a_turn_as_often_as_it_was_drawn() -> None:
    random = np.random.default_rng(1)
    left, right = random.integers(0, 5, (2, 30)).astype(float)
    drawn = random.integers(0, 4, 30)
    repeated = [np.repeat(one, drawn) for one in (left, right)]
    assert spearman(left, right, drawn[None].astype(float))[0] == pytest.approx(stats.spearmanr(*repeated)[0])
    assert area(left, right > 2, drawn[None].astype(float))[0] == pytest.approx(area(repeated[0], repeated[1] > 2)[0])


def test_constants_and_empty_classes_are_not_defined() -> None:
    values, constant = np.arange(6.0), np.full(6, 0.1)
    assert np.isnan(spearman(values, constant)[0])
    assert np.isnan(area(values, np.zeros(6, dtype=bool))[0])
    assert np.isnan(partial_spearman(values, values[::-1] ** 2, [values])[0])  # nothing is left of the signal
    assert np.isnan(within_groups(values, constant, np.array([0, 0, 0, 1, 1, 1]))).all()


def test_the_effect_is_a_difference_of_means_and_its_error_that_of_the_arms() -> None:
    effects = Effects(
        np.array([[1.0, 1.0, 0.0, np.nan], [1.0, 1.0, 1.0, 1.0]]),
        np.array([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]),
        np.array([False, True]),
        np.array([[False, False], [True, True]]),
    )
    assert effects.values == pytest.approx([2 / 3 - 0.25, 1.0])
    kept, others = (2.5 / 4) * (1.5 / 4) / 3, (1.5 / 5) * (3.5 / 5) / 4
    assert effects.errors == pytest.approx([np.sqrt(kept + others), 0.0])
    assert effects.not_zero.tolist() == [False, True]


def test_truth_scores_the_ceiling_and_stands_out() -> None:
    table = small()
    truth = row(table, "truth")
    assert truth.distinguishable
    assert truth.rho.low > 0.2
    for name, found in (
        ("rho", truth.rho.value),
        ("auc_not_zero", truth.auc_not_zero.value),
        ("auc_harmful", truth.auc_harmful.value),
    ):
        assert table.ceiling[name] == pytest.approx(found, abs=0.12), name
    better = next(one for one in table.differences if {one.signal, one.other} == {"truth", "random"})
    assert not better.rho.covers_zero


def test_the_ceiling_is_that_of_outcomes_between_0_and_1_too() -> None:
    """An outcome that is the mean of 8 parts varies less than one that is 0 or 1 with the same mean."""
    whole = World(6)
    kept, other = (
        whole.random.binomial(8, chance[:, None], draws.shape) / 8
        for draws, chance in ((whole.effects.factual, whole.kept), (whole.effects.alternatives[:, :, 0], whole.other))
    )
    size = len(whole.truth)
    effects = Effects(kept, other[:, :, None], np.zeros(size, dtype=bool), np.zeros((size, 4), dtype=bool))
    table = compare(
        {"truth": whole.truth}, effects, tasks=whole.tasks, trajectories=whole.trajectories, resamples=10, shuffles=10,
        simulations=20,
    )  # fmt: skip
    truth = row(table, "truth")
    assert truth.rho.value > row(small(), "truth").rho.value + 0.1
    assert table.ceiling["rho"] == pytest.approx(truth.rho.value, abs=0.06)
    assert table.ceiling["auc_not_zero"] == pytest.approx(truth.auc_not_zero.value, abs=0.06)
    assert table.ceiling["auc_harmful"] == pytest.approx(truth.auc_harmful.value, abs=0.06)


def test_truth_goes_to_one_with_repeats() -> None:
    found = [
        row(
            World(2, factual=size, repeat=size // 4).table(resamples=20, shuffles=20, simulations=20), "truth"
        ).rho.value
        for size in (8, 64, 1024)
    ]
    assert found == sorted(found)
    # Most true effects are exactly 0: their order is noise for ever, and the rest of the correlation is 1.
    world = World(2)
    exact = Effects(
        world.truth[:, None], np.zeros((len(world.truth), 4, 2)), np.ones(len(world.truth), dtype=bool),
        np.ones((len(world.truth), 4), dtype=bool), bounds=(-1.0, 1.0),
    )  # fmt: skip
    assert spearman(rounded(world.truth), exact.values)[0] == pytest.approx(1)
    assert found[-1] > 0.75


def test_a_random_signal_is_in_the_band_and_its_interval_covers_zero() -> None:
    covered, inside = 0, 0
    for seed in range(100):
        world = World(seed)
        kept = world.effects
        table = compare(
            {"random": world.random.random(len(world.truth))},
            kept,
            tasks=world.tasks,
            trajectories=world.trajectories,
            seed=seed,
            resamples=200,
            shuffles=200,
            simulations=1,
        )
        one = row(table, "random")
        covered += one.rho.covers_zero
        inside += one.band[0] <= one.rho.value <= one.band[1]
    assert 90 <= covered <= 99
    assert inside >= 88


def test_a_fluency_signal_has_nothing_beyond_the_log_probability() -> None:
    fluency = row(small(), "fluency")
    assert abs(fluency.partial.value) < 0.1
    assert fluency.partial.covers_zero
    assert not fluency.distinguishable


def test_a_turn_that_one_signal_lacks_is_left_out_for_all() -> None:
    world = World(3)
    lacking = world.truth.copy()
    lacking[:40] = np.nan
    table = compare(
        {"truth": world.truth, "lacking": lacking}, world.effects, tasks=world.tasks,
        trajectories=world.trajectories, resamples=10, shuffles=10, simulations=2,
    )  # fmt: skip
    assert table.turns == len(world.truth) - 40
    assert [one.missing for one in table.rows] == [0, 40]
    assert table.rows[0].rho == table.rows[1].rho


def test_a_signal_that_is_constant_in_a_trajectory_is_not_distinguishable() -> None:
    world = World(4)
    outcome = np.repeat(world.random.random(TASKS * PER_TASK), TURNS)
    table = compare(
        {"outcome": outcome}, world.effects, tasks=world.tasks, trajectories=world.trajectories, simulations=1
    )
    assert not table.rows[0].distinguishable
    assert np.isnan(table.rows[0].within.value)


def test_equal_effects_are_ties_whatever_floats_make_of_their_difference() -> None:
    def turn(successes: int) -> tuple[list[float], list[list[float]]]:
        factual = [1.0] * 3 * successes + [0.0] * (9 - 3 * successes)
        return factual, [[1.0] * successes + [0.0] * (3 - successes)] * 3

    factual, alternatives = zip(*(turn(successes) for successes in (0, 1, 2, 0, 1, 2)), strict=True)
    arms = np.array(factual), np.array(alternatives)
    effects = Effects(*arms, np.zeros(6, dtype=bool), np.zeros((6, 3), dtype=bool))
    assert effects.values.tolist() == [0.0] * 6
    signal = np.arange(6.0)
    table = compare(
        {"signal": signal}, effects, tasks=[0, 0, 0, 1, 1, 1], trajectories=[0, 0, 0, 1, 1, 1],
        resamples=10, shuffles=10, simulations=1,
    )  # fmt: skip
    assert np.isnan(table.rows[0].within.value)
    assert np.isnan(table.rows[0].rho.value)


def test_equal_values_of_a_signal_are_ties_too() -> None:
    world = World(5)
    steps = world.random.integers(0, 3, len(world.truth)) / 10
    with_errors = np.where(world.random.random(len(steps)) < 0.5, (steps + 0.3) - 0.3, steps)
    assert (with_errors != steps).any()
    table = compare(
        {"exact": steps, "rounding": with_errors}, world.effects, tasks=world.tasks, trajectories=world.trajectories,
        resamples=20, shuffles=1, simulations=1,
    )  # fmt: skip
    assert table.rows[0].rho == table.rows[1].rho
    assert table.rows[0].within == table.rows[1].within


def test_halves_are_cut_at_half_of_the_known_draws() -> None:
    random = np.random.default_rng(0)
    rows = 40
    factual = random.integers(0, 2, (rows, 8)).astype(float)
    for row in factual:
        row[random.choice(8, size=5, replace=False)] = np.nan  # 5 of 8 failed: 3 are known
    effects = Effects(
        factual, np.zeros((rows, 2, 2)), np.zeros(rows, dtype=bool), np.ones((rows, 2), dtype=bool)
    )  # fmt: skip
    first, second = effects.halves(random)
    assert not np.isnan(first).any() and not np.isnan(second).any()
    total = np.nansum(factual, axis=1)
    assert all(
        one + 2 * other == pytest.approx(known) or 2 * one + other == pytest.approx(known)
        for one, other, known in zip(first, second, total, strict=True)
    )


def test_failed_draws_do_not_lower_the_reliability() -> None:
    world = World(6, factual=5)
    failed = np.full((len(world.truth), 3), np.nan)
    padded = Effects(
        np.hstack([world.effects.factual, failed]), world.effects.alternatives, world.effects.factual_exact,
        world.effects.alternative_exact,
    )  # fmt: skip
    plain, other = (one.reliability(np.random.default_rng(1), splits=60) for one in (world.effects, padded))
    assert other == pytest.approx(plain, abs=0.02)


def test_exact_alternatives_are_in_both_halves_with_one_draw_each() -> None:
    single = np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, np.nan]])
    exact = np.array([[True, True, False, False], [True] * 4, [True, False, False, False]])
    effects = Effects(np.ones((3, 4)), single[:, :, None], np.ones(3, dtype=bool), exact)
    first, second = effects.halves(np.random.default_rng(0))
    assert first[:2].tolist() == second[:2].tolist() == [0.25, 0.5]
    # Of the two random alternatives that are known, one is in each half with the weight of both.
    assert sorted([first[2], second[2]]) == pytest.approx([0.0, 2 / 3])
    assert (first + second)[2] / 2 == pytest.approx(effects.values[2])


def test_one_task_has_no_intervals_and_few_tasks_are_warned_of() -> None:
    world = World(7)
    kept = slice(0, 2 * TURNS)  # both trajectories of the first task
    one = compare(
        {"truth": world.truth[kept], "random": world.random.random(2 * TURNS)},
        world.effects.take(np.arange(2 * TURNS)), tasks=world.tasks[kept], trajectories=world.trajectories[kept],
        resamples=50, shuffles=50, simulations=1,
    )  # fmt: skip
    assert one.tasks == 1
    for found in one.rows:
        assert not np.isnan(found.rho.value)
        assert np.isnan([found.rho.low, found.rho.high, found.auc_not_zero.low, found.partial.high]).all()
        assert not found.distinguishable
    assert np.isnan(one.differences[0].rho.low)
    assert few_tasks(1) == "warning: there are no intervals with 1 task: expected at least 10"
    assert "too narrow with 9 tasks" in (few_tasks(9) or "")
    assert few_tasks(10) is None
