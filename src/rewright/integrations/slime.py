"""slime: turn credit with two of its function path arguments. Written for slime's customisation guide of 2026.

    --custom-reward-post-process-path rewright.integrations.slime.post_process_rewards
    --custom-advantage-function-path  rewright.integrations.slime.turn_advantages

Advantages compare the rollouts of a prompt, which slime distributes over data-parallel ranks. The first function runs
on all samples, computes the turn advantages, and stores them in `sample.train_metadata`. The second runs on each rank
and assigns them to the tokens.

Your generate function (`--custom-generate-function-path`) must set, besides tokens and `loss_mask` (1 for generated
tokens): `sample.metadata["turn_calls"]`, the calls of each turn, and `sample.metadata["gold_calls"]` (None if they are
unknown; not read if the signal matches no calls). For the signal `score` it sets `sample.metadata["turn_scores"]`: the
score after each turn, or one more in front, the score before the first turn. The reward of the sample is the outcome.

Settings: `REWRIGHT_TURN_CREDIT` (JSON). They are checked when this module is imported, so functions of your own are
given as import paths, "package.module:function". Context parallelism is not supported.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from rewright.credit import per_token, spans_from_mask
from rewright.credit.messages import gold_of, turn_scores, warn_about_malformed_calls
from rewright.credit.missing import check_missing
from rewright.credit.provided import check_provided
from rewright.credit.settings import TurnCredit
from rewright.credit.trajectories import CreditTrajectory

__all__ = ["post_process_rewards", "turn_advantages"]

_METADATA_KEY = "rewright_turn_advantages"


def post_process_rewards(args: Any, samples: list[Any]) -> tuple[list[float], list[float]]:
    """Reward post-processing with slime's interface: compute the turn advantages of all samples.

    Groups are the samples with the same `group_index` (older slime: `args.n_samples_per_prompt` adjacent samples).
    Returns (raw rewards, rewards), one each per sample; both are the samples' rewards. A sample that is left out, since
    the signal has no number for it, gets `remove_sample`. Raises ValueError for a sample without
    `metadata["turn_calls"]`, or without the gold calls or scores that the signal reads, and InputError if more than a
    tenth of the samples are left out.
    """
    while samples and isinstance(samples[0], list):
        samples = [sample for group in samples for sample in group]
    settings = _settings()
    outcomes = [float(sample.get_reward_value(args)) for sample in samples]
    groups = [
        position // args.n_samples_per_prompt if getattr(sample, "group_index", None) is None else sample.group_index
        for position, sample in enumerate(samples)
    ]
    trajectories = [
        _trajectory(
            sample, f"sample {position}", settings, task_id=group, outcome=None if math.isnan(outcome) else outcome
        )
        for position, (sample, group, outcome) in enumerate(zip(samples, groups, outcomes, strict=True))
    ]
    warn_about_malformed_calls([one.calls for one in trajectories], [one.golds for one in trajectories])
    signal = settings.signal_of(trajectories)
    left_out = [settings.is_left_out(row) for row in signal.marked_rewards]
    named = [(f"sample {position}", signal.causes.get(position)) for position, out in enumerate(left_out) if out]
    bridged = settings.missing == "bridge"
    check_missing(settings.signal_name, named, len(left_out), key="REWRIGHT_TURN_CREDIT", bridged=bridged)
    rewards = settings.with_outcomes(signal.marked_rewards, outcomes)
    advantages = settings.advantages(rewards, groups, outcomes, trajectories=trajectories)
    for position, sample in enumerate(samples):
        values = advantages[position]
        if left_out[position]:
            sample.remove_sample = True  # slime then trains on none of its tokens
        elif signal.advantages is not None and not math.isnan(outcomes[position]):
            values = values + signal.advantages[position]
        sample.train_metadata = {**(sample.train_metadata or {}), _METADATA_KEY: values.tolist()}
    return outcomes, list(outcomes)


def _settings() -> TurnCredit:
    """The settings of the environment. Raises ValueError for those that cannot work in slime."""
    settings = TurnCredit.from_environment()
    try:
        settings.check_functions()
        settings.check_resources(None)
        check_provided(settings, ["outcomes", "scores", "token_ids"])
    except ValueError as problem:
        raise ValueError(f"REWRIGHT_TURN_CREDIT: {problem}") from None
    return settings


def _trajectory(sample: Any, name: str, settings: TurnCredit, **known: Any) -> CreditTrajectory:
    """The trajectory of a sample. Raises ValueError for metadata without what the signal reads."""
    metadata, signals = sample.metadata, {part.name for part in settings.signal_parts}
    for key, what in (("turn_calls", "calls"), ("turn_scores", "score")):
        if key not in metadata and (key == "turn_calls" or "score" in signals):
            raise ValueError(
                f"{name} has no metadata[{key!r}]: expected the {what} of each turn, set by the generate function"
            )
    golds = gold_of(metadata, f"metadata of {name}") if settings.match_scale or "gold_calls" in metadata else None
    one = CreditTrajectory.of_calls(metadata["turn_calls"], golds, id=name, **known)
    one = replace(one, scores=turn_scores(metadata.get("turn_scores"), len(one.turns), f"turn_scores of {name}"))
    if getattr(sample, "tokens", None) is None:
        return one
    start = len(sample.tokens) - sample.response_length
    return one.with_tokens(sample.tokens[:start], sample.tokens[start:], sample.loss_mask)


def turn_advantages(args: Any, rollout_data: dict[str, Any]) -> None:
    """Advantage function with slime's interface: assign the turn advantages to the tokens.

    Sets `rollout_data["advantages"]` and `rollout_data["returns"]`, one tensor of shape (response_length,) per sample.
    Raises ValueError if the turn advantages are missing or do not match the loss mask.
    """
    import torch

    metadata = rollout_data.get("metadata")
    if metadata is None or any(_METADATA_KEY not in (entry or {}) for entry in metadata):
        raise ValueError(
            "rollout_data has no turn advantages: expected them in 'metadata', as written by "
            "--custom-reward-post-process-path rewright.integrations.slime.post_process_rewards"
        )
    tensors = []
    for position, (entry, loss_mask, kl) in enumerate(
        zip(metadata, rollout_data["loss_masks"], rollout_data["kl"], strict=True)
    ):
        mask = np.asarray(loss_mask.cpu() if hasattr(loss_mask, "cpu") else loss_mask)
        if len(mask) != len(kl):
            raise ValueError(
                f"sample {position}: {len(kl)} tokens on this rank, {len(mask)} in the response: turn credit does "
                "not support context parallelism, set --context-parallel-size 1"
            )
        (spans,) = spans_from_mask(mask[None, :])
        values = entry[_METADATA_KEY]
        if len(spans) > len(values):
            raise ValueError(
                f"sample {position} has {len(spans)} runs of ones in its loss_mask, but {len(values)} turns: expected "
                "from the generate function an entry of metadata['turn_calls'] for each of them"
            )
        count = min(len(spans), len(values))  # a truncated response may have lost its last turns
        tokens = per_token([values[:count]], [spans[:count]], len(mask))[0]
        tensors.append(torch.from_numpy(tokens).to(kl.device))
    rollout_data["advantages"] = tensors
    rollout_data["returns"] = [tensor.clone() for tensor in tensors]


_settings()  # settings that cannot work end the run before anything is generated
