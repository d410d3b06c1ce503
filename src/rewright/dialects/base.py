"""What a dialect is: how a model writes calls and answers, and how tool results are written back to it.

A dialect reads model text only. It never sees tool output: results reach the model through `results_as_messages`
and are never parsed again, so nothing that a tool prints can become a call or an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from rewright.records import Message, Task, ToolCall, ToolResult

__all__ = ["Dialect", "Parsed"]


class Parsed(msgspec.Struct, frozen=True):
    """One turn, read. `thought` is what stood inside think tags; `rest` is the text outside of them."""

    calls: tuple[ToolCall, ...]
    answer: str | None
    thought: str
    rest: str


class Dialect(Protocol):
    """A way of writing calls and answers."""

    name: str
    stop: tuple[str, ...]
    """Strings at which generation stops, kept in the text. Empty: the model's end token ends a turn."""
    control_words: tuple[str, ...]
    """Tags that mean something in this dialect: neutralised inside tool output."""

    def parse(self, text: str) -> Parsed:
        """Read one turn. Never raises, linear in the length of the text; malformed calls carry an `error`."""
        ...

    def messages(self, task: Task) -> list[Message]:
        """The prompt of a task, with this dialect's instruction where the task brings none."""
        ...

    def schemas(self, task: Task) -> list[dict[str, object]]:
        """The schemas to hand to the chat template; empty where the dialect names its tools in words."""
        ...

    def write(self, text: str, calls: Sequence[ToolCall]) -> str:
        """A turn's text with `calls` written behind it, as the dialect writes them."""
        ...

    def assistant_message(self, text: str, calls: Sequence[ToolCall], *, malformed: bool = False) -> Message:
        """A turn as a chat message (Hugging Face convention: call arguments are dicts).

        `malformed` keeps malformed calls among the `tool_calls` (their raw text as arguments), so that every result
        of a running conversation has its call; without it they stay in the content.
        """
        ...

    def results_as_messages(self, calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> list[Message]:
        """Tool results as the messages that follow the turn."""
        ...
