"""Candidates, verdicts, quality (AutoTraj sections 3 and 4): the first three rooms of the flow."""

from __future__ import annotations

from collections import Counter

from rewright.engines.base import Sampling
from rewright.judging import judge_trajectory
from rewright.progress import Bar
from rewright.quality import score_group
from rewright.records import Trajectory
from rewright.rollout import group_by_task
from rewright.stages.context import Context

__all__ = ["candidates", "judge", "score", "synthesise"]

SECTIONS = ("model", "synth")


async def synthesise(context: Context) -> None:
    """`synth.n` candidates per task, into trajectories.jsonl."""
    settings = context.recipe.synth
    plans = list(context.plans(context.tasks, "synth", settings.n, SECTIONS))
    sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p)
    await context.generate(
        "candidates",
        context.recipe.model,
        sampling,
        plans,
        context.run.trajectories,
        concurrency=settings.concurrency,
    )


def candidates(context: Context) -> list[Trajectory]:
    """The stored trajectories that are not repairs: our own candidates, or imported ones."""
    return [one for one in context.run.trajectories if one.provenance.parent is None]


def judge(context: Context) -> None:
    """A verdict for every stored trajectory that has none, into verdicts.jsonl. One trajectory in memory at a time."""
    run = context.run
    known = run.verdicts.keys()
    total = len(run.trajectories.keys_in_order())
    with Bar("verdicts", total, done=len(known)) as bar:
        for trajectory in run.trajectories:
            if trajectory.id in known:
                continue
            run.verdicts.append(judge_trajectory(context.task(trajectory.task_id), trajectory))
            bar.step()
    run.verdicts.arrange(run.trajectories.keys_in_order())


def score(context: Context) -> Counter[str]:
    """Quality and selection of every candidate, into quality.jsonl. Counts kept, low and wrong ones."""
    run = context.run
    correct = {verdict.trajectory_id: verdict.correct for verdict in run.verdicts}
    groups = group_by_task(candidates(context))
    known = run.qualities.keys()
    counts: Counter[str] = Counter()
    with Bar("quality", sum(len(group) for group in groups.values())) as bar:
        for group in groups.values():
            qualities = score_group(group, [correct[one.id] for one in group], context.recipe.quality)
            for quality in qualities:
                counts[str(quality.selected)] += 1
                if quality.trajectory_id not in known:
                    run.qualities.append(quality)
            bar.step(len(group))
    run.qualities.arrange(run.trajectories.keys_in_order())
    return counts
