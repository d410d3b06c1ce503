"""Rewards that were stored as float32, in the estimator of SkyRL (SkyRL is not needed) and in the functions."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from rewright.credit import advantages
from rewright.credit.estimators import FLOAT32_TOLERANCE
from rewright.integrations.skyrl import compute_rewright_advantage

MASK = [[1, 1, 0, 1, 1, 0]] * 2


def found(monkeypatch, rewards, **settings):
    monkeypatch.setenv("REWRIGHT_TURN_CREDIT", json.dumps(settings))
    tokens = torch.tensor([[0, first, 0, 0, second, 0] for first, second in rewards], dtype=torch.float32)
    return compute_rewright_advantage(tokens, torch.tensor(MASK), index=["a", "a"])[0][:, [0, 3]].numpy()


@pytest.mark.parametrize("estimator", ["grpo", "matchtir", "delta", "fixed_horizon", "leave_one_out", "igpo", "lotapo"])
@pytest.mark.parametrize(
    "rewards", [[[0.8, 0.2], [0.9, 0.1]], [[1 / 3, 2 / 3], [0.6, 0.4]], [[-0.8, -0.2], [-0.7, -0.3]]]
)
def test_equal_sums_of_float32_rewards_give_what_the_functions_give(monkeypatch, estimator, rewards):
    expected = advantages(rewards, [0, 0], estimator=estimator, eps=0.0, gamma=1.0)
    advantage = found(monkeypatch, rewards, estimator=estimator, eps=0.0, gamma=1.0)
    np.testing.assert_allclose(advantage, expected, atol=2e-6)


@pytest.mark.parametrize("estimator", ["grpo", "matchtir", "leave_one_out"])
def test_rewards_that_cancel_out_are_no_difference(monkeypatch, estimator):
    monkeypatch.setenv("REWRIGHT_TURN_CREDIT", json.dumps({"estimator": estimator, "eps": 0.0, "gamma": 1.0}))
    tokens = torch.tensor([[0.1, 0, 0.2, 0, -0.3], [0.25, 0, -0.25, 0, 0]], dtype=torch.float32)
    mask = torch.tensor([[1, 0, 1, 0, 1]] * 2)
    assert compute_rewright_advantage(tokens, mask, index=["a", "a"])[0][:, 0].tolist() == [0.0, 0.0]
    rows = advantages([[0.1, 0.2, -0.3], [0.25, -0.25, 0.0]], [0, 0], estimator=estimator, eps=0.0, gamma=1.0)
    assert [row[0] for row in rows] == [0.0, 0.0]


def test_small_differences_that_float32_holds_are_kept(monkeypatch):
    advantage = found(monkeypatch, [[0.5, 0.5], [0.5, 0.50001]], estimator="grpo", eps=0.0)
    np.testing.assert_allclose(advantage, [[-(0.5**0.5)] * 2, [0.5**0.5] * 2], atol=2e-6)


def test_estimators_are_given_the_numbers_of_tokens(monkeypatch):
    rewards = [[0.8, 0.2], [0.5, 0.25]]
    settings = {"name": "turn_credit", "centre": "token"}
    expected = advantages(
        rewards, [0, 0], estimator="turn_credit", estimator_settings={"centre": "token"}, token_counts=[[2, 2]] * 2
    )
    np.testing.assert_allclose(found(monkeypatch, rewards, estimator=settings), expected, atol=1e-6)


@pytest.mark.parametrize("tolerance", [-1e-6, 1.0, float("nan"), "1e-6"])
def test_a_tolerance_is_a_share(tolerance):
    assert not np.any(advantages([[1.0], [1.0 + 1e-7]], [0, 0], estimator="grpo", tolerance=FLOAT32_TOLERANCE))
    with pytest.raises(ValueError, match=r"tolerance is .*: expected a number from 0 to 1"):
        advantages([[1.0]], [0], tolerance=tolerance)
