"""Turns and gold calls out of chat messages and dataset columns, as other projects store them. No trainer, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewright.credit.calls import read_call
from rewright.strict_json import STRICT

__all__ = ["gold_calls", "turns_of_messages"]


def turns_of_messages(messages: Sequence[Any], *, drop_nulls: bool = False) -> list[list[Any]]:
    """The calls of each turn of a conversation: every assistant message is a turn, with or without calls.

    Reads `tool_calls` (OpenAI: arguments as JSON text; Hugging Face: as a dict) and the older `function_call`. Only
    assistant messages are looked at: what a tool or a user wrote is never a call. `drop_nulls` takes arguments that
    are null for absent, as in a parquet table, where every row has every column.
    """
    turns: list[list[Any]] = []
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") != "assistant":
            continue
        calls: Any = message.get("tool_calls")
        if hasattr(calls, "tolist"):  # an array of numpy: a cell of a parquet table
            calls = calls.tolist()
        calls = list(calls) if isinstance(calls, (list, tuple)) else []
        if message.get("function_call") is not None:
            calls.append(message["function_call"])
        turns.append([without_nulls(call) for call in calls] if drop_nulls else calls)
    return turns


def gold_calls(value: Any, where: str = "gold_calls") -> list[Any] | None:
    """Gold calls out of a dataset's cell: a list of calls, its JSON text, or None (unknown).

    In a list, arguments that are null, at any depth, are taken for absent: `datasets` and parquet fill them in,
    because every row has every column. Where null is meant, store the calls as JSON text. Raises ValueError for
    anything else, also for a call without a name or without an object of arguments: nothing would match it, and every
    turn look wrong.
    """
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = STRICT.decode(value)
        except ValueError as problem:
            raise ValueError(f"{where} is not JSON: {problem}: {value!r:.200}") from None
        calls = value
        if calls is None:
            return None
    else:
        if hasattr(value, "tolist"):
            value = value.tolist()
        calls = [without_nulls(call) for call in value] if isinstance(value, (list, tuple)) else value
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) or hasattr(call, "name") for call in calls):
        raise ValueError(
            f"{where} is {value!r:.200}: expected a list of calls with name and arguments, or its JSON text"
        )
    for number, call in enumerate(calls):
        if read_call(call) is None:
            raise ValueError(f"{where}: call {number} is {call!r:.200}: expected a name, and arguments as an object")
    return calls


def without_nulls(call: Any) -> Any:
    """A copy of a call given as a mapping, without arguments that are null at any depth; other shapes as they are."""
    if not isinstance(call, Mapping):
        return call
    copy = dict(call)
    if isinstance(copy.get("function"), Mapping):
        copy["function"] = without_nulls(copy["function"])
    for key in ("arguments", "parameters"):
        if isinstance(copy.get(key), Mapping):
            copy[key] = _without_nulls_inside(copy[key])
        elif key in copy and copy[key] is None:
            del copy[key]
    return copy


def _without_nulls_inside(value: Any) -> Any:
    """A copy of the objects and lists of a value, without the fields that are null; a null in a list was written there.

    Works with a stack of its own: what is nested deeply does not recurse.
    """
    root = [value]
    open_places: list[tuple[Any, Any]] = [(root, 0)]
    while open_places:
        parent, key = open_places.pop()
        item = parent[key]
        if hasattr(item, "tolist"):  # an array of numpy: a list inside a cell of a parquet table
            item = item.tolist()
        if isinstance(item, Mapping):
            item = {name: inner for name, inner in item.items() if inner is not None}
            open_places.extend((item, name) for name in item)
        elif isinstance(item, (list, tuple)):
            item = list(item)
            open_places.extend((item, index) for index in range(len(item)))
        parent[key] = item
    return root[0]
