"""Trajectory reward model, trained with a Bradley-Terry loss on TRL's RewardTrainer (AutoTraj section 7).

A sequence classifier with one output, initialized from the policy's weights. The score is read at the last token.
Training, serving and RL use the token ids recorded by the rollout, so all of them score the same sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.modeling_layers import GenericForSequenceClassification

from rewright.core.errors import InputError
from rewright.engines.loading import (
    compute_dtype,
    load_tokenizer,
    local_device,
    quiet_loading,
    resolve_path,
    tune_process,
)
from rewright.engines.prefix_tree import TreeReader
from rewright.engines.settings import ModelSettings
from rewright.training.pair_accuracy import held_out_accuracies
from rewright.training.settings import RewardSettings
from rewright.training.trl.common import build_config, config_arguments, lora_config, quiet, save, train
from rewright.training.trl.right_padding import causal_mask_alone

__all__ = ["RewardModel", "reward_config", "train_reward_model"]


class RewardModel:
    """Scores token sequences with a trained reward model, in batches of similar length, on the GPU of this process.

    Args:
        path: folder of the model.
        batch_tokens: maximum number of tokens per batch, padding included.

    `about` holds the dialect and template options of its training (empty for other models). Raises InputError for a
    folder without a trained score head, since a newly initialized head would give random scores.
    """

    def __init__(self, path: str | Path, *, batch_tokens: int = 16384) -> None:
        from transformers import AutoModelForSequenceClassification

        tune_process()
        config = _config_with_head(Path(path))
        self.about: dict[str, Any] = dict(getattr(config, "rewright", None) or {})
        self.device = torch.device(local_device())
        with quiet_loading():
            try:
                model = AutoModelForSequenceClassification.from_pretrained(
                    str(path), dtype=torch.float32, use_safetensors=True
                )
            except Exception as problem:  # each weight format raises different errors for invalid files
                reason = " ".join(str(problem).split())[:200]
                raise InputError(f"{path}: cannot load its weights ({reason}): expected safetensors files") from None
        self.model: Any = model.to(self.device)
        self.model.eval()
        self.batch_tokens = batch_tokens
        self.limit = int(getattr(self.model.config, "max_position_embeddings", 1 << 30))
        self.vocabulary_size = int(self.model.get_input_embeddings().num_embeddings)

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """One score per token sequence, in the given order. Too long sequences are truncated on the left."""
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
        scores = [0.0] * len(sequences)
        batch: list[int] = []
        for index in order:
            longest = min(self.limit, len(sequences[index]))
            if batch and (len(batch) + 1) * longest > self.batch_tokens:
                self._score_batch(sequences, batch, scores)
                batch = []
            batch.append(index)
        if batch:
            self._score_batch(sequences, batch, scores)
        return scores

    def score_prefixes(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """As `score`, for sequences many of which are prefixes of others: shared prefixes are computed once.

        Sequences are not truncated: none may be empty, or longer than `limit`.
        """
        head, base = getattr(self.model, "score", None), self.model.base_model
        if head is None or not isinstance(self.model, GenericForSequenceClassification):
            return self.score(sequences)  # a head that may read more than the last token

        def forward(*, wanted: torch.Tensor, **arguments: Any) -> torch.Tensor:
            scores: torch.Tensor = head(base(**arguments).last_hidden_state[:, wanted])
            return scores

        reader = TreeReader(self.model, forward, width=self.model.config.hidden_size, batch_tokens=self.batch_tokens)
        scores = [0.0] * len(sequences)
        # As in `forward`, the score is that of the last token that is not the padding token (some models end with it).
        pad = self.model.config.pad_token_id
        ends = [
            next((end for end in range(len(sequence), 0, -1) if sequence[end - 1] != pad), 1) for sequence in sequences
        ]
        read = [sequence[:end] for sequence, end in zip(sequences, ends, strict=True)]
        for outputs, indices, _ in reader.read(read, [end - 1 for end in ends]):
            for index, value in zip(indices.tolist(), outputs[:, 0].tolist(), strict=True):
                scores[index] = float(value)
        return scores

    def _score_batch(self, sequences: Sequence[Sequence[int]], batch: list[int], scores: list[float]) -> None:
        rows = [list(sequences[index])[-self.limit :] for index in batch]
        length = max(1, *(len(row) for row in rows))
        pad = self.model.config.pad_token_id or 0
        ids = torch.full((len(rows), length), pad)
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        with torch.inference_mode():
            # As in training, `forward` applies the head at the last non-padding token.
            on_device = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}
            values = self.model(**on_device, use_cache=False).logits[:, 0]
        for index, value in zip(batch, values.tolist(), strict=True):
            scores[index] = float(value)


def _config_with_head(path: Path) -> Any:
    """Load the configuration of a reward model. Raises InputError for any other model."""
    from transformers import AutoConfig

    expected = "expected a reward model, as `rewright reward` saves it"
    if not (path / "config.json").is_file():
        raise InputError(f"{path}: no config.json in it: {expected}")
    try:
        config = AutoConfig.from_pretrained(str(path))
    except (OSError, ValueError) as problem:
        raise InputError(
            f"{path}: cannot read config.json: {' '.join(str(problem).split())[:200]}: {expected}"
        ) from None
    architectures = getattr(config, "architectures", None) or ["unknown"]
    if not architectures[0].endswith("ForSequenceClassification") or config.num_labels != 1:
        raise InputError(f"{path} is a {architectures[0]} without a score head of one output: {expected}")
    return config


def reward_config(settings: RewardSettings, out: Path, seed: int, *, precision: str) -> Any:
    """TRL's RewardConfig of a recipe section. Raises InputError for values that TRL rejects. Writes nothing."""
    from trl import RewardConfig

    return build_config(
        RewardConfig,
        "reward",
        config_arguments(
            settings,
            out,
            seed,
            batch_size=settings.batch_size,
            precision=precision,
            num_train_epochs=settings.epochs,
            lr_scheduler_type=settings.scheduler,
            warmup_steps=settings.warmup,
            max_length=settings.max_length,
        ),
    )


def train_reward_model(
    pairs: Sequence[dict[str, Any]],
    model: ModelSettings,
    settings: RewardSettings,
    out: Path,
    *,
    seed: int,
    dialect: str = "hermes",
) -> tuple[list[dict[str, Any]], dict[str, float | None]]:
    """Train on the pairs of split `train` and save to `out`. Returns (logged rows, held-out accuracies).

    The weights are float32, and the computation has the model's dtype (by autocast), as in the other stages. The
    trained model scores in float32. The accuracies are those of `rewright.training.pair_accuracy`. `dialect` and the
    model's template options are stored with the model, so that a server renders conversations as in training. Raises
    InputError without training pairs, and TrainingError if no weight changes.
    """
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardTrainer

    training = [pair for pair in pairs if pair["split"] == "train"]
    held_out = [pair for pair in pairs if pair["split"] == "heldout"]
    if not training:
        raise InputError("reward: no preference pairs to train on: no repair was accepted")
    limit = settings.max_length
    sides = ("chosen_ids", "rejected_ids")
    if limit is not None and all(any(len(pair[side]) > limit for side in sides) for pair in training):
        raise InputError(f"reward: all {len(training)} pairs are longer than reward.max_length, {limit} tokens")
    dataset = Dataset.from_list([{key: pair[key] for key in sides} for pair in training])
    tune_process()
    set_seed(seed)  # the head and adapters are initialized before the trainer sets its seed
    with quiet():
        tokenizer = load_tokenizer(model)
        classifier = AutoModelForSequenceClassification.from_pretrained(
            resolve_path(model.path), num_labels=1, dtype=torch.float32
        )
        classifier.config.pad_token_id = tokenizer.pad_token_id
        classifier.config.rewright = {"version": 1, "dialect": dialect, "template_options": model.template_options}
        causal_mask_alone(classifier)
        config = reward_config(settings, out, seed, precision=compute_dtype(model))
        trainer = RewardTrainer(
            model=classifier,
            args=config,
            train_dataset=dataset,
            processing_class=tokenizer,
            peft_config=lora_config(settings, "SEQ_CLS"),
        )
        history = train(trainer, settings, out, seed, label="reward model")
        save(trainer, tokenizer, out, settings)
        accuracies = held_out_accuracies(RewardModel(out).score, held_out) if trainer.is_world_process_zero() else {}
    return history, accuracies
