"""Hard cases: candidates without an accepted repair, in one file for inspection or annotation.

Each row of `hard.jsonl` holds the question, the original and all repair attempts as plain text, and the reasons for
rejection. It is derived from trajectories.jsonl and repairs.jsonl and rewritten by each run of the stage.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rewright.core.record_groups import Groups
from rewright.core.records import Repair, Trajectory
from rewright.pipeline.context import Context
from rewright.rendering.transcript import transcript

__all__ = ["write_hard_cases"]


def write_hard_cases(context: Context) -> int:
    """Write `hard.jsonl` from the stored records. Returns the number of rows. One case is in memory at a time."""
    run = context.run
    hard = {repair.original_id: repair for repair in run.repairs if not repair.accepted}
    verdicts = {trajectory.trajectory_id: trajectory for trajectory in run.verdicts if trajectory.trajectory_id in hard}
    qualities = {quality.trajectory_id: quality for quality in run.qualities if quality.trajectory_id in hard}

    def original_of(trajectory: Trajectory) -> str | None:
        key = trajectory.provenance.parent or trajectory.id
        return key if key in hard else None

    def rows() -> Iterator[dict[str, Any]]:
        for group in Groups(run.trajectories, original_of):
            original = next((trajectory for trajectory in group if trajectory.provenance.parent is None), None)
            if original is None:
                continue
            repair, task = hard[original.id], context.task(original.task_id)
            verdict, quality = verdicts.get(original.id), qualities.get(original.id)
            yield {
                "id": original.id,
                "task_id": task.id,
                "mode": repair.mode,
                "reason": repair.reason,
                "messages": task.messages,
                "gold_answers": task.gold.answers,
                "original": {
                    "answer": original.answer,
                    "verdict": verdict.reason if verdict is not None else None,
                    "quality": quality.total if quality is not None else None,
                    "transcript": transcript(original),
                },
                "attempts": _attempts(repair, group),
            }

    return run.write_lines("hard.jsonl", rows())


def _attempts(repair: Repair, group: list[Trajectory]) -> list[dict[str, Any]]:
    # Attempts with earlier settings may be stored too; those of this decision have the same id suffix.
    digest = str(repair.repaired_id).rpartition("/")[2]
    attempts = [
        trajectory
        for trajectory in group
        if trajectory.provenance.parent is not None and trajectory.id.rpartition("/")[2] == digest
    ]
    attempts = sorted(attempts, key=lambda trajectory: trajectory.index)[: repair.attempts]
    reasons = repair.reasons or (repair.reason,)
    known = dict(zip([trajectory.id for trajectory in attempts][-len(reasons) :], reasons, strict=False))
    return [
        {
            "id": trajectory.id,
            "answer": trajectory.answer,
            "reason": known.get(trajectory.id),
            "transcript": transcript(trajectory),
        }
        for trajectory in attempts
    ]
