"""Judge `verifiers`: the rubric of the task's environment, its reward bounded to [0, 1].

The metrics are `reward` (as it is), each part of it, and the environment's metrics. A trajectory's answer is the last
reply that the rubric reads; earlier turns have their text as the model wrote it.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

from rewright.benchmarks.verifiers.tasks import INSTALL, WORKER
from rewright.core.errors import InputError, JudgeError, WorkerError
from rewright.core.records import Task, Trajectory, Turn
from rewright.judging.base import Judgement, TrajectoryJudge
from rewright.workers import pool

__all__ = ["JUDGE"]

SECONDS: Final = 120.0
"""Time limit of the rubric for one trajectory."""


def _judge(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    metadata = task.metadata
    name = metadata["environment"]
    last = len(trajectory.turns) - 1
    turns = [
        _turn(turn, trajectory.answer if number == last and trajectory.answer is not None else turn.text)
        for number, turn in enumerate(trajectory.turns)
    ]
    asked = {
        "ask": "score",
        "name": name,
        "arguments": metadata.get("arguments") or {},
        "data": metadata.get("task") or {},
        "turns": turns,
        "messages": list(task.messages),
    }
    try:
        reply = pool.call_unguarded(WORKER, asked, SECONDS)
    except pool.RequestError as problem:
        reply = {"raised": str(problem)}
    except WorkerError as problem:
        raise JudgeError(f"the rubric of {name!r}: {problem}") from problem
    if "missing" in reply:
        raise InputError(f"judge verifiers needs the package verifiers: {INSTALL}")
    if "problem" in reply:
        raise InputError(f"environment {name!r} of verifiers cannot be used: {reply['problem']}")
    if "raised" in reply:
        raise JudgeError(f"the rubric of {name!r} failed: {reply['raised']}")
    reward = float(reply["reward"])
    if not math.isfinite(reward):
        raise JudgeError(f"the rubric of {name!r} gives the reward {reward}: expected a finite number")
    outcome = min(max(reward, 0.0), 1.0)
    bounded = "" if outcome == reward else f", bounded to {outcome:g}"
    parts = {**reply["metrics"], **reply["rewards"], "reward": reward}
    metrics = {key: float(value) for key, value in parts.items() if math.isfinite(float(value))}
    return Judgement(outcome, f"the rubric of {name} gives {reward:g}{bounded}", metrics)


def _turn(turn: Turn, text: str) -> dict[str, Any]:
    calls = [
        {
            "tool": call.name or "unknown",
            "arguments": call.arguments,
            "written": call.raw if call.error is not None else json.dumps(call.arguments),
            "ok": call.error is None,
        }
        for call in turn.calls
    ]
    return {"text": text, "calls": calls, "results": [result.content for result in turn.results]}


JUDGE: Final = TrajectoryJudge(
    _judge, needs=("metadata.environment",), reads_answer=False, needs_consent=True, without_gold=str
)
