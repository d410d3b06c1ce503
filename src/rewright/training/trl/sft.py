"""Supervised fine-tuning on TRL's SFTTrainer, with a loss on generated tokens only (AutoTraj section 6).

Rows are tokenized and have the mask recorded by the rollout. Labels are -100 where the mask is 0, so prompts and tool
results are attended to but have no loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import set_seed

from rewright.core.errors import InputError
from rewright.engines.loading import load_tokenizer, load_trainable
from rewright.engines.settings import ModelSettings
from rewright.training.launch import world_size
from rewright.training.settings import SFTSettings
from rewright.training.trl.common import build_config, config_arguments, lora_config, quiet, save, train
from rewright.training.trl.right_padding import causal_mask_alone
from rewright.training.trl.step_sampler import StepSampler

__all__ = ["fill_batches", "labels_of", "sft_config", "train_sft"]


def labels_of(row: dict[str, Any]) -> list[int]:
    """Return the labels (L,) of a row with `input_ids` and `mask`: the token where the mask is 1, else -100."""
    pairs = zip(row["input_ids"], row["mask"], strict=True)
    return [token if generated else -100 for token, generated in pairs]


def fill_batches(examples: list[dict[str, list[int]]], size: int) -> list[dict[str, list[int]]]:
    """Append examples without a loss until their number is a multiple of `size`, the sequences of all processes.

    A process whose last batch of an epoch has too few rows would get rows of the epoch's start again, with a loss.
    """
    if world_size() == 1:
        return examples
    first = examples[0]["input_ids"]
    return examples + [{"input_ids": first, "labels": [-100] * len(first)}] * (-len(examples) % size)


def _trainer_class(lengths: Sequence[int], config: Any) -> Any:
    """SFTTrainer whose micro-batches have rows of similar length.

    Each optimizer step has the rows that it has in TRL, in one process and in a group, so its gradient is the same.
    With TRL's `train_sampling_strategy: group_by_length`, rows of similar length are in the same steps.

    `lengths`: number of tokens of every row; rows of the data set after them, which fill batches, come last.
    """
    from trl import SFTTrainer

    micro = config.per_device_train_batch_size
    step = micro * config.gradient_accumulation_steps * world_size()

    class StepSFTTrainer(SFTTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            strategy = config.train_sampling_strategy
            grouped, total = strategy == "group_by_length", len(self.train_dataset)
            if not grouped and (strategy != "random" or step == micro):
                return super()._get_train_sampler(train_dataset)
            return StepSampler(lengths, total, step=step, seed=config.data_seed, grouped=grouped)

    return StepSFTTrainer


def sft_config(settings: SFTSettings, out: Path, seed: int, *, precision: str) -> Any:
    """TRL's SFTConfig of a recipe section. Raises InputError for values that TRL rejects. Writes nothing."""
    from trl import SFTConfig

    return build_config(
        SFTConfig,
        "sft",
        config_arguments(
            settings,
            out,
            seed,
            batch_size=settings.batch_size,
            precision=precision,
            num_train_epochs=settings.epochs,
            lr_scheduler_type=settings.scheduler,
            warmup_steps=settings.warmup,
            max_length=None,
            packing=False,
        ),
    )


def train_sft(
    rows: Sequence[dict[str, Any]], model: ModelSettings, settings: SFTSettings, out: Path, *, seed: int
) -> list[dict[str, Any]]:
    """Train `model` on rows with `input_ids` and `mask` and save it to `out`. Returns the logged rows.

    The arguments are those of `rewright.training.backend.Backend.train_sft`. Rows longer than `max_length` are skipped.
    Raises InputError if no rows remain, and TrainingError if no weight changes.
    """
    from datasets import Dataset

    limit = settings.max_length
    fitting = [row for row in rows if limit is None or len(row["input_ids"]) <= limit]
    if not fitting:
        raise InputError("sft: no rows to train on: no trajectory was kept or repaired, or all exceed sft.max_length")
    examples = [{"input_ids": row["input_ids"], "labels": labels_of(row)} for row in fitting]
    set_seed(seed)  # adapters are initialized before the trainer sets its seed
    trained, precision = load_trainable(model, adapters=settings.lora_rank is not None)
    causal_mask_alone(trained)
    with quiet():
        config = sft_config(settings, out, seed, precision=precision)
        tokenizer = load_tokenizer(model)
        filled = fill_batches(examples, config.per_device_train_batch_size * world_size())
        dataset = Dataset.from_list(filled)
        trainer = _trainer_class([len(row["input_ids"]) for row in fitting], config)(
            model=trained,
            args=config,
            train_dataset=dataset,
            processing_class=tokenizer,
            peft_config=lora_config(settings, "CAUSAL_LM"),
        )
        history = train(trainer, settings, out, seed, label="sft")
        save(trainer, tokenizer, out, settings)
    return history
