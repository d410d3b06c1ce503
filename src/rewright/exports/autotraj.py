"""Export records of AutoTraj and Tool-Star: a question and a trajectory as one tagged text.

SFT rows are {instruction, input, output}, ranking rows {instruction, input, chosen, rejected}, as in LLaMA-Factory's
alpaca format. The importer is `rewright.importers.autotraj`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rewright.core.records import Message
from rewright.exports.base import ExportSets, Written, write_rows

__all__ = ["export", "row"]


def export(sets: ExportSets, out: Path) -> list[Written]:
    """Write the sets of a run as AutoTraj records."""
    return write_rows(sets, out, row)


def row(given: dict[str, Any]) -> dict[str, Any] | None:
    """Convert an SFT or preference row, or return None if it is not a single exchange in the `tags` dialect."""
    messages: list[Message] = list(given["messages"] if "messages" in given else given["prompt"])
    sides = {"output": [messages.pop()]} if "messages" in given else {key: given[key] for key in ("chosen", "rejected")}
    roles = [message["role"] for message in messages]
    one_message = all(len(side) == 1 and not side[0].get("tool_calls") for side in sides.values())
    if roles not in (["system", "user"], ["user"]) or not one_message:
        return None
    instruction = str(messages[0]["content"]) if len(messages) == 2 else ""
    texts = {key: str(side[0]["content"]) for key, side in sides.items()}
    return {"instruction": instruction, "input": str(messages[-1]["content"]), **texts}
