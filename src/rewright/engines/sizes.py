"""The size of a model, from its configuration alone: no weights are read.

The configurations of a few published models are part of the package, so that a recipe for them can be checked on a
machine without a GPU, without network, and without the weights. transformers builds the model from its configuration
on the meta device, which has shapes and no memory, and the parameters are counted there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

import msgspec

from rewright.core.errors import InputError
from rewright.engines.settings import ModelSettings

__all__ = [
    "ModelSize",
    "config_elsewhere",
    "for_another_machine",
    "is_for_another_machine",
    "model_size",
    "read_size",
    "shipped_config",
]

SHIPPED_CONFIGURATIONS: Final = {
    **{f"Qwen/Qwen3-{size}": f"Qwen3-{size}" for size in ("0.6B", "1.7B", "4B", "8B")},
    "Qwen/Qwen2.5-7B-Instruct": "Qwen2.5-7B-Instruct",
    "Qwen/Qwen2.5-7B": "Qwen2.5-7B-Instruct",
    "smollm2": "SmolLM2-135M-Instruct",
}
"""File names of the shipped configurations, by `model.path`."""

_another_machine: ContextVar[bool] = ContextVar("another_machine", default=False)


@contextlib.contextmanager
def for_another_machine() -> Iterator[None]:
    """Inside the block, checks are for another machine: models with a shipped configuration need not be here."""
    token = _another_machine.set(True)
    try:
        yield
    finally:
        _another_machine.reset(token)


def is_for_another_machine() -> bool:
    """Whether checks are for another machine."""
    return _another_machine.get()


class ModelSize(msgspec.Struct, frozen=True):
    """Sizes of a causal language model, in numbers of parameters and dimensions."""

    parameters: int
    """All parameters; tied ones count once."""
    layer_parameters: int
    """Parameters of one layer."""
    embedding_parameters: int
    """Parameters of the token embedding."""
    head_parameters: int
    """Parameters of the output layer; 0 if it is tied to the embedding."""
    linear_dimensions: int
    """Sum of input and output dimensions of all linear layers but the output layer: LoRA of rank r has r times that."""
    layers: int
    hidden: int
    query: int
    """Query heads times head dimension."""
    key_value: int
    """Key (or value) heads times head dimension."""
    feed_forward: int
    vocabulary: int
    context: int
    """Maximum number of positions."""
    query_norms: bool
    """Whether queries and keys are normalized, which keeps more for the backward pass."""


def shipped_config(name: str) -> Any | None:
    """The transformers configuration of a model that is part of the package; None for other models."""
    file = SHIPPED_CONFIGURATIONS.get(name)
    if file is None:
        return None
    from transformers import AutoConfig

    values = json.loads((files("rewright.engines") / "configurations" / f"{file}.json").read_text("utf-8"))
    return AutoConfig.for_model(**values)


def config_elsewhere(name: str) -> Any | None:
    """Inside `for_another_machine`: the shipped configuration of a model; else None."""
    return shipped_config(name) if is_for_another_machine() else None


def read_size(settings: ModelSettings, where: str) -> ModelSize:
    """The size of a recipe's model. `where`: the recipe section, for messages.

    Raises InputError for a model whose configuration is neither shipped nor found.
    """
    from rewright.engines.checks import read_config

    config = shipped_config(settings.path) or read_config(settings, settings.path, where)
    if config is None:
        raise InputError(f"{where}: model {settings.path}: no config.json in it: expected a saved model")
    return _cached_size(config.to_json_string(use_diff=False))


@lru_cache(maxsize=32)
def _cached_size(config_json: str) -> ModelSize:
    from transformers import AutoConfig

    return model_size(AutoConfig.for_model(**json.loads(config_json)))


def model_size(config: Any) -> ModelSize:
    """Build the model of a transformers configuration on the meta device and measure it. Runs no code of a model."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    config = config.get_text_config()
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    layers = int(config.num_hidden_layers)
    total = sum(weight.numel() for weight in model.parameters())
    head_size = 0 if head is None or head.weight is embedding.weight else head.weight.numel()
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]
    heads = int(config.num_attention_heads)
    dimension = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return ModelSize(
        parameters=total,
        layer_parameters=(total - embedding.weight.numel() - head_size) // layers,
        embedding_parameters=embedding.weight.numel(),
        head_parameters=head_size,
        linear_dimensions=sum(module.in_features + module.out_features for module in linear),
        layers=layers,
        hidden=int(config.hidden_size),
        query=heads * dimension,
        key_value=int(getattr(config, "num_key_value_heads", None) or heads) * dimension,
        feed_forward=int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size),
        vocabulary=embedding.weight.shape[0],
        context=int(getattr(config, "max_position_embeddings", None) or 1 << 20),
        query_norms=any(name.endswith("q_norm") for name, _ in model.named_modules()),
    )
