"""Records of AutoTraj and Tool-Star: a question and one long text with tags. (Read: `rewright.importers.autotraj`.)

SFT rows {instruction, input, output} and ranking rows {instruction, input, chosen, rejected}, as LLaMA-Factory's alpaca
format has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rewright.core.records import Message
from rewright.exports.base import ExportSets, Written, write_rows

__all__ = ["export", "row"]


def export(sets: ExportSets, out: Path) -> list[Written]:
    """Write the sets as such records."""
    return write_rows(sets, out, row)


def row(given: dict[str, Any]) -> dict[str, Any] | None:
    """An SFT or preference row of a run as such a record, or None where it is no single exchange in this dialect."""
    messages: list[Message] = list(given["messages"] if "messages" in given else given["prompt"])
    sides = {"output": [messages.pop()]} if "messages" in given else {key: given[key] for key in ("chosen", "rejected")}
    roles = [message["role"] for message in messages]
    one_message = all(len(side) == 1 and not side[0].get("tool_calls") for side in sides.values())
    if roles not in (["system", "user"], ["user"]) or not one_message:
        return None
    instruction = str(messages[0]["content"]) if len(messages) == 2 else ""
    texts = {key: str(side[0]["content"]) for key, side in sides.items()}
    return {"instruction": instruction, "input": str(messages[-1]["content"]), **texts}
