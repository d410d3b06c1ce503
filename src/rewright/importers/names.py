"""Names of tools: remove prefixes such as `functions.`, which some models and servers put before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from rewright.core.records import Message, ToolCall
from rewright.credit.allowed import allowed_parts
from rewright.credit.messages import name_of
from rewright.importers.conversation import Conversation, decoded

__all__ = ["bare", "renamed", "without_prefixes"]


def without_prefixes(conversation: Conversation, prefixes: Sequence[str]) -> Conversation:
    """Remove the prefixes from the names of the calls, results, tools and gold calls of a conversation."""
    if not prefixes:
        return conversation
    golds, tools = conversation.gold_calls, decoded(conversation.tools)
    turns = [_message(message, prefixes) for message in conversation.turns]
    return replace(
        conversation,
        turns=turns,
        kept=conversation.kept if turns == list(conversation.turns) else None,  # its texts have the prefixes
        tools=[renamed(tool, prefixes) for tool in tools] if isinstance(tools, list) else tools,
        gold_calls=None if golds is None else [renamed(call, prefixes) for call in golds],
    )


def renamed(call: Any, prefixes: Sequence[str]) -> Any:
    """Return a call (or a schema) of any shape without the prefixes in its name."""
    call = decoded(call)
    if isinstance(call, ToolCall):
        return msgspec.structs.replace(call, name=bare(call.name, prefixes))
    if not isinstance(call, Mapping):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": renamed(call["function"], prefixes)}
    if isinstance(call.get("name"), str):
        return {**call, "name": bare(call["name"], prefixes)}
    if allowed_parts(call) is not None and (name := name_of(call)) in call:
        return {bare(str(name), prefixes): call[name]}
    return call


def bare(name: str, prefixes: Sequence[str]) -> str:
    """Return a name without the first of the prefixes that it has, and without `.`, `:` or `/` after it."""
    found = next((prefix for prefix in prefixes if name.startswith(prefix) and len(name) > len(prefix)), "")
    return (name.removeprefix(found).lstrip(".:/") or name) if found else name


def _message(message: Message, prefixes: Sequence[str]) -> Message:
    changed = dict(message)
    calls = decoded(message.get("tool_calls"))
    if calls:
        changed["tool_calls"] = [renamed(call, prefixes) for call in (calls if isinstance(calls, list) else [calls])]
    if message.get("function_call"):
        changed["function_call"] = renamed(message["function_call"], prefixes)
    if isinstance(message.get("name"), str):
        changed["name"] = bare(message["name"], prefixes)
    return changed
