"""The dialects `mistral` and `mistral-v3`: calls behind `[TOOL_CALLS]`.

`mistral` writes the newer form (tokenizers from v11 on: Mistral Small 3.2, Magistral, Devstral 2, Ministral 3),
`[TOOL_CALLS]name[ARGS]{…}`; `mistral-v3` the older one (v3 to v7: Mistral 7B v0.3, Nemo, Small 3.1),
`[TOOL_CALLS] [{"name": …, "arguments": {…}, "id": …}]`. Both read both. Results refer to their call by an id of nine
characters: the one that the model wrote, else the number of the call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from rewright.core.records import Message, ToolCall, ToolResult
from rewright.core.strict_json import STRICT
from rewright.dialects.literals import python_literal
from rewright.dialects.native import THINK_WORDS, NativeDialect, as_json, read_object

__all__ = ["Mistral", "MistralV3"]

TOOL_CALLS: Final = "[TOOL_CALLS]"
_NAMED: Final = re.compile(
    r"\s*(?P<name>[^\[\]{}\s]+)\s*(?:\[CALL_ID\]\s*(?P<id>[^\[\]{}\s]*)\s*)?(?:\[ARGS\])?\s*(?=\{)"
)
_ID: Final = re.compile(r'\[CALL_ID\]\s*(?P<new>[A-Za-z0-9]{9})\b|"id"\s*:\s*"(?P<old>[A-Za-z0-9]{9})"\s*\}\s*\Z')
_NAME: Final = re.compile(r'"name"\s*:\s*"(?P<old>[^"\\\n]*)"|\[TOOL_CALLS\]\s*(?P<new>[^\[\]{}\s]+)')


class Mistral(NativeDialect):
    """Calls as `[TOOL_CALLS]name[ARGS]{…}`. See the module's docstring."""

    name = "mistral"
    control_words = (
        TOOL_CALLS, "[ARGS]", "[CALL_ID]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CONTENT]", "[INST]", "[/INST]",
        "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[THINK]", "[/THINK]",
        *THINK_WORDS,
    )  # fmt: skip
    thoughts = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
    opener = r"\[TOOL_CALLS\]"
    closer = r"</s>"

    def read_call(self, text: str, opening: re.Match[str]) -> tuple[tuple[ToolCall, ...], int]:
        """Read a list of objects, or one named call."""
        start, position = opening.start(), opening.end()
        if named := _NAMED.match(text, position):
            arguments, end = read_object(text, named.end())
            return (self.call(named["name"], arguments, text[start:end]),), end
        position += len(text[position : position + 16]) - len(text[position : position + 16].lstrip())
        if text[position : position + 1] not in ("[", "{"):
            raise ValueError("expected a JSON list of calls, or name[ARGS] and the arguments")
        try:
            value, end = STRICT.raw_decode(text, position)
        except ValueError as problem:
            try:
                value, end = python_literal(text[position:]), len(text)
            except ValueError:
                raise problem from None
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(isinstance(one, dict) for one in listed):
            raise ValueError("expected a JSON list of objects with name and arguments")
        calls = [
            self.call(one.get("name"), one.get("arguments", one.get("parameters")), json.dumps(one)) for one in listed
        ]
        return tuple(calls), end

    def guess_name(self, raw: str) -> str:
        """Return the name of the first call."""
        found = _NAME.search(raw[:400])
        return (found["old"] or found["new"] or "") if found else ""

    def written(self, calls: Sequence[ToolCall]) -> str:
        """Return the calls, one after the other."""
        return "".join(f"{TOOL_CALLS}{call.name}[ARGS]{as_json(call.arguments)}" for call in calls)

    def tool_calls(self, calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
        """Return the `tool_calls` of a message, with ids."""
        return [{**one, "id": call_id(calls[n], n)} for n, one in enumerate(super().tool_calls(calls))]

    def results_as_messages(self, calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> list[Message]:
        """Return one tool message per result, with the name and the id of its call."""
        messages = super().results_as_messages(calls, results)
        return [{**one, "tool_call_id": call_id(calls[n], n)} for n, one in enumerate(messages)]


class MistralV3(Mistral):
    """Calls as a JSON list. See the module's docstring."""

    name = "mistral-v3"

    def written(self, calls: Sequence[ToolCall]) -> str:
        """Return the calls as one list, with ids."""
        listed = [
            as_json({"name": call.name, "arguments": call.arguments})[:-1] + f', "id": "{call_id(call, number)}"}}'
            for number, call in enumerate(calls)
        ]
        return f"{TOOL_CALLS}[{', '.join(listed)}]"


def call_id(call: ToolCall, number: int) -> str:
    """Return the id that the model wrote, else the number of the call in its turn, with nine digits."""
    found = _ID.search(call.raw)
    return (found["new"] or found["old"]) if found else f"{number:09d}"
