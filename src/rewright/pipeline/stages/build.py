"""Build the SFT set (kept and repaired trajectories) and the preference set (repaired over original).

AutoTraj sections 6 and 7. Rows are deduplicated, shuffled with the run's seed, and contain their provenance. They hold
the conversation (Hugging Face convention, `messages` and `tools`) and, if the policy's tokenizer is available, the
token ids with the mask of generated tokens as recorded by the rollout.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rewright.core.escaping import common_pattern, escape_control_tokens
from rewright.core.progress import say
from rewright.core.records import Message, Task, Trajectory
from rewright.core.storage import encode_line
from rewright.dialects import conversation
from rewright.dialects.base import prompt_messages
from rewright.dialects.format_check import format_problem
from rewright.pipeline.context import Context
from rewright.pipeline.registry import Stage
from rewright.pipeline.stages.held_out import question_keys, warn_if_too_few_pairs
from rewright.rendering.renderer import Renderer

__all__ = ["BUILD", "build", "held_out"]


def held_out(task_id: str, fraction: float) -> bool:
    """Whether a task's pairs are held out, by hash of the task id, so that no task is in both splits."""
    digest = hashlib.blake2b(task_id.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / 2**32 < fraction


def build(context: Context) -> dict[str, int]:
    """Write sft.jsonl and preferences.jsonl. Returns their numbers of rows (`sft`, `pairs`).

    In a later round they begin with the rows of the round before (`earlier` rows of sft.jsonl).

    Also returns how many rows were removed: `duplicates` and `duplicate_pairs` repeat an earlier row, and `held_out`
    rows of sft.jsonl have tasks with held-out pairs.
    """
    run, recipe = context.run, context.recipe
    trajectories = {trajectory.id: trajectory for trajectory in run.trajectories}
    selected: dict[str, str | None] = {quality.trajectory_id: quality.selected for quality in run.qualities}
    renderer = context.policy_renderer()
    kept = [trajectory for trajectory in trajectories.values() if selected.get(trajectory.id) == "kept"]
    accepted = [repair for repair in run.repairs if repair.accepted and repair.repaired_id is not None]
    repaired = [trajectories[str(repair.repaired_id)] for repair in accepted]
    pairs: list[tuple[Trajectory, Trajectory, str]] = [
        (trajectories[str(repair.repaired_id)], trajectories[repair.original_id], repair.mode) for repair in accepted
    ]
    if recipe.build.pairs == "repaired+kept":
        pairs += _kept_over_wrong(kept, trajectories, selected)
    earlier = context.earlier_sets()
    old_pairs = [] if earlier is None else earlier.pairs()
    old_rows = [] if earlier is None else earlier.read_lines("sft.jsonl")
    new_pairs = (_pair_row(context, renderer, *pair) for pair in pairs)
    preferences = list(_unique(itertools.chain(old_pairs, new_pairs), "prompt", "chosen", "rejected"))
    random.Random(recipe.seed).shuffle(preferences)
    if recipe.repair.round_start == "previous":  # the policy that learns from this set has seen these tasks
        seen = _tasks_of(old_rows)
        for row in preferences:
            row["split"] = "train" if row["task_id"] in seen else row["split"]
    keys = functools.cache(functools.partial(_keys, context))
    held_out_tasks = {row["task_id"] for row in preferences if row["split"] == "heldout"}
    held_out_questions = set[str]().union(*map(keys, held_out_tasks))
    for row in preferences:
        if keys(row["task_id"]) & held_out_questions:  # the same question under another task id
            row["split"] = "heldout"
    run.write_lines("preferences.jsonl", preferences)
    labelled = [(trajectory, "kept") for trajectory in kept] + [(trajectory, "repaired") for trajectory in repaired]
    new_rows = (_sft_row(context, renderer, trajectory, kind) for trajectory, kind in labelled)
    unique_rows = list(_unique(itertools.chain(old_rows, new_rows), "messages"))
    rows = [row for row in unique_rows if not keys(row["task_id"]) & held_out_questions]
    random.Random(recipe.seed).shuffle(rows)
    run.write_lines("sft.jsonl", rows)
    excluded = len(unique_rows) - len(rows)
    if excluded:
        say(f"build: {excluded} of {len(unique_rows)} SFT rows are left out: their tasks' pairs are held out")
    warn_if_too_few_pairs("build", preferences, recipe)
    return {
        "sft": len(rows),
        "pairs": len(preferences),
        "held_out": excluded,
        "duplicates": len(old_rows) + len(labelled) - len(unique_rows),
        "duplicate_pairs": len(old_pairs) + len(pairs) - len(preferences),
        **({} if earlier is None else {"earlier": len(old_rows)}),
    }


def _keys(context: Context, task_id: str) -> set[str]:
    task = context.task(task_id)
    return question_keys(task, context.dialect.messages(task))


def _tasks_of(rows: Sequence[dict[str, Any]]) -> set[str]:
    return {row["task_id"] for row in rows}


def _kept_over_wrong(
    kept: Sequence[Trajectory], trajectories: dict[str, Trajectory], selected: dict[str, str | None]
) -> list[tuple[Trajectory, Trajectory, str]]:
    wrong: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories.values():
        # Infrastructure failures are not the model's mistakes and give no preference.
        if selected.get(trajectory.id) == "wrong" and trajectory.failure is None:
            wrong.setdefault(trajectory.task_id, []).append(trajectory)
    return [(good, bad, "kept_over_wrong") for good in kept for bad in wrong.get(good.task_id, ())[:1]]


def _conversation(context: Context, renderer: Renderer | None, trajectory: Trajectory) -> list[Message]:
    """The conversation of a trajectory. Control tokens, the policy's and common ones, are escaped in tool results."""
    pattern = common_pattern(context.dialect.control_words)

    def escape(text: str) -> str:
        return escape_control_tokens(text if renderer is None else renderer.escape(text), pattern)

    return conversation(context.dialect, trajectory.turns, escape)


def _sft_row(context: Context, renderer: Renderer | None, trajectory: Trajectory, kind: str) -> dict[str, Any]:
    task = context.task(trajectory.task_id)
    row: dict[str, Any] = {
        "id": trajectory.id,
        "task_id": task.id,
        "kind": kind,
        "parent": trajectory.provenance.parent,
        "messages": [
            *prompt_messages(context.dialect, trajectory.began(task), trajectory.opening),
            *_conversation(context, renderer, trajectory),
        ],
        "tools": context.dialect.schemas(task),
    }
    if renderer is not None:
        ids, mask = renderer.training_ids(task, trajectory)
        row |= {"input_ids": ids, "mask": mask}
    return row


def _pair_row(
    context: Context, renderer: Renderer | None, chosen: Trajectory, rejected: Trajectory, mode: str
) -> dict[str, Any]:
    task = context.task(chosen.task_id)
    prompt, openings = _common_prompt(context, task, chosen, rejected)
    is_held_out = held_out(task.id, context.recipe.build.held_out_fraction)
    row: dict[str, Any] = {
        "id": f"{chosen.id}>{rejected.id}",
        "task_id": task.id,
        "mode": mode,
        "split": "heldout" if is_held_out else "train",
        # Chosen trajectories are well formed, so these pairs cannot be ranked by format alone.
        "matched_format": format_problem(rejected, context.recipe.dialect) is None,
        "prompt": prompt,
        "chosen": [*openings[0], *_conversation(context, renderer, chosen)],
        "rejected": [*openings[1], *_conversation(context, renderer, rejected)],
        "tools": context.dialect.schemas(task),
    }
    if renderer is not None:
        row["chosen_ids"], row["chosen_mask"] = renderer.training_ids(task, chosen)
        row["rejected_ids"], row["rejected_mask"] = renderer.training_ids(task, rejected)
    return row


def _common_prompt(
    context: Context, task: Task, chosen: Trajectory, rejected: Trajectory
) -> tuple[list[Message], list[list[Message]]]:
    """The prompt that both sides of a pair have, and the rest of the prompt of each.

    There is a rest if a simulated user opened the two conversations with different messages.
    """
    prompts = [prompt_messages(context.dialect, side.began(task), side.opening) for side in (chosen, rejected)]
    same = itertools.takewhile(lambda both: both[0] == both[1], zip(*prompts, strict=False))
    length = sum(1 for _ in same)
    return prompts[0][:length], [prompt[length:] for prompt in prompts]


def _unique(rows: Iterable[dict[str, Any]], *keys: str) -> Iterator[dict[str, Any]]:
    """Drop rows with the same values under `keys` as an earlier row."""
    seen: set[str] = set()
    for row in rows:
        digest = hashlib.blake2b(encode_line([row[key] for key in keys]), digest_size=16).hexdigest()
        if digest not in seen:
            seen.add(digest)
            yield row


BUILD = Stage(
    name="build",
    run=build,
    repeated=True,
    reads=("synth", "judge", "score", "repair"),
    files=("sft.jsonl", "preferences.jsonl"),
    verb="build",
    help="Build the SFT and preference sets again.",
    uses_tasks=True,
)
