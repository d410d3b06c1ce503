"""Calls that a log has as text: `<tool_call>` tags (the dialect hermes), and the tags of AutoTraj and Search-R1.

`calls_from_text` reads them out of the messages of a conversation in which no message has parsed calls. `from_text`
splits one text of a whole attempt, ChatML or not, into messages. The dialects' own parsers do the parsing.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from typing import Any, Final

from rewright.core.records import Message, ToolCall, Turn
from rewright.dialects import Hermes, Tags
from rewright.importers.conversation import said, split_results

__all__ = ["ANY_TAG", "RESULT_TAGS", "calls_from_text", "from_text", "schemas_in_text", "tagged_messages"]

RESULT_TAGS: Final = ("result", "information")
"""Tags of results in the tags dialect: AutoTraj's and Search-R1's."""
ANY_TAG: Final = re.compile(r"<(\w[\w-]*)[^<>]*>")

_CHATML: Final = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>\n?|\Z)", re.DOTALL)
_RESPONSE: Final = re.compile(r"<tool_response>\s*(.*?)\s*</tool_response>", re.DOTALL)
_RESPONSES: Final = re.compile(
    r"\s*(?:(?:user|tool)\n\s*)?((?:<tool_response>.*?</tool_response>\s*)+)(?:assistant\n)?", re.DOTALL
)
"""Results between two turns, without ChatML's control tokens (which decoding may have skipped)."""
_QWEN_TOOLS: Final = re.compile(r"\s*# Tools\n.*?<tools>\n?(.*?)\n?</tools>.*?(?:</tool_call>|\Z)", re.DOTALL)
_TOOLS: Final = re.compile(r"<tools>\s*(.*?)\s*</tools>", re.DOTALL)


def calls_from_text(messages: Sequence[Message]) -> tuple[list[Message], str | None]:
    """Return messages with the calls in their texts parsed, and the dialect `tags` if the texts are in it.

    Unchanged if any message has parsed calls, or if no text has a well-formed call.
    """
    found = list(messages)
    spoken = [message for message in found if message["role"] == "assistant"]
    if any(message.get("tool_calls") or message.get("function_call") for message in spoken):
        return found, None
    if any("<tool_call>" in message["content"] for message in spoken):
        parsed = {id(message): Hermes().parse(message["content"]).calls for message in spoken}
        if any(call.error is None for calls in parsed.values() for call in calls):
            return _with_results([_with_calls(one, parsed.get(id(one), ())) for one in found]), None
    for tag in RESULT_TAGS:
        inline = any(turn.results for one in spoken for turn in _tag_turns(one["content"], tag))
        if inline or _results_by_user(found, tag):
            return tagged_messages(found, tag), "tags"
    return found, None


def from_text(text: str) -> list[Message]:
    """Split the text of an attempt with `<tool_call>` tags into messages, the first of which is the assistant's."""
    start = text.find("<|im_start|>")
    if start >= 0:
        first = text[:start].removesuffix("\n").removesuffix("<|im_end|>")
        rest = [said(role, content) for role, content in _CHATML.findall(text[start:])]
        return [*([said("assistant", first)] if first.strip() else []), *rest]
    messages: list[Message] = []
    position = 0
    for found in _RESPONSES.finditer(text):
        messages.append(said("assistant", text[position : found.start()].removesuffix("<|im_end|>")))
        messages += [said("tool", result) for result in _RESPONSE.findall(found[1])]
        position = found.end()
    last = text[position:].removesuffix("<|im_end|>")
    return [*messages, *([said("assistant", last)] if last.strip() or not messages else [])]


def schemas_in_text(system: str) -> tuple[str, list[dict[str, Any]]]:
    """Return a system text without the tools that a chat template has written into it, and their schemas."""
    found = _QWEN_TOOLS.search(system) or _TOOLS.search(system)
    if found is None:
        return system, []
    schemas: list[dict[str, Any]] = []
    try:
        text = found[1].strip()
        read = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines() if line]
    except ValueError:
        return system, []
    schemas = [schema for schema in read if isinstance(schema, dict)]
    rest = system[: found.start()] + system[found.end() :] if found.re is _QWEN_TOOLS else system
    return rest.strip(), schemas


def tagged_messages(messages: Sequence[Message], tag: str) -> list[Message]:
    """Split texts in the tags dialect, whose results are in `tag`, into turns and results."""
    split: list[Message] = []
    for message in messages:
        content = message["content"]
        if message["role"] == "assistant":
            for turn in _tag_turns(content, tag):
                spoken = said("assistant", turn.text, reasoning=message.get("reasoning"), stop=turn.stop)
                split.append(_with_calls(spoken, turn.calls))
                split += [said("tool", result.content) for result in turn.results]
        elif message["role"] == "user" and split and split[-1].get("tool_calls") and _is_result(content, tag):
            inner = re.findall(rf"<{tag}>\n?(.*?)\n?</{tag}>", content, re.DOTALL)
            split += [said("tool", result) for result in inner]
        else:
            split.append(message)
    return split


def _tag_turns(text: str, tag: str) -> tuple[Turn, ...]:
    return Tags().turns(text, tag) if f"<{tag}>" in text or "</" in text else (Turn(text=text),)


def _is_result(content: str, tag: str) -> bool:
    stripped = content.strip()
    return stripped.startswith(f"<{tag}>") and stripped.endswith(f"</{tag}>")


def _results_by_user(messages: Sequence[Message], tag: str) -> bool:
    """Whether a message of the user is a result of the tags dialect, behind a turn with a call."""
    return any(
        before["role"] == "assistant"
        and after["role"] == "user"
        and _is_result(after["content"], tag)
        and Tags().parse(before["content"]).calls
        for before, after in itertools.pairwise(messages)
    )


def _with_calls(message: Message, calls: Sequence[ToolCall]) -> Message:
    return {**message, "tool_calls": list(calls), "written": message["content"]} if calls else message


def _with_results(messages: Sequence[Message]) -> list[Message]:
    """Read `<tool_response>` blocks in messages of users and tools as results."""
    converted: list[Message] = []
    for message in messages:
        content = message["content"]
        if message["role"] in ("user", "tool") and content.strip().startswith("<tool_response>"):
            converted += [said("tool", result) for result in _RESPONSE.findall(content)]
            rest = _RESPONSE.sub("", content).strip()
            if rest:
                converted.append(said("user", rest))
        elif message["role"] == "tool" and converted and converted[-1].get("tool_calls"):
            results = split_results(content, len(converted[-1]["tool_calls"]))
            converted += [said("tool", result) for result in results] if len(results) > 1 else [message]
        else:
            converted.append(message)
    return converted
