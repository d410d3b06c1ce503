"""AutoTraj's reward of one trajectory."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewright.credit.trajectory_reward import autotraj


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((False, 1.0), -1),
        ((False, 0.0, 5.0), -1),
        ((True, 1.0), 1),
        ((True, 0.0, 5.0), 0),
        ((True, 1.0, 2.0), 1.4),
        ((True, 0.5, -4.0), 0.5),
        ((True, 1.0, 100.0), 3),
        ((True, 1.0, math.inf), 3),
        ((True, 1.0, -math.inf), 1),
        ((True, 0.5, 1.0, 0.4), 0.9),
        ((True, 1.0, 100.0, 0.2, 2.0), 2),
    ],
)
def test_values(arguments: tuple[float, ...], expected: float) -> None:
    assert autotraj(*arguments) == pytest.approx(expected)  # type: ignore[arg-type]


@given(st.floats(0, 1), st.floats(-1e6, 1e6))
def test_a_reward_model_never_takes_from_an_answer_nor_lifts_a_wrong_one(outcome: float, rm: float) -> None:
    reward = autotraj(True, outcome, rm)
    assert outcome <= reward <= 3
    assert autotraj(True, 0.0, rm) == 0


@pytest.mark.parametrize("arguments", [(True, math.nan), (True, 1.1), (True, -0.1), (True, 1.0, math.nan)])
def test_what_is_not_a_score_is_an_error(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        autotraj(*arguments)  # type: ignore[arg-type]
