"""Evaluation on held-out tasks, with the rollout loop and judges of the other stages."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from rewright.benchmarks import Benchmark, Metrics, find_benchmark
from rewright.benchmarks.scoring.bounds import measured
from rewright.benchmarks.scoring.scores import bounds, cluster_of, correlations, pass_powers, totals
from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.core.records import Task, Trajectory, Verdict, label_of
from rewright.core.statistics import grouped_mean, grouped_proportion, grouped_share
from rewright.core.usage import generated_tokens
from rewright.engines.base import Sampling
from rewright.engines.checks import check_layers
from rewright.engines.embedded import HFSettings
from rewright.engines.settings import ModelSettings
from rewright.pipeline.context import ID_SECTIONS, Before, Context
from rewright.pipeline.registry import Generated, Stage
from rewright.pipeline.run_directory import evaluation_files, prerequisite_file
from rewright.pipeline.stages.policy import policy
from rewright.pipeline.stages.verdicts import judge_missing
from rewright.pipeline.task_checks import check_eval_tasks
from rewright.recipe.schema import Recipe
from rewright.repair.quality import PARITY, mean_quality_and_words
from rewright.repair.settings import QualitySettings
from rewright.rollout.prerequisites import prerequisite_tasks
from rewright.rollout.settings import EvalSettings
from rewright.tasks.from_recipe import MIXTURE_SOURCE, cluster_label, source_counts
from rewright.training.trackers import check_evaluation_trackers

__all__ = [
    "EVAL_BASE",
    "EVAL_DPO",
    "EVAL_RL",
    "EVAL_SFT",
    "evaluate",
    "evaluation",
    "group_row",
    "own_metrics",
    "summarise",
]


SECTIONS = (*ID_SECTIONS, "eval", "model")
BASE = "base"
"""The label of the model before training."""


def _warn_of_default_tasks(recipe: Recipe, label: str) -> None:
    """Say that the held-out tasks are those of the default, which are not like the tasks of the recipe."""
    own = {one.format for one in recipe.tasks.sources} or {recipe.tasks.format}
    default = EvalSettings().tasks
    if recipe.eval.tasks == default and default.format not in own:
        say(
            f"warning: evaluation of {label}: eval.tasks is not set, so that the held-out tasks are {default.count} "
            f"questions of the embedded world {default.format}, with its tools: expected eval.tasks in the recipe"
        )


async def evaluate(context: Context, label: str, model: ModelSettings) -> dict[str, Any]:
    """Generate `eval.n` trajectories per held-out task with a model, judge them, and return their summary."""
    settings = context.recipe.eval
    _warn_of_default_tasks(context.recipe, label)
    trajectories, verdicts = context.run.evaluation(label)
    started = time.monotonic()
    plans = list(context.plans(context.eval_tasks, f"eval-{label}", settings.n, SECTIONS))
    before = _before(context, label)
    await context.generate(
        f"evaluation of {label}",
        model,
        Sampling(temperature=settings.temperature, top_p=settings.top_p),
        plans,
        trajectories,
        concurrency=settings.concurrency,
        before=before,
    )
    trajectories.close()
    if before is not None:
        before.file.close()
    tasks = {task.id: task for task in context.eval_tasks}
    judge_missing(
        trajectories, verdicts, lambda trajectory: tasks[trajectory.task_id], seconds=context.recipe.judge_seconds
    )
    verdicts.reorder(trajectories.keys_in_order())
    verdicts.close()
    categories, sources = (
        {task.id: label for task in tasks.values() if (label := label_of(task.metadata, key))}
        for key in ("category", MIXTURE_SOURCE)
    )
    clusters = {task.id: label for task in tasks.values() if (label := cluster_label(task.metadata))}
    seconds = time.monotonic() - started
    summary = summarise(
        list(trajectories),
        list(verdicts),
        seconds=seconds,
        categories=categories,
        sources=sources,
        clusters=clusters,
        quality=context.recipe.quality,
        dialect=context.recipe.dialect,
    )
    if settings.benchmark is not None:
        benchmark = find_benchmark(settings.benchmark, "eval.benchmark")
        correct = {verdict.trajectory_id: float(verdict.correct) for verdict in verdicts}
        correlated = correlations(
            (categories[one.task_id], cluster_of(one.task_id, clusters), correct[one.id])
            for one in trajectories
            if one.task_id in categories
        )
        summary |= _beside(benchmark, summary, list(tasks.values()), correlated)
        if benchmark.metrics is not None:
            summary["metrics"] = own_metrics(
                benchmark.metrics, settings.benchmark, tasks, list(trajectories), list(verdicts)
            )
    return summary


def _before(context: Context, label: str) -> Before | None:
    """The prerequisites of the held-out tasks; None if they have none."""
    tasks = context.prepare(prerequisite_tasks(context.eval_tasks))
    plans = list(context.plans(tasks, f"eval-{label}", context.recipe.eval.n, SECTIONS))
    return Before(plans, context.run.prerequisites(label)) if plans else None


def _beside(
    benchmark: Benchmark,
    summary: Mapping[str, Any],
    tasks: Sequence[Task],
    correlated: Mapping[tuple[str, str], float],
) -> dict[str, Any]:
    """What a benchmark puts beside the scores: its totals, its floor and ceiling, and its note."""
    categories = [label_of(task.metadata, "category") for task in tasks]
    floor, ceiling = benchmark.floor, benchmark.ceiling
    if not floor and not ceiling:
        floor, ceiling = measured(tasks) or (floor, ceiling)
    found = {
        "totals": totals(benchmark.aggregates, summary.get("categories", {}), correlated),
        "floor": bounds(floor, benchmark.aggregates, categories),
        "ceiling": bounds(ceiling, benchmark.aggregates, categories),
        "note": benchmark.note,
    }
    return {key: value for key, value in found.items() if value}


def own_metrics(
    metrics: Metrics,
    benchmark: str,
    tasks: Mapping[str, Task],
    trajectories: Iterable[Trajectory],
    verdicts: Iterable[Verdict],
) -> dict[str, dict[str, float]]:
    """Average a benchmark's own metrics over trajectories.

    Returns by metric: `value` (the mean), the 95% interval over tasks `low` to `high`, and the number `trajectories`. A
    metric whose values all lie in [0, 1] is a share, and so does its interval; any other is a mean, such as a count.
    Raises InputError if the function `metrics` raises or returns anything but finite numbers by name.
    """
    clusters = {task.id: label for task in tasks.values() if (label := cluster_label(task.metadata))}
    values: dict[str, list[tuple[str, float]]] = {}
    verdict_of = {verdict.trajectory_id: verdict for verdict in verdicts}
    for one in trajectories:
        try:
            found = dict(metrics(tasks[one.task_id], one, verdict_of[one.id]))
        except Exception as problem:  # user code can raise anything
            raise InputError(
                f"eval.benchmark: the metrics of {benchmark} failed for {one.id}: {type(problem).__name__}: {problem}"
            ) from problem
        for name, value in found.items():
            if not isinstance(name, str) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(
                    f"eval.benchmark: the metrics of {benchmark} for {one.id} are {found!r:.200}: expected finite "
                    "numbers by name"
                )
            values.setdefault(name, []).append((one.task_id, float(value)))
    rows = {}
    for name, pairs in values.items():
        is_share = all(0 <= value <= 1 for _, value in pairs)
        interval = (grouped_share if is_share else grouped_mean)(_by_task(pairs, clusters))
        rows[name] = {**interval._asdict(), "trajectories": len(pairs)}
    return rows


def summarise(
    trajectories: list[Trajectory],
    verdicts: list[Verdict],
    *,
    seconds: float,
    categories: Mapping[str, str] | None = None,
    sources: Mapping[str, str] | None = None,
    clusters: Mapping[str, str] | None = None,
    quality: QualitySettings = PARITY,
    dialect: str = "tags",
) -> dict[str, Any]:
    """Compute the metrics of an evaluation.

    Args:
        trajectories: the trajectories of the evaluation.
        verdicts: their verdicts.
        seconds: wall-clock duration.
        categories: task id -> category; adds success per category and `category_mean`, the unweighted mean over them.
        sources: task id -> source of a mixture; adds success per source.
        clusters: task id -> cluster (`metadata.cluster`), for tasks that are variants of one.
        quality: quality settings.
        dialect: dialect of the trajectories.

    Returns success (pass@1) with its 95% interval, pass^k if there are several trajectories per task, Solve metrics,
    and means per trajectory of calls, generated tokens (None if unknown for any), words and quality (AutoTraj's total;
    None without trajectories). Intervals are computed over tasks, or clusters of tasks, since several trajectories of
    one (`eval.n`) are not independent. Trajectories with an infrastructure failure (counted in `failures`, by component
    and cause in `broke`) count as not solved.
    """
    total = len(trajectories)
    tasks = {trajectory.id: trajectory.task_id for trajectory in trajectories}
    success = grouped_proportion(
        _by_task(((tasks[verdict.trajectory_id], float(verdict.correct)) for verdict in verdicts), clusters)
    )
    row: dict[str, Any] = {
        "tasks": len({trajectory.task_id for trajectory in trajectories}),
        "trajectories": total,
        "success": success.value,
        "low": success.low,
        "high": success.high,
    }
    if powers := pass_powers(((tasks[verdict.trajectory_id], verdict.correct) for verdict in verdicts), clusters):
        row["pass_powers"] = powers
    if categories and (groups := success_by_group(trajectories, verdicts, categories, clusters)):
        mean = sum(group["success"] for group in groups.values()) / len(groups)
        row |= {"categories": groups, "category_mean": mean}
    if sources and (groups := success_by_group(trajectories, verdicts, sources, clusters)):
        row["sources"] = groups
    for name in ("solve_p", "solve_r", "solve_f1", "solve_p_strict", "solve_r_strict", "solve_f1_strict"):
        values = [
            (tasks[trajectory.trajectory_id], trajectory.metrics[name])
            for trajectory in verdicts
            if name in trajectory.metrics
        ]
        if values:
            interval = grouped_share(_by_task(values, clusters))
            row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    generated = generated_tokens(trajectories)
    calls = [call for trajectory in trajectories for call in trajectory.calls]
    stops: dict[str, int] = {}
    for trajectory in trajectories:
        stops[trajectory.stop_reason] = stops.get(trajectory.stop_reason, 0) + 1
    return row | {
        "calls": len(calls) / total if total else 0.0,
        "malformed_calls": sum(call.error is not None for call in calls) / total if total else 0.0,
        "tokens": None if generated is None else generated / max(1, total),
        "failures": sum(trajectory.failure is not None for trajectory in trajectories),
        "broke": dict(
            Counter(trajectory.failure.label for trajectory in trajectories if trajectory.failure is not None)
        ),
        "stops": dict(sorted(stops.items())),
        **mean_quality_and_words(
            trajectories,
            {verdict.trajectory_id for verdict in verdicts if verdict.correct},
            quality,
            dialect=dialect,
        ),
        "seconds": round(seconds, 2),
    }


def _by_task(values: Iterable[tuple[str, float]], clusters: Mapping[str, str] | None = None) -> list[list[float]]:
    """Group values by task id, or by cluster."""
    groups: dict[Hashable, list[float]] = {}
    for task_id, value in values:
        groups.setdefault(cluster_of(task_id, clusters or {}), []).append(value)
    return list(groups.values())


def success_by_group(
    trajectories: Iterable[Trajectory],
    verdicts: Iterable[Verdict],
    groups: Mapping[str, str],
    clusters: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return success with its 95% interval, and pass^k, of every group. `groups` maps task ids to names of groups."""
    correct = {verdict.trajectory_id: verdict.correct for verdict in verdicts}
    outcomes: dict[str, list[tuple[str, bool]]] = {}
    for trajectory in trajectories:
        if trajectory.task_id in groups:
            outcomes.setdefault(groups[trajectory.task_id], []).append(
                (trajectory.task_id, correct.get(trajectory.id, False))
            )
    rows = {name: group_row(values, clusters) for name, values in outcomes.items()}
    powers = {name: pass_powers(values, clusters) for name, values in outcomes.items()}
    return {name: row | ({"pass_powers": powers[name]} if powers[name] else {}) for name, row in rows.items()}


def group_row(values: Sequence[tuple[str, float]], clusters: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the success of (task id, success) pairs, with its 95% interval over the tasks, or clusters of them."""
    interval = grouped_proportion(_by_task(values, clusters))
    return {"success": interval.value, "low": interval.low, "high": interval.high, "trajectories": len(values)}


def _check_trained(recipe: Recipe) -> None:
    """Raise InputError for a policy with layers on which the engine of trained models cannot generate."""
    if isinstance(recipe.model.trained("models"), HFSettings):
        check_layers(recipe.model, "model")


def evaluation(
    label: str, *, title: str, reads: tuple[str, ...] = (), models: tuple[str, ...] = (), repeated: bool = False
) -> Stage:
    """The stage `eval_LABEL`: the held-out evaluation of the policy of stage `label`, or of the `base` model.

    `repeated`: it runs in every round.
    """

    def run(context: Context) -> dict[str, Any] | None:
        if label != BASE and not context.run.is_done(label):
            raise InputError(f"{context.run.path}: no model of stage {label} to evaluate: run that stage first")
        summary = asyncio.run(evaluate(context, label, policy(context, label)))
        about = context.run.state().get(label, {})
        if about.get("skipped"):  # the evaluated model is the one before this stage
            summary["untrained"] = f"stage {label} was skipped ({about.get('reason', 'it had nothing to learn from')})"
        context.run.set_metrics(f"eval_{label}", [summary])
        before = len(context.run.prerequisites(label).keys())
        return {"prerequisites": before} if before else None

    def check(recipe: Recipe) -> None:
        check_evaluation_trackers(recipe.eval.report_to or (), "eval.report_to")
        if label != BASE:
            _check_trained(recipe)

    def plan(context: Context) -> dict[str, Any]:
        tasks = context.load_eval_tasks()
        counts, before = source_counts(tasks), len(prerequisite_tasks(tasks)) * context.recipe.eval.n
        return (
            {"evaluated": len(tasks) * context.recipe.eval.n}
            | ({"prerequisites": before} if before else {})
            | ({"eval_task_sources": counts} if counts else {})
        )

    return Stage(
        name=f"eval_{label}",
        run=run,
        reads=reads,
        files=(*evaluation_files(label), prerequisite_file(label)),
        written_files=lambda about: (
            *evaluation_files(label),
            *((prerequisite_file(label),) if about.get("prerequisites") else ()),
        ),
        id_sections=SECTIONS,
        evaluates=label,
        repeated=repeated,
        title=title,
        generates=Generated(file=evaluation_files(label)[0], before=prerequisite_file(label)),
        models=models,
        uses_tools=True,
        requires=() if label == BASE else (label,),
        check=check,
        prepare=check_eval_tasks,
        plan=plan,
    )


EVAL_BASE = evaluation(BASE, title="Before training", models=("model",))
EVAL_SFT = evaluation("sft", title="After SFT", reads=("sft",), repeated=True)
EVAL_DPO = evaluation("dpo", title="After DPO", reads=("dpo",))
EVAL_RL = evaluation("rl", title="After RL", reads=("rl",))
