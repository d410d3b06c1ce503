"""Similarity: what equals what, which shapes a call may have, and that nothing a model writes raises."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewright.core.records import ToolCall
from rewright.credit import similarity, similarity_matrix

GOLD = {"name": "f", "arguments": {"x": 1}}


def with_value(value):
    return {"name": "f", "arguments": {"x": value}}


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (5, 5.0, True),
        (5, "5", False),
        (True, 1, False),
        (False, 0, False),
        (True, True, True),
        (None, None, True),
        (None, 0, False),
        (None, "null", False),
        (0.0, -0.0, True),
        (2**53 + 1, float(2**53), False),
        ("a", "A", False),
        ([1, 2], [1, 2], True),
        ([1, 2], [2, 1], False),
        ([1, 2], [1.0, 2.0], True),
        ([True], [1], False),
        ([[1], 2], [[1, 2]], False),
        ([], {}, False),
        ([], [[]], False),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ({"a": {"b": 1}}, {"a": {"b": 1}}, True),
        ([["a", "b"]], [{"a": "b"}], False),
        (math.inf, math.inf, True),
        (math.inf, -math.inf, False),
        (math.nan, float("nan"), True),
        (math.nan, 0.0, False),
        (np.float64(5), 5, True),
        (np.bool_(True), True, True),
        (np.bool_(True), 1, False),
        (np.array([1, 2]), [1, 2], True),
        ((1, 2), [1, 2], True),
    ],
)
def test_values_are_compared_as_json(left, right, equal):
    expected = 1.0 if equal else 2 / 3
    assert similarity(with_value(left), with_value(right)) == pytest.approx(expected)
    assert similarity(with_value(right), with_value(left)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "call",
    [
        {"name": "F", "arguments": {"x": 1}},
        {"name": "f", "parameters": {"x": 1}},
        {"name": "f", "arguments": None, "parameters": {"x": 1}},
        {"name": None, "arguments": None, "function": {"name": "f", "arguments": {"x": 1}}},
        {"name": "f", "arguments": '{"x": 1}'},
        {"type": "function", "id": "1", "function": {"name": "f", "arguments": '{"x": 1.0}'}},
        {"name": "f", "arguments": {"x": 1}, "error": None},
        {"name": "f", "arguments": {"x": 1}, "error": math.nan},  # a data frame fills what is absent with NaN
        {"name": "f", "arguments": math.nan, "parameters": {"x": 1}},
        {"name": math.nan, "arguments": math.nan, "function": {"name": "f", "arguments": {"x": 1}}},
        ToolCall("f", {"x": 1}),
        SimpleNamespace(name="f", arguments={"x": 1}),
        SimpleNamespace(name="f", parameters={"x": 1}),
        SimpleNamespace(name="f", arguments=None, parameters={"x": 1}, error=None),
        SimpleNamespace(id="1", function=SimpleNamespace(name="f", arguments='{"x": 1}')),
    ],
)
def test_every_shape_of_a_call_is_read(call):
    assert similarity(call, GOLD) == 1.0
    assert similarity(GOLD, call) == 1.0


@pytest.mark.parametrize(
    "call",
    [
        ToolCall("f", {"x": 1}, error="not JSON"),
        {"name": "f", "arguments": {"x": 1}, "error": "cut off"},
        {"name": "f", "arguments": "x=1"},
        {"name": "f", "arguments": "[1]"},
        {"name": "f", "arguments": ""},
        {"name": "f", "arguments": "[" * 100_000},
        {"name": "f", "arguments": [("x", 1)]},
        {"name": "f", "arguments": None},
        {"name": "f"},
        {"arguments": {"x": 1}},
        {"name": None, "arguments": {"x": 1}},
        {"name": ["f"], "arguments": {"x": 1}},
        {"name": 1, "arguments": {"x": 1}},
        {"function": 3},
        {"function": {"function": {}}},
        {},
        None,
        "f(x=1)",
        7,
        [],
        object(),
    ],
)
def test_a_malformed_call_is_similar_to_nothing(call):
    assert similarity(call, GOLD) == 0.0
    assert similarity(GOLD, call) == 0.0
    assert similarity_matrix([call, GOLD], [GOLD]).tolist() == [[0.0], [1.0]]


def test_deep_and_endless_values_neither_raise_nor_hang():
    deep, other = [], []
    for _ in range(200_000):
        deep, other = [deep], [other]
    assert similarity(with_value(deep), with_value(other)) == 1.0
    assert similarity(with_value(deep), with_value([])) == pytest.approx(2 / 3)
    endless = {}
    endless["self"] = endless
    assert similarity(with_value(endless), GOLD) == 0.0


def test_weights_of_the_terms():
    pred, gold = {"name": "f", "arguments": {"a": 1, "c": 0}}, {"name": "f", "arguments": {"a": 1, "b": 2}}
    assert similarity(pred, gold, weights=(2.0, 3.0, 4.0)) == pytest.approx((2 + 3 / 3 + 4) / (2 + 3 + 8))
    assert similarity(pred, gold, weights=(0.0, 0.0, 1.0)) == pytest.approx(0.5)
    assert similarity(with_value(1), {"name": "f", "arguments": {}}, weights=(0.0, 0.0, 1.0)) == 1.0
    single = np.float32(1.0)
    assert similarity(pred, gold, weights=(single, single, single)) == similarity(pred, gold)  # to the last bit
    for weights in ((0, 0, 0), (-1, 1, 1), (math.nan, 1, 1), (1, 1)):
        with pytest.raises(ValueError, match="weights"):
            similarity(pred, gold, weights=weights)


def test_shapes_without_calls():
    assert similarity_matrix([], []).shape == (0, 0)
    assert similarity_matrix([GOLD], []).shape == (1, 0)
    assert similarity_matrix([], [GOLD, GOLD]).shape == (0, 2)
    assert similarity_matrix([GOLD], [GOLD]).dtype == np.float64


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.sampled_from(["", "a", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)
calls = st.fixed_dictionaries(
    {"name": st.sampled_from(["f", "F", "g"]), "arguments": st.dictionaries(st.sampled_from("xyz"), json_values)}
)
anything = calls | json_values | st.fixed_dictionaries({"name": json_values, "arguments": json_values})


@given(anything, anything)
def test_similarity_lies_between_0_and_1(pred, gold):
    assert 0.0 <= similarity(pred, gold) <= 1.0


@given(calls)
def test_a_call_is_fully_similar_to_itself(call):
    assert similarity(call, call) == 1.0


@given(calls, calls)
def test_a_positive_similarity_has_the_stated_lower_bound(pred, gold):
    found = similarity(pred, gold)
    assert found == 0.0 or found >= 1 / (2 + len(gold["arguments"])) - 1e-12


@given(st.lists(anything, max_size=6), st.lists(anything, max_size=6))
def test_the_matrix_holds_the_similarities_of_the_pairs(preds, golds):
    expected = np.array([[similarity(p, g) for g in golds] for p in preds]).reshape(len(preds), len(golds))
    np.testing.assert_array_equal(similarity_matrix(preds, golds), expected)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 2.0, 0.5), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)])
@pytest.mark.parametrize("tools", [1, 4])
def test_large_matrices_hold_the_same_numbers(weights, tools):
    generator = np.random.default_rng(0)

    def draw():
        names = generator.permutation(["x", "y", "z", "w"])[: generator.integers(0, 5)]
        return {"name": f"t{generator.integers(tools)}", "arguments": {n: int(generator.integers(3)) for n in names}}

    preds, golds = [draw() for _ in range(40)] + [None], [draw() for _ in range(35)]
    expected = [[similarity(pred, gold, weights=weights) for gold in golds] for pred in preds]
    np.testing.assert_array_equal(similarity_matrix(preds, golds, weights=weights), expected)
