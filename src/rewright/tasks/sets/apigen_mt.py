"""Format `apigen-mt`: APIGen-MT-5k, dialogues with a policy in the domains of tau-bench (retail, airline).

Columns: conversations (from: human, gpt, function_call, observation), system (the policy), tools (JSON text). The
licence is not commercial, and the domains are those of tau-bench and tau2: do not train on it and report these.
"""

from __future__ import annotations

from rewright.core.records import Task
from rewright.tasks.formats import RowFormat
from rewright.tasks.function_rows import FunctionSet, Said, conversation_task, decoded_calls, offered_tools
from rewright.tasks.rows import Row
from rewright.tasks.sets.sharegpt import parts_of

__all__ = ["FORMAT", "to_task"]

SET = FunctionSet("apigen-mt", "Salesforce/APIGen-MT-5k", "cc-by-nc-4.0")
_ROLES = {"human": "user", "gpt": "assistant", "function_call": "call", "observation": "result", "system": "system"}


def to_task(row: Row) -> Task:
    """Convert one row to a task. Ids are `apigen-mt-<row>`, with rows counted from 0."""
    system = row.optional_text("system")
    said = [Said("system", system)] if system else []
    for number, (role, text) in enumerate(parts_of(row, _ROLES)):
        if role == "call":
            said.append(Said("assistant", "", decoded_calls(row, text, f"'conversations'[{number}]")))
        elif role == "user":
            said.append(Said("user", text))
        elif role == "result":
            said.append(Said("result", text))
        else:
            said.append(Said("assistant" if role == "assistant" else "system", text))
    return conversation_task(row, SET, offered_tools(row, "tools"), said)


FORMAT = RowFormat(to_task, columns=("conversations", "tools"), hub=(SET.identity, None, "train"))
