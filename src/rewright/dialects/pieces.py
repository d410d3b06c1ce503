"""The base of dialects that divide a turn into thoughts, calls and text: `hermes` and the formats of model families.

A subclass finds the parts (`pieces`) and writes calls (`write`). Answers, messages and the format check are shared.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec

from rewright.core.records import Message, Task, ToolCall, ToolResult, Trajectory
from rewright.dialects.base import Parsed, malformed_calls, with_instruction
from rewright.dialects.literals import decode_value

__all__ = ["ANSWER", "INSTRUCTION", "Piece", "PieceDialect", "call_of", "has_half_character"]

ANSWER: Final = "<answer>"
INSTRUCTION: Final = (
    "Reason inside <think></think>, then either call tools or give the final answer inside <answer></answer>. "
    "Call a tool whenever a fact has to be looked up or computed."
)


class Piece(msgspec.Struct, frozen=True):
    """A part of a turn's text, with its markers.

    `inner` is the content of a thought, or what a reader sees of a text whose markers are control tokens (None: all of
    it). `calls` are the calls of this part; some formats write several into one.
    """

    kind: Literal["thought", "call", "text"]
    text: str
    inner: str | None = None
    calls: tuple[ToolCall, ...] = ()

    @property
    def shown(self) -> str:
        """The content without markers."""
        return self.text if self.inner is None else self.inner


def has_half_character(*values: Any) -> bool:
    """Return True if the values contain a lone surrogate, which tokenizers, servers and files reject."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def call_of(name: Any, arguments: Any, raw: str) -> ToolCall:
    """Return the call of a decoded name and decoded arguments. Raises ValueError with a reason for the model."""
    if not isinstance(name, str) or not name:
        raise ValueError("the call has no name")
    if isinstance(arguments, str):
        arguments = decode_value(arguments)
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise ValueError("arguments must be a JSON object")
    if "\\" in raw and has_half_character(name, arguments):
        raise ValueError("an escape \\ud800 to \\udfff stands alone: it is half of a character")
    return ToolCall(name=name, arguments=arguments, raw=raw)


class PieceDialect:
    """A dialect of thoughts, calls and text. Subclasses implement `pieces` and `write`."""

    name = ""
    stop: tuple[str, ...] = ()
    tool_names: tuple[str, ...] | None = None
    inline = False
    control_words: tuple[str, ...] = ()
    instruction: ClassVar[str] = INSTRUCTION
    think: ClassVar[str] = "<think>"
    """What opens a thought."""

    def pieces(self, text: str) -> list[Piece]:
        """Split a turn into its parts in order; joined, they are `text`. Never raises, linear in its length."""
        raise NotImplementedError

    def write(self, text: str, calls: Sequence[ToolCall]) -> str:
        """Append every call to `text` (see `Dialect.write`)."""
        raise NotImplementedError

    def parse(self, text: str) -> Parsed:
        """Parse one turn (see `Dialect.parse`)."""
        return self.parsed(self.pieces(text))

    def parsed(self, pieces: Sequence[Piece]) -> Parsed:
        """Read the parts of a turn."""
        thoughts: list[str] = []
        rest: list[str] = []
        said: list[str] = []
        calls: list[ToolCall] = []
        for piece in pieces:
            if piece.kind == "thought":
                thoughts.append(piece.shown)
                continue
            rest.append(piece.shown)
            if piece.kind == "call":
                calls += piece.calls
            else:
                said.append(piece.shown)
        answer, left_open = self._answer("".join(said))
        return Parsed(tuple(calls), answer, "\n".join(thoughts), "".join(rest), "answer" if left_open else None)

    @staticmethod
    def _answer(text: str) -> tuple[str | None, bool]:
        """Return the last answer outside thoughts and calls, and whether it is unclosed (it then runs to the end)."""
        start = text.rfind(ANSWER)
        if start < 0:
            return None, False
        start += len(ANSWER)
        end = text.find("</answer>", start)
        return text[start : end if end >= 0 else len(text)].strip(), end < 0

    def _without_calls(self, text: str, *, malformed: bool) -> str:
        """Remove the calls from `text`; malformed calls only if `malformed`. Thoughts are kept."""
        return "".join(
            piece.text
            for piece in self.pieces(text)
            if piece.kind != "call" or (not malformed and any(call.error is not None for call in piece.calls))
        )

    def truncate_at_stop(self, text: str) -> str:
        """Return `text` unchanged: this dialect has no stop strings."""
        return text

    def messages(self, task: Task) -> list[Message]:
        """Return the task's messages with the instruction (see `with_instruction`)."""
        return with_instruction(task, self.instruction)

    def schemas(self, task: Task) -> list[dict[str, Any]]:
        """Return the task's function schemas."""
        return task.schemas

    def assistant_message(self, text: str, calls: Sequence[ToolCall], *, malformed: bool = False) -> Message:
        """Return the turn's text without its calls as content, and the calls as `tool_calls`."""
        kept = [call for call in calls if call.error is None or malformed]
        if not kept:
            return {"role": "assistant", "content": text}
        content = self._without_calls(text, malformed=malformed)
        return {"role": "assistant", "content": content.rstrip(), "tool_calls": self.tool_calls(kept)}

    def tool_calls(self, calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
        """Return the `tool_calls` of a message; a malformed call has its raw text as arguments."""
        functions = [
            {"name": call.name or "unknown", "arguments": call.raw if call.error else call.arguments} for call in calls
        ]
        return [{"type": "function", "function": function} for function in functions]

    def results_as_messages(self, calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> list[Message]:
        """Return one tool message per result, with the name of its call."""
        return [
            {"role": "tool", "name": call.name or "unknown", "content": result.content}
            for call, result in zip(calls, results, strict=True)
        ]

    def format_problem(self, trajectory: Trajectory) -> str | None:
        """Report malformed calls (see `Dialect.format_problem`)."""
        return malformed_calls(trajectory)
