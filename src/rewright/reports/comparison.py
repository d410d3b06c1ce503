"""Compare two runs: the held-out success of each evaluated model, and the difference over the tasks of both."""

from __future__ import annotations

from typing import Any

import msgspec

from rewright.core.records import Verdict
from rewright.core.statistics import paired_difference
from rewright.core.storage import RecordFile, read_jsonl
from rewright.pipeline.registry import stages
from rewright.pipeline.rounds import all_rounds
from rewright.pipeline.run_directory import Run, evaluation_files
from rewright.tasks.from_recipe import cluster_label

__all__ = ["compare", "comparison_table"]


class _Head(msgspec.Struct, frozen=True):
    """The fields of a trajectory that a comparison needs. Turns are not decoded."""

    id: str
    task_id: str


def compare(left: Run, right: Run) -> dict[str, Any]:
    """Compare the evaluations of two runs.

    Returns {"runs": [left, right], "stages": [row, …], "counts": [left, right]}. A row has `stage`, `left` and `right`
    (the row of metrics of that evaluation, or None) and `difference`: right minus left over the tasks that both have
    evaluated, as {"value", "low", "high", "tasks"}, or None if they share no task. The success of a task is the mean
    over its trajectories (`eval.n`). The 95% interval is that of paired differences
    (`rewright.core.statistics.paired_difference`), over clusters where tasks are variants of one. `changed` counts the
    tasks of one id that are not the same in both runs; they are left out.
    """
    rows = []
    left_rows, right_rows = _evaluations(left), _evaluations(right)
    left_tasks, right_tasks = _task_digests(left), _task_digests(right)
    clusters = {**_clusters(left), **_clusters(right)}
    for stage in stages(max(left.rounds, right.rounds)):
        label = stage.evaluates
        if label is None or not (label in left_rows or label in right_rows):
            continue
        difference, changed = None, 0
        if label in left_rows and label in right_rows:
            before, after = _success(left, label), _success(right, label)
            common = before.keys() & after.keys()
            shared = sorted(task for task in common if left_tasks.get(task) == right_tasks.get(task))
            changed = len(common) - len(shared)
            if shared:
                names = [clusters.get(task, f"task {task}") for task in shared]
                interval = paired_difference([after[task] - before[task] for task in shared], names)
                difference = {**interval._asdict(), "tasks": len(shared)}
        rows.append(
            {
                "stage": label,
                "left": left_rows.get(label),
                "right": right_rows.get(label),
                "difference": difference,
                "changed": changed,
            }
        )
    return {"runs": [str(left.path), str(right.path)], "stages": rows, "counts": [_counts(left), _counts(right)]}


def comparison_table(found: dict[str, Any]) -> str:
    """Return a comparison (`compare`) as plain text."""
    names = found["runs"]
    lines = [f"left:  {names[0]}", f"right: {names[1]}", ""]
    if not found["stages"]:
        lines.append("no evaluation in either run")
    else:
        head = f"{'stage':<8}{'left':>26}{'right':>26}{'right - left':>28}{'tasks':>7}"
        lines.append(head)
    for row in found["stages"]:
        difference = row["difference"]
        shown = "-" if difference is None else _interval(difference, sign="+")
        tasks = 0 if difference is None else difference["tasks"]
        lines.append(f"{row['stage']:<8}{_side(row['left']):>26}{_side(row['right']):>26}{shown:>28}{tasks:>7}")
        if row["changed"]:
            lines.append(f"  {row['changed']} tasks have the same id and are not the same: they are left out")
        elif difference is None and row["left"] and row["right"]:
            lines.append("  no task is in both evaluations, so there is no difference to compute")
    counts = found["counts"]
    keys = list(dict.fromkeys((*counts[0], *counts[1])))
    if keys:
        lines += ["", f"{'':<12}{'left':>10}{'right':>10}"]
        lines += [f"{key:<12}{counts[0].get(key, '-'):>10}{counts[1].get(key, '-'):>10}" for key in keys]
    return "\n".join(lines)


def _side(row: dict[str, Any] | None) -> str:
    return "-" if row is None else _interval({"value": row["success"], "low": row["low"], "high": row["high"]})


def _interval(found: dict[str, Any], sign: str = "") -> str:
    value, low, high = (100 * found[key] for key in ("value", "low", "high"))
    return f"{value:{sign}.1f}% [{low:{sign}.1f}, {high:{sign}.1f}]"


def _evaluations(run: Run) -> dict[str, dict[str, Any]]:
    """The row of metrics of each evaluation, by the stage whose model it evaluates."""
    names = {stage.name: stage.evaluates for stage in run.stages() if stage.evaluates is not None}
    return {str(names[row["stage"]]): row for row in run.metrics() if row["stage"] in names}


def _success(run: Run, label: str) -> dict[str, float]:
    """The mean success of each task of an evaluation."""
    trajectories, verdicts = (run.file(name) for name in evaluation_files(label))
    if not trajectories.exists() or not verdicts.exists():
        return {}
    tasks = {head.id: head.task_id for _, head in read_jsonl(trajectories, _Head)}
    found: dict[str, list[float]] = {}
    for verdict in RecordFile(verdicts, Verdict, lambda one: one.trajectory_id):
        if verdict.trajectory_id in tasks:
            found.setdefault(tasks[verdict.trajectory_id], []).append(float(verdict.correct))
    return {task: sum(values) / len(values) for task, values in found.items()}


def _task_digests(run: Run) -> dict[str, bytes]:
    """The content of the held-out tasks by id, to tell tasks of one id apart."""
    return {
        task.id: msgspec.json.encode((task.messages, task.gold, task.judge, task.schemas)) for task in run.eval_tasks
    }


def _clusters(run: Run) -> dict[str, str]:
    """The cluster of the held-out tasks that have one, by id."""
    labels = {task.id: cluster_label(task.metadata) for task in run.eval_tasks}
    return {name: f"cluster {label}" for name, label in labels.items() if label}


def _counts(run: Run) -> dict[str, int]:
    """The candidates of a run by what was selected, and its repairs; empty without the stage score."""
    selected: list[str] = []
    accepted: list[bool] = []
    for one in all_rounds(run):
        selected += [str(quality.selected) for quality in one.qualities]
        accepted += [repair.accepted for repair in one.repairs]
    if not selected:
        return {}
    return {
        "candidates": len(selected),
        **{name: selected.count(name) for name in ("kept", "low", "wrong")},
        "repaired": sum(accepted),
        "hard": len(accepted) - sum(accepted),
    }
