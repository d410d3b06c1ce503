"""Turns that end with calls, for dialects whose calls the chat template writes itself (`NativeDialect`).

Such templates write results only after their calls (gpt-oss, Gemma 4), and some end a turn with calls by another token
(gpt-oss: `<|call|>`). So the text between a turn and its results is taken from a conversation in which the model made
a call: everything that the template writes behind it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.core.records import Message, ToolCall, ToolResult
from rewright.dialects.base import Dialect
from rewright.dialects.detect import detect_dialect
from rewright.dialects.native import NativeDialect

__all__ = ["NativeTurns", "native_turns"]

MARKER: Final = "REWRIGHT_CALL_MARKER"
QUESTION: Final[Message] = {"role": "user", "content": "question"}

Render = Callable[[list[Message], bool], str]
"""Renders messages, with the generation prompt if True. Raises InputError."""


class NativeTurns:
    """What a chat template writes behind the calls of a turn.

    Args:
        dialect: the dialect of the calls.
        render: renders messages with the chat template.
        template: the chat template, and `name` of the model, for errors.

    Raises InputError if the template does not write calls in the form of the dialect, or results behind them.
    """

    def __init__(self, dialect: NativeDialect, render: Render, *, template: str, name: str) -> None:
        self.dialect, self._render = dialect, render
        self._template, self._name = template, name
        self.arguments_as_text = False
        """True if the template takes the arguments of a call as JSON text only (DeepSeek)."""
        probe = dialect.results_as_messages([ToolCall("probe", {})], [ToolResult(MARKER)])
        try:
            written = self.after_calls([], "probe", generation=False)
        except InputError as problem:
            self.arguments_as_text = True
            try:
                written = self.after_calls([], "probe", generation=False)
            except InputError:
                fits = detect_dialect(template) == dialect.name
                raise (problem if fits else self._other_form()) from None
        after = self.after_calls(probe, "probe")
        if MARKER not in after:
            raise InputError(f"the chat template of {name} writes no results: dialect {dialect.name} needs them")
        if not after.startswith(written.rstrip()):
            raise InputError(
                f"the chat template of {name} is not prefix-preserving: behind a call it writes {written[:40]!r}, "
                f"and {after[:40]!r} if results follow"
            )

    def after_calls(self, messages: Sequence[Message], name: str, *, generation: bool = True) -> str:
        """Return what the template writes behind a call of the tool `name` that `messages` follow.

        Raises InputError if the template refuses the conversation, or writes the call in another form.
        """
        call = ToolCall(name or "unknown", {"text": MARKER})
        closing = self.dialect.written([call]).partition(MARKER)[2]
        head: Message = {"role": "assistant", "content": "", "tool_calls": self.dialect.tool_calls([call])}
        _, found, after = self._render([QUESTION, self.message(head), *messages], generation).partition(MARKER)
        if not found or not after.startswith(closing):
            raise self._other_form()
        return after.removeprefix(closing)

    def _other_form(self) -> InputError:
        known = detect_dialect(self._template)
        other = f"dialect {known}" if known and known != self.dialect.name else "another dialect, such as hermes"
        return InputError(
            f"the chat template of {self._name} does not write calls in the form of the dialect {self.dialect.name}: "
            f"expected {other}"
        )

    def without_end(self, text: str, first: str, written: str) -> str:
        """Remove `first`, the token that ends a turn with calls, from `text`: the model generated `written` there.

        A token that opens the results stays unless the model generated it itself.
        """
        stays = not first or (first != written and first in self.dialect.result_openers)
        return text if stays else text.lstrip().removeprefix(first)

    def message(self, message: Message) -> Message:
        """Return a message as the template takes it."""
        if not self.arguments_as_text or not message.get("tool_calls"):
            return message
        return {**message, "tool_calls": [_with_text(call) for call in message["tool_calls"]]}

    @cached_property
    def closing(self) -> str:
        """What the template writes behind a call at the end of a conversation."""
        return self.after_calls([], "probe", generation=False)


def _with_text(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    given = function["arguments"]
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}


def native_turns(dialect: Dialect, render: Render, *, template: str, name: str) -> NativeTurns | None:
    """Return the turns of a native dialect; None for a dialect whose calls are text for the template."""
    if not isinstance(dialect, NativeDialect):
        return None
    return NativeTurns(dialect, render, template=template, name=name)
