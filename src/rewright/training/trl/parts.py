"""Split a forward pass into length buckets, to save computation on padding of short trajectories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

__all__ = ["compute_in_buckets", "length_buckets"]

NUM_LENGTH_BUCKETS: Final = 4
"""Maximum number of length buckets of a forward pass."""

LogProbs = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]


def length_buckets(mask_B_L: torch.Tensor) -> list[torch.Tensor]:
    """Group rows of similar length.

    Args:
        mask_B_L: attention mask (B, L).

    Returns the row indices of up to `NUM_LENGTH_BUCKETS` buckets, or of a single one if bucketing would save less than
    10% of the B * L tokens.
    """
    lengths_B = mask_B_L.sum(dim=1)
    order = lengths_B.argsort(stable=True)
    parts = [rows for rows in order.chunk(NUM_LENGTH_BUCKETS) if len(rows)]
    tokens = sum(len(rows) * int(lengths_B[rows].max()) for rows in parts)
    return parts if tokens < 0.9 * mask_B_L.numel() else [order]


def compute_in_buckets(
    compute: Callable[..., LogProbs],
    parts: list[torch.Tensor],
    ids_B_L: torch.Tensor,
    mask_B_L: torch.Tensor,
    kept: int,
) -> LogProbs:
    """Call `compute(ids, mask, kept)`, TRL's log-probabilities and entropies, on each bucket and merge the results.

    Args:
        compute: returns log-probabilities and entropies (R, kept) of the last `kept` tokens of R rows.
        parts: row indices of each bucket.
        ids_B_L: token ids (B, L), prompts padded on the left, completions on the right.
        mask_B_L: attention mask (B, L).
        kept: number of completion positions T.

    Returns log-probabilities (B, T), entropies (B, T) or None, and None for the auxiliary loss.
    """
    prompt = ids_B_L.shape[1] - kept
    log_probs_B_T, entropies_B_T = [], []
    for rows in parts:
        mask_R_L = mask_B_L[rows]
        start = int(mask_R_L[:, :prompt].argmax(dim=1).min())
        completion_length = max(1, int(mask_R_L[:, prompt:].sum(dim=1).max()))
        window = slice(start, prompt + completion_length)
        log_probs, entropy, _ = compute(ids_B_L[rows][:, window], mask_R_L[:, window], completion_length)
        padding = (0, kept - completion_length)
        log_probs_B_T.append(torch.nn.functional.pad(log_probs, padding))
        if entropy is not None:
            entropies_B_T.append(torch.nn.functional.pad(entropy, padding))
    inverse_permutation = torch.cat(parts).argsort()
    return (
        torch.cat(log_probs_B_T)[inverse_permutation],
        torch.cat(entropies_B_T)[inverse_permutation] if entropies_B_T else None,
        None,
    )
