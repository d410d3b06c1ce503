"""Attend without a mask where padding is on the right.

In causal attention a token never sees what is right of it, so the mask of padding on the right changes nothing at the
tokens that are there. PyTorch's attention knows the causal mask and skips what it hides, half of the work; with another
mask it computes everything.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["causal_mask_alone"]


def causal_mask_alone(model: Any) -> None:
    """Have a causal language model with PyTorch's attention (sdpa) drop masks that only hide padding on the right."""
    both_ways = getattr(model.config.get_text_config(), "use_bidirectional_attention", None)
    if getattr(model.config, "_attn_implementation", None) == "sdpa" and not both_ways:
        # The backbone's call is seen by its hooks, also below PEFT, which calls `forward` of the model itself.
        model.base_model.register_forward_pre_hook(_without_mask, with_kwargs=True)


def _without_mask(_module: Any, given: Any, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    mask = settings.get("attention_mask")
    if isinstance(mask, torch.Tensor) and mask.dim() == 2 and bool((mask[:, 1:] <= mask[:, :-1]).all()):
        settings = {**settings, "attention_mask": None}
    return given, settings
