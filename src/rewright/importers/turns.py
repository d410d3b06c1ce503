"""Convert the messages of a conversation to the turns of a trajectory: texts, calls, results, follow-ups."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from typing import Any

import msgspec

from rewright.core.records import FollowUp, Message, ToolCall, ToolResult, Turn
from rewright.core.strict_json import STRICT, NestingError, nested_deeper
from rewright.credit.calls import fields_of
from rewright.credit.messages import turns_of_messages
from rewright.dialects import Dialect
from rewright.importers.conversation import Conversation

__all__ = ["as_message", "calls_in", "to_call", "turns_of"]


def to_call(call: Any) -> ToolCall:
    """Convert a call of any shape. A malformed one has an `error`, and its text in `raw`."""
    if isinstance(call, ToolCall):
        return call
    name, arguments, error = fields_of(call)
    raw = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)
    label = name if isinstance(name, str) else ""
    if error:
        return ToolCall(label, {}, raw, str(error))
    if isinstance(arguments, str):
        try:
            arguments = STRICT.decode(arguments) if arguments.strip() else {}
        except ValueError as problem:
            return ToolCall(label, {}, raw, f"malformed call: {problem}")
    if arguments is None:
        arguments = {}
    if not label or not isinstance(arguments, Mapping):
        missing = "the call has no name" if not label else "arguments must be a JSON object"
        return ToolCall(label, {}, raw, f"malformed call: {missing}")
    if nested_deeper(arguments):
        return ToolCall(label, {}, raw, f"malformed call: arguments are {NestingError()}")
    return ToolCall(label, dict(arguments), raw)


def calls_in(message: Message, *, drop_nulls: bool = False) -> list[Any]:
    """Return the calls of an assistant message as they are given."""
    return turns_of_messages([message], drop_nulls=drop_nulls)[0]


def as_message(message: Message) -> Message:
    """Return a message of a prompt in the Hugging Face convention."""
    role, content = message["role"], message["content"]
    if role == "tool":
        return {"role": role, "name": str(message.get("name") or "unknown"), "content": content}
    calls = [to_call(call) for call in calls_in(message)] if role == "assistant" else []
    given = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
        if call.error is None
    ]
    return {"role": role, "content": content, **({"tool_calls": given} if given else {})}


def turns_of(found: Conversation, dialect: Dialect, *, drop_nulls: bool = False) -> tuple[Turn, ...]:
    """Convert a conversation to turns whose text is in `dialect`.

    Raises InputError for a result without a call, and for a message of a tool before the first turn.
    """
    turns: list[Turn] = []
    ids: list[list[str | None]] = []
    heard: list[list[tuple[int, Message]]] = []
    follow_ups: list[list[Message]] = []
    for number, message in enumerate(found.turns, len(found.prompt)):
        role = message["role"]
        if role == "assistant":
            given = calls_in(message, drop_nulls=drop_nulls)
            calls = [to_call(call) for call in given]
            text = _text(message, calls, dialect)
            turns.append(Turn(text=text, calls=tuple(calls), stop=message.get("stop", "end")))
            ids.append([_identity(call.get("id")) if isinstance(call, Mapping) else None for call in given])
            heard.append([])
            follow_ups.append([])
        elif not turns:
            raise found.row.fail(f"message {number} is a {role}'s, before the first of the assistant")
        elif role == "tool":
            heard[-1].append((number, message))
        else:
            follow_ups[-1].append({"role": role, "content": message["content"]})
    results = [
        _paired(found, turn.calls, own, after, {one for before in ids[:index] for one in before})
        for index, (turn, own, after) in enumerate(zip(turns, ids, heard, strict=True))
    ]
    built = [
        msgspec.structs.replace(
            turn,
            results=_in_order(known),
            follow_up=FollowUp(messages=tuple(after)) if after else None,
        )
        for turn, known, after in zip(turns, results, follow_ups, strict=True)
    ]
    return _with_tokens(found, built)


def _text(message: Message, calls: Sequence[ToolCall], dialect: Dialect) -> str:
    if "written" in message:
        return str(message["written"])
    text, thought = str(message["content"]), message.get("reasoning")
    if thought and "<think>" not in text:
        text = f"<think>\n{str(thought).strip()}\n</think>\n\n{text}"
    return dialect.write(text.rstrip() if calls else text, calls) if calls else text


def _identity(given: Any) -> str | None:
    return None if given is None or given == "" else str(given)


def _paired(
    found: Conversation,
    calls: Sequence[ToolCall],
    ids: Sequence[str | None],
    heard: Sequence[tuple[int, Message]],
    earlier: Set[str | None],
) -> dict[int, ToolResult]:
    """Return the results of a turn by the number of their call.

    A result belongs to the call of its id, else to one that no id names: of the tool's name, else the first. `earlier`
    are the ids of calls in turns before it.
    """
    known: dict[int, ToolResult] = {}
    unnamed: list[tuple[int, Message]] = []
    for number, message in heard:
        identity = _identity(message.get("tool_call_id"))
        if identity is None or identity not in {*ids, *earlier}:
            unnamed.append((number, message))
            continue
        place = next((index for index, one in enumerate(ids) if one == identity and index not in known), None)
        if place is None:
            which = "a second result of the call" if identity in ids else "the result of a call of an earlier turn,"
            raise found.row.fail(
                f"message {number} is {which} {identity!r:.60}: expected one result for each call, behind its turn"
            )
        known[place] = _result(message)
    for number, message in unnamed:
        free = [index for index in range(len(calls)) if index not in known]
        by_name = [index for index in free if message.get("name") and calls[index].name == message["name"]]
        if not free:
            raise found.row.fail(
                f"message {number} is the result of a tool, and the turn before it has {len(calls)} calls and "
                f"{len(known)} results: expected one result for each call"
            )
        known[(by_name or free)[0]] = _result(message)
    return known


def _result(message: Message) -> ToolResult:
    error = message.get("error")
    return ToolResult(str(message["content"]), f"exception: {error}" if error else None)


def _in_order(known: Mapping[int, ToolResult]) -> tuple[ToolResult, ...]:
    """Return the results in the order of their calls; one that is missing between others is an error."""
    lost = ToolResult("", "other: the log has no result of this call")
    return tuple(known.get(index, lost) for index in range(max(known, default=-1) + 1))


def _with_tokens(found: Conversation, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Add the token ids, if the file has those of every turn."""
    if found.tokens is None or len(found.tokens) != len(turns):
        return tuple(turns)
    return tuple(
        msgspec.structs.replace(
            turn, token_ids=tokens.token_ids, log_probs=tokens.log_probs, suffix_ids=tokens.suffix_ids
        )
        for turn, tokens in zip(turns, found.tokens, strict=True)
    )
