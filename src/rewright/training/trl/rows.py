"""Rollouts as TRL's `rollout_func` returns them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewright.core.records import Trajectory

__all__ = ["as_trl"]


def as_trl(
    trajectories: Sequence[Trajectory], rewards: list[float | None], end: int
) -> tuple[dict[str, Any], list[list[tuple[int, int]]]]:
    """(what TRL takes, the token span of every turn within its completion). `end`: the token of an empty completion."""
    output: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "logprobs": [], "env_mask": []}
    spans_B = []
    for one in trajectories:
        start = len(one.prompt_ids or ())
        ids = one.token_ids[start:] if one.prompt_ids is not None else []
        log_probs: list[float] = []
        for turn in one.turns:
            log_probs += [*(turn.log_probs or ()), *([0.0] * len(turn.suffix_ids))]
        # TRL wants at least one token in every completion; one that broke at once has none of its own.
        output["prompt_ids"].append(list(one.prompt_ids or (end,)))
        output["completion_ids"].append(ids or [end])
        output["env_mask"].append(one.mask[start:] or [0])
        output["logprobs"].append(log_probs or [0.0])
        spans_B.append([(span.start - start, span.end - start) for span in one.spans])
    output["trajectory_reward"] = rewards
    return output, spans_B
