"""Convert the messages of a conversation to the turns of a trajectory: texts, calls, results, follow-ups."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    ids: list[list[Any]] = []
    results: list[dict[int, ToolResult]] = []
    follow_ups: list[list[Message]] = []
    for number, message in enumerate(found.turns, len(found.prompt)):
        role = message["role"]
        if role == "assistant":
            given = calls_in(message, drop_nulls=drop_nulls)
            calls = [to_call(call) for call in given]
            text = _text(message, calls, dialect)
            turns.append(Turn(text=text, calls=tuple(calls), stop=message.get("stop", "end")))
            ids.append([call.get("id") if isinstance(call, Mapping) else None for call in given])
            results.append({})
            follow_ups.append([])
        elif not turns:
            raise found.row.fail(f"message {number} is a {role}'s, before the first of the assistant")
        elif role == "tool":
            place = _place(message, turns[-1], ids[-1], results[-1])
            if place is None:
                have = f"{len(turns[-1].calls)} calls and {len(results[-1])} results"
                raise found.row.fail(
                    f"message {number} is the result of a tool, and the turn before it has {have}: expected one result "
                    "for each call"
                )
            error = message.get("error")
            results[-1][place] = ToolResult(str(message["content"]), f"exception: {error}" if error else None)
        else:
            follow_ups[-1].append({"role": role, "content": message["content"]})
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


def _place(message: Message, turn: Turn, ids: Sequence[Any], known: Mapping[int, ToolResult]) -> int | None:
    """Return the number of the call that a result belongs to: by its id, else by the tool's name, else in order."""
    free = [index for index in range(len(turn.calls)) if index not in known]
    identity = message.get("tool_call_id")
    by_id = [index for index in free if identity is not None and ids[index] == identity]
    by_name = [index for index in free if message.get("name") and turn.calls[index].name == message["name"]]
    return next((places[0] for places in (by_id, by_name, free) if places), None)


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
