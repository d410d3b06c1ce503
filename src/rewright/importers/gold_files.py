"""Gold calls and answers in a file of their own, for `rewright credit --gold` and `rewright import --gold`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.core.strict_json import STRICT
from rewright.credit.allowed import allowed_parts
from rewright.credit.messages import arguments_of, gold_calls, name_of
from rewright.importers.chat_logs import PROMPT_KEYS, prompt_text
from rewright.importers.containers import GROUP_KEYS
from rewright.importers.conversation import Conversation, decoded, name_some
from rewright.importers.names import renamed
from rewright.tasks.rows import Row, read_rows

__all__ = ["ANSWER_COLUMNS", "GoldCalls", "answers_in", "read_gold"]

_GOLD_KEYS: Final = ("gold_calls", "calls", "gold", "ground_truth")
ANSWER_COLUMNS: Final = (
    "gold_answers", "gold_answer", "golden_answers", "answers", "answer", "ground_truth", "target", "gts", "gold",
    "expected_answer", "reference_answer", "reference", "expected", "reward_model",
)  # fmt: skip
"""Columns that hold gold answers, in order of precedence."""


@dataclass(frozen=True, slots=True)
class GoldCalls:
    """Gold calls by task id, by the text of the prompt, or one list for every trajectory; gold answers likewise."""

    by_id: dict[str, list[Any]]
    by_prompt: dict[str, list[Any]]
    for_all: list[Any] | None = None
    answers_by_id: dict[str, tuple[str, ...]] = field(default_factory=dict)
    answers_by_prompt: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, stored: Any) -> list[Any] | None:
        """Return the gold calls of a `rewright.reports.stored_credit.Stored`, or None."""
        return self.find([stored.task_id or stored.group or ""], stored.prompt)[0]

    def find(self, names: Sequence[str | None], prompt: str) -> tuple[list[Any] | None, tuple[str, ...] | None]:
        """Return the gold calls and answers of the first of the names that has some, else those of the prompt."""
        known = [name for name in names if name is not None]
        calls = next((self.by_id[name] for name in known if name in self.by_id), self.by_prompt.get(prompt))
        answers = next(
            (self.answers_by_id[name] for name in known if name in self.answers_by_id),
            self.answers_by_prompt.get(prompt),
        )
        return calls if self.for_all is None else self.for_all, answers


class LazyGold:
    """The gold calls of a file, as `GoldCalls`, that is read when they are first asked for. `read`: reads it."""

    def __init__(self, read: Callable[[], GoldCalls]) -> None:
        self._read = read

    @cached_property
    def calls(self) -> GoldCalls:
        """The gold calls. Raises as `read_gold` does."""
        return self._read()

    def of(self, stored: Any) -> list[Any] | None:
        """Return the gold calls of a trajectory, or None."""
        return self.calls.of(stored)


def read_gold(
    path: Path | str, *, allowed_values: bool = False, prefixes: Sequence[str] = (), answers: bool = False
) -> GoldCalls:
    """Read gold calls from a file.

    The file is either one list of calls for all trajectories (a .json file), or rows: Rewright's tasks (`id`,
    `gold.calls`), or any rows with `id`, `task_id` or `prompt` and with `gold_calls`, `calls` or `ground_truth` (for
    verl also in `extra_info`). With `allowed_values`, arguments are lists of allowed values, even if the call's format
    (`rewright.credit.allowed`) does not indicate that. `prefixes` are removed from the names of the calls. With
    `answers` gold answers are read too, and rows may have those alone. Raises InputError for invalid input, and for an
    id with conflicting calls.
    """
    path = Path(path)
    if path.suffix == ".json" and (calls := _one_list(path)) is not None:
        try:
            calls = [renamed(call, prefixes) for call in calls] if prefixes else calls
            return GoldCalls({}, {}, gold_calls([_allowing(call) for call in calls]) if allowed_values else calls)
        except ValueError as problem:
            raise InputError(f"{path}: {problem}") from None
    found = GoldCalls({}, {})
    rows, columns = 0, ""
    for row in read_rows(path):
        if row.problem is not None:
            raise InputError(row.problem)
        rows, columns = rows + 1, columns or name_some(list(row.values))
        extra = row.values.get("extra_info")
        values = {**extra, **row.values} if isinstance(extra, Mapping) else row.values
        gold = values.get("gold")
        if isinstance(gold, Mapping):
            key, value = "gold.calls", gold.get("calls")
        else:
            key, value = next(((key, values[key]) for key in _GOLD_KEYS if values.get(key) is not None), ("", None))
        try:
            calls = gold_calls(value, key)
            if calls is not None and prefixes:
                calls = [renamed(call, prefixes) for call in calls]
            if allowed_values and calls is not None:
                calls = gold_calls([_allowing(call) for call in calls], key)
        except ValueError as problem:
            if not (answers and key == "ground_truth" and _answers(value)):
                raise row.fail(str(problem)) from None
            calls = None
        names = _names(values)
        _keep(row, names, (found.by_id, found.by_prompt), calls, "gold calls")
        if answers:
            own = gold.get("answers") if isinstance(gold, Mapping) else None
            texts = _answers(own) or _row_answers(values, None)
            _keep(row, names, (found.answers_by_id, found.answers_by_prompt), texts, "gold answers")
    if not (found.by_id or found.by_prompt or found.answers_by_id or found.answers_by_prompt):
        raise InputError(
            f"{path}: none of its {rows} rows has gold calls{' or answers' if answers else ''}: expected gold.calls, "
            f"{', '.join(_GOLD_KEYS[:-1])} or {_GOLD_KEYS[-1]}; the first has {columns}"
        )
    return found


def _names(values: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the ids and the prompts of a row."""
    names = [str(values[key]) for key in ("id", *GROUP_KEYS) if values.get(key) is not None]
    return names, [text for key in (*PROMPT_KEYS, "question") if (text := prompt_text(values.get(key)))]


def _keep(
    row: Row,
    named: tuple[list[str], list[str]],
    places: tuple[dict[str, Any], dict[str, Any]],
    gold: Any,
    what: str,
) -> None:
    """Store the gold of a row under its ids and its prompts. Raises InputError if it contradicts an earlier row."""
    if gold is None:
        return
    (names, prompts), (by_id, by_prompt) = named, places
    if not names and not prompts:
        raise row.fail(f"has {what}, but no 'id', 'task_id' or 'prompt' that says whose they are")
    for name in names:
        if by_id.setdefault(name, gold) != gold:
            raise row.fail(f"{name!r} has other {what} in an earlier row")
    for text in prompts:
        if by_prompt.setdefault(text, gold) != gold and not names:
            raise row.fail(f"the prompt {text[:60]!r} has other {what} in an earlier row, and there is no id")


def answers_in(found: Conversation, column: str | None = None) -> tuple[str, ...] | None:
    """Return the gold answers of an attempt: from its format, or from the column (default: `ANSWER_COLUMNS`).

    "none" means that there are none. Raises InputError for a column that the row lacks.
    """
    if column == "none":
        return None
    if column is not None and column not in found.columns:
        have = ", ".join(map(repr, found.columns)) or "none"
        raise found.row.fail(f"no column {column!r} of the gold answer; it has {have}")
    if column is None and found.gold_answers is not None:
        return tuple(found.gold_answers) or None
    return _row_answers(found.columns, column)


def _row_answers(values: Mapping[str, Any], column: str | None) -> tuple[str, ...] | None:
    columns = ANSWER_COLUMNS if column is None else (column,)
    return next((texts for key in columns if (texts := _answers(values.get(key))) is not None), None)


def _answers(value: Any) -> tuple[str, ...] | None:
    """Return a cell of gold answers: a text or a number, a list of them, or an object with them under a known key."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str):
        given = decoded(value) if value.lstrip().startswith(("[", "{")) else value
        return _answers(given) if not isinstance(given, str) else (value.strip(),) if value.strip() else None
    if isinstance(value, bool):
        return (str(value).lower(),)
    if isinstance(value, (int, float)):
        return (str(int(value) if float(value).is_integer() else value),)
    if isinstance(value, Mapping):
        keys = ("target", "ground_truth", "answers", "answer")  # "answers": also of `gold` in Rewright's tasks
        return next((texts for key in keys if (texts := _answers(value.get(key))) is not None), None)
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, (str, int, float)) for one in value):
        return tuple(dict.fromkeys(text for one in value for text in _answers(one) or ())) or None
    return None


def _one_list(path: Path) -> list[Any] | None:
    """Return the list of calls if a .json file is one, or None if it holds rows."""
    try:
        value = STRICT.decode(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # the reader of rows reports the error
    if not isinstance(value, list) or not value or any("gold" in item for item in value if isinstance(item, dict)):
        return None
    try:
        gold_calls(value)
    except ValueError:
        return None
    return value


def _allowing(call: Any) -> Any:
    """Return a gold call whose arguments are interpreted as lists of allowed values."""
    return call if allowed_parts(call) is not None else {"name": name_of(call), "allowed": arguments_of(call)}
