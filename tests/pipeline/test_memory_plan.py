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
from rewright.training.settings import RLSettings  # noqa: E402

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes" / "gpu"
FILES = (("tasks", "train"), ("eval.tasks", "test"))
SMALL, MATCHTIR, VERL, AUTOTRAJ = (
    str(RECIPES / f"{name}.yaml")
    for name in ("qwen3-0.6b", "qwen3-4b-matchtir", "qwen3-4b-matchtir-verl", "qwen2.5-7b-autotraj")
)
# Their keys `rl.vllm` and `rl.verl` come with the engine and the back end.
needs_vllm, needs_verl = (
    pytest.mark.skipif(key not in RLSettings.__struct_fields__, reason=f"there is no rl.{key}")
    for key in ("vllm", "verl")
)
WORLD = [f"{tasks}.{key}" for tasks in ("tasks", "eval.tasks") for key in ("format=town", "path=null")]
WORLD += ["tasks.count=256", "eval.tasks.split=heldout"]
FSDP = """\
{distributed_type: FSDP, num_machines: 1, num_processes: 8, fsdp_config: {fsdp_version: 2}}
"""

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
    ("recipe", "gpus", "memory", "prompt"),
    [
        (SMALL, 1, 24, 1024),
        pytest.param(MATCHTIR, 8, 80, 7000, marks=needs_vllm),
        pytest.param(VERL, 8, 80, 7000, marks=needs_verl),
        pytest.param(AUTOTRAJ, 8, 80, 768, marks=needs_vllm),
    ],
)
def test_each_gpu_recipe_fits_on_the_hardware_that_it_names(recipe: str, gpus: int, memory: int, prompt: int) -> None:
    """The number of GPUs is the recipe's. Its path of a file of accelerate is relative to the repository."""
    plan = planned(ROOT, recipe, "--gpu-memory", f"{memory}", "--prompt-tokens", f"{prompt}")
    assert plan["fits"]
    assert plan["hardware"]["gpus"] == gpus
    for stage in plan["stages"].values():
        assert stage["total"] == pytest.approx(sum(stage["parts"].values()))
        assert stage["total"] <= USABLE * memory
    # The dialect of AutoTraj, tags, calls the Python tool and a search: the almanac has both.
    world = [setting.replace("town", "almanac") if recipe == AUTOTRAJ else setting for setting in WORLD]
    said = rewright(
        ROOT, "run", recipe, *world, "--dry-run", "--gpus", f"{gpus}", "--gpu-memory", f"{memory}", "--json"
    )
    assert said.code == 0, said.errors
    assert json.loads(said.output)["gib_per_gpu"].keys() == plan["stages"].keys()


GIB = 596_049_920 / 2**30
"""Gibi-parameters of Qwen3-0.6B."""
LONG = ["rl.beta=0.01", "reward.lora_rank=null", "--prompt-tokens", "512"]


def test_the_parts_are_the_arithmetic_of_float32_masters_and_bfloat16_copies(tmp_path: Path) -> None:
    parts = planned(tmp_path, SMALL, *LONG)["stages"]["rl"]["parts"]
    assert [parts[name] for name in ("weights", "rollout weights")] == pytest.approx([2 * GIB] * 2)
    assert [parts[name] for name in ("master weights", "gradients", "reference model")] == pytest.approx([4 * GIB] * 3)
    assert parts["optimizer"] == pytest.approx(8 * GIB)
    assert parts["KV cache"] == pytest.approx(16 * 2048 * 2 * 2 * 8 * 128 * 28 / 2**30)
    assert "gradient buckets" not in parts
    # TRL's fused output layer: a tile of 4096 tokens, and the gradients of its weights and of the hidden states.
    assert parts["logits"] == pytest.approx((2 * 4096 * 32768 + 4 * 151_936 * 1024 + 4 * 4 * 2048 * 1024) / 2**30)
    rewarded = planned(tmp_path, SMALL, *LONG)["stages"]["reward"]["parts"]
    assert rewarded["weights"] == pytest.approx(2 * GIB) and "logits" not in rewarded  # one score a sequence
    adapters = planned(tmp_path, SMALL, *LONG, "rl.lora_rank=16")["stages"]["rl"]["parts"]
    assert "reference model" not in adapters and "rollout weights" not in adapters
    assert adapters["optimizer"] < 0.1 and adapters["weights"] == pytest.approx(2 * GIB)


def test_ddp_replicates_fsdp_divides_and_deepspeed_does_both(tmp_path: Path) -> None:
    (tmp_path / "fsdp.yaml").write_text(FSDP)
    for stage in (1, 2, 3):
        deepspeed = f"{{zero_stage: {stage}, zero3_save_16bit_model: true}}"
        (tmp_path / f"zero{stage}.yaml").write_text(
            f"{{distributed_type: DEEPSPEED, num_processes: 8, deepspeed_config: {deepspeed}}}"
        )
    one, ddp, fsdp, zero1, zero2, zero3 = (
        planned(tmp_path, SMALL, *LONG, *more)["stages"]["sft"]["parts"]
        for more in [
            [],
            ["training.processes=8"],
            *([f"training.accelerate={name}.yaml"] for name in ("fsdp", "zero1", "zero2", "zero3")),
        ]
    )
    whole, part = pytest.approx, pytest.approx(1 / 8)
    state = ("master weights", "gradients", "optimizer")
    assert [ddp[name] / one[name] for name in state] == whole([1, 1, 1])
    assert ddp["gradient buckets"] == pytest.approx(4 * GIB)  # copies of the gradients that DDP reduces
    for found, expected in ((fsdp, [part] * 3), (zero1, [part, 1, part]), (zero2, [part] * 3), (zero3, [part] * 3)):
        assert [found[name] / one[name] for name in state] == expected
        assert "gradient buckets" not in found
    assert ddp["weights"] == zero1["weights"] == zero2["weights"] == one["weights"]
    assert fsdp["weights"] == zero3["weights"] < one["weights"] / 2  # two layers, embedding and output layer


def test_the_engine_of_the_rollouts_is_the_recipes(tmp_path: Path) -> None:
    servers = ["rl.engine=server", "rl.server.base_url=http://127.0.0.1:9/v1"]
    plan = planned(tmp_path, SMALL, *servers)
    assert not {"KV cache", "rollout weights"} & plan["stages"]["rl"]["parts"].keys()
    assert "the GPUs of the servers that generate the rollouts" in " ".join(plan["notes"])


@needs_vllm
def test_vllm_has_its_share_of_the_gpu(tmp_path: Path) -> None:
    plan = planned(tmp_path, SMALL, "rl.engine=colocate", "rl.vllm.gpu_memory_utilization=0.5", "--gpu-memory", "40")
    parts = plan["stages"]["rl"]["parts"]
    assert parts["vLLM weights"] == pytest.approx(2 * GIB)
    assert parts["vLLM weights"] + parts["vLLM KV cache"] == pytest.approx(20)
    assert not {"KV cache", "rollout weights"} & parts.keys()


@needs_verl
def test_verl_divides_the_training_and_its_engine_sleeps_meanwhile(tmp_path: Path) -> None:
    verl = ["rl.backend=verl", "rl.verl.workers=4", "rl.trajectory_reward=matchtir", "rl.reward_model_weight=0"]
    parts = planned(tmp_path, SMALL, *LONG, *verl, "--gpus", "4")["stages"]["rl"]["parts"]
    assert [parts[name] for name in ("master weights", "gradients", "reference model")] == pytest.approx([GIB] * 3)
    assert parts["logits"] == pytest.approx(10 * 4 * 2048 * 151_936 / 2**30)  # whole ones, unless they are fused
    freed = sum(parts[name] for name in ("gradients", "activations", "logits"))
    vllm = sum(parts.get(name, 0) for name in ("vLLM weights", "vLLM KV cache"))
    assert vllm == pytest.approx(0.5 * 80 - freed)


def test_what_does_not_fit_is_said_with_changes_that_make_it_fit(tmp_path: Path) -> None:
    (tmp_path / "fsdp.yaml").write_text(FSDP.replace("8", "2"))
    said = rewright(tmp_path, "plan", SMALL, "--gpu-memory", "12")
    (line,) = [line for line in said.output.splitlines() if line.startswith("stage sft takes")]
    assert line.endswith("expected sft.lora_rank=16, or FSDP on 2 GPUs (training.accelerate)")
    assert planned(tmp_path, SMALL, "sft.lora_rank=16", "--gpu-memory", "12")["stages"]["sft"]["fits"]
    fsdp = ["training.accelerate=fsdp.yaml", "--gpu-memory", "12"]
    assert planned(tmp_path, SMALL, *fsdp)["stages"]["sft"]["fits"]
    rewright(tmp_path, "run", SMALL, *fsdp, "--dry-run").refused("rl generates with the engine hf")


def test_gpus_that_the_recipe_does_not_use_are_said(tmp_path: Path) -> None:
    notes = planned(tmp_path, SMALL, "--gpus", "8")["notes"]
    assert any("sft, reward, rl on 1 of 8 GPUs: training.processes=8 uses all" in note for note in notes)


def test_a_dry_run_for_another_machine_needs_neither_weights_nor_a_gpu(tmp_path: Path) -> None:
    said = rewright(tmp_path, "run", SMALL, "--dry-run", "--gpus", "1", "--gpu-memory", "24", "--json")
    assert said.code == 0, said.errors
    assert json.loads(said.output)["gib_per_gpu"].keys() == {"generation", "sft", "reward", "rl"}
    refused = rewright(tmp_path, "run", SMALL, "--dry-run", "--gpus", "1", "--gpu-memory", "16")
    refused.refused("stage rl takes")
    (tmp_path / "zero.yaml").write_text("{distributed_type: DEEPSPEED, num_processes: 4}")  # deepspeed is not here
    deepspeed = ["training.accelerate=zero.yaml", "sft.micro_batch_size=4"]
    said = rewright(tmp_path, "run", SMALL, *deepspeed, "--dry-run", "--gpus", "4")
    assert said.code == 0, said.errors
    rewright(tmp_path, "run", SMALL, *deepspeed, "--dry-run", "--gpus", "2").refused("stage sft has 4 processes")


@needs_vllm
def test_matchtir_is_resolved_with_its_tasks_and_refused_on_small_gpus(tmp_path: Path) -> None:
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
    command += [f"{where}.path={tmp_path}/ftrl_{split}.parquet" for where, split in FILES]
    said = rewright(ROOT, *command, "--gpus", "8", "--gpu-memory", "80", "--json")
    assert said.code == 0, said.errors
    assert json.loads(said.output)["gib_per_gpu"]["rl"] < 76
    rewright(ROOT, *command, "--gpus", "8", "--gpu-memory", "40").refused("stage rl takes")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", SMALL, "--gpus", "8"], "--gpus and --gpu-memory describe another machine: they need --dry-run"),
        (["plan", SMALL, "--gpus", "0"], "--gpus is 0: expected a number from 1 to 4096"),
        (
            ["plan", SMALL, "--gpus", "2", "training.processes=4"],
            "stage sft has 4 processes (training.processes), one for",
        ),
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
