"""Sample one token per row by inverse transform of a given uniform number."""

from __future__ import annotations

import torch

from rewright.engines.base import Sampling

__all__ = ["sample"]


def sample(
    logits_B_V: torch.Tensor, samplings: list[Sampling], uniform_B: torch.Tensor
) -> tuple[list[int], list[float]]:
    """Sample one token per row.

    Args:
        logits_B_V: logits (B, V).
        samplings: sampling parameters of the B rows.
        uniform_B: uniform random numbers in [0, 1), float64 (B,).

    Returns token ids (B,) and their log-probabilities (B,) at the row's temperature, before top-p. Temperature 0 takes
    the most likely token; its log-probability is then that of temperature 1.
    """
    temperature = torch.tensor([sampling.temperature if sampling.temperature > 0 else 1.0 for sampling in samplings])
    log_probs_B_V = torch.log_softmax(logits_B_V / temperature[:, None], dim=-1)
    probs_B_V = log_probs_B_V.double().exp()
    for row, sampling in enumerate(samplings):
        if sampling.top_p < 1.0:
            ordered, positions = probs_B_V[row].sort(descending=True)
            outside = ordered.cumsum(0) - ordered >= sampling.top_p
            probs_B_V[row, positions[outside]] = 0.0
    cumulative = probs_B_V.cumsum(dim=-1)
    chosen_B = torch.searchsorted(cumulative, (uniform_B * cumulative[:, -1])[:, None], right=True)[:, 0]
    chosen_B = chosen_B.clamp(max=logits_B_V.shape[1] - 1)
    greedy_B = torch.tensor([sampling.temperature <= 0 for sampling in samplings])
    chosen_B = torch.where(greedy_B, logits_B_V.argmax(dim=-1), chosen_B)
    picked_B = log_probs_B_V.gather(1, chosen_B[:, None])[:, 0]
    return chosen_B.tolist(), picked_B.tolist()
