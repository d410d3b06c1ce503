"""Gold calls with allowed values (BFCL's possible answers): any of the values, "" for what may be left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rewright.credit import match, similarity, similarity_matrix, turn_rewards

BFCL = {"area": {"base": [10], "height": [5, 5.5], "unit": ["units", ""]}}
OURS = {"name": "area", "allowed": BFCL["area"]}


def call(name: str = "area", **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


@pytest.mark.parametrize("gold", [BFCL, OURS])
@pytest.mark.parametrize(
    ("pred", "expected"),
    [
        (call(base=10, height=5), 1.0),  # what may be left out is left out
        (call(base=10.0, height=5.5, unit="units"), 1.0),
        (call("AREA", base=10, height=5, unit=""), 1.0),
        (call(base=10, height=5, unit="cm"), 4 / 5),  # given, and wrong: it counts
        (call(base=10, height=6), 3 / 4),
        (call(base=10, unit="units"), (1 + 2 / 3 + 2) / 5),
        (call(base=10, height=5, colour="red"), (1 + 2 / 3 + 2) / 4),
        (call(), 1 / 4),
        (call("volume", base=10, height=5), 0.0),
        ({"name": "area", "arguments": "{"}, 0.0),
    ],
)
def test_any_allowed_value_is_right(gold: Any, pred: Any, expected: float) -> None:
    assert similarity(pred, gold) == pytest.approx(expected)


def test_lists_in_ordinary_arguments_stay_lists() -> None:
    plain = call(unit=["units", ""])
    assert similarity(call(unit=["units", ""]), plain) == 1.0
    assert similarity(call(unit="units"), plain) == pytest.approx(2 / 3)
    assert similarity(call(unit="units"), {"arguments": {"unit": ["units"]}}) == 0.0  # a gold call without a name
    assert similarity(BFCL, BFCL) == similarity(OURS, OURS) == 0.0  # what a model calls is never read so


def test_lists_and_objects_among_the_values() -> None:
    """BFCL's rule: an object among the values names the values allowed for each of its fields."""
    gold = {"find": {"ids": [[1, 2], [2, 1]], "range": [{"low": [1, 2], "high": [9, ""]}], "rows": [[{"a": [1, 2]}]]}}
    assert similarity(call("find", ids=[2, 1], range={"low": 2}, rows=[{"a": 2}]), gold) == 1.0
    assert similarity(call("find", ids=[1, 2], range={"low": 1, "high": 9}, rows=[{"a": 1}]), gold) == 1.0
    wrong = call("find", ids=[1], range={"high": 9}, rows=[{"a": 3}])
    assert similarity(wrong, gold) == pytest.approx(2 / 5)


def test_they_match_beside_ordinary_gold_calls() -> None:
    golds = [call(base=1, height=2), BFCL, {"stop": {}}]
    preds = [call(base=10, height=5, unit="units"), call(base=1, height=2), call("stop")]
    assert match(preds, golds).pairs == [(0, 1), (1, 0), (2, 2)]
    assert turn_rewards([preds[:2], preds[2:]], golds).tolist() == [1.0, 1.0]
    assert match(preds, golds, assignment="greedy").rewards_P.tolist() == [1.0, 1.0, 1.0]
    many = similarity_matrix(preds * 30, golds * 30)
    assert np.array_equal(many, np.tile(similarity_matrix(preds, golds), (30, 30)))
    assert similarity(preds[0], BFCL, weights=(0, 0, 1)) == 1.0


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"base": []}, r"allows \[\] for 'base': expected a list of values"),
        ({"base": 10}, "allows 10 for 'base': expected a list of values"),
        ({"x": [{str(key): [1, 2, 3] for key in range(20)}]}, "allows 3486784401 combinations for area.x"),
    ],
)
def test_values_that_cannot_be_read_are_an_error(lists: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        similarity(call(), {"name": "area", "allowed": lists})
