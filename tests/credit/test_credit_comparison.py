"""Settings of the comparison of calls: what each makes equal, and that the defaults are MatchTIR's comparison."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewright.credit import (
    CreditTrajectory,
    match,
    match_many,
    similarity,
    similarity_matrix,
    turn_rewards,
    turn_signal,
)
from rewright.credit.comparison import Comparison
from rewright.credit.settings import TurnCredit
from support.in_process import rewright

SCHEMA = {
    "type": "function",
    "function": {
        "name": "f",
        "parameters": {"type": "object", "properties": {"a": {}, "unit": {"default": "C"}, "limit": {"default": 10}}},
    },
}
PLAIN = {"name": "f", "arguments": {"a": 5, "tags": ["x", "y"]}}


def call(name="f", **arguments):
    return {"name": name, "arguments": arguments}


@pytest.mark.parametrize(
    ("settings", "pred", "gold", "equal"),
    [
        ({"unordered_lists": True}, call(a=[1, 2, 2]), call(a=[2, 1, 2.0]), True),
        ({"unordered_lists": True}, call(a=[1, 2]), call(a=[1, 2, 2]), False),
        ({"unordered_lists": True}, call(a={"b": [[1], [2]]}), call(a={"b": [[2], [1]]}), True),
        ({"numbers_as_text": True}, call(a="5.0"), call(a=5), True),
        ({"numbers_as_text": True}, call(a=["5"]), call(a=[5.0]), True),
        ({"numbers_as_text": True}, call(a="1e2"), call(a=100), True),
        ({"numbers_as_text": True}, call(a="007"), call(a=7), False),
        ({"numbers_as_text": True}, call(a="true"), call(a=True), False),
        ({"numbers_as_text": True}, call(a=True), call(a="1"), False),
        ({"numbers_as_text": True}, call(a="9" * 400), call(a=9), False),
        ({"tool_names": {"functions.F": "f"}}, call("functions.f", a=1), call("F", a=1), True),
        ({"argument_names": {"f": {"town": "a"}}}, call(town="x"), call(a="x"), True),
        ({"argument_names": {"*": {"town": "a"}}}, call(a="x"), call(town="x"), True),
        ({"argument_names": {"g": {"town": "a"}}}, call(town="x"), call(a="x"), False),
        ({"argument_names": {"f": {"town": "a"}}}, call(town="x", a="x"), call(a="x"), False),
        ({"arguments": {"f": {"a": "casefold"}}}, call(a=" RoME"), call(a="Rome"), True),
        ({"arguments": {"f": {"a": "casefold"}}}, call(a="x", b="R"), call(a="x", b="r"), False),
        ({"arguments": {"*": {"a": "number"}}}, call(a="0.30000000000000004"), call(a=0.3), True),
        ({"arguments": {"*": {"a": "number"}}}, call(a="3"), call(a=3.1), False),
        ({"arguments": {"f": {"a": {"number": 0.01}}}}, call(a=1.009), call(a=1), True),
        ({"arguments": {"f": {"a": {"number": 0.01}}}}, call(a=1.02), call(a=1), False),
        ({"arguments": {"f": {"a": {"number": 0.1}}}}, call(a=[1.05, "2"]), call(a=[1, 2]), True),
        ({"arguments": {"f": {"a": {"number": 0.1}}}}, call(a=True), call(a=1), False),
        ({"arguments": {"f": {"a": "set"}}}, call(a=["x", "y", "x"]), call(a=["y", "x"]), True),
        ({"arguments": {"*": {"a": "comma_set"}}}, call(a="x::1, y::2,x::1"), call(a="y::2,x::1"), True),
        ({"arguments": {"*": {"a": "comma_set"}}}, call(a="x::1"), call(a="y::2,x::1"), False),
        ({"arguments": {"*": {"a": "comma_set"}}}, call(a=["y", "x"]), call(a="y,x"), False),
        ({"arguments": {"*": {"a": "comma_set"}}}, call(a="y,x"), {"f": {"a": ["x,y", "z"]}}, True),
        ({"arguments": {"f": {"a": "ignore"}}}, call(a=1, b=2), call(b=2), True),
        ({"unordered_lists": True, "arguments": {"f": {"a": "exact"}}}, call(a=[1, 2]), call(a=[2, 1]), False),
        ({"arguments": {"*": {"a": "casefold"}, "f": {"a": "exact"}}}, call(a="X"), call(a="x"), False),
        ({"defaults": True}, call(a=1), call(a=1, unit="C"), True),
        ({"defaults": True}, call(a=1, unit="C", limit=10), call(a=1), True),
        ({"defaults": True}, call(a=1), call(a=1, unit="F"), False),
        ({"defaults": True}, call(a=1, unit="F"), call(a=1), False),
        ({"defaults": True}, call(), call(a=1), False),
        ({"defaults": {"f": {"unit": "K"}}}, call(a=1, unit="K"), call(a=1), True),
        ({"defaults": True, "numbers_as_text": True}, call(a=1, limit="10"), call(a=1), True),
        ({"numbers_as_text": True}, call(a="10"), {"f": {"a": [10, 11], "b": ["x", ""]}}, True),
        ({"argument_names": {"f": {"x": "a"}}}, call(x=10), {"f": {"a": [10, 11]}}, True),
        ({"defaults": True}, call(a=1), {"f": {"a": [1, 2], "unit": ["C", "K"]}}, True),
        ({"defaults": True}, call(a=1), {"f": {"a": [1, 2], "unit": ["K"]}}, False),
        ({"arguments": {"f": {"a": "ignore"}}}, call(b=1), {"f": {"a": [1], "b": [1]}}, True),
        ({"arguments": {"f": {"a": {"number": 0.5}}}}, call(a=3.4), {"f": {"a": [1, 3]}}, True),
    ],
)
def test_what_each_setting_makes_equal(settings, pred, gold, equal):
    comparison = Comparison.of(settings)
    assert (similarity(pred, gold, compare=comparison, tools=[SCHEMA]) == 1.0) is equal
    assert similarity(pred, gold, tools=[SCHEMA]) < 1.0


def test_a_function_of_yours_scores_a_pair():
    def near(value, gold):
        return 0.5 if value.startswith(gold[:2]) else value == gold

    comparison = Comparison(arguments={"f": {"a": near}})
    assert similarity(call(a="Rome"), call(a="Rome"), compare=comparison) == pytest.approx((2 + 0.5) / 3)
    assert similarity(call(a="x"), call(a="Rome"), compare=comparison) == pytest.approx(2 / 3)
    for bad in (lambda value, gold: 2, lambda value, gold: "yes", lambda value, gold: 1 / 0):
        with pytest.raises(ValueError, match=r"compare: .*lambda"):
            similarity(call(a=1), call(a=1), compare=Comparison(arguments={"f": {"a": bad}}))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False)
    | st.sampled_from(["a", "A", "1", "2.0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)
CALLS = st.builds(
    call, st.sampled_from(["f", "g"]), **dict.fromkeys("ab", VALUES)
) | st.builds(call, st.just("f"), a=VALUES)  # fmt: skip
SETTINGS = st.builds(
    Comparison,
    defaults=st.booleans(),
    unordered_lists=st.booleans(),
    numbers_as_text=st.booleans(),
    arguments=st.dictionaries(
        st.sampled_from(["f", "*"]),
        st.dictionaries(
            st.sampled_from("ab"), st.sampled_from(["exact", "casefold", "number", "set", {"number": 1}]), max_size=2
        ),
        max_size=2,
    ),
)


@given(CALLS, CALLS, SETTINGS)
def test_every_setting_keeps_the_range_and_calls_a_call_equal_to_itself(left, right, settings):
    tools = [{"function": {"name": "f", "parameters": {"properties": {"b": {"default": 1}}}}}]
    score = similarity(left, right, compare=settings, tools=tools)
    assert 0.0 <= score <= 1.0
    assert similarity(left, copy.deepcopy(left), compare=settings, tools=tools) == 1.0


@given(CALLS, CALLS, SETTINGS)
def test_settings_that_only_add_equalities_never_lower_the_similarity(left, right, settings):
    lenient = Comparison.of({"unordered_lists": settings.unordered_lists, "numbers_as_text": settings.numbers_as_text})
    lenient = Comparison(
        unordered_lists=lenient.unordered_lists, numbers_as_text=lenient.numbers_as_text, arguments=settings.arguments
    )
    assert similarity(left, right, compare=lenient) >= similarity(left, right)


@given(st.lists(CALLS, max_size=4), st.lists(CALLS, max_size=4))
def test_the_defaults_are_the_comparison_without_settings(preds, golds):
    plain = match(preds, golds)
    for compare in (Comparison(), Comparison.of(None), Comparison(arguments={"f": {"a": "exact"}})):
        found = match(preds, golds, compare=compare)
        assert np.array_equal(found.similarity_PG, plain.similarity_PG)
        assert found.pairs == plain.pairs


@given(st.lists(CALLS, min_size=13, max_size=13), st.lists(CALLS, min_size=13, max_size=13))
def test_large_blocks_agree_with_pairs(preds, golds):
    compare = Comparison(unordered_lists=True, numbers_as_text=True)
    matrix = similarity_matrix(preds, golds, compare=compare)
    for row, pred in enumerate(preds):
        for column, gold in enumerate(golds):
            assert matrix[row, column] == pytest.approx(similarity(pred, gold, compare=compare))


def test_model_output_never_raises():
    deep = "[" * 50_000
    for odd in (None, 3, "x", {"name": 1}, call(a=float("nan")), {"name": "f", "arguments": deep}, {"name": "f"}):
        compare = Comparison(defaults=True, unordered_lists=True, arguments={"f": {"a": {"number": 1}}})
        assert 0.0 <= similarity(odd, PLAIN, compare=compare, tools=[SCHEMA]) <= 1.0
    nested = [1]
    for _ in range(5000):
        nested = [nested]
    assert similarity(call(a=nested), call(a=nested), compare=Comparison(unordered_lists=True)) == 1.0


def test_every_way_to_credit_takes_the_settings():
    compare, gold = {"defaults": True}, [call(a=1, unit="C")]
    assert turn_rewards([[call(a=1)]], gold, compare=compare, tools=[SCHEMA]).tolist() == [1.0]
    two = [SCHEMA | {"function": {**SCHEMA["function"], "parameters": {"properties": {"unit": {"default": "F"}}}}}]
    found = match_many([([call(a=1)], gold, [SCHEMA]), ([call(a=1)], gold, two)], compare=Comparison.of(compare))
    assert [one.rewards_P[0] == 1.0 for one in found] == [True, False]
    trajectory = CreditTrajectory.of_calls([[call(a=1)]], gold, tools=[SCHEMA])
    assert TurnCredit.of({"compare": compare}).signal_of([trajectory]).values[0].tolist() == [1.0]
    assert TurnCredit.of({"signal": {"name": "matched", "compare": compare}}).compare.defaults is True
    with pytest.raises(ValueError, match="no trajectory has the schemas"):
        turn_signal([CreditTrajectory.of_calls([[call(a=1)]], gold)], compare=compare)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"arguments": {"f": {"a": "near"}}}, "known rules, got 'near' for f.a"),
        ({"arguments": {"f": {"a": {"number": -1}}}}, "known rules"),
        ({"unordered": True}, "unordered"),
        ({"defaults": "yes"}, "defaults"),
        ({"arguments": {"f": {"a": "no_such_module:f"}}}, "no_such_module"),
    ],
)
def test_a_wrong_setting_is_named(settings, words):
    with pytest.raises(ValueError, match=words):
        TurnCredit.of({"compare": settings}).check_functions()


def test_the_command_and_a_recipe_take_the_settings(tmp_path: Path):
    pred = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a": "5", "t": [2, 1]}'}}]}
    row = {"id": "1", "messages": [{"role": "user", "content": "Q"}, pred], "gold_calls": [call(a=5, t=[1, 2])]}
    (tmp_path / "log.jsonl").write_text(json.dumps(row) + "\n")
    settings = ["compare.numbers_as_text=true", "compare.unordered_lists=true"]
    for changes, reward in (([], 0.5), (settings[:1], 0.75), (settings, 1.0)):
        done = rewright(tmp_path, "credit", "log.jsonl", "--json", *changes)
        assert done.code == 0, done.errors
        assert json.loads(done.output.splitlines()[0])["turn_rewards"] == [reward]
    rewright(tmp_path, "credit", "log.jsonl", "compare.unordered=true").refused("compare")
    rewright(tmp_path, "credit", "log.jsonl", "compare.defaults=true").refused("expected the defaults, as")
    (tmp_path / "r.yaml").write_text("rl: {credit: {compare: {arguments: {f: {a: nothing_here:f}}}}}\nstages: [rl]\n")
    rewright(tmp_path, "run", "r.yaml", "--dry-run").refused("nothing_here")


def test_a_stored_recipe_that_names_a_function_needs_consent(tmp_path: Path):
    from rewright.recipe.consent import recipe_code
    from rewright.recipe.loader import load_recipe

    (tmp_path / "r.yaml").write_text("rl: {credit: {compare: {arguments: {f: {a: 'mine:near'}}}}}\n")
    assert ("rl.credit.compare", "mine:near") in list(recipe_code(load_recipe(tmp_path / "r.yaml")))
