"""Import chat logs (`messages`) and TRL's completions tables (`prompt`, `completion`).

Unknown roles, calls and content are errors that describe what was found. If they were skipped, turns would appear to
have no calls and get credit 0.

Not here: gold calls and credit (`rewright.reports.stored_credit`), Rewright's own files (`rewright.importers.own`), and
call formats (`rewright.credit.calls`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rewright.core.errors import InputError
from rewright.credit.calls import read_call
from rewright.credit.messages import gold_calls, turns_of_messages
from rewright.credit.trajectories import CreditTrajectory, CreditTurn
from rewright.dialects import Hermes, Tags
from rewright.importers.base import Importer
from rewright.tasks.rows import Row, read_rows

__all__ = [
    "GROUP_KEYS",
    "IMPORTER",
    "PROMPT_KEYS",
    "Log",
    "check_read",
    "name_some",
    "prompt_text",
    "read_logs",
    "unread_calls",
]

GROUP_KEYS: Final = ("group", "group_id", "task_id")
PROMPT_KEYS: Final = ("prompt", "messages")

_OUTCOME: Final = "reward"
_NOT_OUTCOMES: Final = frozenset({"id", "index", "step", "advantage", "seed", "epoch", *GROUP_KEYS})
"""Numeric columns that are never the outcome. If there are others, the user must choose one."""

_RESULTS: Final = frozenset({"tool", "function", "ipython", "observation", "environment", "tool_response"})
_ROLES: Final = frozenset({"system", "developer", "user", "assistant", *_RESULTS})

_CALL_KEYS: Final = frozenset({"tool_calls", "function_call", "tool_call_id"})
_CALL_FIELDS: Final = frozenset({"name", "arguments", "parameters", "function", "error", "id", "type", "index"})
_TEXT_PARTS: Final = frozenset({"text", "output_text", "refusal", "reasoning", "thinking", "redacted_thinking"})
_MARKS: Final = (
    "<tool_call>", "<function=", "<function_call>", "<invoke", "<|python_tag|>", "[TOOL_CALLS]", "<search>", "<python>",
    "<code>", "```tool_code", "\nAction:", '"arguments":', '"parameters":',
)  # fmt: skip
"""Markers of calls in model output. If calls occur only as text, the log has not been parsed."""

_OTHER_SHAPES: Final = {
    "conversations": "a conversation in LLaMA-Factory's sharegpt form",
    "chosen": "a pair of a preference set",
    "output": "a record with tags (read by rewright import --format autotraj)",
    "trajectories": "a record with tags (read by rewright import --format autotraj)",
    "trajectory": "a record with tags (read by rewright import --format autotraj)",
    "completion": "a completion that is text: its calls have not been parsed",
    "extra_info": "a row of prompts for verl",
}


class Log(NamedTuple):
    """One row, with the fields of a `rewright.reports.stored_credit.Stored`.

    `seen` describes the row in error messages. `whole` is the full trajectory, for credit signals that use more than
    calls; None if it is not available.
    """

    id: str
    group: str
    turns: list[list[Any]]
    texts: list[str]
    prompt: str
    golds: list[Any] | None
    outcome: float | None
    seen: str
    whole: CreditTrajectory | None = None


def read_logs(path: Path, outcome: str | Sequence[str] | None = None) -> Iterator[Log]:
    """Yield the rows of a file, in order.

    `outcome` names the outcome column; several are summed, and "none" means that there is no outcome. The default is
    the column `reward`; if it is missing and there are other numeric columns, an error lists them. Raises InputError
    with file and row for invalid input.
    """
    names = (outcome,) if isinstance(outcome, str) else tuple(outcome or ())
    drop_nulls = path.suffix == ".parquet"  # parquet fills missing keys with nulls
    missing = dict.fromkeys(names or (_OUTCOME,))
    candidates: dict[str, None] = {}
    columns: list[str] = []
    for row in read_rows(path):
        if row.problem is not None:
            raise InputError(row.problem)
        columns = columns or list(row.values)
        for name in [name for name in missing if name in row.values]:
            del missing[name]
        if not names:
            candidates.update((key, None) for key, value in row.values.items() if _may_be_outcome(key, value))
        yield _read(row, names or (_OUTCOME,), drop_nulls=drop_nulls)
    if not names and missing and candidates:
        raise InputError(
            f"{path}: which column is the outcome? There is no {_OUTCOME!r}, but {', '.join(map(repr, candidates))}: "
            "name it with --outcome COLUMN (again for a sum), or give --outcome none"
        )
    if names and missing and names != ("none",):
        raise InputError(
            f"{path}: no row has the column {next(iter(missing))!r} of the outcome; the first has {name_some(columns)}"
        )


def check_read(logs: Sequence[Any]) -> None:
    """Raise InputError if some logs have gold calls but no turn or no call was read from any log.

    `logs` are objects with `turns`, `texts`, `golds` and `seen`, such as `Log`.
    """
    wanted = [log for log in logs if log.golds]
    if not wanted or any(read_call(call) is not None for log in logs for turn in log.turns for call in turn):
        return
    turns, seen = sum(len(log.turns) for log in logs), wanted[0].seen
    if not turns:
        raise InputError(f"no message is an assistant's, so there is no turn to credit: {seen}")
    malformed = next((call for log in logs for turn in log.turns for call in turn), None)
    if malformed is not None:
        raise InputError(
            f"no well-formed call was read, though there are gold calls: the first is {malformed!r:.200}, expected a "
            f"name, and arguments as an object or its JSON text; {seen}"
        )
    mark = next((mark for log in logs for text in log.texts for mark in _MARKS if mark in text), None)
    raise InputError(
        f"no call was read, though there are gold calls: none of {turns} assistant messages has tool_calls"
        + (f", calls seem to stand in the text ({mark.strip()})" if mark else "")
        + f"; {seen}"
    )


def unread_calls(log: Any) -> str | None:
    """Return the marker of unparsed calls in the texts of a log without parsed calls, or None."""
    if any(log.turns):
        return None
    return next((mark.strip() for text in log.texts for mark in _MARKS if mark in text), None)


def prompt_text(prompt: Any) -> str:
    """Return the text of the last user or system message of a prompt. A prompt that is text is returned unchanged."""
    if isinstance(prompt, str):
        return prompt
    for message in reversed(prompt if isinstance(prompt, list) else []):
        if _role(message) in ("user", "system"):
            return _content(message)
    return ""


def name_some(keys: Sequence[str]) -> str:
    """Return a list of names for an error message, ending with `…`."""
    return ", ".join(repr(key[:60]) for key in keys) + ", …" if keys else "none"


def _read(row: Row, outcomes: Sequence[str], *, drop_nulls: bool) -> Log:
    """Convert a chat log or a row of a completions table. Raises InputError for invalid input."""
    values = row.values
    label = ""
    if isinstance(values.get("completion"), list) and values.get("prompt") is not None:
        prompt, completion = values["prompt"], values["completion"]
        label = f"step {values['step']}, " if "step" in values else ""
    elif isinstance(values.get("messages"), list):
        messages = values["messages"]
        first = next((i for i, message in enumerate(messages) if _role(message) == "assistant"), len(messages))
        prompt, completion = messages[:first], messages[first:]
    else:
        guess = next((f": it looks like {what}" for key, what in _OTHER_SHAPES.items() if key in values), "")
        raise row.fail(
            f"no trajectory in it: expected 'turns' (ours), 'messages' (a chat log), or 'prompt' and 'completion' "
            f"(TRL) as lists of messages; it has {', '.join(map(repr, values)) or 'none'}{guess}"
        )
    given = [*(prompt if isinstance(prompt, list) else ()), *completion]
    _check_messages(row, given)
    if drop_nulls:
        completion = [{key: value for key, value in message.items() if value is not None} for message in completion]
    turns = turns_of_messages(completion, drop_nulls=drop_nulls)
    texts = [_content(message) for message in completion if _role(message) == "assistant"]
    _check_calls(row, turns, texts)
    roles = list(dict.fromkeys(str(_role(message)) for message in given))
    if given and not turns:
        raise row.fail(f"no message is an assistant's: its roles are {', '.join(map(repr, roles))}")
    text, group, identity = prompt_text(prompt), row.get(*GROUP_KEYS), row.get("id")
    if group is None and not text and turns:
        raise row.fail(
            "nothing says which rows are attempts at one task: expected 'group', 'group_id' or 'task_id', or a text of "
            "a user before the first turn"
        )
    name = f"row {row.index}" if identity is None else str(identity)
    shared = str(group) if group is not None else f"{label}{text}"
    return Log(
        id=name,
        group=shared,
        turns=turns,
        texts=texts,
        prompt=text,
        golds=_golds(row),
        outcome=_outcome(row, outcomes),
        seen=f"{row.place} has the roles {', '.join(roles) or 'none'} and the keys {', '.join(map(str, values))}",
        whole=CreditTrajectory(
            _credit_turns(completion, turns),
            id=name,
            task_id=shared,
            messages=prompt if isinstance(prompt, list) else [{"role": "user", "content": text}],
        ),
    )


def _credit_turns(completion: Sequence[Any], turns: Sequence[Sequence[Any]]) -> list[CreditTurn]:
    """Return the turns, each with the results (None for calls without results) and user messages that follow it."""
    starts = [index for index, message in enumerate(completion) if _role(message) == "assistant"]
    found: list[CreditTurn] = []
    for calls, start, end in zip(turns, starts, [*starts, len(completion)][1:], strict=True):
        after = completion[start + 1 : end]
        results = [_content(message) for message in after if _role(message) in _RESULTS]
        others = [dict(message) for message in after if _role(message) not in _RESULTS]
        found.append(
            CreditTurn(calls, results if results or not calls else None, _content(completion[start]), messages=others)
        )
    return found


def _check_messages(row: Row, messages: Iterable[Any]) -> None:
    """Raise InputError for an invalid message, an unknown role, or calls outside of `tool_calls`."""
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise row.fail(f"message {number} is {message!r:.100}: expected an object with role and content")
        role = message.get("role")
        if role not in _ROLES:
            named = f"the role {role!r:.100}" if role is not None else f"no role, but {name_some(list(message))}"
            raise row.fail(
                f"message {number} has {named}: expected system, developer, user, assistant (with its calls in "
                "tool_calls) or tool"
            )
        if role != "assistant":
            continue
        other = [key for key in message if "call" in str(key).lower() and key not in _CALL_KEYS and message[key]]
        if other:
            raise row.fail(f"message {number} of the assistant has calls in {other[0]!r}: expected them in tool_calls")
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        if not isinstance(content, list):
            raise row.fail(f"message {number} has content {content!r:.100}: expected text, or a list of parts")
        for part in content:
            kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
            if kind not in _TEXT_PARTS:
                raise row.fail(
                    f"message {number} of the assistant has a part of type {kind!r:.100}: expected text there, and "
                    "calls in tool_calls"
                )


def _check_calls(row: Row, turns: Sequence[Sequence[Any]], texts: Sequence[str]) -> None:
    """Raise InputError for calls in an unknown format, and for unparsed calls in the text."""
    for number, (calls, text) in enumerate(zip(turns, texts, strict=True)):
        for call in calls:
            if read_call(call) is None and not _is_shaped_as_call(call):
                raise row.fail(
                    f"a call of turn {number} is {call!r:.200}: expected name and arguments, or both under 'function'"
                )
        if not calls and (
            ("<tool_call>" in text and any(call.error is None for call in Hermes().parse(text).calls))
            or ("<result>" in text and any(turn.results for turn in Tags().turns(text)))
        ):
            raise row.fail(
                f"turn {number} has no tool_calls, but calls in its text: {text!r:.100}: expected them parsed, as "
                "tool_calls"
            )


def _is_shaped_as_call(call: Any) -> bool:
    """Return True if a malformed call has a known format, so that the error is the model's and not the importer's."""
    if not isinstance(call, Mapping):
        return False
    inner = call.get("function")
    if inner is not None:
        return isinstance(inner, Mapping) and _is_shaped_as_call({**inner, "function": None})
    known = {key for key, value in call.items() if value is not None}
    return known <= _CALL_FIELDS and bool(known & {"name", "arguments", "parameters", "error"})


def _golds(row: Row) -> list[Any] | None:
    """Return the row's gold calls from `gold_calls`, or from `ground_truth` unless that holds an answer."""
    for key in ("gold_calls", "ground_truth"):
        value = row.values.get(key)
        try:
            found = gold_calls(value, key)
        except ValueError as problem:
            if key == "ground_truth" and not _holds_objects(value):
                continue
            raise row.fail(str(problem)) from None
        if found is not None:
            return found
    return None


def _holds_objects(value: Any) -> bool:
    if isinstance(value, str):
        return value.lstrip().startswith("[") and "{" in value
    return isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value)


def _may_be_outcome(key: str, value: Any) -> bool:
    return isinstance(value, (int, float)) and key not in _NOT_OUTCOMES and not key.endswith(("_id", "_index"))


def _outcome(row: Row, names: Sequence[str]) -> float | None:
    """Return the sum of the named columns, or None if all of them are null or missing."""
    found = [row.values[name] for name in names if row.values.get(name) is not None]
    for value in found:
        if not isinstance(value, (int, float)):
            raise row.fail(f"the outcome {value!r:.200} is no number")
    return _finite(row, found) if found else None


def _finite(row: Row, values: Sequence[float]) -> float:
    try:
        number = math.fsum(values)
    except (OverflowError, ValueError):
        number = math.inf
    if not math.isfinite(number):
        shown = values[0] if len(values) == 1 else list(values)
        raise row.fail(f"the outcome {shown!r:.200} is not a finite number")
    return number


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def _content(message: Mapping[str, Any]) -> str:
    """Return the text of a message, joining content parts (OpenAI)."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return str(content or "")


IMPORTER: Final = Importer(logs=read_logs)
