"""LLaMA-Factory: sharegpt with function calls, and ranking records. Its rules (0.9.5, `data/converter.py`):

Roles alternate: human or observation, then gpt or function_call; SFT rows end with the second kind, the conversation of
a ranking row with the first. A row that breaks this is dropped there, so it is left out here and counted.
`function_call` holds a JSON call or a list of them behind the thought; the first thing in call tags is taken for it, so
a row whose model wrote such tags elsewhere too (a malformed call, a call in a thought) is left out as well.
`tools` is a JSON list; `chosen` and `rejected` are one message each: the turns in which the two sides differ are
flattened into its text.
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
"""Between two results of a turn, as its own converter of OpenAI records has it; the template adds the outer tags."""

_THOUGHT: Final = re.compile(r"\s*<think>((?:(?!</think>).)*)</think>\s*", re.DOTALL)
_CALL: Final = re.compile(r"<tool_call>.*?</tool_call>", re.DOTALL)

Shared = dict[str, str]


def export(sets: ExportSets, out: Path) -> list[Written]:
    """Write the sets, and their entries in `dataset_info.json`."""
    written = write_rows(sets, out, row)
    if written:
        write_dataset_info(out, [one.path.name for one in written])
    return written


def row(given: dict[str, Any]) -> dict[str, Any] | None:
    """An SFT or preference row in LLaMA-Factory's form, or None where the format cannot hold it."""
    tools = {"tools": json.dumps(given["tools"], ensure_ascii=False) if given["tools"] else ""}
    if "messages" in given:
        system, talk = _conversation(given["messages"])
        return {"conversations": talk, "system": system, **tools} if _holds(talk, ranking=False) else None
    chosen, rejected = list(given["chosen"]), list(given["rejected"])
    same = 0
    # Equal turns belong to the prompt, as long as both sides go on after them.
    for index, (left, right) in enumerate(zip(chosen[:-1], rejected[:-1], strict=False)):
        if left != right:
            break
        if chosen[index + 1]["role"] == rejected[index + 1]["role"] == "assistant":
            same = index + 1
    system, talk = _conversation([*given["prompt"], *chosen[:same]])
    if not chosen[same:] or not rejected[same:] or not _holds(talk, ranking=True):
        return None
    sides = {
        name: {"from": "gpt", "value": flattened(side[same:])}
        for name, side in (("chosen", chosen), ("rejected", rejected))
    }
    return {"conversations": talk, **sides, "system": system, **tools}


def flattened(messages: Sequence[Message]) -> str:
    """Several messages as one text: turns as the model wrote them, results in `<tool_response>` tags between them."""
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
    """The entries `rewright_<file>` of `dataset_info.json`; what else stands in it stays."""
    path = folder / "dataset_info.json"
    entries: dict[str, Any] = {}
    if path.exists():
        try:
            found = STRICT.decode(read_bounded(path).decode("utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise InputError(f"{path}: not LLaMA-Factory's dataset_info.json: expected a JSON object of data sets")
        entries = found
    for name in files:
        columns = {"messages": "conversations", "system": "system", "tools": "tools"}
        entry: dict[str, Any] = {"file_name": name, "formatting": "sharegpt", "columns": columns}
        if name.startswith("preferences"):
            entry |= {"ranking": True, "columns": {**columns, "chosen": "chosen", "rejected": "rejected"}}
        entries[f"rewright_{name.partition('.')[0]}"] = entry
    write_atomically(path, [json.dumps(entries, indent=2, ensure_ascii=False).encode() + b"\n"])


def _conversation(messages: Sequence[Message]) -> tuple[str, list[Shared]]:
    """The system text, and everything else with LLaMA-Factory's roles; neighbours of one role are joined."""
    system = ""
    if messages and messages[0]["role"] == "system":
        system, messages = str(messages[0]["content"]), messages[1:]
    talk: list[Shared] = []
    for message in messages:
        role, content = message["role"], str(message.get("content") or "")
        if role == "assistant":
            calls = message.get("tool_calls")
            new = {"from": "function_call", "value": _calls(content, calls)} if calls else _said("gpt", content)
        else:
            new = _said("observation" if role == "tool" else "human", content)
        if talk and talk[-1]["from"] == new["from"] and new["from"] in ("human", "observation"):
            joint = OBSERVATIONS if new["from"] == "observation" else "\n\n"
            talk[-1] = _said(new["from"], talk[-1]["value"] + joint + new["value"])
        else:
            talk.append(new)
    return system, talk


def _readable(value: str) -> bool:
    """Whether what is found in call tags is what `_calls` has written there (in JSON there are no line breaks)."""
    found = _CALL.search(value)
    return found is None or found.span() == (value.rfind("\n<tool_call>\n") + 1, len(value))


def _said(role: str, text: str) -> Shared:
    return {"from": role, "value": text}


def _calls(content: str, calls: Sequence[dict[str, Any]]) -> str:
    """A turn with calls: thought, then the call as JSON (several: a list), as `FunctionFormatter` reads it."""
    functions = [_function(call["function"]) for call in calls]
    written = _json(functions[0] if len(functions) == 1 else functions)
    thought = _THOUGHT.fullmatch(content)
    if thought:
        return f"<think>\n{thought[1].strip()}\n</think>\n\n{written}"
    # With more than a thought before it, the call is found by its tags.
    return f"{content}\n<tool_call>\n{written}\n</tool_call>" if content.strip() else written


def _function(function: dict[str, Any]) -> dict[str, Any]:
    return {"name": function["name"], "arguments": function["arguments"]}


def _json(value: Any) -> str:
    """JSON in which no closing tag can stand: it is found by searching for tags."""
    return json.dumps(value, ensure_ascii=False).replace("</", "<\\/")


def _holds(talk: Sequence[Shared], *, ranking: bool) -> bool:
    """Whether LLaMA-Factory takes the conversation, and reads the calls that were made."""
    if not all(_readable(message["value"]) for message in talk if message["from"] == "function_call"):
        return False
    sides = (("human", "observation"), ("gpt", "function_call"))
    in_order = all(message["from"] in sides[index % 2] for index, message in enumerate(talk))
    return bool(talk) and in_order and len(talk) % 2 == (1 if ranking else 0)
