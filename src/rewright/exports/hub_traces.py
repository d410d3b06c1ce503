"""Export session traces for the trace viewer of the Hugging Face Hub: one `.jsonl` file for each trajectory.

Two formats, both a line of type `session` followed by lines of type `message`:

- `hub-traces`: the Session Trace Simple Format of the Hub's documentation (`docs/hub/session-traces-format.md` in
  huggingface/hub-docs, July 2026): `toolCalls` with JSON text, results with `toolCallId`.
- `pi-sessions`: version 3 of Pi's session format, which that page names as the alternative, and which `datasets` and
  trackio read and write: content blocks, `toolCall` with an object, results with the role `toolResult`.

The header also has the key `rewright` with the task, the reward and all that the formats have no field for. Token ids
are not exported.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from rewright.core.errors import StorageError
from rewright.core.records import Message
from rewright.core.storage import refuse_special
from rewright.exports.attempts import Attempt, AttemptFile, RunAttempts, SpokenCall, text_of
from rewright.exports.base import AttemptExporter, Written, make_folder, portable_line

__all__ = ["EXPORTER", "PI_EXPORTER", "file_name", "pi_session", "session"]

HARNESS: Final = "rewright"
_PI_VERSION: Final = 3
_TITLE_CHARACTERS: Final = 120
_NAME_CHARACTERS: Final = 80
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")

Session = Iterator[dict[str, Any]]


def file_name(identity: str) -> str:
    """Return the name of the file of a trajectory: its id where that is a portable name, else with a digest."""
    safe = _UNSAFE.sub("-", identity).strip("-.")[:_NAME_CHARACTERS]
    if safe != identity:
        safe += "-" + hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{safe}.jsonl"


def session(attempt: Attempt, created: float) -> Session:
    """Yield the lines of a trajectory in the Hub's format. `created`: seconds since the epoch."""
    yield {"type": "session", "harness": HARNESS, **_header(attempt)}
    stamp = {"timestamp": int(created * 1000)}
    model = attempt.trajectory.provenance.model
    prompt = [_plain_message(message, number) for number, message in enumerate(attempt.prompt)]
    for message in prompt:
        yield {"type": "message", "message": {**message, **stamp}}
    for spoken in attempt.turns:
        said: dict[str, Any] = {"role": "assistant", "content": spoken.text, "model": model}
        said |= {"reasoningContent": spoken.thought} if spoken.thought else {}
        said |= {"toolCalls": [_plain_call(call) for call in spoken.calls]} if spoken.calls else {}
        results = [
            {"role": "tool", "toolCallId": call.id, "content": call.result.content}
            for call in spoken.calls
            if call.result is not None
        ]
        after = [_plain_message(message, 0) for message in spoken.follow_up]
        for message in [said, *results, *after]:
            yield {"type": "message", "message": {**message, **stamp}}


def pi_session(attempt: Attempt, created: float) -> Session:
    """Yield the lines of a trajectory in Pi's format. `created`: seconds since the epoch."""
    stamp = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    header = {"version": _PI_VERSION, "timestamp": stamp, "cwd": "/", "harness": HARNESS, **_header(attempt)}
    yield {"type": "session", **header}
    parent: str | None = None
    for number, message in enumerate(_pi_messages(attempt)):
        identity = f"{number:08x}"
        yield {"type": "message", "id": identity, "parentId": parent, "timestamp": stamp, "message": message}
        parent = identity


def _header(attempt: Attempt) -> dict[str, Any]:
    one = attempt.trajectory
    asked = next((text_of(message.get("content")) for message in attempt.prompt if message["role"] == "user"), "")
    about: dict[str, Any] = {"task_id": one.task_id}
    about |= {} if attempt.reward is None else {"reward": attempt.reward}
    return {
        "id": one.id,
        "name": " ".join(asked.split())[:_TITLE_CHARACTERS] or one.task_id,
        "rewright": {**about, **attempt.gold(), **attempt.about(), "tools": attempt.schemas},
    }


def _plain_message(message: Message, number: int) -> dict[str, Any]:
    role, text = message["role"], text_of(message.get("content"))
    found: dict[str, Any] = {"role": "system" if role == "developer" else role, "content": text}
    calls = [
        _plain_function(str(call.get("id") or f"prompt_{number}_{index}"), call["function"])
        for index, call in enumerate(message.get("tool_calls") or ())
    ]
    return found | ({"toolCalls": calls} if calls else {})


def _plain_call(spoken: SpokenCall) -> dict[str, Any]:
    call = spoken.call
    if call.error is not None:
        return {"id": spoken.id, "function": {"name": call.name, "arguments": call.raw}}
    return _plain_function(spoken.id, {"name": call.name, "arguments": call.arguments})


def _plain_function(identity: str, function: dict[str, Any]) -> dict[str, Any]:
    arguments = msgspec.json.encode(function["arguments"]).decode()
    return {"id": identity, "function": {"name": str(function["name"]), "arguments": arguments}}


def _pi_messages(attempt: Attempt) -> Iterator[dict[str, Any]]:
    for number, message in enumerate(attempt.prompt):
        yield from _pi_message(message, number)
    one = attempt.trajectory
    for spoken, (prompt, generated) in zip(attempt.turns, attempt.tokens_per_turn(), strict=True):
        blocks = [{"type": "thinking", "thinking": spoken.thought}] if spoken.thought else []
        blocks += [_text(spoken.text)] if spoken.text else []
        blocks += [_pi_call(call) for call in spoken.calls]
        reasons = {"tool_calls": "toolUse", "length": "length", "stop": "stop"}
        said: dict[str, Any] = {
            "role": "assistant",
            "content": blocks,
            "model": one.provenance.model,
            "provider": HARNESS,
            "stopReason": reasons[spoken.finish_reason],
        }
        if prompt is not None and generated is not None:
            total = prompt + generated
            counts = {"input": prompt, "output": generated, "cacheRead": 0, "cacheWrite": 0, "totalTokens": total}
            said["usage"] = counts
        yield said
        for call in spoken.calls:
            if call.result is not None:
                yield {
                    "role": "toolResult",
                    "toolCallId": call.id,
                    "toolName": call.call.name or "unknown",
                    "content": [_text(call.result.content)],
                    "isError": call.result.error is not None,
                }
        for message in spoken.follow_up:
            yield from _pi_message(message, 0)


def _pi_message(message: Message, number: int) -> Iterator[dict[str, Any]]:
    role, text = message["role"], text_of(message.get("content"))
    if role == "tool":
        name = str(message.get("name") or "unknown")
        yield {"role": "toolResult", "toolCallId": f"prompt_{number}", "toolName": name, "content": [_text(text)]}
        return
    blocks = [_text(text)]
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        identity = str(call.get("id") or f"prompt_{number}_{index}")
        blocks.append(_pi_block(identity, str(function["name"]), function["arguments"]))
    # Pi has no role `system`; trackio writes `developer`, which the viewer shows.
    yield {"role": "developer" if role == "system" else role, "content": blocks}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _pi_call(spoken: SpokenCall) -> dict[str, Any]:
    call = spoken.call
    if call.error is not None:
        return _pi_block(spoken.id, call.name or "unknown", {"malformed_call": call.raw})
    return _pi_block(spoken.id, call.name, call.arguments)


def _pi_block(identity: str, name: str, arguments: Any) -> dict[str, Any]:
    return {"type": "toolCall", "id": identity, "name": name, "arguments": arguments}


def _write(attempts: RunAttempts, out: Path, lines: Callable[[Attempt, float], Session]) -> list[Written]:
    return [_write_sessions(file, out / file.name, lines) for file in attempts.files]


def _write_sessions(file: AttemptFile, folder: Path, lines: Callable[[Attempt, float], Session]) -> Written:
    """Write a folder of sessions. Its files are written elsewhere first, so that a full disk changes nothing in it."""
    make_folder(folder)
    created, count = file.created, 0
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            for attempt in file:
                name = file_name(attempt.trajectory.id)
                refuse_special(folder / name)
                (Path(temporary) / name).write_bytes(b"".join(map(portable_line, lines(attempt, created))))
                count += 1
            for path in Path(temporary).iterdir():
                path.replace(folder / path.name)
    except OSError as problem:
        raise StorageError(f"cannot write {folder}: {problem.strerror or problem}") from problem
    return Written(folder, count)


EXPORTER: Final = AttemptExporter(lambda attempts, out: _write(attempts, out, session))
PI_EXPORTER: Final = AttemptExporter(lambda attempts, out: _write(attempts, out, pi_session))
