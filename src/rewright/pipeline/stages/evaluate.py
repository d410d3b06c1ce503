"""Evaluation on held-out tasks, with the rollout loop and judges of the other stages."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rewright.core.errors import InputError
from rewright.core.records import Trajectory, Verdict
from rewright.core.statistics import grouped_mean, grouped_proportion
from rewright.core.usage import generated_tokens
from rewright.engines.base import Sampling
from rewright.engines.checks import check_layers
from rewright.engines.embedded import HFSettings
from rewright.engines.settings import ModelSettings
from rewright.pipeline.context import ID_SECTIONS, Context
from rewright.pipeline.registry import Generated, Stage
from rewright.pipeline.run_directory import evaluation_files
from rewright.pipeline.stages.policy import policy
from rewright.pipeline.stages.verdicts import judge_missing
from rewright.pipeline.task_checks import check_eval_tasks
from rewright.recipe.schema import Recipe
from rewright.repair.quality import PARITY, QualitySettings, surface

__all__ = ["EVAL_BASE", "EVAL_RL", "EVAL_SFT", "evaluate", "evaluation", "summarise"]


SECTIONS = (*ID_SECTIONS, "eval", "model")
BASE = "base"
"""The label of the model before training."""


async def evaluate(context: Context, label: str, model: ModelSettings) -> dict[str, Any]:
    """Generate `eval.n` trajectories per held-out task with a model, judge them, and return their summary."""
    settings = context.recipe.eval
    trajectories, verdicts = context.run.evaluation(label)
    started = time.monotonic()
    plans = list(context.plans(context.eval_tasks, f"eval-{label}", settings.n, SECTIONS))
    await context.generate(
        f"evaluation of {label}",
        model,
        Sampling(temperature=settings.temperature, top_p=settings.top_p),
        plans,
        trajectories,
        concurrency=settings.concurrency,
    )
    trajectories.close()
    tasks = {task.id: task for task in context.eval_tasks}
    judge_missing(trajectories, verdicts, lambda one: tasks[one.task_id], seconds=context.recipe.judge_seconds)
    verdicts.reorder(trajectories.keys_in_order())
    verdicts.close()
    categories = {task.id: str(task.metadata["category"]) for task in tasks.values() if task.metadata.get("category")}
    seconds = time.monotonic() - started
    return summarise(
        list(trajectories),
        list(verdicts),
        seconds=seconds,
        categories=categories,
        quality=context.recipe.quality,
        dialect=context.recipe.dialect,
    )


def summarise(
    trajectories: list[Trajectory],
    verdicts: list[Verdict],
    *,
    seconds: float,
    categories: Mapping[str, str] | None = None,
    quality: QualitySettings = PARITY,
    dialect: str = "tags",
) -> dict[str, Any]:
    """Compute the metrics of an evaluation.

    Args:
        trajectories: the trajectories of the evaluation.
        verdicts: their verdicts.
        seconds: wall-clock duration.
        categories: task id -> category; adds success per category and `category_mean`, the unweighted mean over them.
        quality: quality settings.
        dialect: dialect of the trajectories.

    Returns success with its 95% interval, Solve metrics, and means per trajectory of calls, generated tokens (None if
    unknown for any), words and quality (AutoTraj's total; None without trajectories). Intervals are computed over
    tasks, since several trajectories of one task (`eval.n`) are not independent. Trajectories with an infrastructure
    failure (counted in `failures`, by component and cause in `broke`) count as not solved.
    """
    total = len(trajectories)
    tasks = {one.id: one.task_id for one in trajectories}
    success = grouped_proportion(_by_task((tasks[one.trajectory_id], float(one.correct)) for one in verdicts))
    row: dict[str, Any] = {
        "tasks": len({one.task_id for one in trajectories}),
        "trajectories": total,
        "success": success.value,
        "low": success.low,
        "high": success.high,
    }
    row |= _by_category(trajectories, verdicts, categories or {})
    for name in ("solve_p", "solve_r", "solve_f1", "solve_p_strict", "solve_r_strict", "solve_f1_strict"):
        values = [(tasks[one.trajectory_id], one.metrics[name]) for one in verdicts if name in one.metrics]
        if values:
            interval = grouped_mean(_by_task(values))
            row |= {
                name: interval.value,
                f"{name}_low": max(0.0, interval.low),
                f"{name}_high": min(1.0, interval.high),
            }
    generated = generated_tokens(trajectories)
    calls = [call for one in trajectories for call in one.calls]
    stops: dict[str, int] = {}
    for one in trajectories:
        stops[one.stop_reason] = stops.get(one.stop_reason, 0) + 1
    return row | {
        "calls": len(calls) / total if total else 0.0,
        "malformed_calls": sum(call.error is not None for call in calls) / total if total else 0.0,
        "tokens": None if generated is None else generated / max(1, total),
        "failures": sum(one.failure is not None for one in trajectories),
        "broke": dict(Counter(one.failure.label for one in trajectories if one.failure is not None)),
        "stops": dict(sorted(stops.items())),
        **surface(trajectories, {one.trajectory_id for one in verdicts if one.correct}, quality, dialect=dialect),
        "seconds": round(seconds, 2),
    }


def _by_task(values: Iterable[tuple[str, float]]) -> list[list[float]]:
    """Group values by task id."""
    groups: dict[str, list[float]] = {}
    for task_id, value in values:
        groups.setdefault(task_id, []).append(value)
    return list(groups.values())


def _by_category(
    trajectories: list[Trajectory], verdicts: list[Verdict], categories: Mapping[str, str]
) -> dict[str, Any]:
    correct = {verdict.trajectory_id: verdict.correct for verdict in verdicts}
    found: dict[str, list[tuple[str, float]]] = {}
    for one in trajectories:
        if one.task_id in categories:
            found.setdefault(categories[one.task_id], []).append((one.task_id, float(correct.get(one.id, False))))
    if not found:
        return {}
    rows = {}
    for name, values in found.items():
        interval = grouped_proportion(_by_task(values))
        rows[name] = {
            "success": interval.value, "low": interval.low, "high": interval.high, "trajectories": len(values),
        }  # fmt: skip
    return {"categories": rows, "category_mean": sum(row["success"] for row in rows.values()) / len(rows)}


def _check_trained(recipe: Recipe) -> None:
    """Raise InputError for a policy with layers on which the engine of trained models cannot generate."""
    if isinstance(recipe.model.trained("models"), HFSettings):
        check_layers(recipe.model, "model")


def evaluation(label: str, *, title: str, reads: tuple[str, ...] = (), models: tuple[str, ...] = ()) -> Stage:
    """The stage `eval_LABEL`: the held-out evaluation of the policy of stage `label`, or of the `base` model."""

    def run(context: Context) -> None:
        if label != BASE and not context.run.is_done(label):
            raise InputError(f"{context.run.path}: no model of stage {label} to evaluate: run that stage first")
        summary = asyncio.run(evaluate(context, label, policy(context, label)))
        about = context.run.state().get(label, {})
        if about.get("skipped"):  # the evaluated model is the one before this stage
            summary["untrained"] = f"stage {label} was skipped ({about.get('reason', 'it had nothing to learn from')})"
        context.run.set_metrics(f"eval_{label}", [summary])

    return Stage(
        name=f"eval_{label}",
        run=run,
        reads=reads,
        files=evaluation_files(label),
        id_sections=SECTIONS,
        evaluates=label,
        title=title,
        generates=Generated(file=evaluation_files(label)[0]),
        models=models,
        uses_tools=True,
        requires=() if label == BASE else (label,),
        check=None if label == BASE else _check_trained,
        prepare=check_eval_tasks,
        plan=lambda context: {"evaluated": len(context.load_eval_tasks()) * context.recipe.eval.n},
    )


EVAL_BASE = evaluation(BASE, title="Before training", models=("model",))
EVAL_SFT = evaluation("sft", title="After SFT", reads=("sft",))
EVAL_RL = evaluation("rl", title="After RL", reads=("rl",))
