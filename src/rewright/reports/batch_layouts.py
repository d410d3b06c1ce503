"""The names of other trainers for what a row of a training batch holds, translated to ours.

Each layout is a function from one row of a dump to the keys of docs/check_batch.md. Names are those of verl 0.9
(`DataProto`), TRL 1.16 (`GRPOTrainer._generate_and_score_completions`) and SkyRL 0.3 (`GeneratorOutput`, and the
tensors of `TrainingInputBatch`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["IDS_KEYS", "KEYS", "LAYOUTS", "detect"]

KEYS: Final = frozenset(
    {"group", "trajectory", "task", "prompt_ids", "response_ids", "input_ids", "mask", "real", "turns", "turn_starts"}
    | {"turn_ends", "turn_ids", "tokens", "turn_texts", "reward", "token_rewards", "turn_rewards", "advantages"}
    | {"log_probs", "old_log_probs", "last_step", "truncated", "padding"}
)
"""The keys of our own rows."""

Values = dict[str, Any]

_VERL: Final = {
    "responses": "response_ids",
    "uid": "group",
    "advantages": "advantages",
    "old_log_probs": "old_log_probs",
    "rollout_log_probs": "log_probs",
    "traj_uid": "trajectory",
}
_TRL: Final = {
    "completion_ids": "response_ids",
    "advantages": "advantages",
    "old_per_token_logps": "old_log_probs",
    "sampling_per_token_logps": "log_probs",
    "rewards": "reward",
}
_SKYRL: Final = {
    "prompt_token_ids": "prompt_ids",
    "response_ids": "response_ids",
    "loss_masks": "mask",
    "rollout_logprobs": "log_probs",
    "action_log_probs": "old_log_probs",
    "is_last_step": "last_step",
    "uids": "group",
    "advantages": "advantages",
}
_SKYRL_TENSORS: Final = _SKYRL | {"loss_mask": "mask", "rewards": "token_rewards"}


def _renamed(row: Mapping[str, Any], names: Mapping[str, str], used: set[str]) -> Values:
    """Our keys as they are, and the layout's under our names. Adds the keys that were read to `used`."""
    found = {key: row[key] for key in KEYS if row.get(key) is not None and key not in names}
    for theirs, ours in names.items():
        if row.get(theirs) is not None:
            found[ours] = row[theirs]
    used |= {*names, *KEYS}
    return found


def own(row: Mapping[str, Any], used: set[str]) -> Values:
    """A row of docs/check_batch.md."""
    return _renamed(row, {}, used)


def verl(row: Mapping[str, Any], used: set[str]) -> Values:
    """A row of verl's `DataProto`: tensors and non-tensors under their names."""
    found = _renamed(row, _VERL, used)
    used |= {"response_mask", "loss_mask", "attention_mask", "prompts", "token_level_scores", "token_level_rewards"}
    used |= {"input_ids", "position_ids", "rm_scores", "returns", "values", "ref_log_prob", "entropys"}
    used |= {"rollout_is_weights", "sum_pi_squared", "routed_experts", "dummy_tensor"}
    found.pop("input_ids", None)
    for key in ("response_mask", "loss_mask"):
        if row.get(key) is not None:
            found.setdefault("mask", row[key])
    length = len(row.get("responses") or ())
    attention = row.get("attention_mask")
    if attention is not None:
        found["real"] = attention[len(attention) - length :]
        found.setdefault("mask", found["real"])  # as verl's `compute_response_mask` does where there are no tools
    if row.get("prompts") is not None:
        prompts = row["prompts"]
        found["prompt_ids"] = _kept(prompts, attention[: len(prompts)] if attention is not None else None)
    rewards = next(
        (row[key] for key in ("token_level_rewards", "token_level_scores", "rm_scores") if row.get(key)), None
    )
    scores = row.get("token_level_scores") or row.get("rm_scores") or rewards
    if scores is not None:
        found["token_rewards"] = scores
    if rewards is not None and "reward" not in found:
        found["reward"], found["reward_stated"] = _total(rewards), False
    return found


def trl(row: Mapping[str, Any], used: set[str]) -> Values:
    """A row of the tensors of TRL's `GRPOTrainer`; `rewards` and `num_generations` are added by whoever dumps them."""
    found = _renamed(row, _TRL, used)
    used |= {"completion_mask", "tool_mask", "prompt_mask", "num_items_in_batch", "ref_per_token_logps"}
    used |= {"importance_sampling_ratio", "num_generations"}
    completion = row.get("completion_mask")
    if completion is not None:
        tool = row.get("tool_mask")
        found["mask"] = completion if tool is None else [a * b for a, b in zip(completion, tool, strict=False)]
        if any(completion):  # all 0: masked since it was truncated
            found["real"] = completion
    if row.get("prompt_ids") is not None:
        found["prompt_ids"] = _kept(row["prompt_ids"], row.get("prompt_mask"))
    return found


def skyrl(row: Mapping[str, Any], used: set[str]) -> Values:
    """A row of SkyRL's `GeneratorOutput`, after training began with `advantages` and `uids`, or of its tensors."""
    if row.get("sequences") is not None:
        return _skyrl_tensors(row, used)
    found = _renamed(row, _SKYRL, used)
    used |= {"rewards", "trajectory_ids", "stop_reasons", "rollout_metrics", "trajectory_generation_times", "pad_size"}
    used |= {"env_metrics", "rollout_expert_indices"}
    label = row.get("trajectory_ids")
    if isinstance(label, dict):
        found["trajectory"] = f"{label.get('instance_id')}_{label.get('repetition_id')}"
        found.setdefault("group", label.get("instance_id"))
    elif label is not None:
        found["trajectory"] = label
    rewards = row.get("rewards")
    if isinstance(rewards, list):
        found["token_rewards"], found["reward"], found["reward_stated"] = rewards, _total(rewards), False
    elif rewards is not None:
        found["reward"] = rewards
    if row.get("stop_reasons") is not None:
        found["truncated"] = row["stop_reasons"] == "length"
    return found


def _skyrl_tensors(row: Mapping[str, Any], used: set[str]) -> Values:
    """A row of `TrainingInputBatch`. Padding is at the left; tensors of the response have its columns alone."""
    found = _renamed(row, _SKYRL_TENSORS, used)
    used |= {"sequences", "attention_mask", "response_mask", "pad_size", "returns", "values", "base_action_log_probs"}
    sequence, response, attention = row["sequences"], row.get("response_mask"), row.get("attention_mask")
    if response is not None:
        start = len(sequence) - int(sum(response))
        found |= {"response_ids": sequence[len(sequence) - len(response) :], "real": response}
        found["prompt_ids"] = _kept(sequence[:start], None if attention is None else attention[:start])
        padding = len(response) - int(sum(response))
        for key in ("turn_starts", "turn_ends"):
            if key in found:
                found[key] = [padding + position for position in found[key]]
        if "turns" in found:
            found["turns"] = [[padding + start, padding + end] for start, end in found["turns"]]
    if found.get("token_rewards") is not None and "reward" not in found:
        found["reward"], found["reward_stated"] = _total(found["token_rewards"]), False
    return found


def _total(rewards: Any) -> Any:
    """The sum of the rewards of tokens, without those that are missing. A value of another type stays as it is."""
    if not isinstance(rewards, list) or any(isinstance(one, str | list | dict) for one in rewards):
        return rewards
    return sum(one for one in rewards if one is not None and not math.isnan(one))


def _kept(ids: Any, mask: Any) -> list[int]:
    """The ids of a prompt without its padding."""
    return list(ids) if mask is None else [one for one, kept in zip(ids, mask, strict=False) if kept]


LAYOUTS: Final[dict[str, Callable[[Mapping[str, Any], set[str]], Values]]] = {
    "rows": own,
    "verl": verl,
    "trl": trl,
    "skyrl": skyrl,
}
"""The layouts by name. Trajectories of Rewright are read by `rewright.reports.batch_files`."""

IDS_KEYS: Final = ("responses", "completion_ids", "sequences", "response_ids", "input_ids")
"""Keys with the token ids of a row; a file that has a list of rows under the first one that it has is a whole batch."""


def detect(keys: Mapping[str, Any]) -> str | None:
    """Return the layout that has these keys ("rewright" for stored trajectories), or None."""
    if "completion_ids" in keys:
        return "trl"
    if "responses" in keys:
        return "verl"
    if "loss_masks" in keys or ("sequences" in keys and "loss_mask" in keys):
        return "skyrl"
    if "task_id" in keys and "stop_reason" in keys:
        return "rewright"
    return "rows" if "mask" in keys else None
