"""Convert rollouts to the output format of TRL's `rollout_func`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewright.core.records import Trajectory

__all__ = ["to_trl_output"]


def to_trl_output(
    trajectories: Sequence[Trajectory], rewards: list[float | None], end: int
) -> tuple[dict[str, Any], list[list[tuple[int, int]]]]:
    """Convert rollouts to TRL's format.

    Args:
        trajectories: B rollouts.
        rewards: trajectory rewards (B,); None for rollouts with an infrastructure failure.
        end: token id that stands for an empty prompt or completion.

    Returns (output of `rollout_func`, spans [start, end) of each turn within its completion).
    """
    output: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "logprobs": [], "env_mask": []}
    spans_B = []
    for trajectory in trajectories:
        start = len(trajectory.prompt_ids or ())
        ids = trajectory.token_ids[start:] if trajectory.prompt_ids is not None else []
        log_probs: list[float] = []
        for turn in trajectory.turns:
            log_probs += [*(turn.log_probs or ()), *([0.0] * len(turn.suffix_ids))]
        # TRL requires at least one token; a rollout that failed before its first turn has none.
        output["prompt_ids"].append(list(trajectory.prompt_ids or (end,)))
        output["completion_ids"].append(ids or [end])
        output["env_mask"].append(trajectory.mask[start:] or [0])
        output["logprobs"].append(log_probs or [0.0])
        spans_B.append([(span.start - start, span.end - start) for span in trajectory.spans])
    output["trajectory_reward"] = rewards
    return output, spans_B
