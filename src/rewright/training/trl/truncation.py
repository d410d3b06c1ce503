"""Which rollouts of RL were cut off, told to TRL.

TRL takes a completion for cut off whose last token is no end token. That is not so here: a turn of the dialect `tags`
ends with the text `</answer>`, a trajectory may end on a tool's result, and one whose result no longer fits ends with
an end token though a limit cut it off. The rollout knows it: its stop reason says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from rewright.core.progress import say
from rewright.core.records import StopReason, Trajectory

__all__ = ["CUT_OFF", "cut_off", "tell_trl"]

CUT_OFF: Final[tuple[StopReason, ...]] = ("token_limit", "time_limit")
"""Stop reasons of rollouts that were not finished. At a limit of turns or calls every turn is whole: it is counted as
the model wrote it, as TRL does at its own limit of tool calls."""


def cut_off(trajectory: Trajectory) -> bool:
    """Was the trajectory cut off by a limit of tokens or of time?"""
    return trajectory.stop_reason in CUT_OFF


def tell_trl(
    output: dict[str, Any], cut_B: Sequence[bool], metrics: dict[str, list[float]], accelerator: Any, *, mask: bool
) -> None:
    """Put right what TRL's batch and its last metrics say of cut-off rollouts, in place.

    With `mask` the rows `cut_B` of this process are taken out of the loss; said is where no row of any process is left.
    """
    tool_mask_B_T: torch.Tensor = output["tool_mask"]
    own_B_T = output["completion_mask"] * tool_mask_B_T
    cut = torch.tensor(cut_B, device=own_B_T.device)
    lengths, all_cut = accelerator.gather(own_B_T.sum(dim=1)).float(), accelerator.gather(cut)
    whole = lengths[~all_cut] if not bool(all_cut.all()) else lengths.new_zeros(1)
    metrics["completions/clipped_ratio"][-1] = all_cut.float().mean().item()
    for name, value in (("mean", whole.mean()), ("min", whole.min()), ("max", whole.max())):
        metrics[f"completions/{name}_terminated_length"][-1] = value.item()
    if not mask:
        return
    output["tool_mask"] = tool_mask_B_T * (~cut)[:, None].to(tool_mask_B_T.dtype)
    output["num_items_in_batch"] = accelerator.gather((output["completion_mask"] * output["tool_mask"]).sum()).sum()
    if bool(all_cut.all()) and accelerator.is_main_process:
        say(
            f"rl: all {len(all_cut)} rollouts of this step were cut off and are masked (mask_truncated_completions), "
            "so it trains nothing: raise limits.turn_tokens, limits.trajectory_tokens or limits.trajectory_seconds"
        )
