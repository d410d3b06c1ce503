"""BFCL's memory category with the key-value store, `memory_kv` (optional packages bfcl-eval and rank-bm25).

155 questions about what a user has said in earlier conversations. A scenario has 5 to 10 conversations, which are its
prerequisites (`rewright.rollout.prerequisites`): the model has them one after the other, with tools that write into a
memory. Each begins with the memory that the one before has left, and each question with that of the last one. Part of
the memory is shown in the system message. There are no gold calls: any memory that helps to answer will do.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final

import msgspec

from rewright.benchmarks.bfcl.entries import INSTALL, MEMORY, documents, entries, memory_answers, memory_conversations
from rewright.benchmarks.bfcl.schemas import method_schema
from rewright.core.errors import InputError, MissingDataError, WorkerError
from rewright.core.records import CLUSTER, FollowUp, Gold, Message, Prerequisites, Task, ToolSpec, Trajectory
from rewright.rollout.prerequisites import PrerequisiteKind
from rewright.sandbox.errors import ends_worker, error_kind
from rewright.workers import pool

__all__ = ["PREREQUISITE", "memory_task", "memory_tasks"]

NAME: Final = "bfcl-memory"
TARGET: Final = "rewright.benchmarks.bfcl.memory_world:call"
WORKER: Final = "rewright.benchmarks.bfcl.memory_worker"
INSTALL_BM25: Final = "make benchmark-data, or pip install --no-deps rank-bm25==0.2.2"
_REFUSED: Final = ("malformed", "unknown_tool")
"""Errors of calls that were not made."""


def memory_tasks() -> list[Task]:
    """Return the questions. Raises InputError if a package is not installed."""
    found = entries(MEMORY)
    if find_spec("rank_bm25") is None:
        raise MissingDataError(f"BFCL's {MEMORY} needs the package rank-bm25: {INSTALL_BM25}")
    return [_question(entry) for entry in found.values()]


def memory_task(identity: str) -> Task:
    """Return one of the conversations that come before the questions, by the id of its task. Raises InputError."""
    for scenario in dict.fromkeys(entry["scenario"] for entry in entries(MEMORY).values()):
        known = memory_conversations(scenario)
        entry = known.get(identity.removeprefix("bfcl-"))
        if entry is not None:
            before = list(known)[: list(known).index(entry["id"])]
            first, *later = [tuple(messages) for messages in entry["question"]]
            return _task(entry, first, before, tuple(FollowUp(messages) for messages in later))
    raise InputError(f"BFCL has no conversation {identity!r} about the memory")


def _question(entry: dict[str, Any]) -> Task:
    prompts = importlib.import_module("bfcl_eval.constants.default_prompts")
    (asked,) = entry["question"]
    system = {"role": "system", "content": prompts.ADDITIONAL_SYSTEM_PROMPT_FOR_AGENTIC_RESPONSE_FORMAT}
    return msgspec.structs.replace(
        _task(entry, (system, *asked), list(memory_conversations(entry["scenario"]))),
        gold=Gold(answers=tuple(memory_answers()[entry["id"]])),
    )


def _task(
    entry: dict[str, Any], messages: tuple[Message, ...], before: Sequence[str], later: tuple[FollowUp, ...] = ()
) -> Task:
    return Task(
        id=f"bfcl-{entry['id']}",
        messages=messages,
        tools=_tools(),
        follow_ups=later,
        prerequisites=Prerequisites(NAME, tuple(f"bfcl-{name}" for name in before)),
        source="bfcl",
        split="test",
        judge=NAME,
        metadata={
            "category": MEMORY,
            "entry": entry["id"],
            "scenario": entry["scenario"],
            CLUSTER: f"memory_{entry['scenario']}",  # its questions rest on one memory
        },
    )


def _tools() -> tuple[ToolSpec, ...]:
    return tuple(
        ToolSpec(method_schema(document), target=TARGET, data={"method": name})
        for name, document in documents(MEMORY).items()
    )


def _begin(task: Task, earlier: Sequence[Trajectory]) -> Task:
    """Return a task with the memory that the conversations before it left, as the package does.

    Raises MissingDataError without a package, and WorkerError if the memory cannot be made.
    """
    try:
        found = pool.call_guarded(WORKER, {"calls": [call for one in earlier for call in _made(one)]})
    except pool.RequestError as problem:
        raise WorkerError(f"task {task.id}: the memory of the conversations before it: {problem}") from problem
    if "missing" in found:
        raise MissingDataError(f"task {task.id} needs the package {found['missing']}: {INSTALL}; {INSTALL_BM25}")
    prompts = importlib.import_module("bfcl_eval.constants.default_prompts")
    setting = prompts.MEMORY_AGENT_SETTINGS[task.metadata["scenario"]]
    system = prompts.MEMORY_BACKEND_INSTRUCTION_CORE_ARCHIVAL.format(
        scenario_setting=setting, memory_content=found["shown"]
    )
    first, rest = task.messages[0], task.messages[1:]
    if first["role"] == "system":
        messages = ({**first, "content": f"{system}\n\n{first['content']}"}, *rest)
    else:
        messages = ({"role": "system", "content": system}, *task.messages)
    tools = tuple(
        msgspec.structs.replace(tool, data={**tool.data, "memory": found["memory"]}) if tool.target == TARGET else tool
        for tool in task.tools
    )
    return msgspec.structs.replace(task, messages=messages, tools=tools)


def _made(trajectory: Trajectory) -> list[tuple[str, dict[str, Any]]]:
    """The calls that changed the memory. After an infrastructure failure nothing is kept, as in the package."""
    calls: list[tuple[str, dict[str, Any]]] = []
    for turn in trajectory.turns if trajectory.failure is None else ():
        for call, result in zip(turn.calls, turn.results, strict=False):
            if ends_worker(result):  # the tools begin again in a new process
                calls.clear()
            elif error_kind(result) not in _REFUSED:
                calls.append((call.name, call.arguments))
    return calls


PREREQUISITE: Final = PrerequisiteKind(memory_task, _begin)
