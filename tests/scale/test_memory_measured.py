"""The plan of GPU memory against the resident set of real training on the CPU, in float32.

On a CPU two things take memory that they do not take on a GPU: without Triton the output layer makes some ten float32
copies of a tile of logits, and attention keeps its scores.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support import in_process, scale

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("trl")
pytestmark = pytest.mark.scale

RECIPE = """\
name: measured
model: {path: MODEL, dtype: float32, slots: 8, max_length: 1024}
stages: [STAGE]
tasks: {format: town, split: train, profile: short, count: 8}
limits: {turns: 1, turn_tokens: 96, trajectory_tokens: 96, tool_seconds: 600, trajectory_seconds: 3000}
sandbox: {level: process, wall_seconds: 600}
sft: {source: demonstrations, demonstrations: 16, learning_rate: 1.0e-4, batch_size: 8, epochs: 1, warmup: 0}
rl: {learning_rate: 1.0e-4, steps: 2, tasks_per_step: 2, generations: 4, entropy: 0.01}
"""
SIZES = {"hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8, "num_key_value_heads": 4}


def save(folder: Path, layers: int, **sizes: int) -> str:
    """A random model with Qwen3-0.6B's configuration in smaller sizes, with pico's tokenizer."""
    from rewright.engines.embedded import HFSettings
    from rewright.engines.loading import load_tokenizer
    from rewright.engines.sizes import shipped_config

    config = shipped_config("Qwen/Qwen3-0.6B")
    tokenizer = load_tokenizer(HFSettings())
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    for key, value in {**ids, **sizes, "head_dim": 64, "num_hidden_layers": layers, "vocab_size": 1024}.items():
        setattr(config, key, value)
    config.layer_types = config.layer_types[:layers]
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "30M": save(folder / "30M", 9, **SIZES),
        "pico": "pico",
    }


def lengths(model: str, stage: str) -> int:
    """Tokens of the longest demonstration or prompt."""
    from rewright.dialects import get_dialect
    from rewright.engines.embedded import HFSettings
    from rewright.engines.loading import load_tokenizer
    from rewright.rendering.renderer import Renderer
    from rewright.tasks.worlds.demonstrations import demonstrate
    from rewright.tasks.worlds.town import generate

    renderer = Renderer(load_tokenizer(HFSettings(path=model)), get_dialect("hermes"))
    tasks = list(generate("train", 16 if stage == "sft" else 8, profile="short"))
    if stage == "sft":
        return max(len(renderer.encode_trajectory(task, demonstrate(task))[0]) for task in tasks)
    return max(len(renderer.task_prompt_ids(task)) for task in tasks)


COPIES = 10
SCORES = 5
SMALL = 100
"""MiB; below it, libraries and the allocator hide what the training takes."""
CASES = [(stage, name) for name in ("30M", "pico") for stage in ("sft", "rl")]


@pytest.fixture(scope="module")
def grown(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], float]:
    """MiB by which the resident set grew at most, by stage and model."""
    folder = tmp_path_factory.mktemp("grown")
    for stage in ("sft", "rl"):
        (folder / f"{stage}.yaml").write_text(RECIPE.replace("STAGE", stage).replace("MODEL", "pico"))
    wanted = [("sft", "pico"), ("rl", "pico"), *CASES]
    said = scale.python(
        sys.executable, scale.ROOT / "tests/support/peak_memory.py",
        *(f"{stage}={models[name]}" for stage, name in wanted), folder=folder, MALLOC_ARENA_MAX="1",
    )  # fmt: skip
    assert said.returncode == 0, said.stderr[-3000:]
    found = [json.loads(line[6:])["bytes"] / 2**20 for line in said.stdout.splitlines() if line.startswith("grown ")]
    return dict(zip(wanted, found, strict=True))  # of pico the second ones


@pytest.mark.parametrize(("stage", "name"), CASES)
def test_training_takes_what_the_plan_says(
    models: dict[str, str], grown: dict[tuple[str, str], float], tmp_path: Path, stage: str, name: str
) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE.replace("STAGE", stage).replace("MODEL", models[name]))
    longest = lengths("pico", stage)
    more = [f"sft.max_length={longest}"] if stage == "sft" else ["--prompt-tokens", f"{longest}"]
    plan = in_process.rewright(tmp_path, "plan", "r.yaml", *more, "--json")
    assert plan.code == 0, plan.errors
    found: dict[str, Any] = {one["stage"]: one for one in json.loads(plan.output)["stages"]}[stage]
    planned = (found["total"] - found["parts"]["CUDA"]) * 1024
    rows, tokens, heads = 8, 8 * (longest if stage == "sft" else longest + 96), 8 if name == "30M" else 4
    on_cpu = (COPIES * 4 * tokens * 1024 + SCORES * 4 * heads * tokens**2 / rows) / 2**20
    if name == "pico":  # the allocator may have kept what the first training of pico gave back
        assert grown[stage, name] < planned + on_cpu + SMALL
    else:
        # Usually 17% more; what the allocator keeps has added another 8%.
        assert grown[stage, name] == pytest.approx(planned + on_cpu, rel=0.3, abs=SMALL)
    state = sum(found["parts"][part] for part in ("master weights", "gradients", "optimizer")) * 1024
    assert grown[stage, name] > state
