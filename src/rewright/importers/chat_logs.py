"""Turns, gold calls and outcomes of the attempts in a log, for `rewright credit`.

A log that is not understood is an error: if it were skipped, turns would appear to have no calls and get credit 0.

Not here: the formats (`rewright.importers.log_files`), credit (`rewright.reports.stored_credit`), Rewright's own files
(`rewright.importers.own`), and call formats (`rewright.credit.calls`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rewright.core.errors import InputError
from rewright.core.records import ToolCall
from rewright.core.strict_json import STRICT
from rewright.credit.calls import read_call
from rewright.credit.messages import credit_turns, gold_calls, name_of, turns_of_messages
from rewright.credit.trajectories import CreditTrajectory
from rewright.importers.containers import GROUP_KEYS
from rewright.importers.conversation import Conversation, name_some
from rewright.importers.log_files import read_conversations
from rewright.importers.names import without_prefixes
from rewright.importers.turns import to_call
from rewright.tasks.rows import Row

__all__ = [
    "PROMPT_KEYS",
    "Log",
    "check_read",
    "golds_of",
    "has_turn_scores",
    "is_of_table",
    "names_apart",
    "outcome_of",
    "prompt_text",
    "question_of",
    "read_logs",
    "unread_calls",
    "with_outcome",
]

PROMPT_KEYS: Final = ("prompt", "messages")

_OUTCOME: Final = "reward"
_REQUEST: Final = (
    "created", "created_at", "completed_at", "timestamp", "temperature", "top_p", "top_k", "n", "stream", "store",
    "max_tokens", "max_output_tokens", "max_tool_calls", "parallel_tool_calls", "top_logprobs", "frequency_penalty",
    "presence_penalty", "background", "latency", "latency_ms",
)  # fmt: skip
"""Parameters of requests and facts about replies, which logs of servers have beside the messages."""
_NOT_OUTCOMES: Final = frozenset({"id", "index", "step", "advantage", "seed", "epoch", *GROUP_KEYS, *_REQUEST})
"""Numeric columns that are never the outcome. If there are others, the user must choose one."""

_CALL_FIELDS: Final = frozenset({"name", "arguments", "parameters", "function", "error", "id", "type", "index"})
_MARKS: Final = (
    "<tool_call>", "<function=", "<function_call>", "<invoke", "<|python_tag|>", "[TOOL_CALLS]", "<search>", "<python>",
    "<code>", "```tool_code", "\nAction:", '"arguments":', '"parameters":',
)  # fmt: skip
"""Markers of calls in model output. If calls occur only as text, the log has not been parsed."""


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


def read_logs(
    path: Path,
    outcome: str | Sequence[str] | None = None,
    *,
    prefixes: Sequence[str] = (),
    reader: Callable[[Path], Iterator[Conversation]] | None = None,
) -> Iterator[Log]:
    """Yield the attempts in a file, in order.

    `outcome` names the outcome column; several are summed, and "none" means that there is no outcome. The default is
    the column `reward`; if it is missing and there are other numeric columns, an error lists them. `prefixes` are
    removed from the names of tools. `reader` is that of a format; None finds the format. Raises InputError with file
    and row for invalid input.
    """
    found = (read_conversations if reader is None else reader)(path)
    for conversation, names in with_outcome(path, found, outcome):
        yield _log(without_prefixes(conversation, prefixes), names)


def with_outcome(
    path: Path, conversations: Iterable[Conversation], outcome: str | Sequence[str] | None, *, ask: bool = True
) -> Iterator[tuple[Conversation, tuple[str, ...]]]:
    """Yield each conversation with the names of the columns whose sum is its outcome (see `read_logs`).

    Without `ask` no outcome is read where it is not clear which column it is, instead of an error.
    """
    names = (outcome,) if isinstance(outcome, str) else tuple(outcome or ())
    missing = dict.fromkeys(names or (_OUTCOME,))
    candidates: dict[str, None] = {}
    columns: list[str] = []
    for conversation in conversations:
        columns = columns or list(conversation.columns)
        for name in [name for name in missing if name in conversation.columns]:
            del missing[name]
        if not names:
            candidates.update((key, None) for key, value in conversation.columns.items() if _may_be_outcome(key, value))
        yield conversation, names or (_OUTCOME,)
    if ask and not names and missing and candidates:
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


def names_apart(logs: Sequence[Any]) -> str | None:
    """Say that no call has the name of a gold call, and which prefix would explain it; None if some call has.

    `logs` are objects with `turns` and `golds`, such as `Log`.
    """
    golds = {name.lower(): name for log in logs for gold in log.golds or () if (name := name_of(gold)) is not None}
    calls = {
        name.lower(): name for log in logs for turn in log.turns for call in turn if (name := name_of(call)) is not None
    }
    if not golds or not calls or golds.keys() & calls.keys():
        return None
    shown, wanted = next(iter(calls.values())), next(iter(golds.values()))
    said = f"no call has the name of a gold call: the calls are to {shown!r}, the gold calls to {wanted!r}"
    for one, other in ((calls, golds), (golds, calls)):
        for lower, name in one.items():
            found = next((end for end in other if lower.endswith(end) and not lower[: -len(end)][-1:].isalnum()), None)
            if found is not None:
                return f"{said}; --strip-prefix {name[: -len(found)]} makes them equal"
    return said


def prompt_text(prompt: Any) -> str:
    """Return the text of the last user or system message of a prompt. A prompt that is text is returned unchanged."""
    if isinstance(prompt, str):
        return prompt
    for message in reversed(prompt if isinstance(prompt, list) else []):
        if isinstance(message, Mapping) and message.get("role") in ("user", "system"):
            content = message.get("content")
            if isinstance(content, list):
                content = "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
            return str(content or "")
    return ""


def _log(found: Conversation, outcomes: Sequence[str]) -> Log:
    """Convert an attempt. Raises InputError for invalid calls, gold calls and outcomes."""
    row, drop_nulls = found.row, is_of_table(found.row)
    turns = turns_of_messages(found.turns, drop_nulls=drop_nulls)
    texts = [str(message["content"]) for message in found.turns if message["role"] == "assistant"]
    _check_calls(row, turns)
    # As `rewright import` reads them; a malformed call is shown as it is.
    turns = [[call if (read := to_call(call)).error else read for call in calls] for calls in turns]
    text = question_of(found)
    if found.messages and not turns:
        raise row.fail(f"no message is an assistant's: its roles are {', '.join(map(repr, found.roles))}")
    if found.group is None and not text and turns:
        raise row.fail(
            "nothing says which rows are attempts at one task: expected 'group', 'group_id' or 'task_id', or a text of "
            "a user before the first turn"
        )
    name = f"row {row.index}" if found.id is None else found.id
    shared = found.group if found.group is not None else f"{found.label}{text}"
    return Log(
        id=name,
        group=shared,
        turns=turns,
        texts=texts,
        prompt=text,
        golds=golds_of(found),
        outcome=outcome_of(found, outcomes),
        seen=f"{row.place} has the roles {', '.join(found.roles) or 'none'} and the keys "
        f"{', '.join(map(str, row.values))}",
        whole=CreditTrajectory(
            credit_turns(found.turns, turns),
            id=name,
            task_id=shared,
            messages=list(found.prompt),
            scores=_turn_scores(found, len(turns)),
        ),
    )


def has_turn_scores(found: Conversation) -> bool:
    """Whether a record has a column of scores of its turns, which the signal `score` reads."""
    return bool(_column_of_scores(found))


def _turn_scores(found: Conversation, count: int) -> list[float | None] | None:
    """The scores after each of `count` turns, and before them (None if that is not given), from a column of them."""
    value = _column_of_scores(found)
    return [None, *value] if value is not None and len(value) == count else value


def _column_of_scores(found: Conversation) -> list[float | None] | None:
    for key in ("turn_scores", "scores"):
        value = found.columns.get(key)
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = _decoded(value)
        if isinstance(value, list | tuple) and all(
            one is None or (isinstance(one, int | float) and not isinstance(one, bool)) for one in value
        ):
            return list(value)
    return None


def _decoded(text: str) -> Any:
    try:
        return STRICT.decode(text)
    except ValueError:
        return None


def is_of_table(row: Row) -> bool:
    """Whether a row is of a parquet file, which fills missing keys with nulls."""
    return ".parquet" in row.place.partition(": row ")[0][-8:]


def question_of(found: Conversation) -> str:
    """Return the text of the question, by which attempts without a group belong together."""
    return found.prompt_text if found.prompt_text is not None else prompt_text(list(found.prompt))


def _check_calls(row: Row, turns: Sequence[Sequence[Any]]) -> None:
    """Raise InputError for calls in an unknown format."""
    for number, calls in enumerate(turns):
        for call in calls:
            if read_call(call) is None and not _is_shaped_as_call(call):
                raise row.fail(
                    f"a call of turn {number} is {call!r:.200}: expected name and arguments, or both under 'function'"
                )


def _is_shaped_as_call(call: Any) -> bool:
    """Return True if a malformed call has a known format, so that the error is the model's and not the importer's."""
    if isinstance(call, ToolCall):
        return True
    if not isinstance(call, Mapping):
        return False
    inner = call.get("function")
    if inner is not None:
        return isinstance(inner, Mapping) and _is_shaped_as_call({**inner, "function": None})
    known = {key for key, value in call.items() if value is not None}
    return known <= _CALL_FIELDS and bool(known & {"name", "arguments", "parameters", "error"})


def golds_of(found: Conversation) -> list[Any] | None:
    """Return the gold calls from `gold_calls`, `gold.calls`, or `ground_truth` unless that holds an answer."""
    if found.gold_calls is not None:
        return list(found.gold_calls)
    gold = found.columns.get("gold")
    own = gold.get("calls") if isinstance(gold, Mapping) else None
    for key, value in (
        ("gold_calls", found.columns.get("gold_calls")),
        ("gold.calls", own),
        ("ground_truth", found.columns.get("ground_truth")),
    ):
        try:
            calls = gold_calls(value, key)
        except ValueError as problem:
            if key == "ground_truth" and not _holds_objects(value):
                continue
            raise found.row.fail(str(problem)) from None
        if calls is not None:
            return calls
    return None


def _holds_objects(value: Any) -> bool:
    if isinstance(value, str):
        return value.lstrip().startswith("[") and "{" in value
    return isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value)


def _may_be_outcome(key: str, value: Any) -> bool:
    return isinstance(value, (int, float)) and key not in _NOT_OUTCOMES and not key.endswith(("_id", "_index"))


def outcome_of(found: Conversation, names: Sequence[str]) -> float | None:
    """Return the sum of the named columns, or None if all of them are null or missing."""
    values = [found.columns[name] for name in names if found.columns.get(name) is not None]
    for value in values:
        if not isinstance(value, (int, float)):
            raise found.row.fail(f"the outcome {value!r:.200} is not a number")
    return _finite(found.row, values) if values else None


def _finite(row: Row, values: Sequence[float]) -> float:
    try:
        number = math.fsum(values)
    except (OverflowError, ValueError):
        number = math.inf
    if not math.isfinite(number):
        shown = values[0] if len(values) == 1 else list(values)
        raise row.fail(f"the outcome {shown!r:.200} is not a finite number")
    return number
