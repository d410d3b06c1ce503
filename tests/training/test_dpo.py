"""DPO on pairs with masks: what it is computed over, and that it only ends well if it has trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import torch
from safetensors.torch import load_file

from rewright.core.errors import InputError, TrainingError
from rewright.engines.embedded import HFSettings
from rewright.engines.loading import load_model, load_tokenizer
from rewright.engines.pico import pico_path
from rewright.training.settings import DPOSettings
from rewright.training.trl.dpo import MaskedPairs, split_pair, train_dpo

PICO = HFSettings(path="pico")


def pair(chosen: str, rejected: str, split: str = "train", result: str = " 36 36 36") -> dict[str, Any]:
    """A prompt, a call, its result, and an answer, each side."""
    encode = load_tokenizer(PICO).encode
    prompt, call, shown = encode("What is 36?"), encode("I look."), encode(result)
    row: dict[str, Any] = {"split": split}
    for side, text in (("chosen", chosen), ("rejected", rejected)):
        answer = encode(text)
        row[f"{side}_ids"] = [*prompt, *call, *shown, *answer]
        row[f"{side}_mask"] = [0] * len(prompt) + [1] * len(call) + [0] * len(shown) + [1] * len(answer)
    return row


PAIRS = [pair("The answer is 36.", "The answer is maybe 7."), pair("It is 36.", "Perhaps it is 7.")]


def test_tool_results_are_in_the_context_and_not_in_the_loss() -> None:
    (first, second) = PAIRS
    batch = MaskedPairs(0)([split_pair(first), split_pair(second)])
    assert batch["input_ids"].shape == batch["completion_mask"].shape == batch["attention_mask"].shape
    for row, (one, side) in enumerate(
        [(first, "chosen"), (second, "chosen"), (first, "rejected"), (second, "rejected")]
    ):
        length = len(one[f"{side}_ids"])
        assert batch["input_ids"][row, :length].tolist() == one[f"{side}_ids"]
        assert batch["completion_mask"][row, :length].tolist() == one[f"{side}_mask"]
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (batch["input_ids"].shape[1] - length)
        assert not batch["completion_mask"][row, length:].any()


def test_each_side_keeps_its_own_prompt_where_the_prompts_differ() -> None:
    """A simulated user may open the two conversations with different messages."""
    given = {
        "chosen_ids": [1, 2, 3, 4, 5, 90, 91], "chosen_mask": [0, 0, 0, 0, 0, 1, 1],
        "rejected_ids": [1, 2, 7, 80, 81], "rejected_mask": [0, 0, 0, 1, 1],
    }  # fmt: skip
    row = split_pair(given)
    assert row["prompt_ids"] == [1, 2]
    batch = MaskedPairs(0)([row])
    assert batch["input_ids"].tolist() == [given["chosen_ids"], [*given["rejected_ids"], 0, 0]]
    assert batch["completion_mask"].tolist() == [given["chosen_mask"], [*given["rejected_mask"], 0, 0]]


def log_prob(model: Any, ids: list[int], mask: list[int]) -> float:
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    taken = scores.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    return float((taken * torch.tensor(mask[1:])).sum())


@pytest.mark.parametrize("rank", [None, 4], ids=["all weights", "LoRA"])
def test_the_log_ratio_of_the_chosen_side_grows_against_the_reference(tmp_path: Path, rank: int | None) -> None:
    settings = DPOSettings(learning_rate=1e-3, batch_size=2, steps=4, warmup=0, lora_rank=rank)
    held_out = pair("The answer is 36.", "The answer is maybe 7.", "heldout", result=" 36")
    history, accuracies = train_dpo([*PAIRS, held_out], PICO, settings, tmp_path / "dpo", seed=0)
    assert len(history) == 4
    assert history[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    before, after = load_model(PICO), load_model(HFSettings(path=str(tmp_path / "dpo")))
    ratios = {
        side: log_prob(after, PAIRS[0][f"{side}_ids"], PAIRS[0][f"{side}_mask"])
        - log_prob(before, PAIRS[0][f"{side}_ids"], PAIRS[0][f"{side}_mask"])
        for side in ("chosen", "rejected")
    }
    assert ratios["chosen"] > ratios["rejected"]
    # The log of a step is from before it; the last one is measured by what it moved.
    assert history[-1]["rewards/margins"] > 0
    assert accuracies["held_out_pairs"] == 1
    assert accuracies["accuracy"] == 1.0
    moved = load_file(tmp_path / "dpo/model.safetensors")
    start = load_file(Path(pico_path("pico")) / "model.safetensors")
    assert any(not torch.equal(moved[name], start[name].float()) for name in moved)


@pytest.mark.parametrize(
    ("pairs", "arguments", "error", "words"),
    [
        (PAIRS, {"learning_rate": 0.0}, TrainingError, "dpo: no weight changed in 1 steps"),
        (PAIRS, {"max_grad_norm": 0.0, "learning_rate": 1e38}, TrainingError, "dpo: the weights are NaN or infinite"),
        ([pair("36", "7", "heldout")], {}, InputError, "dpo: no pairs to train on"),
        (PAIRS, {"precompute_ref_log_probs": True}, InputError, "precompute_ref_log_probs is not supported"),
    ],
    ids=["zero", "infinite", "none", "precomputed"],
)
def test_dpo_that_trained_nothing_is_an_error_and_saves_no_model(
    pairs: list[dict[str, Any]], arguments: dict[str, Any], error: type[Exception], words: str, tmp_path: Path
) -> None:
    settings = DPOSettings(learning_rate=1e-4, batch_size=2, arguments=arguments)
    with pytest.raises(error, match=words):
        train_dpo(pairs, PICO, settings, tmp_path / "dpo", seed=0)
    assert not (tmp_path / "dpo").exists()


def test_pairs_that_are_too_long_are_left_out(tmp_path: Path) -> None:
    settings = DPOSettings(learning_rate=1e-4, batch_size=2, max_length=4)
    with pytest.raises(InputError, match=r"all exceed dpo\.max_length"):
        train_dpo(PAIRS, PICO, settings, tmp_path / "dpo", seed=0)
