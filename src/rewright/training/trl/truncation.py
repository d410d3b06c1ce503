"""Correct TRL's detection of truncated completions.

TRL treats a completion as truncated if its last token is not an end token. This fails for multi-turn rollouts: a turn
of the dialect `tags` ends with the text `</answer>`, a trajectory may end with a tool result, and a truncated one ends
with an end token if only the tool result did not fit. The rollout's stop reason is used instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from rewright.core.progress import say
from rewright.core.records import StopReason, Trajectory

__all__ = ["TRUNCATED", "correct_trl_batch", "is_truncated"]

TRUNCATED: Final[tuple[StopReason, ...]] = ("token_limit", "time_limit")
"""Stop reasons of truncated rollouts. A limit on turns or calls leaves complete turns and does not count as truncation,
as in TRL for its limit on tool calls."""


def is_truncated(trajectory: Trajectory) -> bool:
    """Return True if the trajectory was truncated by a token or time limit."""
    return trajectory.stop_reason in TRUNCATED


def correct_trl_batch(
    output: dict[str, Any],
    truncated_B: Sequence[bool],
    metrics: dict[str, list[float]],
    accelerator: Any,
    *,
    mask: bool,
) -> None:
    """Correct TRL's batch and its last metrics for truncated rollouts, in place.

    Args:
        output: TRL's batch, with `tool_mask` and `completion_mask` (B, T).
        truncated_B: whether each rollout of this process was truncated.
        metrics: TRL's metrics; the last values of `completions/*` are replaced.
        accelerator: gathers over processes.
        mask: exclude truncated rollouts from the loss. If none are left in any process, a message is printed.
    """
    tool_mask_B_T: torch.Tensor = output["tool_mask"]
    generated_B_T = output["completion_mask"] * tool_mask_B_T
    truncated = torch.tensor(truncated_B, device=generated_B_T.device)
    lengths, all_truncated = accelerator.gather(generated_B_T.sum(dim=1)).float(), accelerator.gather(truncated)
    terminated = lengths[~all_truncated] if not bool(all_truncated.all()) else lengths.new_zeros(1)
    metrics["completions/clipped_ratio"][-1] = all_truncated.float().mean().item()
    for name, value in (("mean", terminated.mean()), ("min", terminated.min()), ("max", terminated.max())):
        metrics[f"completions/{name}_terminated_length"][-1] = value.item()
    if not mask:
        return
    output["tool_mask"] = tool_mask_B_T * (~truncated)[:, None].to(tool_mask_B_T.dtype)
    output["num_items_in_batch"] = accelerator.gather((output["completion_mask"] * output["tool_mask"]).sum()).sum()
    if bool(all_truncated.all()) and accelerator.is_main_process:
        say(
            f"rl: all {len(all_truncated)} rollouts of this step were truncated and are masked "
            "(mask_truncated_completions), so the step has no effect: raise limits.turn_tokens, "
            "limits.trajectory_tokens or limits.trajectory_seconds"
        )
