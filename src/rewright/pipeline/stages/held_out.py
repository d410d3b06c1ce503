"""The tasks whose pairs measure the reward model: neither its training nor the policy it starts from has seen them.

The reward model starts from the SFT policy. A task that SFT has learned from is no test of it, so `build` and the
demonstrations leave out of SFT what belongs to a task with held-out pairs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rewright.core.progress import say
from rewright.pipeline.run_directory import Run
from rewright.recipe.schema import Recipe

__all__ = ["asked", "asked_held_out", "say_if_too_few", "unseen_pairs"]


def asked(prompt: Sequence[Mapping[str, Any]]) -> str:
    """What a prompt asks, to be compared: two tasks may ask the same under different ids."""
    return json.dumps([message for message in prompt if message["role"] != "system"], sort_keys=True)


def asked_held_out(pairs: Iterable[Mapping[str, Any]]) -> set[str]:
    """What the held-out pairs (rows of preferences.jsonl) ask."""
    return {asked(pair["prompt"]) for pair in pairs if pair["split"] == "heldout" and "prompt" in pair}


def unseen_pairs(run: Run, pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`pairs` without held-out ones of tasks that the run's own SFT has learned from, which is said.

    `build` makes none; an older run, or one whose files were edited, may have some.
    """
    done = run.state().get("sft", {})
    if not done.get("done") or done.get("skipped") or run.recipe().sft.source != "run":
        return list(pairs)
    seen = {row.get("task_id") for row in run.read_lines("sft.jsonl")} - {None}
    unseen = [pair for pair in pairs if pair["split"] != "heldout" or pair.get("task_id") not in seen]
    if len(unseen) < len(pairs):
        say(
            f"reward: {len(pairs) - len(unseen)} held-out pairs are of tasks that SFT has learned from, so they are "
            "not counted: build and sft again for an accuracy on all of them"
        )
    return unseen


def say_if_too_few(stage: str, pairs: Sequence[Mapping[str, Any]], recipe: Recipe) -> None:
    """Say, before any training, that RL will not use a reward model for want of held-out pairs."""
    held_out = sum(pair["split"] == "heldout" for pair in pairs)
    needed = max(1, recipe.reward.minimum_pairs)
    if held_out >= needed or "rl" not in recipe.stages:
        return
    if recipe.reward.url is None and "reward" not in recipe.stages:
        return
    outcome = "RL will not use the reward model" if recipe.reward.url is None else "RL will refuse the reward model"
    say(
        f"{stage}: {held_out} of {len(pairs)} pairs are held out, and reward.minimum_pairs is {needed}: {outcome}, for "
        "nobody will know how good it is (more tasks, a larger build.held_out_fraction, or fewer reward.minimum_pairs)"
    )
