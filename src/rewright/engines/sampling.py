"""Sample one token per row by inverse transform of a given uniform number, on the device of the logits."""

from __future__ import annotations

from typing import Final

import torch

from rewright.engines.base import Sampling

__all__ = ["sample"]

NUCLEUS_TOKENS: Final = 1024
"""Most likely tokens among which the nucleus of top-p is looked for. Rows with a larger one are sorted whole."""
ROUNDING: Final = 1e-9
"""Margin by which the probability of those tokens must exceed top-p. It covers the rounding of their sum."""


def sample(
    logits_B_V: torch.Tensor, samplings: list[Sampling], uniform_B: torch.Tensor
) -> tuple[list[int], list[float]]:
    """Sample one token per row.

    Args:
        logits_B_V: logits (B, V), float32, on any device.
        samplings: sampling parameters of the B rows.
        uniform_B: uniform random numbers in [0, 1), float64 (B,).

    Returns token ids (B,) and their log-probabilities (B,) at the row's temperature, before top-p. Temperature 0 takes
    the most likely token; its log-probability is then that of temperature 1.

    Only these two numbers per row leave the device. A token does not depend on the other rows.
    """
    temperature_B = [sampling.temperature if sampling.temperature > 0 else 1.0 for sampling in samplings]
    top_p_B = [sampling.top_p for sampling in samplings]
    # One copy to the device.
    numbers = torch.tensor([temperature_B, top_p_B, uniform_B.tolist()], dtype=torch.float64).to(logits_B_V.device)
    log_probs_B_V = torch.log_softmax(logits_B_V / numbers[0].float()[:, None], dim=-1)
    greedy = [row for row, sampling in enumerate(samplings) if sampling.temperature <= 0]
    nucleus = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0 and sampling.top_p < 1.0]
    plain = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0 and sampling.top_p >= 1.0]
    chosen_B = torch.zeros(len(samplings), dtype=torch.long, device=logits_B_V.device)
    if greedy:
        chosen_B[greedy] = _take(logits_B_V, greedy).argmax(dim=-1)
    if plain:
        probs = _take(log_probs_B_V, plain).double().exp()
        chosen_B[plain] = _inverse_transform(probs, _take(numbers[2], plain))
    if nucleus:
        log_probs, top_p, uniform = (_take(values, nucleus) for values in (log_probs_B_V, numbers[1], numbers[2]))
        chosen_B[nucleus] = _sample_nucleus(log_probs, top_p, uniform)
    picked_B = log_probs_B_V.gather(1, chosen_B[:, None])[:, 0]
    chosen, picked = torch.stack([chosen_B.double(), picked_B.double()]).tolist()
    return [int(token) for token in chosen], picked


def _take(values_B: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """The given rows, in order; without a copy if they are all."""
    return values_B if len(rows) == len(values_B) else values_B[rows]


def _inverse_transform(probs_B_N: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """Index (B,) of the token at which the cumulative probability exceeds `uniform` of the whole."""
    cumulative = probs_B_N.cumsum(dim=-1)
    chosen = torch.searchsorted(cumulative, (uniform_B * cumulative[:, -1])[:, None], right=True)[:, 0]
    return chosen.clamp(max=probs_B_N.shape[1] - 1)


def _sample_nucleus(log_probs_B_V: torch.Tensor, top_p_B: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """Sample from the smallest set of most likely tokens whose probability is at least `top_p`. Returns tokens (B,)."""
    if log_probs_B_V.shape[1] <= NUCLEUS_TOKENS:
        return _sort_and_sample(log_probs_B_V, top_p_B, uniform_B)
    log_probs, tokens = log_probs_B_V.topk(NUCLEUS_TOKENS, dim=-1)
    probs = log_probs.double().exp()
    outside = _outside(probs, top_p_B)
    # The inverse transform runs in the order of the vocabulary, so that a seed means the same for any number of tokens.
    tokens, order = tokens.sort(dim=-1)
    kept = probs.masked_fill(outside, 0.0).gather(1, order)
    chosen_B = tokens.gather(1, _inverse_transform(kept, uniform_B)[:, None])[:, 0]
    wide = (probs.sum(dim=-1) - probs[:, -1] < top_p_B + ROUNDING).nonzero()[:, 0]
    if len(wide):
        chosen_B[wide] = _sort_and_sample(log_probs_B_V[wide], top_p_B[wide], uniform_B[wide])
    return chosen_B


def _sort_and_sample(log_probs_B_V: torch.Tensor, top_p_B: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """Same as `_sample_nucleus`, for nuclei of any size: all tokens are sorted."""
    probs = log_probs_B_V.double().exp()
    ordered, tokens = probs.sort(dim=-1, descending=True)
    outside = _outside(ordered, top_p_B)
    outside = torch.empty_like(outside).scatter_(1, tokens, outside)
    return _inverse_transform(probs.masked_fill(outside, 0.0), uniform_B)


def _outside(ordered_B_N: torch.Tensor, top_p_B: torch.Tensor) -> torch.Tensor:
    """Mask of the probabilities, largest first, that are not in the nucleus."""
    return ordered_B_N.cumsum(dim=-1) - ordered_B_N >= top_p_B[:, None]
