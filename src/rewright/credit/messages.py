"""Turns and gold calls out of chat messages and dataset columns, as other projects store them. No trainer, no torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from rewright.core.strict_json import STRICT, TOLERANT
from rewright.credit.allowed import allowed_parts, read_allowed
from rewright.credit.calls import calls_of, fields_of, read_call

__all__ = ["arguments_of", "gold_calls", "gold_of", "name_of", "turns_of_messages", "warn_of_unread_calls"]

_FIELDS = frozenset({"name", "arguments", "parameters", "function", "allowed", "error"})
"""What a call of an ordinary shape has at least one of."""


def turns_of_messages(messages: Sequence[Any], *, drop_nulls: bool = False) -> list[list[Any]]:
    """The calls of each turn of a conversation: every assistant message is a turn, with or without calls.

    Reads `tool_calls` (OpenAI: arguments as JSON text; Hugging Face: as a dict) and the older `function_call`. Only
    assistant messages are looked at: what a tool or a user wrote is never a call. `drop_nulls` takes arguments that
    are null for absent, as in a parquet table, where every row has every column. What stands in the place of the list
    is read as the list's JSON text or as one call, which counts as malformed where it is none.
    """
    turns: list[list[Any]] = []
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") != "assistant":
            continue
        given = message.get("tool_calls")
        if isinstance(given, str):
            try:
                given = STRICT.decode(given) if given.strip() else None
            except ValueError:
                given = [given]
        elif isinstance(given, float):  # NaN: what a data frame has for an absent cell
            given = None
        calls: list[Any] = list(calls_of(given))
        if message.get("function_call") is not None:
            calls.append(message["function_call"])
        turns.append([without_nulls(call) for call in calls] if drop_nulls else calls)
    return turns


def gold_calls(value: Any, where: str = "gold_calls") -> list[Any] | None:
    """Gold calls out of a dataset's cell: a list of calls, its JSON text, or None (unknown).

    A call may name allowed values, in the two shapes of `rewright.credit.allowed`. In a list, arguments that are null,
    at any depth, are taken for absent: `datasets` and parquet fill them in, because every row has every column. Where
    null is meant, store the calls as JSON text. Raises ValueError for anything else, also for a call without a name or
    without an object of arguments: nothing would match it, and every turn look wrong.
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
        try:
            readable = read_call(call) is not None or read_allowed(call) is not None
        except ValueError as problem:
            raise ValueError(f"{where}: call {number}: {problem}") from None
        if not readable:
            raise ValueError(
                f"{where}: call {number} is {call!r:.200}: expected a name, and arguments as an object (or allowed "
                "values, {name: {argument: [value, …]}})"
            )
    return calls


def gold_of(holder: Any, where: str, key: str = "gold_calls") -> list[Any] | None:
    """The gold calls under `key` of a row's metadata, named `where`; None where it says null (unknown).

    Raises ValueError where the key is missing, which would look like a row whose gold calls are unknown, and for what
    is no gold calls.
    """
    if not isinstance(holder, Mapping) or key not in holder:
        keys = ", ".join(map(repr, holder)) if isinstance(holder, Mapping) else ""
        raise ValueError(
            f"{where} has no {key!r}: expected a list of calls, or null where they are unknown; it has {keys or 'none'}"
        )
    return gold_calls(holder[key], f"{where}.{key}")


def warn_of_unread_calls(turns: Sequence[Sequence[Sequence[Any]]], golds: Sequence[Any]) -> None:
    """Warn where no call of a batch is well-formed: then it is rather the rollout's code than the model.

    `turns`: the calls of each turn of each rollout. A single malformed call is the model's, and earns nothing quietly.
    """
    calls = [call for trajectory in turns for turn in trajectory for call in calls_of(turn)]
    if calls and any(golds) and all(read_call(call) is None for call in calls):
        warnings.warn(
            f"turn credit: none of the {len(calls)} calls of a batch has a name and arguments that can be read: every "
            f"call reward is 0; the first is {calls[0]!r:.200}",
            stacklevel=3,
        )


def without_nulls(call: Any) -> Any:
    """A copy of a call given as a mapping, without arguments that are null at any depth; other shapes as they are.

    Of gold calls with allowed values too: the names of functions and of arguments that are null.
    """
    if not isinstance(call, Mapping):
        return call
    copy = dict(call)
    if not _FIELDS & copy.keys():
        copy = {name: _without_empty(lists) for name, lists in copy.items() if lists is not None}
    elif isinstance(copy.get("allowed"), Mapping):
        copy["allowed"] = _without_empty(copy["allowed"])
    if isinstance(copy.get("function"), Mapping):
        copy["function"] = without_nulls(copy["function"])
    for key in ("arguments", "parameters"):
        if isinstance(copy.get(key), Mapping):
            copy[key] = _without_nulls_inside(copy[key])
        elif key in copy and copy[key] is None:
            del copy[key]
    return copy


def _without_empty(lists: Any) -> Any:
    """Lists of allowed values by argument, without the arguments that are null."""
    if not isinstance(lists, Mapping):
        return lists
    return {
        name: found.tolist() if hasattr(found, "tolist") else found
        for name, found in lists.items()
        if found is not None
    }


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


def name_of(call: Any) -> str | None:
    """The name in a call of any shape, as it was written; None where there is none."""
    name = fields_of(call)[0]
    if name is None and (parts := allowed_parts(call)) is not None:
        return parts[0]
    return name if isinstance(name, str) else None


def arguments_of(call: Any) -> Any:
    """The arguments in a call of any shape: an object (of lists, for allowed values), or what stands in its place."""
    found = fields_of(call)[1]
    if found is None and (parts := allowed_parts(call)) is not None:
        found = dict(parts[1])
    if isinstance(found, str):
        try:
            return TOLERANT.decode(found)
        except ValueError:
            return found
    return found
