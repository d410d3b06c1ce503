"""Rows that hold the messages of an attempt in a list: under which key it is, and in which convention the messages are.

Keys: `messages`, `conversations`, `contents` (Gemini), `items`, `input` with `output` (Responses API), `prompt` with
`completion` (TRL), or a logged `request` with its `response`. A list may also be JSON text, as in tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rewright.importers import anthropic, gemini, langchain, openai_chat, responses, sharegpt, swift
from rewright.importers.conversation import Conversation, MessageFormat, decoded, prompt_messages, said
from rewright.importers.text_calls import from_text
from rewright.tasks.rows import Row

__all__ = ["GROUP_KEYS", "MESSAGE_FORMATS", "holds_messages", "looks_like_message", "read_messages"]

GROUP_KEYS: Final = ("group", "group_id", "task_id")
MESSAGE_FORMATS: Final[tuple[MessageFormat, ...]] = (
    openai_chat.FORMAT,
    responses.FORMAT,
    langchain.FORMAT,
    anthropic.FORMAT,
    gemini.FORMAT,
    swift.FORMAT,
    sharegpt.FORMAT,
)
_LISTS: Final = ("messages", "conversations", "conversation", "contents", "items")
_ITEM_TYPES: Final = {*responses.TYPES, "message"}


def holds_messages(values: Mapping[str, Any]) -> list[str]:
    """Return the keys that hold the messages of an attempt; several are ambiguous, none is another format."""
    values = _opened(values)
    if isinstance(values.get("completion"), list) and values.get("prompt") is not None:
        return ["prompt"]
    found = [key for key in _LISTS if isinstance(values.get(key), list)]
    return found or (["output"] if _has_items(values) else [])


def looks_like_message(values: Mapping[str, Any]) -> bool:
    """Whether a row of a file is not an attempt, but one of its messages."""
    if holds_messages(values):
        return False
    return ("role" in values and bool({"content", "parts", "tool_calls"} & values.keys())) or any(
        one.marks(values) for one in MESSAGE_FORMATS
    )


def read_messages(row: Row, chosen: MessageFormat | None = None) -> Conversation:
    """Read a row whose messages are in a list. `chosen`: the convention; None finds it.

    Raises InputError for several lists or conventions that it could be, and for messages that are not understood.
    """
    values = _opened(row.values)
    keys = holds_messages(row.values)
    if len(keys) > 1:
        raise row.fail(f"is ambiguous: {' and '.join(map(repr, keys))} hold messages: expected one of them")
    if not keys:
        raise row.fail(f"no list of messages in it: it has {', '.join(map(repr, row.values)) or 'none'}")
    key = keys[0]
    prompt, given = _lists(row, values, key)
    convention = chosen or _convention(row, [*(prompt if isinstance(prompt, list) else ()), *given])
    before = convention.convert(row, prompt) if isinstance(prompt, list) else []
    spoken = convention.convert(row, given)
    text: str | None = None
    if isinstance(prompt, str):
        before = from_text(prompt) if "<|im_start|>" in prompt else prompt_messages(prompt)
        text = prompt
    elif key != "prompt":
        first = _first_turn(spoken)
        before, spoken = spoken[:first], spoken[first:]
    system = _system(values)
    if system and not (before and before[0]["role"] == "system"):
        before = [said("system", system), *before]
    if given and not any(message["role"] == "assistant" for message in spoken):
        roles = dict.fromkeys(str(one.get("role", one.get("from"))) for one in given if isinstance(one, Mapping))
        raise row.fail(f"no message is an assistant's: its roles are {', '.join(map(repr, roles))}")
    group, identity = row.get(*GROUP_KEYS), row.get("id")
    return Conversation(
        row=row,
        prompt=before,
        turns=spoken,
        columns=row.values,
        prompt_text=text,
        id=None if identity is None else str(identity),
        group=None if group is None else str(group),
        label=f"step {values['step']}, " if key == "prompt" and "step" in values else "",
        tools=values.get("tools") or values.get("functions"),
        model=str(values.get("model") or "") if isinstance(values.get("model"), str) else "",
    )


def _opened(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row with the fields of a logged request at its top level, and lists of messages decoded."""
    texts = {
        key: found for key in _LISTS if isinstance(values.get(key), str) if _are_objects(found := decoded(values[key]))
    }
    values = {**values, **texts} if texts else values
    request = values.get("request")
    return {**values, **request} if isinstance(request, Mapping) and holds_messages(request) else values


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _first_turn(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return the index of the first turn: the assistant's first message, but a greeting before the question."""
    first = next((index for index, one in enumerate(messages) if one["role"] == "assistant"), len(messages))
    asked = next((index for index, one in enumerate(messages) if one["role"] == "user"), 0)
    if any(one["role"] == "tool" or one.get("tool_calls") or one.get("function_call") for one in messages[:asked]):
        return first
    return next((index for index in range(asked, len(messages)) if messages[index]["role"] == "assistant"), first)


def _lists(row: Row, values: Mapping[str, Any], key: str) -> tuple[Any, list[Any]]:
    """Return the prompt (a list, a text, or None if it is in the other list) and the list of messages."""
    if key == "prompt":
        return values["prompt"], values["completion"]
    if key == "output":
        asked = values.get("input")
        asked = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked if asked else []
        output = values.get("output")
        return None, [*asked, *(output if isinstance(output, list) else ()), *_replies(row, values)]
    return None, [*values[key], *_replies(row, values)]


def _replies(row: Row, values: Mapping[str, Any]) -> list[Any]:
    """Return the messages of a logged response: chat completions, Responses API, Anthropic."""
    response = values.get("response")
    response = response if isinstance(response, Mapping) else values
    choices = response.get("choices")
    if isinstance(choices, list):
        if len(choices) > 1:
            raise row.fail(
                f"its response has {len(choices)} choices, each of which is an attempt: expected a row for each"
            )
        first = choices[0] if choices else None
        return [first["message"]] if isinstance(first, Mapping) and isinstance(first.get("message"), Mapping) else []
    if response is values:
        return []
    if isinstance(response.get("output"), list):
        return list(response["output"])
    return [response] if response.get("role") in ("assistant", "model") else []


def _has_items(values: Mapping[str, Any]) -> bool:
    """Whether `output` or `input` are items of the Responses API."""
    items = [item for key in ("input", "output") if isinstance(values.get(key), list) for item in values[key]]
    return any(isinstance(item, Mapping) and str(item.get("type")) in _ITEM_TYPES for item in items)


def _convention(row: Row, messages: Sequence[Any]) -> MessageFormat:
    found: dict[str, int] = {}
    for number, message in enumerate(messages):
        for one in MESSAGE_FORMATS if isinstance(message, Mapping) else ():
            if one.marks(message):
                found.setdefault(one.name, number)
    if len(found) > 1:
        where = " and ".join(f"message {number} is {name}'s" for name, number in found.items())
        raise row.fail(
            f"is ambiguous: {where}: expected one convention, or choose it with --format {next(iter(found))}"
        )
    name = next(iter(found), openai_chat.FORMAT.name)
    return next(one for one in MESSAGE_FORMATS if one.name == name)


def _system(values: Mapping[str, Any]) -> str:
    """Return the system prompt that a row has beside its messages."""
    found = next(
        (
            values[key]
            for key in ("system", "system_prompt", "systemInstruction", "system_instruction", "instructions")
            if values.get(key)
        ),
        "",
    )
    if isinstance(found, Mapping):
        found = found.get("parts") or found.get("content") or ""
    if isinstance(found, list):
        found = "\n".join(str(part.get("text") or "") if isinstance(part, Mapping) else str(part) for part in found)
    return str(found)
