"""Export to inspect_ai: one `.eval` log (format 2) for each stored file, as `read_eval_log` and `inspect view` open it.

A sample is a trajectory. Its id is that of the task, and its epoch is the number of the attempt. It has the messages
with calls and results, a model event with the tools for every turn, the score `outcome`, the token usage, and the
failure as `error`. Token ids, for which the format has no place, are not exported.

A log is a ZIP file of JSON. It is written with the standard library, sample by sample.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, cast
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from rewright.core.records import Message, ToolResult
from rewright.core.storage import encode_line
from rewright.core.version import VERSION
from rewright.exports.attempts import Attempt, AttemptFile, RunAttempts, SpokenCall, SpokenTurn, text_of
from rewright.exports.base import AttemptExporter, Written, write_attempts

__all__ = ["EXPORTER", "sample", "schema_for_inspect"]

SCORE: Final = "outcome"
_VERSION: Final = 2
_COMPRESSION_LEVEL: Final = 5
_SUMMARY_CHARACTERS: Final = 1000
"""Length of texts in the summaries of samples. inspect_ai shortens them, too."""

_STOPS: Final = {"length": "max_tokens", "tool_calls": "tool_calls", "stop": "stop"}
_TYPES: Final = ("string", "integer", "number", "boolean", "array", "object", "null")
_SUMMARY_KEYS: Final = ("id", "epoch", "input", "target", "scores", "model_usage", "total_time", "working_time", "uuid")


def _write(attempts: RunAttempts, out: Path) -> list[Written]:
    def chunks(file: AttemptFile, samples: Any) -> Iterator[bytes]:
        return _archive(attempts, file, samples)

    return write_attempts(attempts, out, "{}.eval", lambda attempt, file: sample(attempt, file.created), chunks)


def sample(attempt: Attempt, created: float) -> dict[str, Any]:
    """Convert a trajectory to a sample. `created`: seconds since the epoch."""
    one = attempt.trajectory
    model = one.provenance.model
    given = [_input(message, number) for number, message in enumerate(attempt.prompt)]
    messages = list(given)
    tools = [_tool(function) for function in attempt.functions]
    events: list[dict[str, Any]] = []
    output: dict[str, Any] = {"model": model, "choices": []}
    for spoken, counts in zip(attempt.turns, attempt.tokens_per_turn(), strict=True):
        said = _assistant(spoken, model)
        choice = {"message": said, "stop_reason": _STOPS[spoken.finish_reason]}
        output = {"model": model, "choices": [choice], "usage": _usage(*counts)}
        events.append(
            {
                "event": "model",
                "timestamp": _iso(created),
                "working_start": 0.0,
                "model": model,
                "input": [],
                "input_refs": [[0, len(messages)]],
                "tools": tools,
                "tool_choice": "auto",
                "config": {},
                "output": output,
            }
        )
        messages.append(said)
        messages += [_result(call) for call in spoken.calls if call.result is not None]
        messages += [_input(message, len(messages)) for message in spoken.follow_up]
    gold = attempt.gold()
    failure = one.failure
    text = "" if failure is None else f"{failure.label}: {failure.message}"
    return {
        "id": one.task_id,
        "epoch": attempt.number,
        "input": given,
        "target": gold.pop("gold_answers", []),
        "messages": messages,
        "output": output,
        "scores": _scores(attempt),
        "metadata": {**gold, "rewright": attempt.about()},
        "store": {},
        "events": events,
        "events_data": {"messages": messages, "calls": []},
        "model_usage": {model: _usage(*attempt.usage)},
        "total_time": one.seconds,
        "working_time": one.seconds,
        "uuid": one.id,
        "error": None if failure is None else {"message": text, "traceback": text, "traceback_ansi": text},
        "attachments": {},
    }


def schema_for_inspect(schema: Any) -> dict[str, Any]:
    """Return the part of a JSON Schema that inspect_ai's `JSONSchema` can hold; it refuses any other value."""
    if not isinstance(schema, Mapping):
        return {}
    kind, found = schema.get("type"), dict[str, Any]()
    if kind in _TYPES if isinstance(kind, str) else isinstance(kind, list) and all(one in _TYPES for one in kind):
        found["type"] = kind
    found |= {key: schema[key] for key in ("description", "format") if isinstance(schema.get(key), str)}
    found |= {key: schema[key] for key in ("enum",) if isinstance(schema.get(key), list)}
    found |= {key: schema[key] for key in ("default",) if key in schema}
    if isinstance(schema.get("items"), Mapping):
        found["items"] = schema_for_inspect(schema["items"])
    if isinstance(schema.get("properties"), Mapping):
        found["properties"] = {str(key): schema_for_inspect(part) for key, part in schema["properties"].items()}
    if isinstance(schema.get("anyOf"), list):
        found["anyOf"] = [schema_for_inspect(part) for part in schema["anyOf"]]
    if isinstance(schema.get("required"), list):
        found["required"] = [name for name in schema["required"] if isinstance(name, str)]
    if isinstance(schema.get("additionalProperties"), bool):
        found["additionalProperties"] = schema["additionalProperties"]
    return found


def _tool(function: Mapping[str, Any]) -> dict[str, Any]:
    parameters = schema_for_inspect(function.get("parameters"))
    kept = {key: parameters[key] for key in ("properties", "required", "additionalProperties") if key in parameters}
    return {
        "name": str(function.get("name")),
        "description": str(function.get("description") or ""),
        "parameters": {"type": "object", **kept},
    }


def _input(message: Message, number: int) -> dict[str, Any]:
    role, text = message["role"], text_of(message.get("content"))
    if role == "assistant":
        calls = [
            {
                "id": str(call.get("id") or f"prompt_{number}_{index}"),
                "function": str(call["function"]["name"]),
                "arguments": call["function"]["arguments"],
            }
            for index, call in enumerate(message.get("tool_calls") or ())
        ]
        return {"role": role, "content": text, "source": "input"} | ({"tool_calls": calls} if calls else {})
    if role == "tool":
        return {"role": role, "content": text, "source": "input", "function": message.get("name")}
    return {"role": "system" if role in ("system", "developer") else "user", "content": text, "source": "input"}


def _assistant(spoken: SpokenTurn, model: str) -> dict[str, Any]:
    content: Any = spoken.text
    if spoken.thought:
        content = [{"type": "reasoning", "reasoning": spoken.thought}]
        content += [{"type": "text", "text": spoken.text}] if spoken.text else []
    message = {"role": "assistant", "content": content, "source": "generate", "model": model}
    return message | ({"tool_calls": [_call(call) for call in spoken.calls]} if spoken.calls else {})


def _call(spoken: SpokenCall) -> dict[str, Any]:
    call = spoken.call
    found: dict[str, Any] = {"id": spoken.id, "function": call.name, "arguments": call.arguments, "type": "function"}
    return found if call.error is None else {**found, "parse_error": f"{call.error}: {call.raw.strip()}"}


def _result(spoken: SpokenCall) -> dict[str, Any]:
    result = spoken.result
    assert result is not None
    message: dict[str, Any] = {
        "role": "tool",
        "content": result.content,
        "tool_call_id": spoken.id,
        "function": spoken.call.name,
    }
    return message if result.error is None else {**message, "error": _tool_error(result)}


def _tool_error(result: ToolResult) -> dict[str, str]:
    kind = str(result.error).partition(":")[0]
    types = {"malformed": "parsing", "timeout": "timeout"}
    return {"type": types.get(kind, "unknown"), "message": str(result.error)}


def _scores(attempt: Attempt) -> dict[str, Any] | None:
    verdict = attempt.verdict
    if verdict is None:
        return None if attempt.reward is None else {SCORE: {"value": attempt.reward}}
    score = {"value": verdict.outcome, "answer": verdict.answer, "explanation": verdict.reason}
    return {SCORE: score | ({"metadata": verdict.metrics} if verdict.metrics else {})}


def _usage(prompt: int | None, generated: int | None) -> dict[str, int]:
    given, new = prompt or 0, generated or 0
    return {"input_tokens": given, "output_tokens": new, "total_tokens": given + new}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


class _Sink:
    """What a ZIP archive writes, until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


class _Totals:
    """What the header of a log says about its samples."""

    def __init__(self) -> None:
        self.samples = self.failed = self.scored = self.epochs = 0
        self.score = 0.0
        self.ids: dict[str, None] = {}
        self.usage: dict[str, dict[str, int]] = {}

    def add(self, given: Mapping[str, Any]) -> None:
        self.samples += 1
        self.failed += given["error"] is not None
        self.epochs = max(self.epochs, given["epoch"])
        self.ids[given["id"]] = None
        if given["scores"]:
            self.scored += 1
            self.score += given["scores"][SCORE]["value"]
        for model, counts in given["model_usage"].items():
            total = self.usage.setdefault(model, dict.fromkeys(counts, 0))
            for key, count in counts.items():
                total[key] += count


def _archive(attempts: RunAttempts, file: AttemptFile, samples: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Yield the content of a log. Only one sample is in memory; the summaries are collected in a temporary file."""
    sink, totals = _Sink(), _Totals()
    with ZipFile(cast("IO[bytes]", sink), "w", ZIP_DEFLATED) as archive, tempfile.TemporaryFile() as summaries:
        for given in samples:
            archive.writestr(_entry(f"samples/{given['id']}_epoch_{given['epoch']}.json"), encode_line(given))
            summaries.write(b"[" if not totals.samples else b",")
            summaries.write(encode_line(_summary(given)))
            totals.add(given)
            yield sink.take()
        summaries.write(b"]")
        summaries.seek(0)
        with archive.open(_entry("summaries.json"), "w") as entry:
            while part := summaries.read(2**20):
                entry.write(part)
                yield sink.take()
        archive.writestr(_entry("header.json"), encode_line(_header(attempts, file, totals)))
        yield sink.take()
    yield sink.take()


def _entry(name: str) -> ZipInfo:
    entry = ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type = ZIP_DEFLATED
    entry._compresslevel = _COMPRESSION_LEVEL  # type: ignore[attr-defined]  # public from Python 3.13
    return entry


def _summary(given: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: given[key] for key in _SUMMARY_KEYS}
    asked = [message["content"] for message in given["input"] if message["role"] == "user"]
    found["input"] = "\n\n".join(asked)[:_SUMMARY_CHARACTERS]
    found["target"] = [answer[:_SUMMARY_CHARACTERS] for answer in given["target"]]
    found["error"] = None if given["error"] is None else given["error"]["message"][:_SUMMARY_CHARACTERS]
    if given["scores"]:
        score = given["scores"][SCORE]
        texts = {key: score[key][:_SUMMARY_CHARACTERS] for key in ("answer", "explanation") if score.get(key)}
        found["scores"] = {SCORE: {"value": score["value"], **texts}}
    return {**found, "completed": True, "message_count": len(given["messages"])}


def _header(attempts: RunAttempts, file: AttemptFile, totals: _Totals) -> dict[str, Any]:
    created = _iso(file.created)
    digest = hashlib.blake2b(f"{attempts.name}/{file.name}/{created}".encode(), digest_size=11).hexdigest()
    scores = []
    if totals.scored:
        mean = {"name": "mean", "value": totals.score / totals.scored}
        counts = {"scored_samples": totals.scored, "unscored_samples": totals.samples - totals.scored}
        scores = [{"name": SCORE, "scorer": SCORE, **counts, "metrics": {"mean": mean}}]
    return {
        "version": _VERSION,
        "status": "success",
        "eval": {
            "eval_id": digest,
            "run_id": digest,
            "created": created,
            "task": f"{attempts.name}/{file.name}",
            "task_id": digest,
            "task_version": 0,
            "dataset": {"name": file.name, "samples": len(totals.ids), "sample_ids": list(totals.ids)},
            "model": next(iter(totals.usage), "") or attempts.model,
            "config": {"epochs": totals.epochs},
            "packages": {"rewright": VERSION},
            "scorers": [{"name": SCORE}],
        },
        "plan": {"name": "rewright", "steps": []},
        "results": {
            "total_samples": totals.samples,
            "completed_samples": totals.samples - totals.failed,
            "scores": scores,
        },
        "stats": {"started_at": created, "completed_at": created, "model_usage": totals.usage},
    }


EXPORTER: Final = AttemptExporter(_write)
