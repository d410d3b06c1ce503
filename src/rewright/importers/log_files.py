"""Read the attempts in a log, whatever its format: `read_conversations`.

The format is found from the keys of each row. A row that could be of several formats, or of none, is an error that
lists them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.importers import atif, inspect_logs, tagged_texts, verifiers
from rewright.importers.containers import MESSAGE_FORMATS, holds_messages, looks_like_message, read_messages
from rewright.importers.conversation import Conversation, LogFormat, name_some
from rewright.importers.inspect_files import read_eval_file
from rewright.importers.text_calls import calls_from_text
from rewright.tasks.rows import Row, read_rows

__all__ = ["FORMAT_NAMES", "log_files_in", "read_conversations"]

_WHOLE: Final[tuple[LogFormat, ...]] = (atif.FORMAT, verifiers.FORMAT, inspect_logs.FORMAT)
_TEXTS: Final[tuple[LogFormat, ...]] = (tagged_texts.SEARCH_R1, tagged_texts.AUTOTRAJ, tagged_texts.HERMES)
_ALIASES: Final = {"chat-logs": None, "trl": None, "llama-factory": "sharegpt"}
"""Other names: of rows with messages in any convention (None), or of a convention."""
FORMAT_NAMES: Final = sorted([*(one.name for one in (*_WHOLE, *_TEXTS)), *(one.name for one in MESSAGE_FORMATS), "trl"])

_OTHERS: Final = {
    "extra_info": "a row of prompts for verl",
    "steps": "a trajectory without schema_version",
}


def read_conversations(path: Path, name: str | None = None) -> Iterator[Conversation]:
    """Yield the attempts in a file or folder, in order.

    `name` is a format; None finds it for each row. Raises InputError with file and row for what is not understood.
    """
    rows = _rows(path)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}: has no rows")
    every: Iterator[Row] = itertools.chain([first], rows)
    if first.problem is None and looks_like_message(first.values):
        every = iter([_one_conversation(path, every)])
    before: LogFormat | None = None
    for row in every:
        if row.problem is not None:
            raise InputError(row.problem)
        if _is_pair(row.values):
            raise row.fail(
                f"is no log of one attempt: it has the keys {_keys(row.values)} (it looks like a pair of a preference "
                "set): expected one attempt per row, such as the run that the pairs were made from"
            )
        found: Iterable[Conversation]
        if name is not None:
            found = _read_as(row, name)
        elif (chosen := _format_of(row, before)) is not None:
            before = chosen if chosen in _TEXTS else before
            found = chosen.read(row)
        else:
            found = [read_messages(row)]
        for conversation in found:
            yield _with_parsed_calls(conversation)


def _is_pair(values: Mapping[str, Any]) -> bool:
    """Whether a row has two attempts, a better and a worse one. Reading one of them alone would drop the other."""
    sides = [values.get(key) for key in ("chosen", "rejected")]
    sides_of_swift = [values.get(key) for key in ("rejected_messages", "rejected_response")]
    return all(isinstance(side, (str, list, Mapping)) for side in sides) or any(
        isinstance(side, (str, list)) and side for side in sides_of_swift
    )


def _rows(path: Path) -> Iterator[Row]:
    if path.suffix.lower() == ".eval":
        yield from read_eval_file(path)
        return
    if not path.is_dir():
        yield from read_rows(path, lists="messages")
        return
    files = log_files_in(path)
    if not files:
        raise InputError(
            f"{path}: is a folder without logs: expected traces.jsonl (verifiers), completions_*.parquet (TRL), *.eval "
            "(inspect_ai), or a file"
        )
    for file in files:
        yield from _rows(file)


def log_files_in(folder: Path) -> list[Path]:
    """Return the logs in the folder of a run of verifiers, TRL or inspect_ai; empty if it is another folder."""
    if (folder / "recipe.yaml").exists():
        return []
    if (folder / "traces.jsonl").exists():
        return [folder / "traces.jsonl"]
    patterns = ("completions_*.parquet", "completions/completions_*.parquet", "*.eval")
    return next((files for pattern in patterns if (files := sorted(folder.glob(pattern)))), [])


def _one_conversation(path: Path, rows: Iterator[Row]) -> Row:
    """Join a file whose rows are the messages of one conversation."""
    messages = []
    for row in rows:
        if row.problem is not None:
            raise InputError(row.problem)
        messages.append(row.values)
    return Row(0, str(path), {"messages": messages})


def _format_of(row: Row, before: LogFormat | None) -> LogFormat | None:
    """Return the format of a row; None if its messages are in a list.

    `before` is the format of an earlier row with the attempt as one text. It is also that of a text without any tag.
    """
    values = row.values
    whole = next((one for one in _WHOLE if one.matches(values)), None)
    if whole is not None:
        return whole
    lists = holds_messages(values)
    texts = [one for one in _TEXTS if one.matches(values)]
    if lists and not texts:
        return None
    candidates = [*(f"messages in {key!r}" for key in lists), *(one.name for one in texts)]
    if len(candidates) > 1:
        raise row.fail(
            f"is ambiguous: it could be {' or '.join(candidates)}: choose the format with --format; it has the keys "
            f"{_keys(values)}"
        )
    if texts:
        return texts[0]
    if tagged_texts.has_text(values):
        return before or tagged_texts.HERMES
    guess = next((f" (it looks like {what})" for key, what in _OTHERS.items() if key in values), "")
    raise row.fail(
        f"not a log that is known: it has the keys {_keys(values)}{guess}; expected one of {', '.join(FORMAT_NAMES)} "
        "(docs/logs.md), or Rewright's own trajectories"
    )


def _read_as(row: Row, name: str) -> Iterator[Conversation]:
    convention = next((one for one in MESSAGE_FORMATS if one.name == _ALIASES.get(name, name)), None)
    chosen = next((one for one in (*_WHOLE, *_TEXTS) if one.name == name), None)
    as_messages = chosen in _TEXTS and holds_messages(row.values) and not tagged_texts.has_text(row.values)
    if convention is not None or name in _ALIASES or as_messages:
        yield read_messages(row, convention)
        return
    if chosen is None:
        raise InputError(f"--format: unknown log format {name!r}: expected one of {', '.join(FORMAT_NAMES)}")
    if chosen in _WHOLE and not chosen.matches(row.values):
        raise row.fail(f"is not of the format {name}: expected {chosen.about}; it has the keys {_keys(row.values)}")
    yield from chosen.read(row)


def _with_parsed_calls(conversation: Conversation) -> Conversation:
    if conversation.kept is not None:  # our own export: what is in a text is no call
        return conversation
    turns, dialect = calls_from_text(conversation.turns)
    return replace(conversation, turns=turns, dialect=conversation.dialect or dialect)


def _keys(values: Mapping[str, Any]) -> str:
    return name_some(list(map(str, values))).removesuffix(", …") if len(values) <= 12 else name_some(list(values))
