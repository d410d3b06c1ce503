"""The keys of the training sections of a recipe that have no effect because of another key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rewright.core.settings import UnusedKey
from rewright.credit.choices import chosen_name
from rewright.credit.settings import CALL_KEYS
from rewright.credit.unused import reads_trajectory_reward
from rewright.training.settings import RewardSettings

__all__ = ["unused_keys", "unused_stage_keys"]

SERVED_KEYS: Final = ("timeout_seconds", "attempts")
"""The keys of a served reward model."""


def unused_keys(rl: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[UnusedKey]:
    """Yield the keys that the trajectory reward of an `rl:` section ignores, as dotted names from the recipe's root.

    A weight of 0 is not reported, since it has the same effect. Neither are the keys of another back end.
    """
    backend = rl.get("backend", defaults["backend"])
    if backend == "verl":
        yield UnusedKey("rl.concurrency", "rl.backend", backend, ", whose engine has limits of its own")
        yield UnusedKey("rl.share_prompts", "rl.backend", backend)
    else:
        yield UnusedKey("rl.verl", "rl.backend", backend)
    reward = rl.get("trajectory_reward", defaults["trajectory_reward"])
    weights = {key: rl.get(key, defaults[key]) for key in ("reward_model_weight", "call_weight")}
    cause: tuple[str, Any] | None = None
    credit = rl.get("credit")
    estimator = credit.get("estimator") if isinstance(credit, Mapping) else None
    if reward == "matchtir":
        cause = ("rl.trajectory_reward", reward)
    elif not reads_trajectory_reward(estimator or defaults["credit"]["estimator"]):
        cause = ("rl.credit.estimator", chosen_name(estimator))
    if cause and weights["reward_model_weight"] != 0:
        yield UnusedKey("rl.reward_model_weight", *cause)
    if cause or weights["reward_model_weight"] == 0:
        cause = cause or ("rl.reward_model_weight", 0)
        yield from (UnusedKey(key, *cause) for key in ("rl.reward_model_clip", "reward.url"))
    engine = rl.get("engine", defaults["engine"])
    if engine != "server" and rl.get("server") is not None:
        yield UnusedKey("rl.server", "rl.engine", engine)
    if engine not in ("vllm", "colocate") and rl.get("vllm") is not None:
        yield UnusedKey("rl.vllm", "rl.engine", engine)
    if reward == "autotraj" and weights["call_weight"] != 0:
        yield UnusedKey("rl.call_weight", "rl.trajectory_reward", reward)
    if reward == "autotraj" or weights["call_weight"] == 0:
        cause = ("rl.trajectory_reward", reward) if reward == "autotraj" else ("rl.call_weight", 0)
        yield from (UnusedKey(f"rl.credit.{key}", *cause) for key in ("signal", *CALL_KEYS))


def unused_stage_keys(data: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[UnusedKey]:
    """Yield the keys that the sections `sft`, `dpo`, `reward` and `rl` of a recipe ignore, as dotted names."""

    def given(section: str, key: str) -> Any:
        found = data.get(section)
        return (found if isinstance(found, Mapping) else {}).get(key, defaults[section][key])

    source = given("sft", "source")
    if source != "demonstrations":
        yield from (UnusedKey(f"sft.{key}", "sft.source", source) for key in ("demonstrations", "profile"))
    if given("dpo", "steps") is not None:
        yield UnusedKey("dpo.epochs", "dpo.steps", given("dpo", "steps"))
    url = given("reward", "url")
    for key in RewardSettings.__struct_fields__:
        if url is None and key in SERVED_KEYS:
            yield UnusedKey(f"reward.{key}", "reward.url", "null")
        if url is not None and key not in ("url", *SERVED_KEYS, "minimum_accuracy", "minimum_pairs"):
            yield UnusedKey(f"reward.{key}", "reward.url", url, ": that model is not trained here")
    for section in ("sft", "dpo", "reward", "rl"):
        constant = given(section, "scheduler") == "constant" and given(section, "backend") == "trl"
        if constant and given(section, "warmup") != 0:
            hint = f": expected {section}.scheduler: constant_with_warmup"
            yield UnusedKey(f"{section}.warmup", f"{section}.scheduler", "constant", hint)
