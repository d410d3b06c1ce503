"""The candidates of a run by source, for a run whose tasks are a mixture."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from rewright.core.records import Provenance
from rewright.core.storage import read_jsonl
from rewright.pipeline.run_directory import Run
from rewright.pipeline.stages.evaluate import group_row
from rewright.tasks.from_recipe import MIXTURE_SOURCE, cluster_label

__all__ = ["candidates_by_source"]


class _TaskHead(msgspec.Struct, frozen=True):
    """The fields of a task that are needed here."""

    id: str
    metadata: dict[str, Any] = {}


class _TrajectoryHead(msgspec.Struct, frozen=True):
    """The fields of a trajectory that are needed here. Turns are not decoded."""

    id: str
    task_id: str
    provenance: Provenance = Provenance()


def candidates_by_source(run: Run) -> dict[str, dict[str, Any]]:
    """Return a row per source of the mixture; empty for a run of another kind.

    A row has the numbers of `tasks` and `trajectories` (candidates), their `success` with its 95% interval (`low`,
    `high`), and `counts`: candidates that were kept, of low quality and wrong (which includes those with an
    infrastructure failure), and accepted repairs. Only judged candidates are counted, so a run without verdicts has no
    row.
    """
    if not run.tasks.path.exists() or not run.verdicts.path.exists():
        return {}
    sources: dict[str, str] = {}
    clusters: dict[str, str] = {}
    for _, task in read_jsonl(run.tasks.path, _TaskHead):
        if MIXTURE_SOURCE in task.metadata:
            sources[task.id] = str(task.metadata[MIXTURE_SOURCE])
        if label := cluster_label(task.metadata):
            clusters[task.id] = label
    if not sources:
        return {}
    correct = {verdict.trajectory_id: verdict.correct for verdict in run.verdicts}
    values: dict[str, list[tuple[str, float]]] = {name: [] for name in dict.fromkeys(sources.values())}
    of_candidate: dict[str, str] = {}
    for _, one in read_jsonl(run.trajectories.path, _TrajectoryHead):
        if one.provenance.parent is None and one.task_id in sources and one.id in correct:
            of_candidate[one.id] = sources[one.task_id]
            values[sources[one.task_id]].append((one.task_id, float(correct[one.id])))
    qualities = (quality for quality in run.qualities if quality.trajectory_id in of_candidate)
    selected = Counter((of_candidate[one.trajectory_id], str(one.selected)) for one in qualities)
    repaired = Counter(sources[one.task_id] for one in run.repairs if one.accepted and one.task_id in sources)
    return {
        name: {
            "tasks": sum(source == name for source in sources.values()),
            **group_row(found, clusters),
            "counts": {**{key: selected[name, key] for key in ("kept", "low", "wrong")}, "repaired": repaired[name]},
        }
        for name, found in values.items()
        if found
    }
