"""Judges of BFCL, which apply the official checkers of bfcl-eval.

`bfcl` replays the calls of a multi-turn task on fresh API instances. After a call that ended the worker with a state
that earlier calls had changed, as by a time limit, the outcome is 0. `bfcl-ast` compares the calls of a single-turn
task with its possible answers. `bfcl-irrelevance` asks whether any function was called. These two read the first turn
only, which is the one reply that the package asks for. `bfcl-memory` looks for an answer in the last reply.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from rewright.benchmarks.bfcl.entries import INSTALL, single_turn_functions
from rewright.core.errors import InputError
from rewright.core.records import Task, ToolCall, Trajectory, Turn
from rewright.dialects.split import split_turn
from rewright.judging.base import Judgement, TrajectoryJudge
from rewright.judging.guarded import compare
from rewright.sandbox.errors import ends_worker

__all__ = ["AST_JUDGE", "IRRELEVANCE_JUDGE", "JUDGE", "MEMORY_JUDGE"]


_NO_CALL = "no call"
_MALFORMED = "a call is malformed: "
_LOST = "the tools lost their state: "
_KIND = re.compile(r"\w+:[\w/:]+")
_PARAMETER = re.compile(r"(?<!dict key )parameter:? ('\w+')")


def _entry_problem(task: Task) -> str | None:
    if isinstance(task.metadata["entry"], str):
        return None
    return f"judge {task.judge} needs metadata.entry, the id of the package's entry"


def _answers_problem(task: Task) -> str | None:
    """What is wrong with the entries, the possible answers and the names of a single-turn task."""
    if (problem := _entry_problem(task)) is not None:
        return problem
    try:
        functions = single_turn_functions(task.metadata["entry"])
    except ValueError as problem:
        return f"metadata.entry: {problem}"
    except InputError:  # without the package, which the judge then asks for
        return None
    possible, names = task.metadata.get("possible"), task.metadata.get("renamed_tools")
    if possible is not None and not _are_answers(possible, functions):
        return (
            f"metadata.possible is {possible!r:.80}: expected a list of right calls of the entry's functions, as "
            "{name: {argument: [allowed value, …]}}"
        )
    if names is not None and not (isinstance(names, Mapping) and all(isinstance(one, str) for one in names.values())):
        return f"metadata.renamed_tools is {names!r:.60}: expected the name in the package of each renamed tool"
    return None


def _are_answers(possible: Any, functions: Mapping[str, Any]) -> bool:
    return (
        isinstance(possible, list)
        and bool(possible)
        and all(
            isinstance(answer, Mapping)
            and len(answer) == 1
            and all(name in functions and _allows(arguments) for name, arguments in answer.items())
            for answer in possible
        )
    )


def _allows(arguments: Any) -> bool:
    lists = arguments.values() if isinstance(arguments, Mapping) else [None]
    return all(isinstance(values, list) and values for values in lists)


def _answer(judge: str, worker: str, arguments: dict[str, Any]) -> dict[str, Any]:
    reply = compare(worker, arguments)
    if "missing" in reply:
        raise InputError(f"judge {judge} needs the package bfcl-eval: {INSTALL}")
    return reply


def _judgement(reply: Mapping[str, Any]) -> Judgement:
    return Judgement(float(reply["outcome"]), str(reply["reason"]))


def _compared(judge: str, worker: str, arguments: dict[str, Any]) -> Judgement:
    return _judgement(_answer(judge, worker, arguments))


def without_gold(reason: str) -> str | None:
    """The kind of the checker's error, and the name of a parameter whose value is wrong, without what was expected.

    The messages of the package quote possible answers, the names of gold functions and gold calls. Its kinds of errors
    have the form `value_error:string`.
    """
    kind, _, message = reason.partition(": ")
    if _KIND.fullmatch(kind) is None:
        return reason if reason == _NO_CALL or reason.startswith((_MALFORMED, _LOST)) else None
    parameter = _PARAMETER.search(message)
    return kind if parameter is None else f"{kind}, parameter {parameter[1]}"


def _first_calls(trajectory: Trajectory) -> tuple[ToolCall, ...]:
    return trajectory.turns[0].calls if trajectory.turns else ()


def _made(trajectory: Trajectory, turn: Turn) -> list[tuple[str, dict[str, Any]]]:
    """The calls of a turn that had an effect: not malformed, not beyond a limit, and they did not end the worker."""
    calls = turn.calls[: len(turn.results)] if trajectory.stop_reason == "tool_limit" else turn.calls
    return [
        (call.name, call.arguments)
        for call, result in zip_longest(calls, turn.results[: len(calls)])
        if call.error is None and (result is None or not ends_worker(result))
    ]


def _ended(trajectory: Trajectory) -> tuple[list[tuple[str, dict[str, Any]]], list[tuple[int, str]]]:
    """The calls that were made, and for each that ended the worker: how many had been made before it, and its error."""
    made: list[tuple[str, dict[str, Any]]] = []
    ended = []
    for turn in trajectory.turns:
        for call, result in zip(turn.calls, turn.results, strict=False):
            if ends_worker(result):
                ended.append((len(made), f"{call.name}: {result.error}"))
            elif call.error is None:
                made.append((call.name, call.arguments))
    return made, ended


def _judge(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    entry = str(task.metadata["entry"])
    made, ended = _ended(trajectory)
    exchanges = [[_made(trajectory, turn) for turn in turns] for turns in trajectory.exchanges]
    arguments = {"entry": entry, "exchanges": exchanges, "made": made, "ended": [count for count, _ in ended]}
    reply = _answer("bfcl", "rewright.benchmarks.bfcl.judge_worker", arguments)
    if "problem" in reply:
        raise InputError(f"task {task.id}: metadata.entry: {reply['problem']}")
    if reply.get("lost") is not None:
        return Judgement(0.0, f"{_LOST}{ended[reply['lost']][1]}")
    return _judgement(reply)


def _judge_ast(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    entry = str(task.metadata["entry"])
    made = _first_calls(trajectory)
    malformed = next((call for call in made if call.error is not None), None)
    if malformed is not None:  # the package's decoder then refuses the whole reply
        return Judgement(0.0, f"{_MALFORMED}{malformed.error}")
    if not made:
        return Judgement(0.0, _NO_CALL)
    names = task.metadata.get("renamed_tools")
    original: Mapping[str, Any] = names if isinstance(names, Mapping) else {}
    calls = [(str(original.get(call.name, call.name)), call.arguments) for call in made]
    asked = {"entry": entry, "calls": calls, "possible": task.metadata.get("possible")}
    return _compared("bfcl-ast", "rewright.benchmarks.bfcl.ast_worker", asked)


def _judge_irrelevance(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    wanted = "irrelevance" not in str(task.metadata["entry"])
    made = _first_calls(trajectory)
    malformed = next((call for call in made if call.error is not None), None)
    called = bool(made) and malformed is None  # the package's decoder refuses the whole reply for one malformed call
    reason = f"calls {made[0].name}" if called else "no call that can be read"
    if malformed is not None:
        reason += f": {malformed.error}"
    return Judgement(float(called == wanted), reason)


def _judge_memory(task: Task, trajectory: Trajectory, answer: str) -> Judgement:
    """Compare the last reply. As in the package, one that only calls functions is none."""
    last = trajectory.turns[-1] if trajectory.turns else None
    said = trajectory.answer
    if said is None and last is not None and not last.calls:
        said = split_turn(last.opening + last.text).rest
    if not (said or "").strip():
        return Judgement(0.0, "agentic:no_last_message: no reply without a call")
    arguments = {"text": said, "possible": list(task.gold.answers or ())}
    return _compared("bfcl-memory", "rewright.benchmarks.bfcl.memory_worker", arguments)


JUDGE = TrajectoryJudge(
    _judge, needs=("metadata.entry",), reads_answer=False, without_gold=without_gold, problem=_entry_problem
)
AST_JUDGE = TrajectoryJudge(
    _judge_ast, needs=("metadata.entry",), reads_answer=False, without_gold=without_gold, problem=_answers_problem
)
MEMORY_JUDGE = TrajectoryJudge(_judge_memory, needs=("gold.answers",), reads_answer=False, without_gold=str)
IRRELEVANCE_JUDGE = TrajectoryJudge(
    _judge_irrelevance,
    needs=("metadata.entry",),
    reads_answer=False,
    self_contained=True,
    without_gold=str,
    problem=_entry_problem,
)
