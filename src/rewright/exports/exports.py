"""The sets of a run in the formats of other trainers: `rewright export`. docs/exports.md says what each file holds.

Read are `sft.jsonl` and `preferences.jsonl` (conversations in the Hugging Face convention) and, for verl, the tasks.
Held-out pairs go into a file of their own. Whatever the format: what a tool returned is text, so control tokens and
tags in it are broken up, also those of tokenizers that this run never saw.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Required, TypedDict

from rewright.core.errors import InputError, StorageError
from rewright.core.escaping import common_pattern, escape_control_tokens
from rewright.core.records import Message
from rewright.core.storage import encode_line, read_checked, write_atomically
from rewright.dialects import get_dialect
from rewright.engines.wire import messages_to_wire
from rewright.exports import autotraj, llama_factory, swift, verl
from rewright.pipeline.registry import get_stage
from rewright.pipeline.run_directory import Run

__all__ = ["ExportFormat", "Written", "export"]

ExportFormat = Literal["trl", "openai", "llama-factory", "ms-swift", "verl", "autotraj"]

Row = dict[str, Any]


class _Function(TypedDict):
    name: str
    arguments: Any


class _Call(TypedDict):
    function: _Function


class _Message(TypedDict, total=False):
    role: Required[str]
    content: str | None
    tool_calls: list[_Call] | None


class _Conversation(TypedDict):
    """What must hold of a row of sft.jsonl, whatever else is in it."""

    messages: list[_Message]
    tools: list[dict[str, Any]]


class _Pair(TypedDict):
    """What must hold of a row of preferences.jsonl."""

    prompt: list[_Message]
    chosen: list[_Message]
    rejected: list[_Message]
    tools: list[dict[str, Any]]


class Written(NamedTuple):
    """One file, how many rows it has, and how many the format cannot hold."""

    path: Path
    rows: int
    left_out: int = 0


def export(run: Run, out: Path, export_format: ExportFormat) -> list[Written]:
    """Write the sets of a run into the folder `out`, which is made. Existing files of the same names are replaced.

    Raises InputError for a run that has nothing to export, or nothing that the format can hold, and StorageError where
    nothing can be written.
    """
    run.require([get_stage("build")])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise StorageError(f"cannot make {out}: {problem.strerror or problem}") from problem
    pattern = common_pattern(get_dialect(run.recipe().dialect).control_words)
    keys = ("messages", "prompt", "chosen", "rejected")

    def rows(name: str, kind: Any) -> list[Row]:
        return [
            {
                **row,
                **{
                    key: neutral(row[key], lambda text: escape_control_tokens(text, pattern))
                    for key in keys
                    if key in row
                },
            }
            for _, row in read_checked(run.path / name, kind)
        ]

    sft = rows("sft.jsonl", _Conversation)
    pairs = rows("preferences.jsonl", _Pair)
    sets = {
        "sft": sft,
        "preferences": [pair for pair in pairs if pair.get("split") != "heldout"],
        "preferences_heldout": [pair for pair in pairs if pair.get("split") == "heldout"],
    }
    if export_format == "verl":
        written = _verl(run, out, sft)
    else:
        convert = {
            "trl": _trl,
            "openai": _openai,
            "llama-factory": llama_factory.row,
            "ms-swift": swift.row,
            "autotraj": autotraj.row,
        }
        converted = {name: [convert[export_format](row) for row in given] for name, given in sets.items() if given}
        if converted and not any(row is not None for rows in converted.values() for row in rows):
            raise InputError(
                f"{run.path}: {export_format} can hold none of its {sum(map(len, converted.values()))} rows "
                f"(dialect {run.recipe().dialect}): docs/exports.md says what it holds"
            )
        written = [_write_lines(out / f"{name}.jsonl", rows) for name, rows in converted.items()]
        if export_format == "llama-factory" and written:
            llama_factory.write_dataset_info(out, [one.path.name for one in written])
    if not written:
        raise InputError(f"{run.path} has nothing to export: expected sft.jsonl or preferences.jsonl (rewright build)")
    return written


def neutral(messages: Iterable[Message], escape: Callable[[str], str]) -> list[Message]:
    """`messages` with the text of their tools made plain text."""
    return [
        {**message, "content": escape(str(message.get("content") or ""))} if message.get("role") == "tool" else message
        for message in messages
    ]


def _trl(row: Row) -> Row:
    return {key: row[key] for key in ("messages", "prompt", "chosen", "rejected", "tools") if key in row}


def _openai(row: Row) -> Row:
    return {key: value if key == "tools" else messages_to_wire(value) for key, value in _trl(row).items()}


def _write_lines(path: Path, converted: Sequence[Row | None]) -> Written:
    kept = [row for row in converted if row is not None]
    write_atomically(path, (encode_line(row) for row in kept))
    return Written(path, len(kept), len(converted) - len(kept))


def _verl(run: Run, out: Path, sft: list[Row]) -> list[Written]:
    tables: dict[str, list[Mapping[str, Any]]] = {
        "sft": [verl.sft_row(row) for row in sft],
        "rl_train": [verl.prompt_row(run.recipe(), task, index) for index, task in enumerate(run.tasks)],
        "rl_test": [verl.prompt_row(run.recipe(), task, index) for index, task in enumerate(run.eval_tasks)],
    }
    return [
        Written(verl.write_parquet(out / f"{name}.parquet", rows), len(rows)) for name, rows in tables.items() if rows
    ]


def as_json(value: Any) -> str:
    """`value` as JSON text, as every format here wants its tools."""
    return json.dumps(value, ensure_ascii=False)
