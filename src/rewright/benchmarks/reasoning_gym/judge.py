"""Judge `reasoning_gym`: the scorer of the task's data set."""

from __future__ import annotations

from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory
from rewright.judging.base import Judgement, TrajectoryJudge
from rewright.judging.guarded import compare

__all__ = ["JUDGE"]

MAX_ANSWER_CHARACTERS = 100_000


def _judge(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    metadata = task.metadata
    dataset, entry = metadata.get("dataset"), metadata.get("entry")
    if not isinstance(dataset, str) or not isinstance(entry, dict):
        raise InputError(f"task {task.id}: judge reasoning_gym needs metadata.dataset (a name) and metadata.entry")
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return Judgement(0.0, f"the answer is longer than {MAX_ANSWER_CHARACTERS} characters")
    asked = {"answer": answer, "dataset": dataset, "entry": entry, "settings": metadata.get("settings") or {}}
    reply = compare("rewright.benchmarks.reasoning_gym.judge_worker", asked)
    if "missing" in reply:
        raise InputError("judge reasoning_gym needs the package reasoning-gym: pip install reasoning-gym")
    return Judgement(float(reply["outcome"]), str(reply["reason"]))


JUDGE = TrajectoryJudge(_judge, needs=("metadata.dataset", "metadata.entry"), extractor="auto", without_gold=str)
