"""Settings of a model and of the engine that generates with it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from rewright.core.settings import Settings

__all__ = ["ModelSettings"]


class ModelSettings(Settings, frozen=True):
    """A model: `pico` (and its kin), `smollm2`, a local folder, a Hugging Face id, or a served model's name."""

    path: str = "pico"
    engine: Literal["hf", "openai"] = "hf"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    slots: int = 48
    """hf: how many trajectories decode together."""
    max_length: int | None = None
    """hf: context length; default: the model's own."""
    base_url: str | None = None
    mode: Literal["auto", "chat", "completions"] = "auto"
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 32
    timeout_seconds: float = 300.0
    attempts: int = 5
    """openai: tries per request."""
    max_wait_seconds: float = 60.0
    """openai: the longest wait between two tries."""
    check_model: bool = True
    """openai: an answer from a model of another name is a fault."""
    log_probs: Literal["raw", "processed", "off"] = "raw"
    """openai: which log-probabilities the server gives (vLLM: `--logprobs-mode`)."""
    tokenizer: str | None = None
    """openai, completions: the tokenizer's folder or id, where it is not the served model's name."""
    extra_body: dict[str, Any] | None = None
    template_options: dict[str, Any] = msgspec.field(default_factory=dict)
    trust_remote_code: bool = False
