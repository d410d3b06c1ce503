"""A forward pass in parts of rows of similar length: trajectories differ in length, and padding costs as much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

__all__ = ["in_parts", "parts_by_length"]

PARTS: Final = 4
"""Into how many parts a forward pass is divided."""

LogProbs = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]


def parts_by_length(mask_B_L: torch.Tensor) -> list[torch.Tensor]:
    """Row numbers in up to PARTS parts of similar length; one part where that would save less than a tenth."""
    lengths_B = mask_B_L.sum(dim=1)
    order = lengths_B.argsort(stable=True)
    parts = [rows for rows in order.chunk(PARTS) if len(rows)]
    tokens = sum(len(rows) * int(lengths_B[rows].max()) for rows in parts)
    return parts if tokens < 0.9 * mask_B_L.numel() else [order]


def in_parts(
    compute: Callable[..., LogProbs],
    parts: list[torch.Tensor],
    ids_B_L: torch.Tensor,
    mask_B_L: torch.Tensor,
    kept: int,
) -> LogProbs:
    """What `compute(ids, mask, kept)`, TRL's log-probabilities and entropies of the last tokens, gives for all rows."""
    prompt = ids_B_L.shape[1] - kept
    log_probs_B_T, entropies_B_T = [], []
    for rows in parts:
        mask_R_L = mask_B_L[rows]
        start = int(mask_R_L[:, :prompt].argmax(dim=1).min())
        own = max(1, int(mask_R_L[:, prompt:].sum(dim=1).max()))
        line = slice(start, prompt + own)
        found, entropy, _ = compute(ids_B_L[rows][:, line], mask_R_L[:, line], own)
        missing = (0, kept - own)
        log_probs_B_T.append(torch.nn.functional.pad(found, missing))
        if entropy is not None:
            entropies_B_T.append(torch.nn.functional.pad(entropy, missing))
    back = torch.cat(parts).argsort()
    return torch.cat(log_probs_B_T)[back], torch.cat(entropies_B_T)[back] if entropies_B_T else None, None
