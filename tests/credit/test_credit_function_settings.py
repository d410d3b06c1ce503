"""What a program gives `turn_signal` and `advantages` itself, not through a recipe: settings, kinds of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rewright.core.settings import PositiveInt, Settings
from rewright.credit import CreditTrajectory, CreditTurn, Resources, TurnSignal, advantages, turn_signal, with_settings

TURNS = [CreditTurn([{"name": "f", "arguments": {}}], token_ids=[7], suffix_ids=[8]), CreditTurn([], token_ids=[9])]
ROLLOUT = CreditTrajectory(TURNS, prompt_ids=[1], answers=["Rome"], scores=[0.0, 0.5, 1.0], outcome=1.0)
MODELS = Resources(
    log_prob=lambda pairs: [np.full(len(gold), -1.0 / len(prefix)) for prefix, gold in pairs],
    tokenize=lambda text: [ord(character) for character in text],
    prefix_score=lambda sequences: [float(len(ids)) for ids in sequences],
)


@pytest.mark.parametrize(
    ("signal", "given", "said"),
    [
        ("likelihood", {"form": "probs"}, "invalid enum value 'probs'"),
        ("likelihood", {"answers": "mean"}, "invalid enum value 'mean'"),
        ("likelihood", {"margin": -1}, "margin must be positive, got -1"),
        ("model", {"form": "minimum"}, "invalid enum value 'minimum'"),
        ("model", {"form": "min", "temperature": 0}, "temperature must be positive, got 0"),
        ("score", {"delta": "best"}, "invalid enum value 'best'"),
        ("score", {"start": "frist"}, "invalid enum value 'frist'"),
        ("score", {"smear": 2}, "smear must be at most 1, got 2"),
    ],
)
def test_a_wrong_setting_of_a_signal_is_no_other_one(signal: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=rf"signal\.(\w+ must be valid: )?{said}"):
        turn_signal([ROLLOUT], signal, resources=MODELS, **given)


@pytest.mark.parametrize(
    ("estimator", "given", "said"),
    [
        ("igpo", {"normalize": "seperate"}, "invalid enum value 'seperate'"),
        ("turn_credit", {"centre": "tokens"}, "invalid enum value 'tokens'"),
        ("turn_credit", {"beta": -1}, "beta must not be negative, got -1"),
        ("outcome_or_calls", {"decay": "contrasts"}, "invalid enum value 'contrasts'"),
        ("outcome_or_calls", {"level": "turns"}, "invalid enum value 'turns'"),
        ("outcome_or_calls", {"calls": -1}, "calls must not be negative, got -1"),
        ("outcome_or_calls", {"decay": "success", "right_above": 0.1}, "right_above must not be given"),
    ],
)
def test_a_wrong_setting_of_an_estimator_is_no_other_one(estimator: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=rf"estimator\.(\w+ must be valid: )?{said}"):
        advantages([[0.0, 1.0], [0.5]], [0, 0], estimator=estimator, outcomes=[1, 0], estimator_settings=given)


def test_numbers_of_numpy_are_numbers() -> None:
    keys = [["s", "t"], ["s"]]
    for omega in (np.float64(0.5), np.float32(0.5), np.array(0.5)[()]):
        found = advantages(
            [[0.0, 1.0], [0.5]], [0, 0], estimator="gigpo", state_keys=keys, estimator_settings={"omega": omega}
        )
        assert [row.round(9).tolist() for row in found] == [[0.35, 0.25], [-0.35]]


class Limited(Settings, frozen=True):
    limit: PositiveInt = 2


@with_settings(Limited)
def limited(trajectories: list[CreditTrajectory], *, limit: int = 2, note: object = None) -> list[list[float]]:
    return [[float(limit)] * len(one.turns) for one in trajectories]


def test_settings_of_a_function_of_ones_own() -> None:
    """Arguments that are no settings are the function's own."""
    assert turn_signal([ROLLOUT], limited, limit=np.int64(3), note=object()).values[0].tolist() == [3.0, 3.0]
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        turn_signal([ROLLOUT], limited, limit=0)


@pytest.mark.parametrize("added", [[[1.0]], [[float("nan"), 1.0]], [[float("inf"), 1.0]], [1.0], [["a", 1.0]], [None]])
def test_advantages_of_a_signal_are_finite_numbers_one_for_each_turn(added: Any) -> None:
    signal = TurnSignal.of([[0.0, 1.0]], added=added)
    with pytest.raises(ValueError, match=r"signal 'own.*added"):
        turn_signal([ROLLOUT], own_of(signal))
    with pytest.raises(ValueError, match=r"advantages\[0\] of the signal .*: expected"):
        advantages(signal, [0])


def test_advantages_beside_advantages_are_refused_and_missing_ones_are_zero() -> None:
    with pytest.raises(ValueError, match="`added` beside advantages"):
        turn_signal([ROLLOUT], own_of(TurnSignal.of([[0.0, 1.0]], kind="advantage", added=[[1.0, 1.0]])))
    signal = turn_signal([ROLLOUT], own_of(TurnSignal.of([[np.nan, 1.0]], added=[[5.0, 2.0]])))
    assert [row.tolist() for row in signal.advantages or ()] == [[0.0, 2.0]]


def own_of(signal: TurnSignal) -> Any:
    def own(trajectories: list[CreditTrajectory]) -> TurnSignal:
        return signal

    return own


@pytest.mark.needs_torch
def test_tensors_of_any_type_are_numbers() -> None:
    import torch

    rows = [[0.0, 1.0], [0.5]]
    expected = [row.tolist() for row in advantages(rows, [0, 0])]
    for given in ({"dtype": torch.bfloat16}, {"dtype": torch.float16}, {"requires_grad": True}):
        tensors = [torch.tensor(row, **given) for row in rows]
        assert [row.tolist() for row in advantages(tensors, torch.tensor([0, 0]))] == expected
        signal = turn_signal([ROLLOUT], own_of(TurnSignal.of(tensors[:1])))
        assert signal.values[0].tolist() == [0.0, 1.0]


def test_a_model_of_ones_own_answers_for_every_prefix_and_token() -> None:
    def asked(**models: Any) -> Resources:
        return Resources(**{"log_prob": MODELS.log_prob, "tokenize": MODELS.tokenize, **models})

    for rows, said in (
        (lambda pairs: [], "log_prob gave 0 results for 2 continuations"),
        (lambda pairs: [np.zeros(4)] * 3, "log_prob gave 3 results for 2 continuations"),
        (lambda pairs: [np.zeros(3)] * 2, r"log_prob gave the shape \(3,\) for a continuation of 4 tokens"),
        (lambda pairs: [-1.0, -2.0], r"log_prob gave the shape \(\) for a continuation of 4 tokens"),
    ):
        with pytest.raises(ValueError, match=said):
            turn_signal([ROLLOUT], "likelihood", resources=asked(log_prob=rows))
    as_lists = asked(log_prob=lambda pairs: [[-1.0 / len(prefix)] * len(gold) for prefix, gold in pairs])
    found = [turn_signal([ROLLOUT], "likelihood", resources=one).rewards[0].tolist() for one in (MODELS, as_lists)]
    assert found[0] == found[1]
    for scores, said in (([0.0] * 2, "gave 2 scores for 3"), ([0.0] * 4, "gave 4 scores for 3")):
        with pytest.raises(ValueError, match=said):
            turn_signal([ROLLOUT], "model", resources=Resources(prefix_score=lambda asked, scores=scores: scores))
