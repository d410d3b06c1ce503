"""The stages synth, judge and score: candidates, verdicts and quality (AutoTraj sections 3 and 4)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from rewright.core.errors import InputError
from rewright.core.progress import Bar, say
from rewright.core.records import Trajectory
from rewright.engines.base import Sampling
from rewright.pipeline.context import ID_SECTIONS, Context
from rewright.pipeline.registry import Generated, Stage
from rewright.pipeline.stages.verdicts import judge_missing
from rewright.pipeline.task_checks import check_candidates, check_judges
from rewright.repair.quality import model_text, score_group, think_blocks
from rewright.tasks.from_recipe import source_counts

__all__ = ["JUDGE", "SCORE", "SYNTH", "judge", "score", "synthesise"]

SECTIONS = (*ID_SECTIONS, "model", "synth")
_NO_TRAJECTORIES = (
    "{}: there are no trajectories: expected the stage synth before this one, or a run made by rewright import"
)


async def synthesise(
    context: Context, *, label: str = "candidates", on_done: Callable[[Trajectory], None] | None = None
) -> None:
    """Generate `synth.n` candidates per task into trajectories.jsonl.

    `label` is that of the progress bar, and `on_done` is called with each new trajectory.
    """
    settings = context.recipe.synth
    plans = list(context.plans(context.tasks, "synth", settings.n, SECTIONS))
    sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p)
    await context.generate(
        label,
        context.recipe.model,
        sampling,
        plans,
        context.run.trajectories,
        concurrency=settings.concurrency,
        on_done=on_done,
    )


def judge(context: Context) -> None:
    """Judge every stored trajectory without a verdict into verdicts.jsonl. One trajectory is in memory at a time.

    Raises InputError without trajectories or for an unknown task, and JudgeError as `judge_missing` does.
    """
    run = context.run
    order = []
    for trajectory in run.trajectories:  # validate all records and tasks before the first verdict
        context.task(trajectory.task_id)
        order.append(trajectory.id)
    if not order:
        raise InputError(_NO_TRAJECTORIES.format(run.path))
    with Bar("verdicts", len(order), done=len(run.verdicts.keys())) as bar:
        judge_missing(
            run.trajectories,
            run.verdicts,
            lambda trajectory: context.task(trajectory.task_id),
            seconds=context.recipe.judge_seconds,
            on_verdict=bar.step,
        )
    run.verdicts.reorder(order)


def score(context: Context) -> Counter[str]:
    """Score and select every candidate into quality.jsonl. Returns the numbers of kept, low and wrong candidates.

    Candidates are all stored trajectories, generated or imported, that are not repairs. The candidates of one task are
    in memory at a time. Raises InputError without candidates, and for a candidate without a verdict.
    """
    run = context.run
    correct = {verdict.trajectory_id: verdict.correct for verdict in run.verdicts}

    def judged_candidate_of(trajectory: Trajectory) -> str | None:
        if trajectory.provenance.parent is None and trajectory.id not in correct:
            raise InputError(
                f"{run.path}: no verdict on trajectory {trajectory.id}: run rewright judge {run.path} first"
            )
        return _candidate_of(trajectory)

    groups = run.trajectories.groups(judged_candidate_of)  # validates all records before the first score
    if not groups.records:
        raise InputError(_NO_TRAJECTORIES.format(run.path))
    known = run.qualities.keys()
    counts: Counter[str] = Counter()
    weighed = any(
        trajectory.name == "confidence" and trajectory.weight > 0 for trajectory in context.recipe.quality.dimensions
    )
    thinks = not weighed
    with Bar("quality", groups.records) as bar:
        for group in groups:
            thinks = thinks or any(think_blocks(model_text(trajectory)) for trajectory in group)
            qualities = score_group(
                group,
                [correct[trajectory.id] for trajectory in group],
                context.recipe.quality,
                dialect=context.recipe.dialect,
            )
            for quality in qualities:
                counts[str(quality.selected)] += 1
                if quality.trajectory_id not in known:
                    run.qualities.append(quality)
            bar.step(len(group))
    run.qualities.reorder(run.trajectories.keys_in_order())
    if not thinks:
        say(
            "note: no candidate has a think block (<think>), so the confidence of all is 1 and measures nothing; "
            "quality.dimensions can leave it out"
        )
    return counts


def _candidate_of(trajectory: Trajectory) -> str | None:
    """The task id of a candidate; None for a repair."""
    return trajectory.task_id if trajectory.provenance.parent is None else None


def _plan(context: Context) -> dict[str, Any]:
    tasks = context.load_tasks()
    counts = source_counts(tasks)
    return {"candidates": len(tasks) * context.recipe.synth.n} | ({"task_sources": counts} if counts else {})


SYNTH = Stage(
    name="synth",
    run=lambda context: asyncio.run(synthesise(context)),
    files=("trajectories.jsonl",),
    id_sections=SECTIONS,
    verb="synth",
    help="Make the candidates that the run lacks.",
    redone=False,
    generates=Generated(file="trajectories.jsonl", repairs=False),
    models=("model",),
    uses_tools=True,
    uses_tasks=True,
    prepare=check_candidates,
    plan=_plan,
)
JUDGE = Stage(
    name="judge",
    run=judge,
    reads=("synth",),
    requires=("synth",),
    files=("verdicts.jsonl",),
    verb="judge",
    help="Judge all stored trajectories again, without generating.",
    uses_tasks=True,
    prepare=check_judges,
)
SCORE = Stage(
    name="score",
    run=score,
    reads=("synth", "judge"),
    requires=("synth", "judge"),
    files=("quality.jsonl",),
    verb="score",
    help="Score and select all stored candidates again, without generating.",
    uses_tasks=True,
)
