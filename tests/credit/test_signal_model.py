"""The signal `model`: differences of a reward model's score over prefixes, and PURE's form, by hand and in loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rewright.credit import CreditTrajectory, CreditTurn, Resources, turn_signal
from rewright.credit.settings import TurnCredit

SCORES = {(1,): -1.0, (1, 2, 9): 0.5, (1, 2, 9, 3): 2.0, (5,): 30.0, (5, 6): -30.0}


def prefix_score(sequences: Sequence[Sequence[int]], /) -> list[float | None]:
    return [SCORES.get(tuple(sequence)) for sequence in sequences]


def rows() -> list[CreditTrajectory]:
    return [
        CreditTrajectory(
            [CreditTurn([], token_ids=[2], suffix_ids=[9]), CreditTurn([], token_ids=[3])], prompt_ids=[1]
        ),
        CreditTrajectory([CreditTurn([], token_ids=[6])], prompt_ids=[5]),
        CreditTrajectory(
            [CreditTurn([], token_ids=[2], suffix_ids=[9]), CreditTurn([], token_ids=[7])], prompt_ids=[1]
        ),
        CreditTrajectory.of_calls([[], []]),
        CreditTrajectory([], prompt_ids=[5]),
    ]


def signal_of(**settings: Any) -> Any:
    return turn_signal(rows(), "model", resources=Resources(prefix_score=prefix_score), **settings)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_differences_of_sigmoids_and_what_is_missing() -> None:
    found = signal_of()
    assert found.kind == "value"
    first, second, third, unknown, empty = found.rewards
    assert first.tolist() == pytest.approx([sigmoid(0.5) - sigmoid(-1), sigmoid(2) - sigmoid(0.5)], abs=1e-12)
    assert second.tolist() == pytest.approx([-1.0], abs=1e-12)
    assert first.sum() == pytest.approx(sigmoid(2) - sigmoid(-1)), "the rewards add up to the last state's"
    assert [mask.tolist() for mask in found.missing] == [[False] * 2, [False], [False, True], [True] * 2, []]
    assert third.tolist() == pytest.approx([sigmoid(0.5) - sigmoid(-1), 0.0])
    assert (unknown.tolist(), empty.tolist()) == ([0.0, 0.0], [])
    assert found.stats == {
        "model/scorings": 8.0, "model/tokens": 8.0 + 3.0 + 8.0, "model/too_long": 1.0, "model/without_tokens": 1.0,
    }  # fmt: skip
    assert dict(found.causes) == {2: "a prefix is too long for the reward model", 3: "it has no token ids"}


def test_the_min_form_is_pure_s() -> None:
    temperature = 0.1
    s = [2 * sigmoid(score) - 1 for score in (0.5, 2.0)]  # p(good) - p(bad)
    total = sum(math.exp(-value / temperature) for value in s)
    expected = [math.exp(-value / temperature) / total * value for value in s]
    found = signal_of(form="min")
    assert found.kind == "reward"
    np.testing.assert_allclose(found.values[0], expected, atol=1e-9, rtol=0)
    assert found.values[0].sum() == pytest.approx(min(s), abs=0.02)
    assert found.values[1].tolist() == pytest.approx([2 * sigmoid(-30) - 1])
    assert [mask.tolist() for mask in found.missing] == [[False] * 2, [False], [True] * 2, [True] * 2, []]
    cold = signal_of(form="min", temperature=1e-3)
    assert cold.values[0].sum() == pytest.approx(min(s), abs=1e-12)


def test_settings_of_the_recipe_and_what_is_needed() -> None:
    assert TurnCredit.of({"signal": {"name": "model", "form": "min", "temperature": 0.2}}).signal_name == "model"
    with pytest.raises(ValueError, match=r"signal.temperature must be"):
        TurnCredit.of({"signal": {"name": "model", "temperature": 0}})
    with pytest.raises(ValueError, match="'model' needs a reward model"):
        turn_signal(rows(), "model")
