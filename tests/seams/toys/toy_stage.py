"""A stage in one file: how long are the questions? Its row of the table of stages says all that others need to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewright.core.errors import InputError
from rewright.core.registry import register
from rewright.pipeline.context import Context
from rewright.pipeline.registry import Stage
from rewright.recipe.schema import Recipe


def lengths(context: Context) -> Mapping[str, Any]:
    """Write the length of each task's last message in characters to lengths.jsonl."""
    rows = [{"id": task.id, "characters": len(str(task.messages[-1]["content"]))} for task in context.tasks]
    context.run.write_lines("lengths.jsonl", rows)
    context.run.set_metrics("toy_lengths", [{"longest": float(max(row["characters"] for row in rows))}])
    return {"rows": len(rows)}


def check(recipe: Recipe) -> None:
    """Refuse a single task: there is no other length to compare its own with."""
    if recipe.tasks.count == 1:
        raise InputError("tasks.count is 1: expected at least 2 tasks for the stage toy_lengths")


def plan(context: Context) -> Mapping[str, Any]:
    """What a dry run shows."""
    return {"measured": len(context.load_tasks())}


register(
    "stage",
    "toy_lengths",
    Stage(
        name="toy_lengths",
        run=lengths,
        after="eval_base",
        files=("lengths.jsonl",),
        verb="lengths",
        help="Measure the questions.",
        uses_tasks=True,
        check=check,
        plan=plan,
    ),
)
