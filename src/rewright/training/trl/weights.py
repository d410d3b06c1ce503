"""The weights of a trained model as an engine loads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["checkpoint_weights"]


def checkpoint_weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, weight) as in a saved checkpoint, with LoRA adapters merged. The model is not changed.

    Weights that are divided over processes (FSDP2) are gathered, one at a time: all processes must iterate.
    """
    if not hasattr(model, "peft_config"):
        for name, weight in model.named_parameters():
            gather = getattr(weight, "full_tensor", None)
            yield name, weight.detach() if gather is None else gather().detach()
        return
    deltas: dict[str, torch.Tensor] = {}
    for path, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            for adapter in module.active_adapters:
                key = f"{path}.base_layer.weight"
                delta = module.get_delta_weight(adapter).detach()
                deltas[key] = deltas[key] + delta if key in deltas else delta
    for name, weight in model.named_parameters():
        if "lora_" not in name:
            merged = weight.detach() + deltas[name] if name in deltas else weight.detach()
            yield name.removeprefix("base_model.model.").replace(".base_layer", ""), merged
