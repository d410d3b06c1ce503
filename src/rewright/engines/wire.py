"""Build request bodies in the OpenAI wire format. Replies are parsed in `replies`.

Rewright keeps messages in the Hugging Face convention (call arguments are dicts, a tool message has a `name`). The wire
format has arguments as a JSON string, and a `tool_call_id` on every tool message. No network code here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from operator import is_
from typing import Any, Final

import msgspec

from rewright.core.records import Message
from rewright.core.strict_json import MAX_DEPTH, STRICT, NestingError, nested_deeper
from rewright.engines.base import Request
from rewright.net.bodies import encode_json
from rewright.net.endpoint import Fault

__all__ = ["Conversations", "chat_body", "completion_body", "messages_to_wire", "read_arguments"]

_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_UNESCAPED: Final = json.JSONEncoder(ensure_ascii=False)


def chat_body(request: Request, model: str, conversations: Conversations | None = None) -> dict[str, Any]:
    """Build the body of POST /chat/completions, to be encoded at once.

    `conversations`: the encoded messages of running trajectories.
    """
    if conversations is None or not request.session:
        messages, tools = messages_to_wire(request.messages), list(request.tools)
    else:
        messages, tools = conversations.encoded(request)
    body = {"model": model, "messages": messages, **_sampling(request)}
    if tools:
        body["tools"] = tools
    return body


class _Sent:
    """What the last request of a trajectory consisted of, and its encoded form. `calls`: number of calls in it."""

    __slots__ = ("calls", "messages", "tools", "wire_messages", "wire_tools")

    def __init__(self) -> None:
        self.messages: tuple[Message, ...] = ()
        self.tools: tuple[dict[str, Any], ...] = ()
        self.wire_messages: list[Any] = []
        self.wire_tools: list[Any] = []
        self.calls = 0


class Conversations:
    """The encoded messages and tools of running trajectories: a turn adds its own, and none is encoded twice.

    A message that was sent must not be changed in place.
    """

    def __init__(self) -> None:
        self._sent: dict[str, _Sent] = {}

    def encoded(self, request: Request) -> tuple[list[Any], list[Any]]:
        """Return messages and tools in the wire format, encoded. The next request extends the lists. Raises Fault."""
        messages, tools = request.messages, request.tools
        sent = self._sent.get(request.session)
        known = 0 if sent is None else len(sent.messages)
        if (
            sent is None
            or not _begins_with(messages, sent.messages)
            # More results of calls that were sent: they are paired together.
            or (known and len(messages) > known and messages[known].get("role") == "tool")
        ):
            sent, known = _Sent(), 0
        wire, calls = _to_wire(messages[known:] if known else messages, sent.calls)
        added = [msgspec.Raw(encode_json(message)) for message in wire]
        if len(tools) != len(sent.tools) or not _begins_with(tools, sent.tools):
            sent.wire_tools = [msgspec.Raw(encode_json(tool)) for tool in tools]
        sent.wire_messages += added
        sent.messages, sent.tools, sent.calls = messages, tools, calls
        self._sent[request.session] = sent
        return sent.wire_messages, sent.wire_tools

    def forget(self, session: str) -> None:
        """Forget a trajectory, which has ended."""
        self._sent.pop(session, None)


def _begins_with(values: Sequence[object], start: Sequence[object]) -> bool:
    return len(values) >= len(start) and all(map(is_, values, start))


def completion_body(request: Request, model: str) -> dict[str, Any]:
    """Build the body of POST /completions from `request.token_ids`. Raises Fault if there are none."""
    if not request.token_ids:
        raise Fault(
            "request", "completions mode needs the token ids of the conversation: the request has none", retry=False
        )
    return {"model": model, "prompt": list(request.token_ids), **_sampling(request)}


def _sampling(request: Request) -> dict[str, Any]:
    sampling = request.sampling
    # Always explicit, because servers otherwise use the model's generation_config.json.
    body: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    return body


def messages_to_wire(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Convert messages to the wire format: arguments as JSON strings, ids on calls and their results.

    Results are paired with the preceding calls by `tool_call_id`, else in order if there are as many results as calls,
    else by name. Most servers reject a result without a call (of a malformed call, which is part of the text): it is
    sent as a user message after the others.
    """
    return _to_wire(messages, 0)[0]


def _to_wire(messages: Sequence[Message], count: int) -> tuple[list[dict[str, Any]], int]:
    """Convert messages that follow others with `count` calls. Also returns the number of calls with their own."""
    wire: list[dict[str, Any]] = []
    open_calls: list[dict[str, Any]] = []
    position = 0
    while position < len(messages):
        message = messages[position]
        if message.get("role") == "tool":
            end = position
            while end < len(messages) and messages[end].get("role") == "tool":
                end += 1
            wire.extend(_results_to_wire(messages[position:end], open_calls))
            open_calls, position = [], end
            continue
        copied = dict(message)
        if None in message.values():
            copied = {key: value for key, value in message.items() if value is not None}
        copied.setdefault("content", None if message.get("tool_calls") else "")
        open_calls = []
        if message.get("tool_calls"):
            for call in message["tool_calls"]:
                open_calls.append(_call_to_wire(call, count))
                count += 1
            copied["tool_calls"] = open_calls
        wire.append(copied)
        position += 1
    return wire, count


def _call_to_wire(call: Mapping[str, Any], number: int) -> dict[str, Any]:
    function = call.get("function") or call
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        # Servers decode this string, and answer 400 or 500 if it is not an object.
        parsed, error = read_arguments(arguments)
        arguments = parsed if error is None else {"malformed_arguments": arguments}
    # Nine letters and digits, as required by Mistral's templates.
    identifier = call.get("id") or f"call{number:05d}"
    return {
        "id": identifier,
        "type": "function",
        "function": {
            "name": function.get("name") or "unknown",
            "arguments": _UNESCAPED.encode(arguments or {}),
        },
    }


def _results_to_wire(results: Sequence[Message], calls: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    in_order = len(results) == len(calls)
    if in_order and not any(result.get("tool_call_id") for result in results):
        for result, call in zip(results, calls, strict=True):
            yield _result_to_wire(result, call)
        return
    free = list(calls)
    orphans: list[str] = []
    for result in results:
        identifier, name = result.get("tool_call_id"), result.get("name")
        paired = next(
            (
                call
                for call in free
                if (call["id"] == identifier if identifier else in_order or call["function"]["name"] == name)
            ),
            None,
        )
        if paired is None:
            orphans.append(f"<tool_response>\n{result.get('content') or ''}\n</tool_response>")
            continue
        free.remove(paired)
        yield _result_to_wire(result, paired)
    if orphans:
        yield {"role": "user", "content": "\n".join(orphans)}


def _result_to_wire(result: Message, call: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "role": "tool",
        "name": call["function"]["name"],
        "tool_call_id": call["id"],
        "content": result.get("content") or "",
    }


def read_arguments(value: object) -> tuple[dict[str, Any], str | None]:
    """Parse the arguments of a call from a server: a JSON string, a dict, or None. Returns (arguments, error)."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}, None
    if isinstance(value, str):
        if len(value) <= MAX_DEPTH or value.count("[") + value.count("{") <= MAX_DEPTH:
            try:
                return _OBJECT.decode(value), None  # the usual case
            except (ValueError, RecursionError):
                pass
        try:
            value = STRICT.decode(value)
        except NestingError as error:
            return {}, f"arguments are {error}"
        except ValueError as error:
            return {}, f"arguments are not JSON: {error}"
    if not isinstance(value, dict):
        return {}, f"arguments must be a JSON object, not {type(value).__name__}"
    if nested_deeper(value):
        return {}, f"arguments are {NestingError()}"
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        return {}, f"arguments cannot be stored: {error}"
    return value, None
