"""pass^k, totals of a benchmark, and its floor and ceiling for the tasks of a run."""

from __future__ import annotations

from itertools import combinations

import pytest

from rewright.benchmarks.scoring.scores import bounds, pass_powers, totals
from rewright.core.statistics import proportion_interval


def test_pass_k_is_the_share_of_subsets_that_are_all_right() -> None:
    groups = {"a": [True, True, False, True], "b": [False] * 4, "c": [True] * 4}
    rows = pass_powers((task, right) for task, group in groups.items() for right in group)
    assert list(rows) == ["2", "3", "4"]
    for k, row in rows.items():
        shares = [[all(some) for some in combinations(group, int(k))] for group in groups.values()]
        value = sum(sum(share) / len(share) for share in shares) / 3
        assert row["value"] == pytest.approx(value)
        assert (row["low"], row["high"], row["tasks"]) == (*proportion_interval(3 * value, 3)[1:], 3)
    assert pass_powers([("a", True), ("b", False)]) == {} == pass_powers([])
    assert list(pass_powers([("a", True), ("a", True), ("a", True), ("b", False), ("b", False)])) == ["2"]


def test_a_total_needs_all_of_its_categories_and_has_an_interval() -> None:
    row = {
        name: {"success": share, "low": share - 0.1, "high": share + 0.2} for name, share in (("a", 0.5), ("b", 0.3))
    }
    found = totals({"mean": {"a": 0.5, "b": 0.5}, "of one": {"b": 1.0}, "more": {"a": 0.5, "c": 0.5}}, row)
    assert list(found) == ["mean", "of one"]
    assert found["of one"] == pytest.approx({"value": 0.3, "low": 0.2, "high": 0.5})
    assert found["mean"] == pytest.approx({"value": 0.4, "low": 0.4 - 0.1 * 0.5**0.5, "high": 0.4 + 0.2 * 0.5**0.5})


def test_bounds_follow_the_tasks_of_the_run() -> None:
    stated, weights = {"a": 0.0, "b": 1.0, "all": 0.9}, {"mean": {"a": 0.5, "b": 0.5}}
    assert bounds(stated, weights, ["a", "b", "b", "b"]) == {"a": 0.0, "b": 1.0, "all": 0.75, "mean": 0.5}
    assert bounds(stated, weights, ["b"]) == {"b": 1.0, "all": 1.0}
    assert bounds(stated, weights, ["a", "new"]) == {"a": 0.0}
    assert bounds(stated, weights, ["a", ""]) == {"a": 0.0}
    assert bounds(stated, weights, ["", ""]) == {"all": 0.9}
    assert bounds({}, weights, ["a", ""]) == {}
