"""The reward model's learning rate follows the recipe's schedule (AutoTraj section 7: cosine, warm-up 0.1)."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rewright.engines.embedded import HFSettings
from rewright.recipe.loader import load_recipe

pytest.importorskip("trl")

from rewright.training.trl.reward_model import train_reward_model

PAIRS = [
    {"chosen_ids": [5 + place, 6, 7], "rejected_ids": [8, 9 + place], "split": "train", "matched_format": True}
    for place in range(10)
]


@pytest.mark.parametrize("overrides", [[], ["reward.scheduler=linear", "reward.warmup=0"]])
def test_the_learning_rate_follows_the_schedule(tmp_path: Path, overrides: list[str]) -> None:
    settings = load_recipe(None, ["reward.batch_size=2", "reward.learning_rate=1e-3", *overrides]).reward
    rows, _ = train_reward_model(PAIRS, HFSettings(), settings, tmp_path / "reward", seed=0)
    steps, warmup = 10, 1  # 10 pairs, 2 at a time, 2 epochs; a tenth of the steps
    if overrides:
        expected = [1e-3 * (steps - step) / steps for step in range(steps)]
    else:
        expected = [0.0, *(5e-4 * (1 + math.cos(math.pi * step / (steps - warmup))) for step in range(steps - warmup))]
    assert [row["learning_rate"] for row in rows] == pytest.approx(expected)
