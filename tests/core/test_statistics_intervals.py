"""Confidence intervals against published values and their own properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewright.core.statistics import (
    grouped_mean,
    grouped_proportion,
    grouped_share,
    mean_interval,
    paired_difference,
    proportion_interval,
)


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        # Wilson's score interval, 95%: values as in Newcombe (1998), table I, and Agresti & Coull.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
        (200, 400, 0.4512, 0.5488),
    ],
)
def test_wilson_intervals(successes: int, total: int, low: float, high: float) -> None:
    interval = proportion_interval(successes, total)
    assert interval.value == successes / total
    assert (interval.low, interval.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


def test_no_trials_say_nothing() -> None:
    assert proportion_interval(0, 0) == (0.0, 0.0, 1.0)
    assert mean_interval([]) == (0.0, 0.0, 0.0)
    assert mean_interval([0.7]) == (0.7, 0.7, 0.7)


@given(st.integers(1, 5000), st.data())
def test_a_proportion_lies_in_its_interval_and_the_interval_in_0_to_1(total: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, total))
    value, low, high = proportion_interval(successes, total)
    assert 0.0 <= low <= value <= high <= 1.0
    mirrored = proportion_interval(total - successes, total)
    assert (1 - mirrored.high, 1 - mirrored.low) == (pytest.approx(low), pytest.approx(high))
    more = proportion_interval(4 * successes, 4 * total)
    assert more.high - more.low < high - low


def test_the_mean_interval_is_the_normal_one() -> None:
    # Mean 3, sample variance 2.5, five values: 1.96 * sqrt(2.5 / 5).
    assert mean_interval([1, 2, 3, 4, 5]) == pytest.approx((3.0, 3 - 1.385904, 3 + 1.385904), abs=1e-5)
    assert mean_interval([2.0] * 9) == (2.0, 2.0, 2.0)


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=1, max_size=30))
def test_a_mean_of_shares_lies_in_its_interval_and_the_interval_in_0_to_1(groups: list[list[float]]) -> None:
    value, low, high = grouped_share(groups)
    assert 0.0 <= low <= value <= high <= 1.0
    assert high > low


def test_shares_of_0_and_1_are_a_proportion_and_many_others_have_the_width_of_a_mean() -> None:
    groups = [[0.0, 1.0], [1.0], [0.0]]
    assert grouped_share(groups) == grouped_proportion(groups)
    many = [[0.4 + 0.2 * (number % 2)] for number in range(400)]
    share, mean = grouped_share(many), grouped_mean(many)
    assert (share.low, share.high) == (pytest.approx(mean.low, abs=1e-4), pytest.approx(mean.high, abs=1e-4))
    assert grouped_share([]) == (0.0, 0.0, 1.0)


def test_paired_differences_of_clusters() -> None:
    """Variants of a task that change alike count as one; clusters of one pair change nothing."""
    once = [float(number % 3 == 0) - float(number % 5 == 0) for number in range(60)]
    often, names = [value for value in once for _ in range(4)], [str(number) for number in range(60) for _ in range(4)]
    plain = paired_difference(once)
    assert paired_difference(once, [str(number) for number in range(60)]) == plain
    found = paired_difference(often, names)
    assert found.value == pytest.approx(plain.value)
    assert found.high - found.low == pytest.approx(plain.high - plain.low, rel=0.05)
    assert paired_difference([1.0, 0.0], ["one", "one"]) == paired_difference([0.5])
    assert paired_difference([], []) == (0.0, -1.0, 1.0)
