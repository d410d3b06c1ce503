"""Conversations in ShareGPT's form, with LLaMA-Factory's function_call and observation.

A function_call is the JSON of one call or of a list of them, perhaps behind a thought in `<think>`, or with the calls
in `<tool_call>` tags behind a text. Several results of a turn are one observation, joined by `</tool_response>` and
`<tool_response>`, or a list with one of them per call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rewright.core.records import Message
from rewright.importers.conversation import MessageFormat, decoded, kind_of, said, split_results
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]

_ROLES: Final = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "function_call": "call", "tool_call": "call",
    "observation": "tool", "tool": "tool", "tool_response": "tool", "function_response": "tool", "function": "tool",
}  # fmt: skip
_THOUGHT: Final = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)
_TAGGED: Final = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>\s*\Z", re.DOTALL)


def convert(row: Row, messages: Sequence[Any]) -> list[Message]:
    """Convert a conversation. Raises InputError for a message without `from` and `value`, and for another role."""
    converted: list[Message] = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not {"from", "value"} <= message.keys():
            raise row.fail(f"message {number} is {kind_of(message)}: expected from and value")
        speaker, value = message["from"], message["value"]
        role = _ROLES.get(str(speaker).lower())
        if role is None:
            raise row.fail(
                f"message {number} is from {speaker!r:.60}: expected system, human, gpt, function_call or observation"
            )
        value = value if isinstance(value, str) else "" if value is None else value
        if role == "call":
            converted.append(_turn(value))
        elif role == "tool":
            calls = converted[-1].get("tool_calls") if converted and converted[-1]["role"] == "assistant" else None
            converted += [said("tool", result) for result in _results(value, len(calls or ()))]
        elif not isinstance(value, str):
            raise row.fail(f"message {number} has the value {value!r:.100}: expected text")
        else:
            converted.append(said(role, value))
    return converted


def _results(value: Any, calls: int) -> list[str]:
    """Return the results in an observation behind a turn with so many calls."""
    if isinstance(value, str) and len(parts := split_results(value, calls)) > 1:
        return parts
    listed = decoded(value)
    parts = listed if isinstance(listed, list) and calls > 1 and len(listed) == calls else [value]
    return [part if isinstance(part, str) else json.dumps(part, ensure_ascii=False) for part in parts]


def _turn(value: Any) -> Message:
    text, thought = (value, "") if isinstance(value, str) else ("", "")
    if isinstance(value, str) and (opening := _THOUGHT.match(value)) is not None:
        thought, text = opening[1].strip(), value[opening.end() :]
    found = decoded(text) if isinstance(value, str) else value
    if isinstance(found, str) and (tagged := _TAGGED.search(found)) is not None:
        text, found = found[: tagged.start()].rstrip(), decoded(tagged[1])
    else:
        text = ""
    calls = found if isinstance(found, list) else [found]
    read = [
        call
        if isinstance(call, Mapping)
        else {"name": "", "arguments": str(call), "error": "malformed call: not the JSON of a call"}
        for call in calls
    ]
    return said("assistant", text, reasoning=thought, tool_calls=read)


FORMAT: Final = MessageFormat(
    name="sharegpt",
    about="conversations with from and value, function_call and observation (ShareGPT, LLaMA-Factory)",
    marks=lambda message: "from" in message and "value" in message,
    convert=convert,
)
