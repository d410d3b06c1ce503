"""Judge `bfcl`: replays the calls on fresh API instances and applies bfcl-eval's official multi-turn checker."""

from __future__ import annotations

from rewright.benchmarks.bfcl.tasks import INSTALL
from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory
from rewright.judging.base import Judgement, TrajectoryJudge
from rewright.judging.guarded import compare

__all__ = ["JUDGE"]


def _judge(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    entry = task.metadata["entry"]
    if not isinstance(entry, str):
        raise InputError(f"task {task.id}: judge bfcl needs metadata.entry, the id of the package's entry")
    exchanges = [
        [[(call.name, call.arguments) for call in turn.calls if call.error is None] for turn in turns]
        for turns in trajectory.exchanges
    ]
    reply = compare("rewright.benchmarks.bfcl.judge_worker", {"entry": entry, "exchanges": exchanges})
    if "missing" in reply:
        raise InputError(f"judge bfcl needs the package bfcl-eval: {INSTALL}")
    return Judgement(float(reply["outcome"]), str(reply["reason"]))


JUDGE = TrajectoryJudge(_judge, needs=("metadata.entry",), reads_answer=False)
