"""From turns to tokens and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewright.core.records import Span, Trajectory, Turn
from rewright.credit import per_token, per_turn, spans_from_mask


def test_spans_of_a_stored_trajectory_are_taken_as_they_are():
    trajectory = Trajectory(
        id="t", task_id="q", stage="rl", index=0, stop_reason="answered", prompt_ids=(1, 2),
        turns=(Turn("a", token_ids=(3, 4), suffix_ids=(5,)), Turn("b", token_ids=(6,))),
    )  # fmt: skip
    assert trajectory.spans == [Span(2, 4), Span(5, 6)]
    assert per_token([[1.0, -2.0]], [trajectory.spans], 7).tolist() == [[0, 0, 1, 1, 0, -2, 0]]
    assert spans_from_mask([trajectory.mask]) == [[(2, 4), (5, 6)]]


def test_what_was_cut_off_gets_nothing():
    assert per_token([[1.0, 2.0]], [[(0, 2), (3, 9)]], 4).tolist() == [[1, 1, 0, 2]]
    assert per_token([[1.0, 2.0]], [[(0, 2), (6, 9)]], 4).tolist() == [[1, 1, 0, 0]]
    assert per_token([], [], 4).shape == (0, 4)
    assert per_token([[]], [[]], 0).shape == (1, 0)


@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.floats(-2, 2, width=32)), max_size=4)))
def test_the_inverse_gives_the_advantages_back(shapes):
    values, spans = [], []
    for row in shapes:
        position, ranges = 0, []
        for index, (gap, length, _) in enumerate(row):
            start = position + gap + (index > 0)  # at least one tool token between two turns
            ranges.append((start, start + length))
            position = start + length
        spans.append(ranges)
        values.append(np.array([value for _, _, value in row]))
    length = max((ranges[-1][1] for ranges in spans if ranges), default=0) + 2
    mask = per_token([np.ones(len(row)) for row in values], spans, length)
    tokens = per_token(values, spans, length)
    assert tokens.shape == (len(shapes), length)
    assert tokens.dtype == np.float32
    assert spans_from_mask(mask) == spans
    for how in ("first", "last"):
        for found, expected in zip(per_turn(tokens, mask, how=how), values, strict=True):
            np.testing.assert_array_equal(found, expected)
    assert (tokens[mask == 0] == 0).all()


def test_turn_rewards_out_of_token_level_rewards():
    mask = [[0, 1, 1, 0, 1, 1], [1, 0, 0, 0, 0, 0]]
    rewards = [[9, 0, 0.5, 9, 0.25, 1.0], [0.75, 9, 9, 9, 9, 9]]
    found = per_turn(rewards, mask, how="sum")
    assert [row.tolist() for row in found] == [[0.5, 1.25], [0.75]]
    assert [row.tolist() for row in per_turn(rewards, mask, how="last")] == [[0.5, 1.0], [0.75]]
    assert spans_from_mask(np.array([[True, False, True]])) == [[(0, 1), (2, 3)]]


def test_lengths_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="trajectory 0: 1 spans, but 2 turn advantages"):
        per_token([[1.0, 2.0]], [[(0, 1)]], 3)
    with pytest.raises(ValueError, match="2 lists of spans, but 1 advantage arrays"):
        per_token([[1.0]], [[(0, 1)], []], 3)
    for beyond in (np.nan, 1e50):
        with pytest.raises(ValueError, match=r"trajectory 0: advantages .*: expected finite numbers of float32"):
            per_token([[1.0, beyond]], [[(0, 1), (2, 3)]], 3)
    with pytest.raises(ValueError, match=r"span \(2, 1\)"):
        per_token([[1.0]], [[(2, 1)]], 3)
    with pytest.raises(ValueError, match=r"trajectory 1: span \(2, 5\) starts before the last turn's end, 3"):
        per_token([[], [1.0, 2.0]], [[], [(0, 3), (2, 5)]], 6)
    with pytest.raises(ValueError, match=r"mask has shape \(3,\)"):
        spans_from_mask([0, 1, 1])
    with pytest.raises(ValueError, match="expected the same"):
        per_turn([[1.0]], [[1, 0]])
    for empty in ([[1]], np.zeros((0, 3))):
        with pytest.raises(ValueError, match="how is 'mean'"):
            per_turn(empty, empty, how="mean")
