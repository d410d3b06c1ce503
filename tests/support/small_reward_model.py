"""A small reward model with a score head of its own, made from the shipped pico weights, saved as a run saves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rewright.engines.pico import pico_path

__all__ = ["make_reward_model"]


def make_reward_model(folder: Path, *, about: dict[str, Any] | None = None) -> Path:
    """Write the model into `folder` and return it. Its scores differ by whole numbers between trajectories."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from rewright.engines.loading import quiet_loading

    tokenizer = AutoTokenizer.from_pretrained(pico_path("pico"))
    torch.manual_seed(0)
    with quiet_loading():
        model = AutoModelForSequenceClassification.from_pretrained(pico_path("pico"), num_labels=1, dtype=torch.float32)
    model.score.weight.data.normal_(std=0.5)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.rewright = {"version": 1, "dialect": "hermes", "template_options": {}} if about is None else about
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
