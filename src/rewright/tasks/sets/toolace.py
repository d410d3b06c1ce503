"""Format `toolace`: ToolACE, dialogues whose calls are written as `[Name(argument=value), Other Name()]`.

Columns: system (its text has the list of tools), conversations (from: user, assistant, tool). The instruction about the
notation of calls is removed from the system message, since the dialect of a run writes its own.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from rewright.core.records import Task, ToolCall
from rewright.core.strict_json import STRICT
from rewright.dialects.literals import decode_value
from rewright.tasks.formats import RowFormat
from rewright.tasks.function_rows import FunctionSet, Said, conversation_task
from rewright.tasks.rows import LeftOutError, Row
from rewright.tasks.sets.sharegpt import parts_of

__all__ = ["FORMAT", "bracket_calls", "to_task"]

SET = FunctionSet("toolace", "Team-ACE/ToolACE", "apache-2.0")
_INSTRUCTION = re.compile(
    r"You are an expert in composing functions\.|You are given a question and a set of possible functions\.|"
    r"Based on the question, you will need to make one or more function/tool calls to achieve the purpose\.|"
    r"If none of the functions? can be used, point it out\.|"
    r"If the given question lacks the parameters required by the function,?\s*also point it out\.|"
    r"You should only return the function call in tools call sections?\.|"
    r"Here is a list of functions in JSON format that you can invoke:?|"
    r"Should you decide to return the function call\(s\)\.?|"
    r"Put it in the format of \[func1\(.*?func2\(params\)\]|NO other text MUST be included\.?",
    re.DOTALL,
)
_CALL_START = re.compile(r"\s*([^\s\[\](){}=,'\"][^\[\](){}=,'\"\n]*?)\s*\(")


def to_task(row: Row) -> Task:
    """Convert one row to a task. Ids are `toolace-<row>`, with rows counted from 0."""
    system = row.text("system")
    tools, rest = _tools_in(row, system)
    said = [Said("system", rest)] if rest else []
    for role, text in parts_of(row, {"user": "user", "assistant": "assistant", "tool": "result"}):
        if role == "assistant":
            calls = _calls(row, text)
            said.append(Said("assistant", "" if calls else text, calls))
        elif role == "result":
            said.extend(Said("result", result) for result in _results(text, said))
        else:
            said.append(Said("user", text))
    return conversation_task(row, SET, tools, said)


def _tools_in(row: Row, system: str) -> tuple[list[Any], str]:
    """Return the list of tools in the system message, and the message without it and the instruction."""
    for match in re.finditer(r"\[(?=\s*[{\]])", system):
        try:
            value, end = STRICT.raw_decode(system, match.start())
        except ValueError:
            continue
        if isinstance(value, list) and all(isinstance(tool, dict) and "name" in tool for tool in value):
            rest = f"{system[: match.start()]}\n{system[end:].lstrip('. ')}"
            lines = [line.strip() for line in _INSTRUCTION.sub("", rest).splitlines()]
            return value, "\n".join(line for line in lines if line.strip(".")).strip()
    raise row.fail("'system' has no list of tools, expected a JSON list of objects with name and parameters")


def _calls(row: Row, text: str) -> tuple[ToolCall, ...]:
    stripped = text.strip()
    if not (stripped.startswith("[") and stripped.endswith("]") and _CALL_START.match(stripped, 1)):
        return ()
    try:
        return tuple(bracket_calls(stripped))
    except ValueError as problem:
        raise LeftOutError(row.place, "a call cannot be read", f"{stripped[:60]!r}: {problem}") from None


def bracket_calls(text: str) -> list[ToolCall]:
    """Parse `[Name(argument=value, …), …]`; names may have spaces. Raises ValueError."""
    calls: list[ToolCall] = []
    position = 1
    while True:
        start = _CALL_START.match(text, position)
        if start is None:
            raise ValueError(f"no call at character {position}")
        end = _closing(text, start.end() - 1)
        arguments: dict[str, Any] = {}
        for part in _pieces(text[start.end() : end]):
            name, separator, value = part.partition("=")
            name = name.strip().strip("'\"")
            if not separator or not name or name in arguments:
                raise ValueError(f"{part.strip()[:40]!r} is not argument=value")
            arguments[name] = _value(value.strip())
        calls.append(ToolCall(start[1].strip(), arguments))
        rest = re.compile(r"\s*([,\]])\s*").match(text, end + 1)
        if rest is None:
            raise ValueError(f"expected a comma or the end at character {end + 1}")
        if rest[1] == "]":
            if rest.end() != len(text):
                raise ValueError(f"text after the calls: {text[rest.end() : rest.end() + 20]!r}")
            return calls
        position = rest.end()


def _value(text: str) -> Any:
    """Decode a value in JSON or Python notation."""
    try:
        return STRICT.decode(text)
    except ValueError:
        pass
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    if text[:1] in "'\"" and text[:1]:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = None
        if not isinstance(value, str):
            raise ValueError(f"{text[:40]!r} is not a value")
        return value
    return decode_value(text)


def _closing(text: str, opening: int) -> int:
    """Return the position of the bracket that closes the one at `opening`. Raises ValueError."""
    for position, depth in _outside(text, opening):
        if depth == 0:
            return position
    raise ValueError("a bracket is not closed")


def _pieces(text: str) -> list[str]:
    """Split at the commas outside of brackets and strings."""
    pieces, start = [], 0
    for position, depth in _outside(text, 0):
        if depth == 0 and text[position] == ",":
            pieces.append(text[start:position])
            start = position + 1
    last = text[start:]
    return [*pieces, last] if last.strip() else pieces


def _outside(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Yield (position, depth) of the brackets and commas outside of strings; a closing one has the depth outside it."""
    depth, quote, position = 0, "", start
    while position < len(text):
        character = text[position]
        if quote:
            if character == "\\":
                position += 1
            elif character == quote:
                quote = ""
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            yield position, depth
        elif character == ",":
            yield position, depth
        position += 1


def _results(text: str, said: list[Said]) -> list[str]:
    """Return the result of each call: the items of a list that is as long as the calls, else the whole text."""
    calls = next((part.calls for part in reversed(said) if part.role != "result"), ())
    try:
        value = STRICT.decode(text)
    except ValueError:
        return [text]
    if isinstance(value, list) and len(value) == len(calls):
        results = [item["results"] if isinstance(item, dict) and "results" in item else item for item in value]
        return [item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in results]
    return [text]


FORMAT = RowFormat(to_task, columns=("system", "conversations"), hub=(SET.identity, None, "train"))
