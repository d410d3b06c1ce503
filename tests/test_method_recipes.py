"""The recipes of the published methods hold the authors' values, setting by setting."""

from pathlib import Path

import pytest

from rewright.plugins.settings import TurnCredit
from rewright.recipe import load_recipe

RECIPES = Path(__file__).parent.parent / "recipes"


def test_matchtir_has_the_authors_values_written_out():
    """Those that are not their sizes: arXiv 2601.10712 and the released code."""
    path = RECIPES / "matchtir.yaml"
    recipe = load_recipe(path)
    rl = recipe.rl
    assert rl.credit == TurnCredit()
    assert rl.credit.as_mapping() == {
        "assignment": "optimal", "unmatched": 0.0, "reg": 0.1, "ot_scale": "raw", "weights": (1.0, 1.0, 1.0),
        "aggregate": "mean", "estimator": "matchtir", "gamma": 0.9, "eps": 1e-6, "fusion": "mean", "lonely_turn": "raw",
        "join": "last_turn",
    }  # fmt: skip
    text = path.read_text(encoding="utf-8")
    assert [key for key in rl.credit.as_mapping() if f"    {key}: " not in text] == []
    assert (recipe.limits.turns, recipe.dialect, recipe.stages) == (10, "hermes", ("eval_base", "rl", "eval_rl"))
    assert (rl.epsilon, rl.beta, rl.entropy, rl.loss_type, rl.temperature) == (0.2, 0.001, 0.001, "grpo", 1.0)
    assert (rl.call_weight, rl.reward_model_weight) == (1.0, 0.0)
    assert rl.arguments == {"optim": "adamw_torch", "max_grad_norm": 1.0, "delta": 3.0}
    soft = load_recipe(path, ["rl.credit.assignment=ot"]).rl
    assert (soft.credit.assignment, soft.credit.reg) == ("ot", 0.1)


def test_their_further_settings_are_trl_s(tmp_path):
    config = pytest.importorskip("trl").GRPOConfig
    rl = load_recipe(RECIPES / "matchtir.yaml").rl
    made = config(output_dir=str(tmp_path), use_cpu=True, bf16=False, epsilon=rl.epsilon, **rl.arguments)
    assert (made.delta, made.max_grad_norm, made.epsilon) == (3.0, 1.0, 0.2)
