"""`rewright check-batch` on batches that TRL's GRPOTrainer made, saved as docs/check_batch.md does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl")
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from support.in_process import rewright
from support.page_blocks import blocks
from support.prompted_trainer import Prompted, lookup
from support.tiny_llama import make_tiny_llama

pytestmark = pytest.mark.needs_torch
PAGE = Path(__file__).parents[2] / "docs" / "check_batch.md"
Arrays = dict[str, Any]


class SampledLines(Prompted):
    """With log-probabilities of the sampler, as vLLM returns them."""

    def _generate_single_turn(self, *given: Any, **named: Any) -> Any:
        completions, _ = super()._generate_single_turn(*given, **named)
        return completions, [[-0.25 - 0.01 * (token % 7) for token in ids] for ids in completions]


def right(completions: Any, **columns: Any) -> list[float]:
    """The reward of each completion."""
    return [1.0 if "77" in completion[-1].get("content", "") else 0.1 * len(completion) for completion in completions]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


def dump(model: Path, folder: Path, mouth: tuple[type, ...] = (Prompted,), **settings: Any) -> Arrays:
    """The arrays of the first step of a trainer that writes them as the page says."""
    (code,) = [one for one in blocks(PAGE.read_text(), "python") if "class DumpingTrainer" in one]
    names: dict[str, Any] = {}
    exec(code, names)
    trainer_class = type("Trainer", (*mouth, names["DumpingTrainer"]), {})
    prompts = [{"prompt": [{"role": "user", "content": f"How old together? {i}"}]} for i in range(2)]
    defaults = {
        "output_dir": str(folder), "max_steps": 1, "per_device_train_batch_size": 8, "num_generations": 4,
        "max_completion_length": 400, "report_to": "none", "save_strategy": "no", "use_cpu": True, "beta": 0.0,
        "bf16": False,
    }  # fmt: skip
    trainer = trainer_class(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(model),
        reward_funcs=[right],
        train_dataset=Dataset.from_list(prompts),
        tools=[lookup] if mouth else None,
        args=GRPOConfig(**defaults | settings),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trainer.train()
    (file,) = folder.glob("batch-*.npz")
    with np.load(file) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def batch(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """Two groups of four completions with tool calls, with the sampler's and the trainer's log-probabilities."""
    return dump(model, tmp_path_factory.mktemp("step"), (SampledLines,), num_iterations=2)


@pytest.fixture(scope="module")
def markers(model: Path) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    start = tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    return ["--turn-start", ",".join(map(str, start)), "--turn-end", str(end)]


def check(folder: Path, arrays: Arrays, *options: str) -> dict[str, Any]:
    np.savez(folder / "dump.npz", **arrays)
    said = rewright(folder, "check-batch", "dump.npz", "--json", *options)
    assert said.code in (0, 1, None), said.errors
    found: dict[str, Any] = json.loads(said.output)
    assert found["layout"] == "trl"
    return found


def test_a_step_s_own_batch_raises_no_alarm(tmp_path: Path, batch: Arrays, markers: list[str]) -> None:
    assert {"old_per_token_logps", "sampling_per_token_logps", "tool_mask"} <= set(batch)
    by_tokens = check(tmp_path, batch)
    by_markers = check(tmp_path, batch, *markers)
    for found in (by_tokens, by_markers):
        assert found["findings"] == []
        assert {"mixed_prompts", "single_groups", "shifted_mask"} <= set(found["checked"])
        assert found["ignored_keys"] == []
    assert {"turn_boundaries", "mask_beside_text"} <= set(by_markers["checked"])


SETTINGS: dict[str, tuple[tuple[type, ...], dict[str, Any]]] = {
    "no scale": ((Prompted,), {"scale_rewards": "none"}),
    "scale of the batch": ((SampledLines,), {"scale_rewards": "batch", "pad_to_multiple_of": 16}),
    "cut off": ((Prompted,), {"max_completion_length": 150, "mask_truncated_completions": True}),
    "sampled, without tools": ((), {"max_completion_length": 12}),
}


@pytest.mark.parametrize(("mouth", "settings"), SETTINGS.values(), ids=SETTINGS)
def test_batches_of_other_settings_raise_no_alarm(
    tmp_path: Path, model: Path, markers: list[str], mouth: tuple[type, ...], settings: dict[str, Any]
) -> None:
    arrays = dump(model, tmp_path, mouth, **settings)
    for options in ([], markers):
        found = check(tmp_path, arrays, *options)
        assert found["findings"] == []
        assert "mixed_prompts" in found["checked"]


def turn_ends(arrays: Arrays) -> list[int]:
    """The position after the first turn of each row."""
    return [int(np.argmin(np.append(row, 0))) for row in arrays["tool_mask"]]


def mixed_prompts(arrays: Arrays) -> int:
    for key, value in arrays.items():
        if value.ndim:
            arrays[key][[0, 5]] = value[[5, 0]]
    return 5


def single_groups(arrays: Arrays) -> int:
    arrays["num_generations"] = np.array(1)
    arrays["advantages"] = arrays["rewards"].copy()
    return 0


def inverted_mask(arrays: Arrays) -> int:
    arrays["tool_mask"] = 1 - arrays["tool_mask"]
    return 0


def shifted_mask(arrays: Arrays) -> int:
    arrays["tool_mask"] = np.pad(arrays["tool_mask"], ((0, 0), (1, 0)))[:, :-1]
    return 0


def mask_beside_text(arrays: Arrays) -> int:
    end = turn_ends(arrays)[0] + 3  # in the result of the tool, which has two tokens more than before
    ids = arrays["completion_ids"][0]
    arrays["completion_ids"][0] = np.concatenate([ids[:end], ids[end : end + 2], ids[end:]])[: len(ids)]
    return 0


def turn_boundaries(arrays: Arrays) -> int:
    ids, mask = arrays["completion_ids"][0], arrays["tool_mask"][0]
    second = turn_ends(arrays)[0] + int(np.argmax(mask[turn_ends(arrays)[0] :]))
    opening = ids[second - 11 : second].copy()  # <|im_start|>, and "assistant\n" by bytes
    ids[second + 2 : second + 2 + len(opening)] = opening
    return 0


def lost_reward(arrays: Arrays) -> int:
    """The reward of a completion that was cut off is stated, and was 0 when the advantages were made."""
    arrays["truncated"] = np.arange(8) == 2
    seen = arrays["rewards"] * ~arrays["truncated"]
    groups = seen.reshape(2, 4)
    mean, deviation = groups.mean(axis=1, keepdims=True), groups.std(axis=1, ddof=1, keepdims=True)
    arrays["advantages"] = ((groups - mean) / (deviation + 1e-4)).ravel()
    return 2


def masked_log_probs(arrays: Arrays) -> int:
    arrays["sampling_per_token_logps"] = np.where(arrays["tool_mask"] == 1, arrays["sampling_per_token_logps"], 1.0)
    return 0


def last_turn_only(arrays: Arrays) -> int:
    for mask, real in zip(arrays["tool_mask"], arrays["completion_mask"], strict=True):
        own = np.flatnonzero(mask * real)
        starts = own[np.diff(own, prepend=-2) > 1]
        mask[: starts[-1]] = 0
    return 0


FAULTS = [mixed_prompts, single_groups, inverted_mask, shifted_mask, mask_beside_text, turn_boundaries, lost_reward,
          masked_log_probs, last_turn_only]  # fmt: skip


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_planted_faults_are_named_with_row_and_token(
    tmp_path: Path, batch: Arrays, markers: list[str], plant: Any
) -> None:
    arrays = {key: value.copy() for key, value in batch.items()}
    wrong = plant(arrays)
    found = check(tmp_path, arrays, *markers)["findings"]
    assert plant.__name__ in {one["code"] for one in found}
    if plant is not turn_boundaries:  # a turn that opens twice has another mask, too
        assert {one["code"] for one in found} == {plant.__name__}
    rows = {one["row"]: one["token"] for one in found}
    assert wrong in rows
    about_rows = (mixed_prompts, single_groups, lost_reward)
    assert (rows[wrong] is None) == (plant in about_rows)
