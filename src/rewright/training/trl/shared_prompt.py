"""Compute the prompt of a group once in the loss of RL (`rl.share_prompts`).

The rollouts of a task have one prompt, which holds the schemas of all tools and is often longer than what the policy
writes. A group becomes one sequence, the prompt and then the completions one after another. A mask lets each completion
attend to the prompt and to itself, and its positions go on from the prompt's. Log-probabilities and gradients are those
of separate rows up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from rewright.engines.checks import layer_problem
from rewright.training.trl.parts import LogProbs

__all__ = ["groups_together", "shared_log_probs", "sharing_problem"]


def sharing_problem(config: Any, max_length: int | None = None) -> str | None:
    """Why prompts cannot be shared in a model with this transformers configuration; None if they can.

    `max_length`: longest sequence in tokens; a sliding window of that length is no problem.
    """
    attention = getattr(config, "_attn_implementation", None) or "sdpa"
    if attention != "sdpa":
        return f"its attention is {attention}, expected sdpa, which takes a mask of any form"
    return layer_problem(config, max_length)


def groups_together(batches: Sequence[dict[str, Any]], per_update: int) -> list[dict[str, Any]]:
    """Order the rows of each optimizer step by prompt, so that a group is in one micro-batch, or in few.

    Args:
        batches: micro-batches in TRL's format; tensors (R, ...) have a row for each rollout.
        per_update: micro-batches of an optimizer step. Each step keeps its rows, so its gradient is the same.
    """
    ordered = []
    for first in range(0, len(batches), per_update):
        chunk = batches[first : first + per_update]
        prompts_N_P = torch.cat([batch["prompt_ids"] for batch in chunk])
        _, prompt_N = torch.unique(prompts_N_P, dim=0, return_inverse=True)
        order_N = prompt_N.argsort(stable=True)
        merged = {key: _rows([batch[key] for batch in chunk], order_N) for key in chunk[0]}
        ordered += [{key: value[index] for key, value in merged.items()} for index in range(len(chunk))]
    return ordered


def _rows(values: list[Any], order_N: torch.Tensor) -> list[Any]:
    """The rows of micro-batches in another order, in as many micro-batches; what has no rows stays as it is."""
    rows = len(order_N) // len(values)
    if all(isinstance(value, torch.Tensor) and value.dim() and len(value) == rows for value in values):
        return list(torch.cat(values)[order_N].chunk(len(values)))
    return values


def shared_log_probs(
    forward: Callable[..., Any], ids_B_L: torch.Tensor, mask_B_L: torch.Tensor, kept: int, *, entropies: bool
) -> LogProbs:
    """Log-probabilities and entropies of completions, one forward pass for the rows of each prompt.

    Args:
        forward: a model with TRL's fused output layer.
        ids_B_L: token ids (B, L), prompts padded on the left, completions on the right.
        mask_B_L: attention mask (B, L).
        kept: number of completion positions T.
        entropies: whether they are returned.

    Returns log-probabilities (B, T) and entropies (B, T) in nats, 0 at padding (or None), and None for TRL's auxiliary
    loss.
    """
    prompt = ids_B_L.shape[1] - kept
    _, prompt_B = torch.unique((ids_B_L * mask_B_L)[:, :prompt], dim=0, return_inverse=True)
    log_probs: dict[int, torch.Tensor] = {}
    entropy: dict[int, torch.Tensor] = {}
    for rows_R in (torch.nonzero(prompt_B == number).flatten() for number in prompt_B.unique()):
        start = int(mask_B_L[rows_R[0], :prompt].argmax())
        lengths_R = mask_B_L[rows_R, prompt:].sum(dim=1).tolist()
        completions = [ids_B_L[row, prompt : prompt + length] for row, length in zip(rows_R, lengths_R, strict=True)]
        packed, starts_R = _pack(ids_B_L[rows_R[0], start:prompt], completions)
        output = forward(**packed, fused_lm_head=True)
        for row, first, length in zip(rows_R.tolist(), starts_R, lengths_R, strict=True):
            # The value at a position is that of the token after it.
            log_probs[row] = _padded(output.log_probs[0, first : first + length], kept)
            if entropies:
                entropy[row] = _padded(output.entropy[0, first : first + length], kept)
    order_B = range(len(ids_B_L))
    return (
        torch.stack([log_probs[row] for row in order_B]),
        torch.stack([entropy[row] for row in order_B]) if entropies else None,
        None,
    )


def _pack(prompt_P: torch.Tensor, completions: list[torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[int]]:
    """One sequence of a prompt and its completions: the inputs of a model, and where each completion's segment starts.

    A segment starts with the last token of the prompt, from which the first token of the completion is predicted.
    """
    last = prompt_P[-1:]
    segments = [torch.cat([last, completion]) for completion in completions]
    shared = len(prompt_P) - 1
    lengths = [len(segment) for segment in segments]
    starts = [shared + sum(lengths[:index]) for index in range(len(segments))]
    ids_S = torch.cat([prompt_P[:-1], *segments])
    device = ids_S.device
    labels_S = ids_S.clone()
    labels_S[:shared] = -100
    labels_S[starts] = -100
    positions_S = torch.cat([torch.arange(length, device=device) for length in (shared, *lengths)])
    positions_S[shared:] += shared
    owners = torch.arange(len(segments) + 1, device=device)
    owner_S = owners.repeat_interleave(torch.tensor([shared, *lengths], device=device))
    visible_S_S = ((owner_S == 0) | (owner_S == owner_S[:, None])).tril()
    return {
        "input_ids": ids_S[None],
        "attention_mask": visible_S_S[None, None],
        "position_ids": positions_S[None],
        "labels": labels_S[None],
    }, starts


def _padded(values: torch.Tensor, length: int) -> torch.Tensor:
    return torch.nn.functional.pad(values, (0, length - len(values)))
