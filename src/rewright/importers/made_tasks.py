"""Tasks made from a log: messages before the first turn, tools, gold answers and calls, outcomes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from rewright.core.records import FollowUp, Gold, Message, Task, ToolCall, Trajectory
from rewright.credit.allowed import allowed_parts
from rewright.importers.chat_logs import golds_of, question_of
from rewright.importers.conversation import Conversation
from rewright.importers.gold_files import GoldCalls, answers_in
from rewright.importers.text_calls import schemas_in_text
from rewright.importers.tools_seen import Observed, recorded, schemas_of
from rewright.importers.turns import as_message, to_call
from rewright.judging.choice import math_or_qa
from rewright.tasks.schemas import record_problems

__all__ = ["MadeTask", "asked", "plain", "task_id"]

RIGHT: Final = 0.5
"""Outcomes from here on mark a right answer, as in `Verdict.correct`."""


class MadeTask:
    """A task that is being made from the attempts at it."""

    def __init__(self, identity: str, first: Conversation) -> None:
        self.id, self._first = identity, first
        self._schemas: dict[str, dict[str, Any]] = {}
        self._answers: tuple[str, ...] | None = None
        self._calls: list[Any] | None = None
        self._outcomes: dict[str, float] = {}

    def add(
        self,
        found: Conversation,
        trajectory: Trajectory,
        outcome: float | None,
        golds: GoldCalls | None,
        answer: str | None,
    ) -> None:
        """Add what an attempt says about the task. Raises InputError for tools, gold calls and answers of no form."""
        systems = [message["content"] for message in found.prompt if message["role"] == "system"]
        written = [tool for text in systems for tool in schemas_in_text(text)[1]]
        for schema in [*schemas_of(found), *schemas_of(replace(found, tools=written))]:
            self._schemas.setdefault(schema["function"]["name"], schema)
        if outcome is not None:
            self._outcomes[trajectory.id] = outcome
        calls, answers = (None, None) if golds is None else golds.find([found.group, found.id], question_of(found))
        if self._calls is None:
            self._calls = golds_of(found) if calls is None else calls
        if self._answers is None:
            self._answers = answers_in(found, answer) if answers is None else answers

    @property
    def dropped_gold(self) -> bool:
        """Whether the gold calls list allowed values, which a task cannot hold."""
        return any(allowed_parts(call) is not None for call in self._calls or ())

    @property
    def gold_calls(self) -> tuple[ToolCall, ...] | None:
        """The gold calls; None if there are none, or if they list allowed values."""
        return None if self._calls is None or self.dropped_gold else tuple(map(_gold_call, self._calls))

    def build(self, trajectories: Sequence[Trajectory], observed: Observed, offered: Sequence[str]) -> Task:
        """Return the task. `offered`: names of tools that the recipe adds, which are not replayed.

        Raises InputError with the first attempt's row for gold calls that do not fit the file's schemas.
        """
        golds = self.gold_calls
        made = [call for one in trajectories for call in one.calls if call.error is None]
        called = dict.fromkeys(call.name for call in (*made, *(golds or ())))
        schemas = {name: observed.schema(name) for name in called if name not in self._schemas}
        tools = tuple(
            recorded(schema, trajectories)
            for name, schema in {**self._schemas, **schemas}.items()
            if name not in offered
        )
        metadata: dict[str, Any] = {}
        if self._outcomes:
            right = [one.answer for one in trajectories if self._outcomes.get(one.id, 0.0) >= RIGHT and one.answer]
            metadata = {"outcomes": self._outcomes, "right_answers": list(dict.fromkeys(right))}
        task = Task(
            id=self.id,
            messages=tuple(_prompt(self._first)),
            tools=tools,
            follow_ups=_follow_ups(trajectories),
            gold=Gold(answers=self._answers, calls=golds),
            source="log",
            judge=math_or_qa(self._answers[0]) if self._answers else "logged" if self._outcomes else "exact",
            metadata=metadata,
        )
        for _, problem in record_problems(task):
            raise self._first.row.fail(problem)
        return task


def asked(messages: Iterable[Message]) -> str:
    """Return the text of the last message of a user."""
    return next((str(one["content"]) for one in reversed([*messages]) if one["role"] == "user"), "")


def plain(text: str) -> str:
    """Return a text with single spaces."""
    return " ".join(text.split())


def task_id(found: Conversation, taken: set[str]) -> str:
    """Return an id for a made task: the group, else a digest of the messages before the first turn."""
    text = repr([(message["role"], message["content"]) for message in found.prompt])
    digest = hashlib.blake2b(f"{text}{found.label}".encode(), digest_size=4).hexdigest()
    candidates = [found.group] if found.group else []
    candidates += [f"{found.group}-{digest}" if found.group else f"log-{digest}"]
    candidates += [f"{candidates[-1]}-{len(taken)}"]
    return next(one for one in candidates if one not in taken)


def _prompt(found: Conversation) -> list[Message]:
    """Return the messages of the task, without tools that a chat template has written into the system message."""
    messages = [as_message(message) for message in found.prompt]
    for message in messages:
        if message["role"] == "system":
            message["content"] = schemas_in_text(message["content"])[0]
    messages = [one for one in messages if one["role"] != "system" or one["content"]]
    if not any(message["role"] == "user" for message in messages):
        text = found.prompt_text or ""
        if not text.strip():
            raise found.row.fail("no message of a user before the first turn: expected the question of the task")
        messages.append({"role": "user", "content": text})
    return messages


def _follow_ups(trajectories: Sequence[Trajectory]) -> tuple[FollowUp, ...]:
    """Return the user messages between the turns of the first attempt."""
    return tuple(turn.follow_up for turn in trajectories[0].turns if turn.follow_up is not None)


def _gold_call(call: Any) -> ToolCall:
    read = to_call(call)
    return ToolCall(read.name, read.arguments)
