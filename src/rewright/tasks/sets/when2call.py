"""Format `when2call`: When2Call, when a tool should be called and when not.

Three shapes, one format:

- SFT: tools, messages. The last message is the reply, which in this part of the set is never a call.
- preferences: tools, messages, chosen_response, rejected_response. The chosen response is the reply.
- test (MCQ): question, tools, correct_answer (direct, tool_call, request_for_info, cannot_answer), answers.

Unless the right reply is a call, the task has an empty list of gold calls: no call is right. Whether the model then
asks or refuses is not judged; `metadata["category"]` has the right kind where the set has it.
"""

from __future__ import annotations

import re
from typing import Any

from rewright.core.records import Task, ToolCall
from rewright.dialects.literals import decode_value
from rewright.tasks.formats import RowFormat
from rewright.tasks.function_rows import FunctionSet, Said, conversation_task, decoded_calls, offered_tools
from rewright.tasks.rows import Row

__all__ = ["FORMAT", "to_task"]

SET = FunctionSet("when2call", "nvidia/When2Call", "cc-by-4.0")
_KINDS = ("direct", "tool_call", "request_for_info", "cannot_answer")
_TAGGED = re.compile(r"<(TOOL_?CALL)>(.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_ROLES = ("system", "user", "assistant")


def to_task(row: Row) -> Task:
    """Convert one row to a task. Ids are `when2call-<uuid, or row>`."""
    if "question" in row.values:
        kind = row.text("correct_answer")
        if kind not in _KINDS:
            raise row.fail(f"'correct_answer' is {kind!r}, expected one of {', '.join(_KINDS)}")
        said, reply = [Said("user", row.text("question"))], ""
        if kind == "tool_call":
            answers = row.decoded("answers", dict)
            reply = answers.get("tool_call")
        metadata: dict[str, Any] = {"category": kind, "held_out_param": row.optional_text("held_out_param")}
    else:
        said, metadata = _messages(row), {}
        if "chosen_response" in row.values:
            reply = row.decoded("chosen_response", dict).get("content")
        elif said and said[-1].role == "assistant":
            reply = said.pop().text
        else:
            raise row.fail("'messages' does not end with a reply, expected one of the assistant, or chosen_response")
        kind = None
    if not isinstance(reply, str):
        raise row.fail("the right reply is not a text")
    calls = _calls(row, reply, is_call=kind == "tool_call")
    said.append(Said("assistant", "" if calls else reply, calls))
    tools = offered_tools(row, "tools") if row.values.get("tools") is not None else []
    return conversation_task(row, SET, tools, said, identity=row.optional_text("uuid"), metadata=metadata)


def _messages(row: Row) -> list[Said]:
    said = []
    for number, message in enumerate(row.decoded("messages", list)):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in _ROLES or not isinstance(content, str):
            raise row.fail(f"'messages'[{number}] is not a message, expected a role ({', '.join(_ROLES)}) and content")
        said.append(Said(role, content))
    return said


def _calls(row: Row, reply: str, *, is_call: bool) -> tuple[ToolCall, ...]:
    """Return the calls in a reply: in tags, or the whole reply. Raises LeftOutError for a call that cannot be read."""
    tagged = list(_TAGGED.finditer(reply))
    if tagged:
        return tuple(call for body in tagged for call in decoded_calls(row, body[2], "the reply"))
    if not is_call:
        try:
            value = decode_value(reply)
        except ValueError:
            return ()
        first = value[0] if isinstance(value, list) and value else value
        if not (isinstance(first, dict) and "name" in first and ("arguments" in first or "parameters" in first)):
            return ()
    return decoded_calls(row, reply, "the reply")


FORMAT = RowFormat(to_task, columns=("tools",), hub=(SET.identity, "test", "mcq"))
