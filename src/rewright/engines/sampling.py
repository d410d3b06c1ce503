"""Sampling of tokens: one per row, each from its own uniform number."""

from __future__ import annotations

import torch

from rewright.engines.base import Sampling

__all__ = ["sample"]


def sample(
    logits_B_V: torch.Tensor, samplings: list[Sampling], uniform_B: torch.Tensor
) -> tuple[list[int], list[float]]:
    """One token per row by inverse transform, and its log-probability at the row's temperature (before top-p).

    Temperature 0 takes the most likely token; its log-probability is then that of temperature 1.
    """
    temperature = torch.tensor([one.temperature if one.temperature > 0 else 1.0 for one in samplings])
    log_probs_B_V = torch.log_softmax(logits_B_V / temperature[:, None], dim=-1)
    probs_B_V = log_probs_B_V.double().exp()
    for row, one in enumerate(samplings):
        if one.top_p < 1.0:
            ordered, places = probs_B_V[row].sort(descending=True)
            outside = ordered.cumsum(0) - ordered >= one.top_p
            probs_B_V[row, places[outside]] = 0.0
    cumulative = probs_B_V.cumsum(dim=-1)
    chosen_B = torch.searchsorted(cumulative, (uniform_B * cumulative[:, -1])[:, None], right=True)[:, 0]
    chosen_B = chosen_B.clamp(max=logits_B_V.shape[1] - 1)
    greedy_B = torch.tensor([one.temperature <= 0 for one in samplings])
    chosen_B = torch.where(greedy_B, logits_B_V.argmax(dim=-1), chosen_B)
    picked_B = log_probs_B_V.gather(1, chosen_B[:, None])[:, 0]
    return chosen_B.tolist(), picked_B.tolist()
