"""Export to LLaMA-Factory: sharegpt with function calls, and ranking records.

Its rules (0.9.5, `data/converter.py`):

- Roles alternate: human or observation, then gpt or function_call. SFT rows end with the second kind, the conversation
  of a ranking row with the first. LLaMA-Factory drops other rows, so they are skipped and counted here.
- `function_call` holds a JSON call or a list of them after the thought. LLaMA-Factory parses the first text in call
  tags, so rows with such tags elsewhere (a malformed call, a call in a thought) are skipped too.
- `tools` is a JSON list. `chosen` and `rejected` are one message each, so the turns in which the two sides differ are
  flattened into one text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.core.records import Message
from rewright.core.storage import read_bounded, write_atomically
from rewright.core.strict_json import STRICT
from rewright.exports.base import ExportSets, Written, write_rows

__all__ = ["export", "flattened", "row", "write_dataset_info"]

OBSERVATIONS: Final = "\n</tool_response>\n<tool_response>\n"
"""Separator of two results of a turn, as in LLaMA-Factory's OpenAI converter. The template adds the outer tags."""

_THOUGHT: Final = re.compile(r"\s*<think>((?:(?!</think>).)*)</think>\s*", re.DOTALL)
_CALL: Final = re.compile(r"<tool_call>.*?</tool_call>", re.DOTALL)

ShareGPTMessage = dict[str, str]


def export(sets: ExportSets, out: Path) -> list[Written]:
    """Write the sets and their entries in `dataset_info.json`."""
    written = write_rows(sets, out, row)
    if written:
        write_dataset_info(out, [file.path.name for file in written])
    return written


def row(given: dict[str, Any]) -> dict[str, Any] | None:
    """Convert an SFT or preference row, or return None if the format can't represent it."""
    tools = {"tools": json.dumps(given["tools"], ensure_ascii=False) if given["tools"] else ""}
    if "messages" in given:
        system, turns = _conversation(given["messages"])
        return {"conversations": turns, "system": system, **tools} if _is_valid(turns, ranking=False) else None
    chosen, rejected = list(given["chosen"]), list(given["rejected"])
    shared_count = 0
    # Turns shared by both sides move to the prompt, except for the last turn of either side.
    for index, (left, right) in enumerate(zip(chosen[:-1], rejected[:-1], strict=False)):
        if left != right:
            break
        if chosen[index + 1]["role"] == rejected[index + 1]["role"] == "assistant":
            shared_count = index + 1
    system, turns = _conversation([*given["prompt"], *chosen[:shared_count]])
    # A side that begins with a user's message (a simulated user opened the two conversations differently) has no place.
    if any(side[:1] and side[0]["role"] == "user" for side in (chosen, rejected)):
        return None
    if not chosen[shared_count:] or not rejected[shared_count:] or not _is_valid(turns, ranking=True):
        return None
    sides = {
        name: {"from": "gpt", "value": flattened(side[shared_count:])}
        for name, side in (("chosen", chosen), ("rejected", rejected))
    }
    return {"conversations": turns, **sides, "system": system, **tools}


def flattened(messages: Sequence[Message]) -> str:
    """Join messages into one text: turns as the model wrote them, with results in `<tool_response>` tags."""
    parts: list[str] = []
    for message in messages:
        content = str(message.get("content") or "")
        if message["role"] == "tool":
            parts.append(f"<tool_response>\n{content}\n</tool_response>")
            continue
        calls = [f"<tool_call>\n{_json(call['function'])}\n</tool_call>" for call in message.get("tool_calls") or ()]
        parts += [part for part in (content, *calls) if part]
    return "\n".join(parts)


def write_dataset_info(folder: Path, files: Sequence[str]) -> None:
    """Add the entries `rewright_<file>` to `dataset_info.json`, and keep its other entries."""
    path = folder / "dataset_info.json"
    entries: dict[str, Any] = {}
    if path.exists():
        try:
            existing = STRICT.decode(read_bounded(path).decode("utf-8"))
        except ValueError:
            existing = None
        if not isinstance(existing, dict):
            raise InputError(f"{path}: not LLaMA-Factory's dataset_info.json: expected a JSON object of data sets")
        entries = existing
    for name in files:
        columns = {"messages": "conversations", "system": "system", "tools": "tools"}
        entry: dict[str, Any] = {"file_name": name, "formatting": "sharegpt", "columns": columns}
        if name.startswith("preferences"):
            entry |= {"ranking": True, "columns": {**columns, "chosen": "chosen", "rejected": "rejected"}}
        entries[f"rewright_{name.partition('.')[0]}"] = entry
    write_atomically(path, [json.dumps(entries, indent=2, ensure_ascii=False).encode() + b"\n"])


def _conversation(messages: Sequence[Message]) -> tuple[str, list[ShareGPTMessage]]:
    """Return the system text, and the other messages with LLaMA-Factory's roles. Adjacent equal roles are merged."""
    system = ""
    if messages and messages[0]["role"] == "system":
        system, messages = str(messages[0]["content"]), messages[1:]
    turns: list[ShareGPTMessage] = []
    for message in messages:
        role, content = message["role"], str(message.get("content") or "")
        if role == "assistant":
            calls = message.get("tool_calls")
            new = {"from": "function_call", "value": _calls(content, calls)} if calls else _message("gpt", content)
        else:
            new = _message("observation" if role == "tool" else "human", content)
        if turns and turns[-1]["from"] == new["from"] and new["from"] in ("human", "observation"):
            joint = OBSERVATIONS if new["from"] == "observation" else "\n\n"
            turns[-1] = _message(new["from"], turns[-1]["value"] + joint + new["value"])
        else:
            turns.append(new)
    return system, turns


def _has_parseable_call(value: str) -> bool:
    """Return True if the text in call tags is the one written by `_calls` (whose JSON has no line breaks)."""
    match = _CALL.search(value)
    return match is None or match.span() == (value.rfind("\n<tool_call>\n") + 1, len(value))


def _message(role: str, text: str) -> ShareGPTMessage:
    return {"from": role, "value": text}


def _calls(content: str, calls: Sequence[dict[str, Any]]) -> str:
    """Return a turn with calls as `FunctionFormatter` parses it: the thought, then one JSON call or a list."""
    functions = [_function(call["function"]) for call in calls]
    written = _json(functions[0] if len(functions) == 1 else functions)
    thought = _THOUGHT.fullmatch(content)
    if thought:
        return f"<think>\n{thought[1].strip()}\n</think>\n\n{written}"
    # With text other than a thought before it, LLaMA-Factory finds the call only by its tags.
    return f"{content}\n<tool_call>\n{written}\n</tool_call>" if content.strip() else written


def _function(function: dict[str, Any]) -> dict[str, Any]:
    return {"name": function["name"], "arguments": function["arguments"]}


def _json(value: Any) -> str:
    """Encode as JSON without closing tags, because LLaMA-Factory searches the text for tags."""
    return json.dumps(value, ensure_ascii=False).replace("</", "<\\/")


def _is_valid(turns: Sequence[ShareGPTMessage], *, ranking: bool) -> bool:
    """Return True if LLaMA-Factory accepts the conversation and parses its calls correctly."""
    if not all(_has_parseable_call(message["value"]) for message in turns if message["from"] == "function_call"):
        return False
    sides = (("human", "observation"), ("gpt", "function_call"))
    in_order = all(message["from"] in sides[index % 2] for index, message in enumerate(turns))
    return bool(turns) and in_order and len(turns) % 2 == (1 if ranking else 0)
