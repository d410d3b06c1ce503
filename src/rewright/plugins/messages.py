"""Turns and gold calls out of chat messages and dataset columns, as other projects store them. No dependencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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

    In a list, arguments that are null are taken for absent: `datasets` and parquet fill them in, because every row
    has every column. Where null is meant, store the calls as JSON text. Raises ValueError for anything else.
    """
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = STRICT.decode(value)
        except ValueError as problem:
            raise ValueError(f"{where} is not JSON: {problem}") from None
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
    return calls


def without_nulls(call: Any) -> Any:
    """A copy of a call given as a mapping, without arguments that are null; other shapes as they are."""
    if not isinstance(call, Mapping):
        return call
    copy = dict(call)
    if isinstance(copy.get("function"), Mapping):
        copy["function"] = without_nulls(copy["function"])
    for key in ("arguments", "parameters"):
        if isinstance(copy.get(key), Mapping):
            copy[key] = {name: value for name, value in copy[key].items() if value is not None}
        elif key in copy and copy[key] is None:
            del copy[key]
    return copy
