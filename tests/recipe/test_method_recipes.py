"""The recipes of the published methods: every setting is the specification's, or stands in the list of exceptions.

The list is at the head of each recipe: key, what it is here, what it is with the authors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from rewright.credit.settings import TurnCredit
from rewright.recipe.loader import load_recipe
from rewright.recipe.schema import Recipe
from rewright.training.settings import RLSettings

RECIPES = Path(__file__).parents[2] / "recipes"

MATCHTIR: dict[str, Any] = {
    # Section 1: setting.
    "dialect": "hermes", "limits.turns": 10, "stages": ["eval_base", "rl", "eval_rl"],
    # Sections 2 to 4: similarity, assignments.
    "rl.credit.signal": "matched", "rl.credit.assignment": "optimal", "rl.credit.unmatched": 0, "rl.credit.reg": 0.1,
    "rl.credit.ot_scale": "raw", "rl.credit.weights": [1, 1, 1],
    # Section 5: turn and trajectory rewards.
    "rl.credit.aggregate": "mean", "rl.credit.join": "last_turn", "rl.call_weight": 1,
    "rl.outcome": "token_set_f1", "rl.trajectory_reward": "matchtir",
    # Section 6: advantages.
    "rl.credit.estimator": "matchtir", "rl.credit.gamma": 0.9, "rl.credit.eps": 1e-6, "rl.credit.fusion": "mean",
    "rl.credit.singleton_turn": "raw",
    # Section 7: loss.
    "rl.epsilon": 0.2, "rl.beta": 0.001, "rl.entropy": 0.001, "rl.loss_type": "grpo",
    "rl.arguments": {"optim": "adamw_torch", "weight_decay": 0.01, "max_grad_norm": 1.0, "delta": 3.0},
}  # fmt: skip
MATCHTIR_SIZES = {
    "model.path": "Qwen3-4B, Qwen3-8B", "tasks.format": "ftrl", "limits.trajectory_tokens": "23000",
    "rl.learning_rate": "1e-6", "rl.steps": "3 epochs", "rl.tasks_per_step": "256", "rl.generations": "16",
    "rl.updates_per_step": "8",
}  # fmt: skip
"""Sections 1, 7 and 9. Mini-batches of 32 of 256 tasks are 8 updates."""

AUTOTRAJ: dict[str, Any] = {
    # Section 1: format and caps. Section 2: tools.
    "dialect": "tags", "limits.turns": 10, "limits.tool_calls": 3, "limits.tool_seconds": 5,
    "tools.python": True, "tools.python_state": "call", "tools.output_characters": 400, "tools.passages": 1,
    # Section 3: candidates.
    "synth.n": 2, "synth.temperature": 0.3, "synth.top_p": 0.9,
    # Section 4: evaluation.
    "quality.uncertain_words": [
        "maybe", "unsure", "guess", "seems", "perhaps", "probably", "might", "likely", "recheck",
    ],
    "quality.length_deviation": 0.5, "quality.all_high": 0.9, "quality.best_high": 0.86,
    # Section 5: repair.
    "repair.calls": 3, "repair.attempts": 1, "repair.temperature": 0, "repair.low_quality_threshold": 0.86,
    "repair.wrong_answer_threshold": 0.8,
    # Section 6: SFT.
    "sft.scheduler": "cosine", "sft.warmup": 0.1, "sft.epochs": 3, "sft.batch_size": 16,
    # Section 7: pairs and reward model.
    "build.pairs": "repaired", "reward.lora_rank": 8, "reward.scheduler": "cosine", "reward.warmup": 0.1,
    "reward.epochs": 2, "reward.batch_size": 32,
    # Section 8: reward and RL.
    "rl.trajectory_reward": "autotraj", "rl.outcome": "judge", "rl.reward_model_weight": 0.2,
    "rl.reward_model_clip": 3, "rl.credit.estimator": "grpo", "rl.credit.eps": 1e-6, "rl.tasks_per_step": 12,
    "rl.generations": 4, "rl.updates_per_step": 2, "rl.epsilon": 0.2, "rl.entropy": 0.001, "rl.beta": 0,
    # Section 9: greedy evaluation.
    "eval.temperature": 0,
}  # fmt: skip
AUTOTRAJ_SIZES = {
    "model.path": "Qwen2.5-7B-Instruct", "limits.turn_tokens": "1024", "limits.trajectory_tokens": "2048",
    "build.held_out_fraction": "0.05", "sft.learning_rate": "7e-6", "sft.max_length": "15000",
    "reward.learning_rate": "1e-5", "rl.learning_rate": "1e-6", "rl.steps": "1 epoch",
}  # fmt: skip

METHODS = [("matchtir", MATCHTIR, MATCHTIR_SIZES), ("autotraj", AUTOTRAJ, AUTOTRAJ_SIZES)]


def listed(name: str) -> dict[str, tuple[Any, str]]:
    """The list at the head of a recipe: what each key is here and with the authors."""
    found = re.findall(r"^#   (\w+\.[\w.]+) {2,}(\S+) {2,}(\S.*)$", (RECIPES / f"{name}.yaml").read_text(), re.M)
    return {key: (yaml.safe_load(here), theirs) for key, here, theirs in found}


def value_of(settings: Any, key: str) -> Any:
    for part in key.split("."):
        settings = settings[part]
    return settings


def written(name: str) -> dict[str, Any]:
    return yaml.safe_load((RECIPES / f"{name}.yaml").read_text())  # type: ignore[no-any-return]


def resolved(recipe: Recipe) -> dict[str, Any]:
    return msgspec.to_builtins(recipe)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("name", "method", "sizes"), METHODS, ids=["matchtir", "autotraj"])
def test_every_setting_of_the_method_is_the_authors_and_written_out(
    name: str, method: Mapping[str, Any], sizes: Mapping[str, str]
) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    for key, value in method.items():
        found = value_of(resolved(recipe), key)
        assert (list(found) if isinstance(value, list) else found) == value, key
        assert value_of(written(name), key) is not None, f"{key} is written out"
    assert not method.keys() & sizes.keys()


@pytest.mark.parametrize(("name", "method", "sizes"), METHODS, ids=["matchtir", "autotraj"])
def test_what_differs_is_listed_apart_with_the_authors_values(
    name: str, method: Mapping[str, Any], sizes: Mapping[str, str]
) -> None:
    found = resolved(load_recipe(RECIPES / f"{name}.yaml"))
    assert {key: theirs for key, (_, theirs) in listed(name).items()} == sizes
    assert {key: here for key, (here, _) in listed(name).items()} == {
        key: pytest.approx(value) if isinstance(value, float) else value
        for key, value in ((key, value_of(found, key)) for key in sizes)
    }


def test_the_quality_score_is_autotraj_s() -> None:
    weights = {one.name: one.weight for one in load_recipe(RECIPES / "autotraj.yaml").quality.dimensions if one.weight}
    assert weights == {"confidence": 0.4, "length": 0.3, "repetition": 0.3}


def test_matchtir_s_credit_is_the_library_s_default_and_complete() -> None:
    rl = load_recipe(RECIPES / "matchtir.yaml").rl
    assert rl.credit == TurnCredit()
    assert written("matchtir")["rl"]["credit"].keys() == rl.credit.as_mapping().keys()
    soft = load_recipe(RECIPES / "matchtir.yaml", ["rl.credit.assignment=ot"]).rl
    assert (soft.credit.assignment, soft.credit.reg) == ("ot", 0.1)


def test_both_methods_together_use_outcome_and_calls_and_list_what_is_neither_s() -> None:
    recipe = load_recipe(RECIPES / "rewright.yaml")
    rl = recipe.rl
    assert (rl.outcome, rl.call_weight, rl.credit.gamma, rl.credit.assignment) == ("judge", 1.0, 0.9, "optimal")
    assert rl.credit.estimator == {"name": "outcome_or_calls", "decay": "batch"}
    assert {"repair", "sft", "rl"} < {*recipe.stages}
    assert "reward" not in recipe.stages
    found, exceptions = resolved(recipe), listed("rewright")
    found["rl"]["credit"]["estimator"] = rl.credit.estimator_name
    methods: list[Mapping[str, Any]] = [AUTOTRAJ, MATCHTIR, AUTOTRAJ_SIZES, MATCHTIR_SIZES]
    compared = {key for method in methods for key in method} - {"stages", "rl.trajectory_reward"}
    for key in {key for key in compared if not key.startswith(("reward.", "rl.reward_model_"))}:
        here, theirs = value_of(found, key), [method[key] for method in methods if key in method]
        if key in exceptions:
            assert exceptions[key][0] == here and here not in theirs, key
            for value in theirs:
                assert (value if isinstance(value, str) else yaml.safe_dump(value).split("\n")[0]) in exceptions[key][
                    1
                ], key
        else:
            assert (list(here) if isinstance(here, list | tuple) else here) in theirs, key
    assert exceptions.keys() <= {key for method in methods for key in method}


def test_their_further_settings_are_trl_s(tmp_path: Path) -> None:
    config = pytest.importorskip("trl").GRPOConfig
    rl = load_recipe(RECIPES / "matchtir.yaml").rl
    made = config(output_dir=str(tmp_path), use_cpu=True, bf16=False, epsilon=rl.epsilon, **rl.arguments)
    assert (made.delta, made.max_grad_norm, made.epsilon, made.weight_decay) == (3.0, 1.0, 0.2, 0.01)


GPU_SIZES: dict[str, dict[str, Any]] = {
    "qwen3-4b-matchtir": {
        **MATCHTIR, "model.path": "Qwen/Qwen3-4B", "model.max_length": 7000 + 23000, "tasks.format": "ftrl",
        "limits.trajectory_tokens": 23000, "rl.learning_rate": 1e-6, "rl.tasks_per_step": 256, "rl.generations": 16,
        "rl.updates_per_step": 8,
        # The optimizer is TRL's default, the fused AdamW.
        "rl.arguments": {"weight_decay": 0.01, "max_grad_norm": 1.0, "delta": 3.0},
    },
    "qwen2.5-7b-autotraj": {
        **AUTOTRAJ, "model.path": "Qwen/Qwen2.5-7B-Instruct", "limits.turn_tokens": 1024,
        "limits.trajectory_tokens": 2048, "build.held_out_fraction": 0.05, "sft.learning_rate": 7e-6,
        "sft.max_length": 15000, "reward.learning_rate": 1e-5, "rl.learning_rate": 1e-6,
    },
}  # fmt: skip
"""The GPU recipes have the authors' sizes, too."""
# With verl, what are arguments of TRL elsewhere are overrides of verl.
GPU_SIZES["qwen3-4b-matchtir-verl"] = {
    key: value for key, value in GPU_SIZES["qwen3-4b-matchtir"].items() if key != "rl.arguments"
}


@pytest.mark.skipif("vllm" not in RLSettings.__struct_fields__, reason="there is no rl.vllm, which they use")
@pytest.mark.parametrize("name", GPU_SIZES)
def test_the_gpu_recipes_have_the_authors_settings_and_sizes(name: str) -> None:
    found = resolved(load_recipe(RECIPES / "gpu" / f"{name}.yaml"))
    for key, value in GPU_SIZES[name].items():
        here = value_of(found, key)
        assert (list(here) if isinstance(value, list) else here) == value, key
