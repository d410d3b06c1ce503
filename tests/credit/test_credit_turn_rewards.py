"""Turn rewards: aggregation, the outcome, and input that a model has spoilt."""

import collections
import math
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewright.core.records import ToolCall
from rewright.credit import match, turn_rewards, turn_rewards_many


def call(name="f", **arguments):
    return {"name": name, "arguments": arguments}


GOLDS = [call(a=1), call(a=2)]


def test_all_calls_of_the_trajectory_are_matched_together():
    # Taken turn by turn, both calls would be paid for the same gold call.
    assert turn_rewards([[call(a=1)], [call(a=1)]], [call(a=1)]).tolist() == [1.0, 0.0]


def test_no_outcome_is_not_an_outcome_of_zero_but_adds_as_little():
    assert turn_rewards([[call(a=1)]], GOLDS, outcome=None).tolist() == [1.0]
    assert turn_rewards([[call(a=1)]], GOLDS, outcome=0.0).tolist() == [1.0]
    assert turn_rewards([[call(a=1)], []], GOLDS, outcome=0.5).tolist() == [1.0, 0.5]


def test_a_malformed_call_counts_and_earns_nothing():
    spoilt = [ToolCall("f", {"a": 2}, error="cut off"), {"name": "f", "arguments": "{"}, None]
    assert turn_rewards([[call(a=1), *spoilt]], GOLDS).tolist() == [0.25]
    assert turn_rewards([[call(a=1), *spoilt]], GOLDS, aggregate="sum").tolist() == [1.0]


@pytest.mark.parametrize("golds", [[], None, [None], [call("other")]])
@pytest.mark.parametrize("assignment", ["optimal", "greedy", "ot"])
def test_nothing_to_match_gives_zeros_and_the_outcome(golds, assignment):
    found = turn_rewards([[call(a=1)], [], [call()]], golds, outcome=0.75, assignment=assignment)
    assert found.tolist() == pytest.approx([0.0, 0.0, 0.75])


def test_shapes_without_turns_or_calls():
    assert turn_rewards([], GOLDS, outcome=1.0).shape == (0,)
    assert turn_rewards([[], None, ()], GOLDS, outcome=1.0).tolist() == [0.0, 0.0, 1.0]
    assert turn_rewards([[call(a=1)]], GOLDS).dtype == np.float64


def test_soft_rewards_are_the_plan_s_and_may_be_scaled_by_the_number_of_calls():
    turns = [[call(a=1), call(a=3)], [call(a=2)]]
    soft = match([call(a=1), call(a=3), call(a=2)], GOLDS, assignment="ot").rewards_P
    expected = [soft[:2].mean(), soft[2]]
    np.testing.assert_allclose(turn_rewards(turns, GOLDS, assignment="ot"), expected)
    scaled = turn_rewards(turns, GOLDS, assignment="ot", ot_scale="calls")
    np.testing.assert_allclose(scaled, 3 * np.array(expected))


def test_a_batch_gives_what_its_parts_give():
    trajectories = [[[call(a=1)], [call(a=2), call("g")]], [], [[call(a=2)]]]
    golds = [GOLDS, GOLDS, None]
    outcomes = [1.0, None, 0.5]
    together = turn_rewards_many(trajectories, golds, outcomes=outcomes)
    for index, found in enumerate(together):
        alone = turn_rewards(trajectories[index], golds[index], outcome=outcomes[index])
        assert found.tolist() == alone.tolist()


def test_settings_are_checked():
    with pytest.raises(ValueError, match="aggregate is 'max'"):
        turn_rewards([], [], aggregate="max")
    with pytest.raises(ValueError, match="outcome is nan"):
        turn_rewards([[]], [], outcome=math.nan)
    for outcome in ("1", 10**400):
        with pytest.raises(ValueError, match=r"outcome is .*: expected a finite number"):
            turn_rewards([[]], [], outcome=outcome)
    with pytest.raises(ValueError, match="1 gold lists, but 2 trajectories"):
        turn_rewards_many([[], []], [[]])


def test_whatever_stands_in_a_turn_s_place_is_read_as_its_calls():
    one = call(a=1)
    assert turn_rewards(None, GOLDS, outcome=1.0).shape == (0,)
    turns = [
        one,
        ToolCall("f", {"a": 2}),
        iter([one]),
        np.array([None, one], dtype=object),
        "f(a=1)",
        5,
        math.nan,
        b"x",
    ]
    expected = turn_rewards([[one], [ToolCall("f", {"a": 2})], [one], [None, one], *([[None]] * 4)], GOLDS)
    assert turn_rewards(turns, GOLDS).tolist() == expected.tolist() == [1.0, 1.0, *([0.0] * 6)]
    assert turn_rewards(np.array([[one], [one, one]], dtype=object), GOLDS[:1]).tolist() == [1.0, 0.0]


def test_an_iterable_call_is_one_call_and_a_column_with_a_name_a_list():
    class Iterable(SimpleNamespace):  # as pydantic models are: OpenAI's tool calls
        def __iter__(self):
            return iter(vars(self).items())

    class Column(collections.UserList):  # as pandas' are
        name = "calls"

    inner = Iterable(name="f", arguments='{"a": 1}')
    turns = [Iterable(id="1", function=inner, type="function"), Column([call(a=2), call(a=1)])]
    assert turn_rewards(turns, GOLDS).tolist() == [1.0, 0.5]


def test_a_batch_may_come_from_generators_and_outcomes_as_any_number():
    for outcome in (Decimal("0.5"), np.float32(0.5), Fraction(1, 2)):
        (found,) = turn_rewards_many(iter([[[call(a=1)]]]), iter([GOLDS]), outcomes=iter([outcome]))
        assert found.tolist() == [1.5]


@pytest.mark.parametrize("golds", [call(a=1), '[{"name": "f"}]', b"f", 5])
def test_gold_calls_that_are_no_list_are_named(golds):
    """A single call, iterated over, would be a list of its keys: no call at all, and a silent 0."""
    with pytest.raises(ValueError, match=r"the gold calls are .*: expected a list of calls"):
        turn_rewards([[call(a=1)]], golds)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
odd_calls = st.one_of(
    junk,
    st.fixed_dictionaries(
        {"name": st.sampled_from(["f", 3, None]), "arguments": junk | st.dictionaries(st.sampled_from("ab"), junk)},
        optional={"error": junk, "function": junk, "parameters": junk},
    ),
)


@given(
    st.lists(st.lists(odd_calls, max_size=3) | odd_calls, max_size=4),
    # A gold call that names an argument and allows no value for it is refused.
    st.lists(odd_calls.filter(lambda gold: not (isinstance(gold, dict) and len(gold) == 1)), max_size=4),
    st.sampled_from(["optimal", "greedy", "ot"]),
    st.sampled_from(["mean", "sum"]),
)
def test_whatever_a_model_writes_gives_finite_rewards(turns, golds, assignment, aggregate):
    found = turn_rewards(turns, golds, assignment=assignment, aggregate=aggregate, outcome=0.5)
    assert found.shape == (len(turns),)
    assert np.isfinite(found).all()
    assert (found >= 0.0).all()
