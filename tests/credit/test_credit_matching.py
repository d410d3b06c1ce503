"""Matching: optimality against brute force, the greedy rule, ties, settings, and batches."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewright.credit import match, match_many, similarity_matrix

values = st.sampled_from([0, 1, "a", True])
good_calls = st.fixed_dictionaries(
    {"name": st.sampled_from(["f", "g"]), "arguments": st.dictionaries(st.sampled_from("xyz"), values, max_size=3)}
)
some_calls = good_calls | st.sampled_from([None, {"name": "f"}, {"name": "f", "arguments": {"x": 1}, "error": "cut"}])
small = st.lists(some_calls, max_size=5)


def call(name="f", **arguments):
    return {"name": name, "arguments": arguments}


def brute_force(matrix):
    """The largest total of any one-to-one assignment."""
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    rows = range(matrix.shape[0])
    return max(
        sum(matrix[i, j] for i, j in zip(rows, p, strict=True))
        for p in itertools.permutations(range(matrix.shape[1]), matrix.shape[0])
    )


def greedy_by_the_book(matrix):
    """The released code's rule, written as plainly as possible."""
    order = sorted(np.ndindex(matrix.shape), key=lambda pair: (-round(matrix[pair], 9), *pair))
    pairs, rows, columns = [], set(), set()
    for i, j in order:
        if matrix[i, j] > 0 and i not in rows and j not in columns:
            pairs.append((i, j))
            rows.add(i)
            columns.add(j)
    return sorted(pairs)


@given(small, small)
def test_optimal_is_the_best_assignment_and_never_below_greedy(preds, golds):
    optimal, greedy = match(preds, golds), match(preds, golds, assignment="greedy")
    matrix = similarity_matrix(preds, golds)
    assert optimal.rewards_P.sum() == pytest.approx(brute_force(matrix) if matrix.size else 0.0, abs=1e-9)
    assert optimal.rewards_P.sum() >= greedy.rewards_P.sum() - 1e-9


@given(small, small)
def test_greedy_follows_the_stated_rule(preds, golds):
    found = match(preds, golds, assignment="greedy")
    assert found.pairs == greedy_by_the_book(similarity_matrix(preds, golds))


@pytest.mark.parametrize("assignment", ["optimal", "greedy"])
@given(small, small)
def test_pairs_are_one_to_one_and_rewards_are_their_similarities(assignment, preds, golds):
    found = match(preds, golds, assignment=assignment)
    assert found.plan_PG is None
    assert found.pairs == sorted(found.pairs)
    assert len({i for i, _ in found.pairs}) == len({j for _, j in found.pairs}) == len(found.pairs)
    expected = np.zeros(len(preds))
    for i, j in found.pairs:
        assert found.similarity_PG[i, j] > 0.0
        expected[i] = found.similarity_PG[i, j]
    np.testing.assert_array_equal(found.rewards_P, expected)
    np.testing.assert_array_equal(found.similarity_PG, similarity_matrix(preds, golds))


@given(small, small, st.randoms(use_true_random=False))
def test_order_of_the_calls_does_not_change_what_is_paid(preds, golds, random):
    rows, columns = list(range(len(preds))), list(range(len(golds)))
    random.shuffle(rows)
    random.shuffle(columns)
    shuffled = ([preds[i] for i in rows], [golds[j] for j in columns])
    for assignment in ("optimal", "ot"):
        before = match(preds, golds, assignment=assignment)
        after = match(*shuffled, assignment=assignment)
        if assignment == "ot":  # the plan is unique: it permutes
            np.testing.assert_allclose(after.rewards_P, before.rewards_P[rows], atol=1e-9)
            np.testing.assert_allclose(after.plan_PG, before.plan_PG[np.ix_(rows, columns)], atol=1e-9)
        else:  # among tied calls the earlier is paid: what is paid in all, and its spread, stay
            assert after.rewards_P.sum() == pytest.approx(before.rewards_P.sum(), abs=1e-9)
            assert (after.rewards_P**2).sum() == pytest.approx((before.rewards_P**2).sum(), abs=1e-6)


def test_permutation_permutes_the_result_where_nothing_is_tied():
    golds = [call(a=1, b=1, c=1, d=1), call(a=2, b=2, c=2), call("g", a=1), call("g", a=7, b=8)]
    preds = [call(a=1, b=1, c=1), call(a=2, b=2, c=9), call("g", a=1, b=8), call("g", a=7, b=8, c=3), call("h")]
    for assignment in ("optimal", "greedy", "ot"):
        before = match(preds, golds, assignment=assignment).rewards_P
        for rows in itertools.permutations(range(5)):
            after = match([preds[i] for i in rows], golds[::-1], assignment=assignment).rewards_P
            np.testing.assert_allclose(after, before[list(rows)], atol=1e-9)


def test_ties_go_to_the_earlier_call_and_to_exact_matches():
    assert match([call(a=1), call(a=1)], [call(a=1)]).rewards_P.tolist() == [1.0, 0.0]
    assert match([call(a=8), call(a=9)], [call(a=1)]).pairs == [(0, 0)]
    assert match([call(a=8)] * 3, [call(a=1)] * 2).pairs == [(0, 0), (1, 1)]
    many = [call(a=index) for index in range(20)]
    found = match(many, [call(a=-1)] * 12)
    assert [i for i, _ in found.pairs] == list(range(12))
    assert found.pairs == match(many, [call(a=-1)] * 12).pairs
    # Both assignments total the same where S = [[1, u], [u, 2u - 1]]: the one with the exact match is taken.
    weights = (1.0, 0.0, 1.0)
    preds, golds = [call(a=1, b=1), call(a=1, b=2)], [call(a=1, b=1), call(a=3, b=1)]
    assert match(preds, golds, weights=weights).rewards_P.tolist() == pytest.approx([1.0, 1 / 3])


def test_greedy_loses_where_one_tool_is_called_several_times():
    preds, golds = [call(a=2, b=2), call(a=2, b=1)], [call(a=2, b=0), call(a=1, b=2)]
    greedy, optimal = match(preds, golds, assignment="greedy"), match(preds, golds)
    assert (greedy.pairs, greedy.rewards_P.tolist()) == ([(0, 0), (1, 1)], [0.75, 0.5])
    assert (optimal.pairs, optimal.rewards_P.tolist()) == ([(0, 1), (1, 0)], [0.75, 0.75])


@pytest.mark.parametrize("assignment", ["optimal", "greedy"])
def test_unmatched_calls_get_the_set_reward_and_malformed_ones_never_more(assignment):
    preds, golds = [call(a=1), call("h"), None], [call(a=1)]
    assert match(preds, golds, assignment=assignment, unmatched=-0.5).rewards_P.tolist() == [1.0, -0.5, -0.5]
    assert match(preds, golds, assignment=assignment, unmatched=0.1).rewards_P.tolist() == [1.0, 0.1, 0.0]


@pytest.mark.parametrize("assignment", ["optimal", "greedy", "ot"])
def test_without_calls_or_gold_there_is_nothing_to_pay(assignment):
    nothing = match([], [call()], assignment=assignment, unmatched=-1.0)
    assert nothing.rewards_P.shape == (0,)
    assert nothing.similarity_PG.shape == (0, 1)
    for golds in ([], None):
        found = match([call(), call()], golds, assignment=assignment, unmatched=-1.0)
        assert found.rewards_P.tolist() == [0.0, 0.0]
        assert found.similarity_PG.shape == (2, 0)
    assert match(None, None, assignment=assignment).rewards_P.shape == (0,)
    if assignment == "ot":
        assert nothing.plan_PG.shape == (0, 1)
        assert nothing.pairs is None
    else:
        assert nothing.pairs == []


def test_a_call_in_the_place_of_the_predicted_calls_is_one_call():
    """Iterated over, it would be a list of its keys: calls that nobody made."""
    pair = collections.namedtuple("pair", "name arguments")("f", {"a": 1})
    for alone in (call(a=1), pair):
        assert match(alone, [call(a=1)]).rewards_P.tolist() == [1.0]
        assert similarity_matrix(alone, [call(a=1)]).tolist() == [[1.0]]
    for written in ("f(a=1)", 5):
        assert match(written, [call(a=1)]).rewards_P.tolist() == [0.0]
    assert match((one for one in [call(a=1)]), [call(a=1)]).rewards_P.tolist() == [1.0]


@given(st.lists(st.tuples(small, small), max_size=6), st.sampled_from(["optimal", "greedy", "ot"]))
@settings(max_examples=50)
def test_a_batch_gives_what_its_parts_give(problems, assignment):
    for alone, together in zip(
        [match(*problem, assignment=assignment, ot_scale="calls") for problem in problems],
        match_many(problems, assignment=assignment, ot_scale="calls"),
        strict=True,
    ):
        np.testing.assert_allclose(together.rewards_P, alone.rewards_P, atol=1e-12)
        assert together.pairs == alone.pairs


def test_golds_shared_by_a_group_are_read_once_and_give_the_same():
    golds = [call(a=1), call("g", b=2)]
    rollouts = [[call(a=1)], [call("g", b=2), call(a=3)], []]
    shared = match_many([(rollout, golds) for rollout in rollouts])
    apart = match_many([(rollout, list(golds)) for rollout in rollouts])
    assert [found.rewards_P.tolist() for found in shared] == [found.rewards_P.tolist() for found in apart]


@pytest.mark.parametrize(
    "setting",
    [
        {"assignment": "best"},
        {"ot_scale": "P"},
        {"reg": 0.0},
        {"reg": float("nan")},
        {"reg": "0.1"},
        {"unmatched": float("nan")},
        {"unmatched": None},
        {"weights": (0, 0, 0)},
        {"weights": (1, 1)},
        {"weights": None},
        {"weights": (1e308, 1e308, 1e308)},
        {"unmatched": 1e308},
        {"weights": ("1", 1, 1)},
    ],
)
def test_a_wrong_setting_is_named(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        match([call()], [call()], **setting)
