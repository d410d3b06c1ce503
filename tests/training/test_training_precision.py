"""Half precision is what a model computes in; the weights that are trained, and saved, are float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from rewright.dialects import get_dialect
from rewright.engines.embedded import HFSettings
from rewright.engines.loading import load_model, load_tokenizer
from rewright.pipeline.run_directory import Run
from rewright.pipeline.runner import Pipeline
from rewright.recipe.loader import load_recipe
from rewright.rendering.renderer import Renderer
from rewright.tasks.worlds.town import generate
from rewright.training.settings import RewardSettings
from rewright.training.trl.reward_model import train_reward_model

SETTINGS = (
    "model.slots=8", "model.dtype=bfloat16", "stages=[sft, reward, rl]", "sandbox=process", "tasks.count=2",
    "limits.turns=3", "limits.turn_tokens=48", "limits.trajectory_tokens=160", "tasks.profile=short",
    "sft.source=demonstrations", "sft.demonstrations=2", "sft.batch_size=2", "sft.epochs=4", "sft.learning_rate=3e-5",
    "sft.scheduler=constant", "sft.warmup=0", "reward.learning_rate=1e-5", "reward.epochs=1", "rl.learning_rate=1e-5",
    "rl.steps=1", "rl.tasks_per_step=2", "rl.generations=4", "rl.temperature=1.5",
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pico in bfloat16: with these weights bfloat16 loses nothing."""
    folder, settings = tmp_path_factory.mktemp("base"), HFSettings(path="pico", dtype="bfloat16")
    load_model(settings).save_pretrained(folder)
    load_tokenizer(settings).save_pretrained(folder)
    return folder


def trained(folder: Path, base: Path, *more: str) -> Run:
    run = Run.create(folder, load_recipe(None, [*SETTINGS, f"model.path={base}", *more]), resume=False)
    renderer = Renderer(load_tokenizer(HFSettings(path=str(base))), get_dialect("hermes"))
    prompts = [renderer.task_prompt_ids(task) for task in generate("train", 4, seed=5)]
    ids = {"chosen_ids": prompts[0], "rejected_ids": prompts[1], "matched_format": True, "split": "train"}
    run.write_lines("preferences.jsonl", [ids])
    with run.locked():
        Pipeline(run).run_all()
    return run


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def share_changed(before: dict[str, Any], after: dict[str, Any]) -> float:
    names = before.keys() & after.keys()
    assert len(names) >= 20
    changed = sum(int((before[name].float() != after[name].float()).sum()) for name in names)
    return changed / sum(before[name].numel() for name in names)


def test_every_stage_moves_the_weights_of_a_bfloat16_model_and_the_loss_falls(tmp_path: Path, base: Path) -> None:
    run = trained(tmp_path / "run", base)
    start, sft, reward, rl = (weights(path) for path in (base, *map(run.model_folder, ("sft", "reward", "rl"))))
    assert {str(weight.dtype) for weight in start.values()} == {"torch.bfloat16"}
    assert share_changed(start, sft) > 0.99
    assert share_changed({name: weight for name, weight in sft.items() if "lm_head" not in name}, reward) > 0.8
    assert share_changed(sft, rl) > 0.99
    assert {str(weight.dtype) for model in (sft, reward, rl) for weight in model.values()} == {"torch.float32"}
    losses = [row["loss"] for row in run.metrics() if row["stage"] == "sft"]
    assert losses[-1] < 0.95 * losses[0]


def test_what_small_adapters_learn_is_not_rounded_away_when_they_are_merged(tmp_path: Path, base: Path) -> None:
    run = trained(tmp_path / "run", base, "stages=[sft]", "sft.lora_rank=4", "sft.epochs=2")
    start = {name: weight for name, weight in weights(base).items() if "_proj" in name}
    assert share_changed(start, weights(run.model_folder("sft"))) > 0.99


def test_the_reward_model_computes_in_the_dtype_of_the_model_and_keeps_float32(tmp_path: Path) -> None:
    renderer = Renderer(load_tokenizer(HFSettings()), get_dialect("hermes"))
    prompts = [renderer.task_prompt_ids(task) for task in generate("train", 2, seed=5)]
    pairs = [{"chosen_ids": prompts[0], "rejected_ids": prompts[1], "matched_format": True, "split": "train"}]
    settings = RewardSettings(batch_size=1, epochs=1, learning_rate=1e-5, warmup=0)
    losses = {}
    for dtype in ("float32", "bfloat16"):
        model = HFSettings(path="pico", dtype=dtype)  # type: ignore[arg-type]
        losses[dtype] = train_reward_model(pairs, model, settings, tmp_path / dtype, seed=0)[0][0]["loss"]
    assert 1e-5 < abs(losses["bfloat16"] - losses["float32"]) < 0.05  # of the same weights: both are the first step
    assert {str(weight.dtype) for weight in weights(tmp_path / "bfloat16").values()} == {"torch.float32"}
