"""Held-out pairs for evaluating the reward model.

The reward model is initialized from the SFT policy, so its evaluation tasks must not be in the SFT set either. `build`
and the demonstrations therefore exclude tasks with held-out pairs from SFT.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rewright.core.progress import say
from rewright.core.records import Task
from rewright.pipeline.run_directory import Run
from rewright.recipe.schema import Recipe

__all__ = ["held_out_keys", "question_keys", "unseen_pairs", "warn_if_too_few_pairs"]


def question_keys(task: Task, prompt: Sequence[Mapping[str, Any]]) -> set[str]:
    """The keys of the question that a task asks: tasks with a key in common ask the same.

    One is that of the task's id, the other that of its prompt, so that equal questions under different ids are found.
    If a simulated user opens the conversation, the prompt does not hold the question, and only the id counts.

    Args:
        task: the task.
        prompt: its messages in the dialect (`Dialect.messages`).
    """
    keys = {_id_key(task.id)}
    if task.user is None or not task.user.opens:
        keys.add(_prompt_key(prompt))
    return keys


def held_out_keys(pairs: Iterable[Mapping[str, Any]]) -> set[str]:
    """The keys of the questions of the held-out pairs (rows of preferences.jsonl), as `question_keys` has them."""
    held_out = [pair for pair in pairs if pair["split"] == "heldout"]
    ids = {_id_key(str(pair["task_id"])) for pair in held_out if pair.get("task_id") is not None}
    return ids | {_prompt_key(pair["prompt"]) for pair in held_out if "prompt" in pair}


def _id_key(task_id: str) -> str:
    return json.dumps({"task": task_id})


def _prompt_key(prompt: Sequence[Mapping[str, Any]]) -> str:
    """A key of a prompt, without its system messages unless they are all that asks for something."""
    asked = any(message["role"] == "user" for message in prompt)
    return json.dumps([message for message in prompt if not asked or message["role"] != "system"], sort_keys=True)


def unseen_pairs(run: Run, pairs: Sequence[dict[str, Any]], stage: str = "reward") -> list[dict[str, Any]]:
    """Drop held-out pairs of tasks in the run's SFT set, and print their number.

    `build` does not create such pairs, but older runs and edited files may contain some.
    """
    done = run.state().get("sft", {})
    if not done.get("done") or done.get("skipped") or run.recipe().sft.source != "run":
        return list(pairs)
    seen = {row.get("task_id") for row in run.read_lines("sft.jsonl")} - {None}
    unseen = [pair for pair in pairs if pair["split"] != "heldout" or pair.get("task_id") not in seen]
    if len(unseen) < len(pairs):
        say(
            f"{stage}: {len(pairs) - len(unseen)} held-out pairs are of tasks that SFT has learned from, so they are "
            "not counted: build and sft again for an accuracy on all of them"
        )
    return unseen


def warn_if_too_few_pairs(stage: str, pairs: Sequence[Mapping[str, Any]], recipe: Recipe) -> None:
    """Warn, before any training, if there are too few held-out pairs for RL to use the reward model."""
    held_out = sum(pair["split"] == "heldout" for pair in pairs)
    needed = max(1, recipe.reward.minimum_pairs)
    if held_out >= needed or "rl" not in recipe.stages:
        return
    if recipe.reward.url is None and "reward" not in recipe.stages:
        return
    outcome = "RL will not use the reward model" if recipe.reward.url is None else "RL will refuse the reward model"
    say(
        f"{stage}: {held_out} of {len(pairs)} pairs are held out, and reward.minimum_pairs is {needed}: {outcome}, "
        "because its accuracy will be unknown (more tasks, a larger build.held_out_fraction, or fewer "
        "reward.minimum_pairs)"
    )
