"""`rewright plan` and `--dry-run` for other machines: sizes of models, memory of the stages, what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.in_process import rewright

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from rewright.engines.sizes import model_size, shipped_config  # noqa: E402
from rewright.pipeline.memory_plan import USABLE, activation_bytes  # noqa: E402

RECIPES = Path(__file__).parents[2] / "recipes" / "gpu"
SMALL, MATCHTIR, AUTOTRAJ = (
    str(RECIPES / f"{name}.yaml") for name in ("qwen3-0.6b", "qwen3-4b-matchtir", "qwen2.5-7b-autotraj")
)

PUBLISHED = {
    # layers, hidden size, heads, key-value heads, head dimension, feed-forward size, vocabulary, tied
    "Qwen/Qwen3-0.6B": (28, 1024, 16, 8, 128, 3072, 151_936, True),
    "Qwen/Qwen3-1.7B": (28, 2048, 16, 8, 128, 6144, 151_936, True),
    "Qwen/Qwen3-4B": (36, 2560, 32, 8, 128, 9728, 151_936, True),
    "Qwen/Qwen3-8B": (36, 4096, 32, 8, 128, 12288, 151_936, False),
    "Qwen/Qwen2.5-7B-Instruct": (28, 3584, 28, 4, 128, 18944, 152_064, False),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_shipped_configurations_have_the_published_sizes(name: str) -> None:
    layers, hidden, heads, key_value, dimension, feed_forward, vocabulary, tied = PUBLISHED[name]
    query, pair = heads * dimension, key_value * dimension
    layer = 2 * hidden * query + 2 * hidden * pair + 3 * hidden * feed_forward + 2 * hidden
    layer += 2 * dimension if "Qwen3" in name else query + 2 * pair  # norms of queries and keys, or biases
    expected = layers * layer + hidden + vocabulary * hidden * (1 if tied else 2)
    size = model_size(shipped_config(name))
    assert (size.parameters, size.layer_parameters) == (expected, layer + hidden // layers)
    assert (size.layers, size.query, size.key_value, size.feed_forward) == (layers, query, pair, feed_forward)
    assert (size.head_parameters == 0) == tied


def saved_bytes(config: Any, tokens: int) -> int:
    """Bytes that a forward pass of the decoder keeps for the backward pass, without the weights."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    weights = {weight.data_ptr() for weight in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(value: Any) -> Any:
        if value.untyped_storage().data_ptr() not in weights:
            kept[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value), torch.autocast("cpu", torch.bfloat16):
        output = model.model(input_ids=torch.zeros(2, tokens // 2, dtype=torch.long))
    assert output is not None
    return sum(value.untyped_storage().nbytes() for value in kept.values())


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "Qwen/Qwen2.5-7B-Instruct"])
def test_activations_are_those_that_a_forward_pass_keeps(name: str) -> None:
    """Measured on a narrow model of the same family; by difference, so that copies of the weights do not count."""
    config = shipped_config(name)
    small = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 8, "num_key_value_heads": 4}
    for key, value in ({**small, "vocab_size": 99, "num_hidden_layers": 3, "head_dim": 16}).items():
        setattr(config, key, value)
    config.layer_types = config.layer_types[:3]
    measured = (saved_bytes(config, 256) - saved_bytes(config, 128)) / 128
    assert activation_bytes(model_size(config), checkpointed=False) == pytest.approx(measured, rel=0.1)


def planned(folder: Path, *arguments: str) -> dict[str, Any]:
    said = rewright(folder, "plan", *arguments, "--json")
    assert said.code == 0, said.errors
    found: dict[str, Any] = json.loads(said.output)
    return {**found, "stages": {stage["stage"]: stage for stage in found["stages"]}}


@pytest.mark.parametrize(
    ("recipe", "hardware"),
    [
        (SMALL, ["--gpus", "1", "--gpu-memory", "24"]),
        (MATCHTIR, ["--gpus", "8", "--gpu-memory", "80", "--prompt-tokens", "7000"]),
        (AUTOTRAJ, ["--gpus", "8", "--gpu-memory", "80", "--prompt-tokens", "768"]),
    ],
)
def test_each_gpu_recipe_fits_on_the_hardware_that_it_names(tmp_path: Path, recipe: str, hardware: list[str]) -> None:
    plan = planned(tmp_path, recipe, *hardware)
    assert plan["fits"]
    for stage in plan["stages"].values():
        assert stage["total"] == pytest.approx(sum(stage["parts"].values()))
        assert stage["total"] <= USABLE * float(hardware[3])


def test_the_parts_are_the_arithmetic_of_float32_masters_and_bfloat16_copies(tmp_path: Path) -> None:
    one = planned(tmp_path, MATCHTIR, "--prompt-tokens", "7000")["stages"]["rl"]
    gib = 4_022_468_096 / 2**30
    parts = one["parts"]
    assert [parts[name] for name in ("weights", "rollout weights")] == pytest.approx([2 * gib] * 2)
    assert [parts[name] for name in ("master weights", "gradients", "reference model")] == pytest.approx([4 * gib] * 3)
    assert parts["optimizer"] == pytest.approx(8 * gib)
    assert parts["KV cache"] == pytest.approx(8 * 30_000 * 2 * 2 * 8 * 128 * 36 / 2**30)
    assert one["tokens_per_step"] == 256 * 16 * 30_000
    eight = planned(tmp_path, MATCHTIR, "--gpus", "8", "--prompt-tokens", "7000")["stages"]["rl"]["parts"]
    for name in ("master weights", "gradients", "optimizer", "reference model"):
        assert eight[name] == pytest.approx(parts[name] / 8)
    assert "rollout weights" not in eight and eight["vLLM"] == pytest.approx(24)


def test_what_does_not_fit_is_said_with_changes_that_make_it_fit(tmp_path: Path) -> None:
    said = rewright(tmp_path, "plan", SMALL, "--gpu-memory", "12")
    (line,) = [line for line in said.output.splitlines() if line.startswith("stage sft takes")]
    assert line.endswith("expected sft.lora_rank=16, or 8 GPUs")
    assert planned(tmp_path, SMALL, "sft.lora_rank=16", "--gpu-memory", "12")["stages"]["sft"]["fits"]
    assert planned(tmp_path, SMALL, "--gpus", "8", "--gpu-memory", "12")["stages"]["sft"]["fits"]
    assert not planned(tmp_path, SMALL, "--gpus", "4", "--gpu-memory", "12")["stages"]["sft"]["fits"]


def test_a_dry_run_for_another_machine_needs_neither_weights_nor_a_gpu(tmp_path: Path) -> None:
    said = rewright(tmp_path, "run", SMALL, "--dry-run", "--gpus", "1", "--gpu-memory", "24", "--json")
    assert said.code == 0, said.errors
    assert json.loads(said.output)["gib_per_gpu"].keys() == {"generation", "sft", "reward", "rl"}
    worlds = [f"{tasks}.{key}" for tasks in ("tasks", "eval.tasks") for key in ("format=almanac", "path=null")]
    said = rewright(
        tmp_path, "run", AUTOTRAJ, *worlds, "eval.tasks.split=heldout", "--dry-run", "--gpus", "8", "--json"
    )
    assert said.code == 0, said.errors
    assert json.loads(said.output)["gib_per_gpu"]["rl"] < 76
    refused = rewright(tmp_path, "run", SMALL, "--dry-run", "--gpus", "1", "--gpu-memory", "16")
    refused.refused("stage sft takes 19.7 GiB of each GPU")
    assert list(tmp_path.iterdir()) == []


def test_matchtir_is_resolved_with_its_tasks_and_refused_on_one_gpu(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    name = "city_finder"
    schema = {"name": name, "description": "d", "parameters": {"type": "object", "properties": {}}}
    row = {
        "messages": [{"role": "user", "content": "Where does Ann live?"}],
        "tools": json.dumps([{"type": "function", "function": schema}]),
        "codes": json.dumps({name: f"def {name}():\n    return 'Rome'"}),
        "unsolved_set": json.dumps({name: ["Rome"]}),
        "ground_truth": json.dumps([{"name": name, "parameters": {}}]),
        **{"solve_rate": 0.0, "data_source": "self/single_hop", "split": "train", "answer": "Rome"},
    }
    table = pyarrow.Table.from_pylist([row] * 4)
    for file in ("ftrl_train.parquet", "ftrl_test.parquet"):
        parquet.write_table(table, tmp_path / file)
    command = ["run", MATCHTIR, "sandbox.level=process", "rl.tasks_per_step=4", "rl.updates_per_step=2", "--dry-run"]
    said = rewright(tmp_path, *command, "--gpus", "8", "--gpu-memory", "80", "--json")
    assert said.code == 0, said.errors
    assert json.loads(said.output)["gib_per_gpu"]["rl"] < 76
    rewright(tmp_path, *command, "--gpus", "1", "--gpu-memory", "80").refused("stage rl takes")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", SMALL, "--gpus", "8"], "--gpus and --gpu-memory describe another machine: they need --dry-run"),
        (["plan", SMALL, "--gpus", "0"], "--gpus is 0: expected a number from 1 to 4096"),
        (["plan", SMALL, "--gpu-memory", "nan"], "--gpu-memory is nan"),
        (["plan", SMALL, "model.path=./none"], "model ./none: not a folder"),
        (["plan", SMALL, "rl.beta=x"], "rl.beta"),
        (["plan", SMALL, "stages=[judge, score]"], "stages: judge, score: none of them trains, or generates"),
        (["plan", "none.yaml"], "none.yaml"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    rewright(tmp_path, *arguments).refused(words)


def test_a_model_that_is_fetched_on_first_use_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWRIGHT_CACHE", str(tmp_path / "cache"))
    assert planned(tmp_path, SMALL, "model.path=smollm2")["parameters"] == 134_515_008
    assert not (tmp_path / "cache").exists()


def test_a_served_policy_is_not_looked_for(tmp_path: Path) -> None:
    served = ["model.engine=openai", "model.base_url=http://127.0.0.1:9/v1", "model.path=served"]
    plan = planned(tmp_path, str(RECIPES.parent / "autotraj.yaml"), "model={path: served}", *served, "stages=[repair]")
    assert (plan["model"], plan["stages"].keys()) == ("pico-tags-repairer", {"repair"})


def test_a_model_in_a_folder_is_measured_by_its_own_configuration(tmp_path: Path) -> None:
    plan = planned(tmp_path, SMALL, "model.path=pico")
    assert plan["parameters"] == 1_008_768
    assert plan["fits"]
