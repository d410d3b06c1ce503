"""Trajectories out of logs of other projects: chat messages (`messages`) and TRL's tables (`prompt`, `completion`).

A row is read whole or refused: roles, calls and texts that are not understood are an error that names what was found.
Read as turns without calls they would get credit 0, which looks like a model that did nothing.

Not here: gold calls and credit (`rewright.reports.stored_credit`), our own files, the shapes of calls
(`rewright.credit.calls`).
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
"""Columns of numbers that nobody would take for the outcome; others than these are asked about."""

_RESULTS: Final = frozenset({"tool", "function", "ipython", "observation", "environment", "tool_response"})
_ROLES: Final = frozenset({"system", "developer", "user", "assistant", *_RESULTS})

_CALL_KEYS: Final = frozenset({"tool_calls", "function_call", "tool_call_id"})
_CALL_FIELDS: Final = frozenset({"name", "arguments", "parameters", "function", "error", "id", "type", "index"})
_TEXT_PARTS: Final = frozenset({"text", "output_text", "refusal", "reasoning", "thinking", "redacted_thinking"})
_MARKS: Final = (
    "<tool_call>", "<function=", "<function_call>", "<invoke", "<|python_tag|>", "[TOOL_CALLS]", "<search>", "<python>",
    "<code>", "```tool_code", "\nAction:", '"arguments":', '"parameters":',
)  # fmt: skip
"""How models write calls as text. Where such text is all there is, the log has not been parsed."""

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
    """One row: the parts of a `rewright.reports.stored_credit.Stored`.

    `seen`: what the row holds, for messages. `whole`: all that is known of the trajectory, for signals that see more
    than calls; None where nothing more is.
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
    """The rows of a file, in order.

    `outcome` names the column of the outcome, several are added up, "none" says that there is none. Without it the
    outcome is the column `reward`; a file that has other columns of numbers in its place is an error that names them.
    Raises InputError with file and row for what is not understood.
    """
    names = (outcome,) if isinstance(outcome, str) else tuple(outcome or ())
    drop_nulls = path.suffix == ".parquet"  # every row of a table has every column
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
    """Raise InputError where no turn or no call at all was read from logs of which some have gold calls.

    `logs` have `turns`, `texts`, `golds` and `seen` (a `Log`, or what was made of one).
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
    """How calls seem to be written in the texts of a log of which no call was read; None where nothing looks so."""
    if any(log.turns):
        return None
    return next((mark.strip() for text in log.texts for mark in _MARKS if mark in text), None)


def prompt_text(prompt: Any) -> str:
    """The text of the last message of a prompt that a person or program wrote (a text is taken as it is)."""
    if isinstance(prompt, str):
        return prompt
    for message in reversed(prompt if isinstance(prompt, list) else []):
        if _role(message) in ("user", "system"):
            return _content(message)
    return ""


def name_some(keys: Sequence[str]) -> str:
    """A few names for a message; `…` where there may be more."""
    return ", ".join(repr(key[:60]) for key in keys) + ", …" if keys else "none"


def _read(row: Row, outcomes: Sequence[str], *, drop_nulls: bool) -> Log:
    """A chat log or a row of a completions table. Raises InputError for what is not understood."""
    values = row.values
    label = ""
    if isinstance(values.get("completion"), list) and values.get("prompt") is not None:
        prompt, spoken = values["prompt"], values["completion"]
        label = f"step {values['step']}, " if "step" in values else ""
    elif isinstance(values.get("messages"), list):
        messages = values["messages"]
        first = next((i for i, message in enumerate(messages) if _role(message) == "assistant"), len(messages))
        prompt, spoken = messages[:first], messages[first:]
    else:
        guess = next((f": it looks like {what}" for key, what in _OTHER_SHAPES.items() if key in values), "")
        raise row.fail(
            f"no trajectory in it: expected 'turns' (ours), 'messages' (a chat log), or 'prompt' and 'completion' "
            f"(TRL) as lists of messages; it has {', '.join(map(repr, values)) or 'none'}{guess}"
        )
    given = [*(prompt if isinstance(prompt, list) else ()), *spoken]
    _check_messages(row, given)
    if drop_nulls:
        spoken = [{key: value for key, value in message.items() if value is not None} for message in spoken]
    turns = turns_of_messages(spoken, drop_nulls=drop_nulls)
    texts = [_content(message) for message in spoken if _role(message) == "assistant"]
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
            _credit_turns(spoken, turns),
            id=name,
            task_id=shared,
            messages=prompt if isinstance(prompt, list) else [{"role": "user", "content": text}],
        ),
    )


def _credit_turns(spoken: Sequence[Any], turns: Sequence[Sequence[Any]]) -> list[CreditTurn]:
    """The turns with what followed each: results (None where there are calls and no results), what the user said."""
    places = [place for place, message in enumerate(spoken) if _role(message) == "assistant"]
    found: list[CreditTurn] = []
    for calls, start, end in zip(turns, places, [*places, len(spoken)][1:], strict=True):
        after = spoken[start + 1 : end]
        results = [_content(message) for message in after if _role(message) in _RESULTS]
        said = [dict(message) for message in after if _role(message) not in _RESULTS]
        found.append(
            CreditTurn(calls, results if results or not calls else None, _content(spoken[start]), messages=said)
        )
    return found


def _check_messages(row: Row, messages: Iterable[Any]) -> None:
    """Raise InputError for the first message that is none, has an unknown role, or calls in parts of its content."""
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
    """Raise InputError for calls of an unknown shape, and for calls that stand unread in the text."""
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
    """Whether a malformed call is at least one of a known shape, so that the model is to blame and not the reader."""
    if not isinstance(call, Mapping):
        return False
    inner = call.get("function")
    if inner is not None:
        return isinstance(inner, Mapping) and _is_shaped_as_call({**inner, "function": None})
    known = {key for key, value in call.items() if value is not None}
    return known <= _CALL_FIELDS and bool(known & {"name", "arguments", "parameters", "error"})


def _golds(row: Row) -> list[Any] | None:
    """The row's own gold calls: `gold_calls`, or a `ground_truth` that holds calls (elsewhere it is an answer)."""
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
    """The sum of the named columns; None where all of them are null or absent."""
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
    """The text of a message, also of one in parts (OpenAI)."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return str(content or "")


IMPORTER: Final = Importer(logs=read_logs)
