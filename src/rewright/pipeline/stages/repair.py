"""The repair stage: up to `repair.attempts` concurrent attempts for every wrong or low-quality candidate.

Writes each attempt to trajectories.jsonl (with the original as its parent), its verdict to verdicts.jsonl, and one
decision per original, with the reasons of all attempts, to repairs.jsonl. Originals without an accepted repair (hard
cases) are also written to hard.jsonl, as text.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

from rewright.core.concurrency import as_completed
from rewright.core.errors import InputError
from rewright.core.progress import Bar
from rewright.core.records import Quality, Repair, RepairMode, Trajectory, Verdict
from rewright.core.usage import usage_of
from rewright.engines.base import Sampling
from rewright.engines.pico import PICO_MODELS, TRAINED_RULES
from rewright.engines.settings import ModelSettings, repeats_greedily
from rewright.judging import judge_trajectory
from rewright.pipeline.context import ID_SECTIONS, Context
from rewright.pipeline.registry import Generated, Stage
from rewright.pipeline.run_directory import Run
from rewright.pipeline.stages.hard import write_hard_cases
from rewright.pipeline.stages.verdicts import judge_missing
from rewright.pipeline.task_checks import check_judged_candidates
from rewright.recipe.loader import recipe_hash
from rewright.recipe.schema import Recipe
from rewright.repair.decision import (
    RULES,
    SPLICE_RULES,
    Decision,
    checker_error,
    decide,
    mode_of,
    repair_task,
)
from rewright.repair.splice import WrongTurn, first_wrong_turn
from rewright.rollout.loop import Plan, Rollout, derive_seed
from rewright.rollout.outage import Outage
from rewright.rollout.prefix import Prefix
from rewright.rollout.watch import Watch

__all__ = ["REPAIR", "repair"]

SECTIONS = (*ID_SECTIONS, "model", "synth", "quality", "repair")


class _Job(NamedTuple):
    """One original to repair."""

    original: Trajectory
    quality: Quality
    mode: RepairMode
    mark: str
    """Suffix of the ids of its attempts, which distinguishes originals of one task with the same index."""
    verdict: Verdict | None
    wrong: WrongTurn | None
    """Where a splice begins; None: the repair is a rewrite."""

    @property
    def kept(self) -> int:
        """Number of turns of the original that the repair begins with."""
        return 0 if self.wrong is None else self.wrong.turn


class _Attempt(NamedTuple):
    """One judged attempt. `stored`: it is in trajectories.jsonl."""

    trajectory: Trajectory
    verdict: Verdict
    decision: Decision
    stored: bool


async def repair(context: Context) -> dict[str, int]:
    """Repair candidates, resuming from stored records. Returns the numbers of repaired and hard cases."""
    run, settings = context.run, context.recipe.repair
    jobs = await asyncio.to_thread(_jobs, context)  # it may judge
    decided = run.repairs.keys()
    missing = [job for job in jobs if job.original.id not in decided]
    stored = {trajectory.id: trajectory for trajectory in run.trajectories if trajectory.provenance.parent is not None}
    model = settings.model if settings.by == "model" and settings.model is not None else context.candidate_model()
    with Bar("repairs", len(jobs), done=len(jobs) - len(missing)) as bar:
        if missing:
            sampling = Sampling(temperature=settings.temperature, top_p=settings.top_p)
            outage = Outage("repairs", worked=len(missing) < len(jobs))
            watch = Watch("repairs", context.dialect, context.recipe.limits, total=len(jobs))
            tasks = (context.task(job.original.task_id) for job in missing)
            async with context.rollout(model, sampling, tasks) as rollout:
                work = (_run_attempts(context, rollout, job, stored) for job in missing)
                # Closed before the engine, so that attempts interrupted by its shutdown are not stored.
                async with aclosing(as_completed(work, concurrency=settings.concurrency)) as ready:
                    async for job, attempts in ready:
                        outage.record(attempts[-1].trajectory, partial(_store, run, job, attempts))
                        for attempt in attempts:
                            watch.record(attempt.trajectory, tools=bool(context.task(job.original.task_id).all_tools))
                        bar.step(detail=attempts[-1].decision.reason[:40])
            outage.finish()
            watch.finish()
    _arrange(context, jobs)
    repaired = sum(trajectory.accepted for trajectory in run.repairs)
    return {"repaired": repaired, "hard": write_hard_cases(context)}


def _jobs(context: Context) -> list[_Job]:
    recipe = context.recipe
    qualities = {quality.trajectory_id: quality for quality in context.run.qualities}
    uses_verdicts = recipe.repair.shows_error or recipe.repair.form == "splice"
    verdicts = {verdict.trajectory_id: verdict for verdict in context.run.verdicts} if uses_verdicts else {}
    jobs: list[_Job] = []
    seen: set[tuple[str, int]] = set()
    for trajectory in context.run.trajectories:
        quality = qualities.get(trajectory.id)
        mode = mode_of(quality) if quality is not None and trajectory.provenance.parent is None else None
        # Infrastructure failures are not the model's mistakes and are not repaired.
        if quality is not None and mode in recipe.repair.modes and trajectory.failure is None:
            key = (trajectory.task_id, trajectory.index)
            digest = hashlib.blake2b(trajectory.id.encode(), digest_size=4).hexdigest()
            mark = f"-{digest}" if key in seen else ""
            verdict, wrong, task = verdicts.get(trajectory.id), None, context.task(trajectory.task_id)
            if uses_verdicts and verdict is None:
                verdict = judge_trajectory(task, trajectory, seconds=recipe.judge_seconds)
            if recipe.repair.form == "splice":
                wrong = first_wrong_turn(task, trajectory, verdict, recipe.quality, recipe.rl.credit.compare)
            jobs.append(_Job(trajectory, quality, mode, mark, verdict, wrong))
            seen.add(key)
    return jobs


async def _run_attempts(
    context: Context, rollout: Rollout, job: _Job, stored: dict[str, Trajectory]
) -> tuple[_Job, list[_Attempt]]:
    """Make attempts until one is accepted or `repair.attempts` is reached.

    A new attempt without an infrastructure failure is stored at once. Stored attempts with such a failure do not count
    towards the limit, so that a redone stage tries again.
    """
    recipe, run = context.recipe, context.run
    settings = recipe.repair
    task = context.task(job.original.task_id)
    error = None
    if settings.shows_error and job.mode == "wrong_answer":
        error = checker_error(task, job.original, job.verdict, recipe.dialect, show_gold=settings.show_gold)
    repairer_task = repair_task(
        task,
        job.original,
        job.mode,
        calls=settings.calls,
        show_gold=settings.show_gold,
        escape=rollout.escape,
        rules=settings.rules or _rules_for(settings.model or recipe.model, job.kept),
        error=error,
        kept=job.kept,
    )
    label = context.label("repair")
    digest = run.id_digest(recipe_hash(recipe, SECTIONS)) + job.mark
    attempts: list[_Attempt] = []
    stored_failures = 0
    while len(attempts) < settings.attempts + stored_failures:
        attempt = len(attempts)
        plan = Plan(
            id=f"{label}/{job.original.task_id}/{job.original.index}/{attempt}/{digest}",
            task=repairer_task,
            stage=label,
            index=attempt,
            seed=derive_seed(recipe.seed, "repair", job.original.id, attempt),
            parent=job.original.id,
            form=settings.form,
            prefix=None if job.wrong is None else Prefix.of(job.original, job.kept),
        )
        before = stored.get(plan.id)
        trajectory = before or await rollout.run(plan)
        is_new_and_complete = before is None and trajectory.failure is None
        if is_new_and_complete:  # stored before it is judged, so that a judge error does not lose it
            run.trajectories.append(trajectory)
        verdict = await asyncio.to_thread(judge_trajectory, task, trajectory, seconds=recipe.judge_seconds)
        decision = decide(
            job.original,
            job.quality,
            trajectory,
            verdict,
            job.mode,
            dialect=recipe.dialect,
            settings=recipe.quality,
            low_quality_threshold=settings.low_quality_threshold,
            wrong_answer_threshold=settings.wrong_answer_threshold,
            task=task,
            refused_phrases=settings.refused_phrases,
            refused_first_phrases=settings.refused_first_phrases,
        )
        attempts.append(_Attempt(trajectory, verdict, decision, before is not None or is_new_and_complete))
        stored_failures += before is not None and trajectory.failure is not None
        if decision.accepted:
            break
    return job, attempts


def _rules_for(model: ModelSettings, kept: int) -> str:
    """The default rules of the prompt. The shipped repairers need the wording that they were trained with."""
    if model.path in PICO_MODELS:
        return TRAINED_RULES
    return SPLICE_RULES if kept else RULES


def _store(run: Run, job: _Job, attempts: list[_Attempt]) -> None:
    """Store the decision and the attempts that are not stored yet (those with infrastructure failures)."""
    for attempt in attempts:
        if not attempt.stored:
            run.trajectories.append(attempt.trajectory)
    run.repairs.append(_record(job, attempts))


def _record(job: _Job, attempts: list[_Attempt]) -> Repair:
    last = attempts[-1]
    usage = usage_of([attempt.trajectory for attempt in attempts], {})
    return Repair(
        original_id=job.original.id,
        repaired_id=last.trajectory.id,
        task_id=job.original.task_id,
        mode=job.mode,
        accepted=last.decision.accepted,
        reason=last.decision.reason,
        attempts=len(attempts),
        reasons=tuple(attempt.decision.reason for attempt in attempts),
        tokens=None if usage.uncounted else usage.completion_tokens,
        prompt_tokens=None if usage.uncounted else usage.prompt_tokens,
        form="rewrite" if job.wrong is None else "splice",
        turn=None if job.wrong is None else job.wrong.turn,
        turn_reason=None if job.wrong is None else job.wrong.reason,
    )


def _arrange(context: Context, jobs: list[_Job]) -> None:
    """Judge the repairs and sort the files: candidates first, then repairs in the order of their originals."""
    run = context.run
    by_parent: dict[str, list[Trajectory]] = {}
    order: list[str] = []
    for trajectory in run.trajectories:
        if trajectory.provenance.parent is None:
            order.append(trajectory.id)
        else:
            by_parent.setdefault(trajectory.provenance.parent, []).append(trajectory)
    repairs = [
        repaired
        for job in jobs
        for repaired in sorted(by_parent.get(job.original.id, []), key=lambda trajectory: trajectory.index)
    ]
    order += [repair.id for repair in repairs]
    judge_missing(repairs, run.verdicts, lambda one: context.task(one.task_id), seconds=context.recipe.judge_seconds)
    run.trajectories.reorder(order)
    run.verdicts.reorder(order)
    run.repairs.reorder(job.original.id for job in jobs)


def _check(recipe: Recipe) -> None:
    """Refuse several attempts that would be the same: those of a local model at temperature 0."""
    settings = recipe.repair
    model = settings.model if settings.by == "model" and settings.model is not None else recipe.model
    if settings.attempts > 1 and settings.temperature == 0 and repeats_greedily(model):
        raise InputError(
            f"repair.attempts is {settings.attempts}, and repair.temperature 0, at which all attempts are the same: "
            "expected a temperature above 0, or attempts: 1"
        )


def _written_files(about: Mapping[str, Any]) -> tuple[str, ...]:
    return () if about.get("repaired") == about.get("hard") == 0 else REPAIR.files


REPAIR = Stage(
    name="repair",
    run=lambda context: asyncio.run(repair(context)),
    repeated=True,
    reads=("synth", "judge", "score"),
    files=("repairs.jsonl", "hard.jsonl"),
    written_files=_written_files,
    id_sections=SECTIONS,
    verb="repair",
    help="Repair again: decide on stored repairs again and generate missing ones.",
    generates=Generated(file="trajectories.jsonl", repairs=True),
    models=("repair.model",),
    uses_tools=True,
    uses_tasks=True,
    check=_check,
    prepare=check_judged_candidates,
)
