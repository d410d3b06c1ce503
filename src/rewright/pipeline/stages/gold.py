"""Demonstrations for SFT: rollouts in which a scripted policy makes the gold calls of the run's tasks."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.engines.base import Sampling
from rewright.judging import judge_trajectory
from rewright.pipeline.context import ID_SECTIONS, Context
from rewright.pipeline.stages.held_out import held_out_keys, question_keys
from rewright.pipeline.task_checks import check_judged_candidates
from rewright.rendering.renderer import Renderer
from rewright.rollout.gold import GoldPolicy, gold_problem
from rewright.tasks.gold_turns import plays_gold

__all__ = ["check_gold", "gold_rows"]

CONCURRENCY: Final = 32
JUDGED_WRONG: Final = "judged wrong"


def gold_rows(context: Context) -> list[dict[str, Any]]:
    """Play the gold calls of the tasks into demonstrations.jsonl, and return the rows to train on.

    A task is left out if its gold calls are unknown, do not fit the limits, are not read back by the dialect, or are
    judged wrong by its own judge; the numbers are printed. Raises InputError if no task is left.
    """
    recipe, file = context.recipe, context.run.demonstrations
    held_out = held_out_keys(context.run.pairs())
    tasks = [task for task in context.tasks if not question_keys(task, context.dialect.messages(task)) & held_out]
    left_out: Counter[str] = Counter()
    left_out["without gold calls, or with later user messages"] += sum(not plays_gold(task) for task in tasks)
    plans = list(context.plans([task for task in tasks if plays_gold(task)], "gold", 1, (*ID_SECTIONS, "model")))
    by_plan = {plan.id: plan.task for plan in plans}

    def policy(renderer: Renderer) -> GoldPolicy:
        return GoldPolicy(by_plan, context.dialect, renderer)

    asyncio.run(
        context.generate(
            "demonstrations", recipe.model, Sampling(), plans, file, concurrency=CONCURRENCY, engine=policy
        )
    )
    renderer = context.policy_renderer()
    rows = []
    for trajectory in file:
        task = by_plan.get(trajectory.id)
        if task is None or renderer is None:
            continue
        problem = gold_problem(task, trajectory)
        if problem is None and not judge_trajectory(task, trajectory, seconds=recipe.judge_seconds).correct:
            problem = JUDGED_WRONG
        if problem is not None:
            left_out[problem] += 1
            continue
        ids, mask = renderer.training_ids(task, trajectory)
        rows.append({"input_ids": ids, "mask": mask})
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    if not rows:
        raise InputError(f"sft.source is gold, and no task is left to train on ({reasons or 'there are none'})")
    if reasons:
        say(f"sft: {len(rows)} of {len(tasks)} tasks are trained on; left out: {reasons}")
    return rows


def check_gold(context: Context) -> None:
    """Raise InputError unless the tasks can be loaded and judged, and some have gold calls. Writes nothing."""
    check_judged_candidates(context)
    if not any(plays_gold(task) for task in context.load_tasks()):
        raise InputError("sft.source is gold, and no task has gold calls: expected tasks with gold.calls")
