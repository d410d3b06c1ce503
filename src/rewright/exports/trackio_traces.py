"""Export to trackio (0.43) as its traces: the project database `rewright.db`, which trackio reads from TRACKIO_DIR.

Each stored file is a run `NAME/FILE` with one trace per trajectory: what `trackio.Trace` stores, messages in OpenAI's
convention, metadata, and spans for generations (with token usage) and calls (with time and error). The run also has one
row of metrics, without which trackio does not list it.

The database is written with the standard library. Its tables are those that trackio creates; a later version of trackio
migrates them as it migrates its own. In an existing database, the runs of these names are replaced and everything else
is kept. Token ids are not exported.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from rewright.core.errors import InputError, StorageError
from rewright.core.records import Message
from rewright.core.storage import encode_line, refuse_special
from rewright.exports.attempts import Attempt, AttemptFile, RunAttempts, SpokenCall, text_of
from rewright.exports.base import AttemptExporter, Written
from rewright.pipeline.rl_rollouts import step_of

__all__ = ["EXPORTER", "PROJECT", "trace"]

PROJECT: Final = "rewright"
KEY: Final = "trajectory"
"""Name under which the traces are logged."""

_SCHEMA_VERSION: Final = 2
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, timestamp TEXT NOT NULL,
  run_name TEXT NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL, log_id TEXT, space_id TEXT);
CREATE TABLE IF NOT EXISTS configs (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, run_name TEXT NOT NULL,
  config TEXT NOT NULL, created_at TEXT NOT NULL, UNIQUE(run_id));
CREATE TABLE IF NOT EXISTS system_metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL,
  timestamp TEXT NOT NULL, run_name TEXT NOT NULL, metrics TEXT NOT NULL, log_id TEXT, space_id TEXT);
CREATE TABLE IF NOT EXISTS traces (id TEXT PRIMARY KEY, run_id TEXT NOT NULL, timestamp TEXT NOT NULL,
  run_name TEXT NOT NULL, step INTEGER NOT NULL, key TEXT NOT NULL, trace_index INTEGER, messages TEXT NOT NULL,
  metadata TEXT NOT NULL, search_text TEXT NOT NULL, log_id TEXT, space_id TEXT, spans TEXT NOT NULL DEFAULT '[]');
"""
_INSERT: Final = (
    "INSERT INTO traces (id, run_id, timestamp, run_name, step, key, messages, metadata, search_text, spans) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def trace(attempt: Attempt) -> dict[str, Any]:
    """Convert a trajectory to the fields of a `trackio.Trace`: `messages`, `metadata` and `spans`."""
    one = attempt.trajectory
    messages = [_message(message, number) for number, message in enumerate(attempt.prompt)]
    spans: list[dict[str, Any]] = []
    for number, (spoken, counts) in enumerate(zip(attempt.turns, attempt.tokens_per_turn(), strict=True)):
        said: dict[str, Any] = {"role": "assistant", "content": spoken.text}
        said |= {"reasoning_content": spoken.thought} if spoken.thought else {}
        said |= {"tool_calls": [_call(call) for call in spoken.calls]} if spoken.calls else {}
        messages.append(said)
        generation = {"id": f"turn_{number}", "name": "generate", "kind": "generation", "status": "ok"}
        spans.append({**generation, "model": one.provenance.model, "output": spoken.text, "usage": _usage(*counts)})
        for call in spoken.calls:
            if call.result is not None:
                messages.append({"role": "tool", "tool_call_id": call.id, "content": call.result.content})
                spans.append(_tool_span(call, f"turn_{number}"))
        messages += [_message(message, len(messages)) for message in spoken.follow_up]
    about: dict[str, Any] = {"task_id": one.task_id, "status": "ok" if one.failure is None else "error"}
    about |= {"duration_ms": one.seconds * 1000}
    about |= {} if attempt.reward is None else {"reward": attempt.reward}
    return {"messages": messages, "metadata": {**about, **attempt.gold(), "rewright": attempt.about()}, "spans": spans}


def _message(message: Message, number: int) -> dict[str, Any]:
    found = {"role": message["role"], "content": text_of(message.get("content"))}
    calls = [
        _function(str(call.get("id") or f"prompt_{number}_{index}"), call["function"]["name"], call["function"])
        for index, call in enumerate(message.get("tool_calls") or ())
    ]
    return found | ({"tool_calls": calls} if calls else {})


def _call(spoken: SpokenCall) -> dict[str, Any]:
    call = spoken.call
    if call.error is not None:
        return {"id": spoken.id, "type": "function", "function": {"name": call.name, "arguments": call.raw}}
    return _function(spoken.id, call.name, {"arguments": call.arguments})


def _function(identity: str, name: str, function: dict[str, Any]) -> dict[str, Any]:
    arguments = msgspec.json.encode(function["arguments"]).decode()
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def _tool_span(spoken: SpokenCall, parent: str) -> dict[str, Any]:
    call, result = spoken.call, spoken.result
    assert result is not None
    span: dict[str, Any] = {
        "id": spoken.id,
        "parent_id": parent,
        "name": call.name or "malformed call",
        "kind": "tool",
        "input": call.arguments if call.error is None else call.raw,
        "output": result.content,
        "duration_ms": result.seconds * 1000,
        "status": "ok" if result.error is None else "error",
    }
    return span if result.error is None else {**span, "error": result.error}


def _usage(prompt: int | None, generated: int | None) -> dict[str, int]:
    return {"prompt_tokens": prompt or 0, "completion_tokens": generated or 0}


def _write(attempts: RunAttempts, out: Path) -> list[Written]:
    path = out / f"{PROJECT}.db"
    refuse_special(path)
    new = not path.exists()
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            _prepare(database)
            database.execute("BEGIN IMMEDIATE")
            try:
                rows = sum(_write_run(database, attempts, file) for file in attempts.files)
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
    except BaseException as problem:
        if new:
            path.unlink(missing_ok=True)
        if isinstance(problem, sqlite3.OperationalError) and "no such column" not in str(problem):
            raise StorageError(f"cannot write {path}: {problem}") from problem
        if isinstance(problem, sqlite3.Error):
            raise InputError(f"{path}: is no project database of trackio that can be written here: {problem}") from None
        raise
    return [Written(path, rows)]


def _prepare(database: sqlite3.Connection) -> None:
    """Create trackio's tables where they are missing."""
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    database.executescript(_TABLES)
    if not tables:
        database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    columns = {row[1] for row in database.execute("PRAGMA table_info(traces)")}
    if "spans" not in columns:
        database.execute("ALTER TABLE traces ADD COLUMN spans TEXT NOT NULL DEFAULT '[]'")


def _write_run(database: sqlite3.Connection, attempts: RunAttempts, file: AttemptFile) -> int:
    name = f"{attempts.name}/{file.name}"
    run = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    for table in ("metrics", "configs", "traces"):
        database.execute(f"DELETE FROM {table} WHERE run_id = ?", (run,))
    rewards: list[float] = []
    count = 0

    def rows() -> Iterator[tuple[Any, ...]]:
        nonlocal count
        for attempt in file:
            found = trace(attempt)
            identity = f"{run}:{attempt.trajectory.id}"
            step = step_of(attempt.trajectory.id) or 0
            # The time keeps the order of the file, by which trackio sorts.
            when = _iso(file.created + count * 1e-6)
            if attempt.reward is not None:
                rewards.append(attempt.reward)
            count += 1
            words = f"{identity} {KEY} {' '.join(_words([found['messages'], found['metadata']]))}".lower()
            texts = (_json(found[key]) for key in ("messages", "metadata"))
            yield (identity, run, when, name, step, KEY, *texts, words, _json(found["spans"]))

    database.executemany(_INSERT, rows())
    metrics: dict[str, Any] = {"trajectories": count}
    metrics |= {"reward": sum(rewards) / len(rewards)} if rewards else {}
    when = _iso(file.created)
    database.execute(
        "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES (?, ?, ?, 0, ?)",
        (run, when, name, _json(metrics)),
    )
    database.execute(
        "INSERT INTO configs (run_id, run_name, config, created_at) VALUES (?, ?, ?, ?)",
        (run, name, _json({"_Created": when, "_Username": "rewright", "model": attempts.model}), when),
    )
    return count


def _words(value: Any) -> Iterator[str]:
    """Yield the values that trackio's search looks at."""
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            pending += reversed(part.values())
        elif isinstance(part, list):
            pending += reversed(part)
        elif part is not None:
            yield str(part)


def _json(value: Any) -> str:
    return encode_line(value).decode().rstrip("\n")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


EXPORTER: Final = AttemptExporter(_write)
