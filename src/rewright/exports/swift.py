"""Export to ms-swift: `messages` with the roles tool_call and tool_response, and `rejected_messages` for pairs.

Its rules (4.6, `dataset/preprocessor/core.py`): `tools` is JSON text. Content is never null. The content of a call is
the JSON of its name and arguments. Several calls are several messages, followed by their results in the same order.
The rejected side inherits nothing from the chosen one, so it needs its own tools.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rewright.core.records import Message
from rewright.exports.base import ExportSets, Written, write_rows

__all__ = ["export", "row"]


def export(sets: ExportSets, out: Path) -> list[Written]:
    """Write the sets in ms-swift's format."""
    return write_rows(sets, out, row)


def row(given: dict[str, Any]) -> dict[str, Any] | None:
    """Convert an SFT or preference row, or return None for a pair with an empty side."""
    tools = json.dumps(given["tools"], ensure_ascii=False) if given["tools"] else None
    if "messages" in given:
        return {"messages": _messages(given["messages"]), **({"tools": tools} if tools else {})}
    if not given["chosen"] or not given["rejected"]:
        return None
    return {
        "messages": _messages([*given["prompt"], *given["chosen"]]),
        "rejected_messages": _messages([*given["prompt"], *given["rejected"]]),
        **({"tools": tools, "rejected_tools": tools} if tools else {}),
    }


def _messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    converted: list[dict[str, str]] = []
    for message in messages:
        role, content = message["role"], str(message.get("content") or "")
        calls = message.get("tool_calls") or ()
        if role == "tool":
            converted.append({"role": "tool_response", "content": content, "name": str(message.get("name") or "")})
        elif content or not calls:
            converted.append({"role": role, "content": content})
        for call in calls:
            function = {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}
            converted.append({"role": "tool_call", "content": json.dumps(function, ensure_ascii=False)})
    return converted
