"""pass^k, totals of a benchmark, and its floor and ceiling for the tasks of a run."""

from __future__ import annotations

from itertools import combinations

import msgspec
import numpy as np
import pytest

from rewright.benchmarks.scoring.bounds import played, shares
from rewright.benchmarks.scoring.scores import bounds, correlations, pass_powers, totals
from rewright.core.records import Gold, Task, Trajectory
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


def test_a_total_of_variants_is_as_uncertain_as_one_of_them() -> None:
    """Four categories with the same 200 tasks that are always solved alike say what one of them does."""
    outcomes = [(name, number, float(number % 5 == 0)) for name in "abcd" for number in range(200)]
    correlated = correlations([*outcomes, *(("e", f"e{number}", float(number % 2)) for number in range(50))])
    assert set(correlated) == {(left, right) for left in "abcd" for right in "abcd" if left != right}
    assert all(value == pytest.approx(1.0) for value in correlated.values())
    one = proportion_interval(40, 200)
    rows = {name: {"success": one.value, "low": one.low, "high": one.high} for name in "abcd"}
    found = totals({"mean": dict.fromkeys("abcd", 1 / 4)}, rows, correlated)["mean"]
    assert found == pytest.approx({"value": one.value, "low": one.low, "high": one.high})


def test_variants_that_are_solved_independently_are_evidence() -> None:
    generator = np.random.default_rng(0)
    outcomes = [(name, number, float(generator.random() < 0.3)) for name in "abcd" for number in range(2000)]
    assert all(0 <= value < 0.06 for value in correlations(outcomes).values())
    # The same in one: nobody knows how variants go together that all are right, or all wrong.
    assert correlations([("a", 1, 1.0), ("a", 2, 1.0), ("b", 1, 0.0), ("b", 2, 1.0)])["a", "b"] == 1.0


def test_pass_k_is_over_clusters() -> None:
    outcomes = [(f"{task}", task % 8 < 4) for task in range(64) for _ in range(2)]
    alone, together = (pass_powers(outcomes, names)["2"] for names in (None, {str(i): str(i // 4) for i in range(64)}))
    assert alone["value"] == together["value"] == 0.5
    assert (together["low"], together["high"]) == pytest.approx(tuple(proportion_interval(8, 16))[1:], abs=0.02)
    assert alone["tasks"] == together["tasks"] == 64


def test_bounds_follow_the_tasks_of_the_run() -> None:
    stated, weights = {"a": 0.0, "b": 1.0, "all": 0.9}, {"mean": {"a": 0.5, "b": 0.5}}
    assert bounds(stated, weights, ["a", "b", "b", "b"]) == {"a": 0.0, "b": 1.0, "all": 0.75, "mean": 0.5}
    assert bounds(stated, weights, ["b"]) == {"b": 1.0, "all": 1.0}
    assert bounds(stated, weights, ["a", "new"]) == {"a": 0.0}
    assert bounds(stated, weights, ["a", ""]) == {"a": 0.0}
    assert bounds(stated, weights, ["", ""]) == {"all": 0.9}
    assert bounds({}, weights, ["a", ""]) == {}


def test_a_category_that_is_named_all_is_counted_once() -> None:
    def task(name: str, category: str) -> Task:
        return Task(
            id=name,
            messages=({"role": "user", "content": "2 + 2?"},),
            gold=Gold(answers=("4",)),
            metadata={"category": category},
        )

    def right_in_all(one: Task) -> Trajectory:
        trajectory = played(one)
        return trajectory if one.metadata["category"] == "all" else msgspec.structs.replace(trajectory, answer="5")

    tasks = [task("a", "all"), task("b", "easy"), task("c", "easy")]
    found = shares(tasks, right_in_all)
    assert found == {"all": pytest.approx(1 / 3), "easy": 0.0}
    assert bounds(found, {}, ["all"]) == {"all": pytest.approx(1 / 3)}
    assert bounds(found, {}, ["all", "easy", "easy"]) == {"easy": 0.0}  # nobody knows which `all` is meant
