"""Read turns and gold calls from chat messages and dataset columns. Imports neither a trainer nor torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from rewright.core.strict_json import STRICT, TOLERANT
from rewright.credit.allowed import allowed_parts, read_allowed
from rewright.credit.calls import calls_of, fields_of, read_call
from rewright.credit.trajectories import CreditTurn

__all__ = [
    "arguments_of",
    "credit_turns",
    "gold_calls",
    "gold_of",
    "name_of",
    "turn_scores",
    "turns_of_messages",
    "warn_about_malformed_calls",
]

_FIELDS = frozenset({"name", "arguments", "parameters", "function", "allowed", "error"})
"""A call of an ordinary shape has at least one of these keys."""


def turns_of_messages(messages: Sequence[Any], *, drop_nulls: bool = False) -> list[list[Any]]:
    """Return the calls of each turn of a conversation. Every assistant message is a turn, with or without calls.

    Reads `tool_calls` (OpenAI: arguments as JSON text; Hugging Face: as a dict) and the deprecated `function_call`.
    If `tool_calls` is not a list, it is read as the list's JSON text or as a single call, possibly malformed. A list
    may hold the JSON texts of its calls (verifiers' older data sets).

    Args:
        messages: chat messages; only assistant messages are read.
        drop_nulls: treat null arguments as absent, as needed for parquet tables, where every row has every column.
    """
    turns: list[list[Any]] = []
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") != "assistant":
            continue
        tool_calls = message.get("tool_calls")
        if isinstance(tool_calls, str):
            tool_calls = _decoded(tool_calls) if tool_calls.strip() else None
        elif isinstance(tool_calls, float):  # NaN: an absent cell of a data frame
            tool_calls = None
        calls: list[Any] = [_decoded(call) if isinstance(call, str) else call for call in calls_of(tool_calls)]
        if message.get("function_call") is not None:
            calls.append(message["function_call"])
        turns.append([without_nulls(call) for call in calls] if drop_nulls else calls)
    return turns


def credit_turns(messages: Sequence[Any], turns: Sequence[Sequence[Any]]) -> list[CreditTurn]:
    """Return the turns of a conversation with what follows each: results of tools, and messages of users.

    The results are None for a turn with calls that no message of a tool follows.

    Args:
        messages: chat messages.
        turns: the calls of each turn, as from `turns_of_messages`.
    """
    known = [message for message in messages if isinstance(message, Mapping)]
    starts = [index for index, message in enumerate(known) if message.get("role") == "assistant"]
    found: list[CreditTurn] = []
    for calls, start, end in zip(turns, starts, [*starts, len(known)][1:], strict=True):
        after = known[start + 1 : end]
        results = [str(message.get("content")) for message in after if message.get("role") == "tool"]
        others = [dict(message) for message in after if message.get("role") != "tool"]
        text = known[start].get("content")
        found.append(
            CreditTurn(
                calls,
                results=results if results or not calls else None,
                text=text if isinstance(text, str) else None,
                messages=others,
            )
        )
    return found


def _decoded(text: str) -> Any:
    """Decode JSON text; another text is returned unchanged, as a malformed call."""
    try:
        return STRICT.decode(text)
    except ValueError:
        return text


def gold_calls(value: Any, where: str = "gold_calls") -> list[Any] | None:
    """Read gold calls from a dataset cell: a list of calls, its JSON text, or None (unknown).

    A call may list allowed values in the two shapes of `rewright.credit.allowed`. In a list, null arguments at any
    depth are treated as absent, because `datasets` and parquet add every column to every row. Store the calls as JSON
    text to keep nulls. Raises ValueError for anything else, including a call without a name or an arguments object,
    which no predicted call could match.
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
    """Read the gold calls under `key` of a row's metadata; None if the value is null (unknown).

    `where` names the metadata in error messages. Raises ValueError if the key is missing (a missing key is not the
    same as unknown gold calls) or its value is invalid.
    """
    if not isinstance(holder, Mapping) or key not in holder:
        keys = ", ".join(map(repr, holder)) if isinstance(holder, Mapping) else ""
        raise ValueError(
            f"{where} has no {key!r}: expected a list of calls, or null where they are unknown; it has {keys or 'none'}"
        )
    return gold_calls(holder[key], f"{where}.{key}")


def turn_scores(given: Any, turns: int, where: str) -> list[float | None] | None:
    """Read the scores of a rollout, for the signal `score`; None if they are unknown.

    Args:
        given: one for each turn, or one more in front, that before the first turn; None for an unknown one.
        turns: the number of turns.
        where: names the value in error messages.

    Returns T + 1 scores. Raises ValueError for another number of them, and for anything but a list.
    """
    if given is None:
        return None
    if hasattr(given, "tolist"):
        given = given.tolist()
    if not isinstance(given, (list, tuple)) or len(given) not in (turns, turns + 1):
        raise ValueError(
            f"{where} is {given!r:.200}: expected {turns} numbers, one for each turn, or one more in front"
        )
    return [None, *given] if len(given) == turns else list(given)


def warn_about_malformed_calls(turns: Sequence[Sequence[Sequence[Any]]], golds: Sequence[Any]) -> None:
    """Warn if every call of a batch is malformed, which suggests a bug in the rollout code rather than the model.

    `turns`: the calls of each turn of each rollout. Single malformed calls are model errors and give no warning.
    """
    calls = [call for trajectory in turns for turn in trajectory for call in calls_of(turn)]
    if calls and any(golds) and all(read_call(call) is None for call in calls):
        warnings.warn(
            f"turn credit: none of the {len(calls)} calls of a batch has a name and arguments that can be read: every "
            f"call reward is 0; the first is {calls[0]!r:.200}",
            stacklevel=3,
        )


def without_nulls(call: Any) -> Any:
    """Copy a call given as a mapping without its null arguments, at any depth; other shapes are returned unchanged.

    For gold calls with allowed values, null functions and arguments are removed.
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
    """Remove null entries from a mapping of argument names to allowed values."""
    if not isinstance(lists, Mapping):
        return lists
    return {
        name: allowed.tolist() if hasattr(allowed, "tolist") else allowed
        for name, allowed in lists.items()
        if allowed is not None
    }


def _without_nulls_inside(value: Any) -> Any:
    """Copy a value without the null fields of its objects. Nulls in lists are kept, since no table format adds them.

    Iterative, so that deep nesting cannot exceed the recursion limit.
    """
    root = [value]
    pending: list[tuple[Any, Any]] = [(root, 0)]
    while pending:
        parent, key = pending.pop()
        item = parent[key]
        if hasattr(item, "tolist"):  # numpy array: a list inside a parquet cell
            item = item.tolist()
        if isinstance(item, Mapping):
            item = {name: inner for name, inner in item.items() if inner is not None}
            pending.extend((item, name) for name in item)
        elif isinstance(item, (list, tuple)):
            item = list(item)
            pending.extend((item, index) for index in range(len(item)))
        parent[key] = item
    return root[0]


def name_of(call: Any) -> str | None:
    """Return the function name of a call of any shape, unconverted; None if it has none."""
    name = fields_of(call)[0]
    if name is None and (parts := allowed_parts(call)) is not None:
        return parts[0]
    return name if isinstance(name, str) else None


def arguments_of(call: Any) -> Any:
    """Return the arguments of a call of any shape: an object (of lists, for allowed values), else the value unchanged.

    JSON text is decoded where possible.
    """
    arguments = fields_of(call)[1]
    if arguments is None and (parts := allowed_parts(call)) is not None:
        arguments = dict(parts[1])
    if isinstance(arguments, str):
        try:
            return TOLERANT.decode(arguments)
        except ValueError:
            return arguments
    return arguments
