"""Direct preference optimization on TRL's DPOTrainer, with the loss on generated tokens only.

The pairs are tokenized and have the masks recorded by the rollouts. TRL's trainer would tokenize texts, and its
collator takes every token after the prompt for one that the model wrote. Here nothing is tokenized again, and tool
results, which the model did not write, are left out of both log-ratios.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from rewright.core.errors import InputError
from rewright.engines.loading import load_tokenizer, load_trainable
from rewright.engines.settings import ModelSettings
from rewright.engines.slots import common_prefix_length
from rewright.training.launch import world_size
from rewright.training.settings import DPOSettings
from rewright.training.trl.common import build_config, config_arguments, lora_config, quiet, save, train
from rewright.training.trl.right_padding import causal_mask_alone

__all__ = ["MaskedPairs", "dpo_config", "split_pair", "train_dpo"]

Row = dict[str, Any]
SIDES = ("chosen", "rejected")


def split_pair(pair: Row) -> Row:
    """Divide a pair into the common prompt and what follows it, as TRL's DPOTrainer takes it, with the masks.

    Returns `prompt_ids`, `chosen_ids`, `rejected_ids`, and `chosen_mask`, `rejected_mask` of the last two. A first part
    that both sides have, such as the turns that a splice keeps, stays in the completions: its log-ratios are equal and
    cancel. Where the prompts differ, as with the first messages of a simulated user, what is not common is in the
    completions, with mask 0.
    """
    prompts = [pair[f"{side}_ids"][: pair[f"{side}_mask"].index(1)] for side in SIDES]
    length = common_prefix_length(*prompts)
    row = {"prompt_ids": pair["chosen_ids"][:length]}
    for side in SIDES:
        row |= {f"{side}_ids": pair[f"{side}_ids"][length:], f"{side}_mask": pair[f"{side}_mask"][length:]}
    return row


class MaskedPairs:
    """Data collator for pairs with masks: chosen trajectories, then rejected ones, padded on the right.

    `pad`: token id of the padding.
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, examples: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Collate N pairs: `input_ids`, `attention_mask` and `completion_mask`, each (2N, L)."""
        ids, masks = [], []
        for side in SIDES:
            for example in examples:
                prompt = example["prompt_ids"]
                ids.append([*prompt, *example[f"{side}_ids"]])
                masks.append([*([0] * len(prompt)), *example[f"{side}_mask"]])
        length = max(map(len, ids))
        return {
            "input_ids": torch.tensor([[*row, *([self.pad] * (length - len(row)))] for row in ids]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids]),
            "completion_mask": torch.tensor([[*row, *([0] * (length - len(row)))] for row in masks]),
        }


def dpo_config(settings: DPOSettings, out: Path, seed: int, *, precision: str) -> Any:
    """TRL's DPOConfig of a recipe section. Raises InputError for values that TRL rejects. Writes nothing."""
    from trl import DPOConfig

    config = build_config(
        DPOConfig,
        "dpo",
        config_arguments(
            settings,
            out,
            seed,
            batch_size=settings.batch_size,
            precision=precision,
            num_train_epochs=settings.epochs,
            max_steps=settings.steps or -1,
            lr_scheduler_type=settings.scheduler,
            warmup_steps=settings.warmup,
            beta=settings.beta,
            loss_type=settings.loss_type,
            max_length=None,
            remove_unused_columns=False,
        ),
    )
    if config.precompute_ref_log_probs:
        raise InputError(
            "dpo.arguments: precompute_ref_log_probs is not supported: expected the reference in memory, or "
            "dpo.lora_rank, which needs none"
        )
    return config


def _trainer_class() -> Any:
    """DPOTrainer for a data set that is tokenized. (TRL 1.16 tokenizes every data set.)"""
    from trl import DPOTrainer

    class TokenizedDPOTrainer(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    return TokenizedDPOTrainer


def train_dpo(
    pairs: Sequence[Row], model: ModelSettings, settings: DPOSettings, out: Path, *, seed: int
) -> tuple[list[Row], dict[str, float | None]]:
    """Train `model` on the pairs of split `train` and save it to `out`. Returns (logged rows, held-out accuracies).

    The reference is the model before the training: a frozen copy, or with LoRA the model without its adapters. A
    held-out pair counts as ranked right if the log-ratio of the chosen trajectory is larger. Raises InputError without
    training pairs, and TrainingError if no weight changes.
    """
    from datasets import Dataset

    limit = settings.max_length
    parts: dict[str, list[Row]] = {"train": [], "heldout": []}
    for pair in pairs:
        fits = limit is None or max(len(pair["chosen_ids"]), len(pair["rejected_ids"])) <= limit
        if fits and 1 in pair["chosen_mask"] and 1 in pair["rejected_mask"]:
            parts[pair["split"]].append(split_pair(pair))
    if not parts["train"]:
        raise InputError("dpo: no pairs to train on: no repair was accepted, or all exceed dpo.max_length")
    set_seed(seed)  # adapters are initialized before the trainer sets its seed
    adapters = settings.lora_rank is not None
    trained, precision = load_trainable(model, adapters=adapters)
    reference = None if adapters else load_trainable(model, adapters=False)[0]
    causal_mask_alone(trained)
    if reference is not None:
        causal_mask_alone(reference)
    with quiet():
        config = dpo_config(settings, out, seed, precision=precision)
        tokenizer = load_tokenizer(model)
        trainer = _trainer_class()(
            model=trained,
            ref_model=reference,
            args=config,
            data_collator=MaskedPairs(tokenizer.pad_token_id or 0),
            train_dataset=Dataset.from_list(parts["train"]),
            processing_class=tokenizer,
            peft_config=lora_config(settings, "CAUSAL_LM"),
        )
        history = train(trainer, settings, out, seed, label="dpo")
        accuracies = _accuracies(trainer, parts["heldout"])
        save(trainer, tokenizer, out, settings)
    return history, accuracies


def _accuracies(trainer: Any, held_out: Sequence[Row]) -> dict[str, float | None]:
    """The share of held-out pairs that the log-ratios rank right; None without pairs."""
    from datasets import Dataset

    if not held_out:
        return {"held_out_pairs": 0, "accuracy": None}
    trainer.args.per_device_eval_batch_size = 1  # batches of equal weight, so that the mean is that over pairs
    # What is left of the division by processes is evaluated by each of them, so that every pair counts once.
    whole = len(held_out) // world_size() * world_size()
    parts = (held_out[:whole], [pair for pair in held_out[whole:] for _ in range(world_size())])
    sums = {"accuracy": 0.0, "margin": 0.0}
    for part, count in zip(parts, (whole, len(held_out) - whole), strict=True):
        if count:
            found = trainer.evaluate(Dataset.from_list(list(part)))
            sums["accuracy"] += count * float(found["eval_rewards/accuracies"])
            sums["margin"] += count * float(found["eval_rewards/margins"])
    return {"held_out_pairs": len(held_out), **{name: total / len(held_out) for name, total in sums.items()}}
