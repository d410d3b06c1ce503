"""The dialects `gemma` (Gemma 4) and `functiongemma`: `call:NAME{key:value,…}` between control tokens.

Values are JSON without escapes: keys have no quotation marks, and a text stands between two delimiters (`<|"|>`;
functiongemma: `<escape>`), so that it cannot contain one. Gemma 4 thinks in a channel,
`<|channel>thought … <channel|>`. Gemma 1 to 3 have no form of their own for calls: use `hermes` there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Final

from rewright.core.records import Message, ToolCall
from rewright.core.strict_json import MAX_DEPTH, STRICT
from rewright.dialects.native import INSTRUCTION, NO_THOUGHT, THINK_WORDS, NativeDialect, as_json

__all__ = ["FunctionGemma", "Gemma"]

_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_PLAIN_KEY: Final = re.compile(r"[\w.$ -]+")
_WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


class Gemma(NativeDialect):
    """Calls of Gemma 4. See the module's docstring."""

    name = "gemma"
    think = "<|channel>thought"
    instruction = NO_THOUGHT
    thoughts = (("<|channel>thought", "<channel|>"),)
    quote: ClassVar[str] = '<|"|>'
    opening: ClassVar[str] = "<|tool_call>"
    closing: ClassVar[str] = "<tool_call|>"
    result_openers = ("<|tool_response>",)
    control_words = (
        "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|tool>", "<tool|>", "<|turn>",
        "<turn|>", "<|channel>", "<channel|>", '<|"|>', "<answer>", "</answer>",
    )  # fmt: skip
    opener = r"<\|tool_call>"
    closer = r"<tool_call\|>"
    _head = re.compile(r"\s*call:\s*(?P<name>[^\s{}<]+)\s*(?=\{)")

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        quote = re.escape(self.quote)
        return re.compile(
            rf"\s*(?:{quote}(?P<quoted>.*?){quote}|(?P<plain>[^:{{}}\[\],<]+?))\s*:", re.DOTALL
        ), re.compile(
            rf"\s*(?:(?P<bracket>[\[{{])|{quote}(?P<text>.*?){quote}|(?P<json>\"(?:[^\"\\]|\\.)*+\")"
            rf"|(?P<word>[^\s,\[\]{{}}<]+))",
            re.DOTALL,
        )

    def read_call(self, text: str, opening: re.Match[str]) -> tuple[tuple[ToolCall, ...], int]:
        """Read one call."""
        head = self._head.match(text, opening.end())
        if head is None:
            raise ValueError("expected call:NAME{...}")
        arguments, end = self._value(text, head.end(), 0)
        space = len(text[end : end + 64]) - len(text[end : end + 64].lstrip())
        if text.startswith(self.closing, end + space):
            end += space + len(self.closing)
        elif text[end:].strip():
            raise ValueError(f"expected the end of the call, got {text[end : end + 20]!r}")
        return (self.call(head["name"], arguments, text[opening.start() : end]),), end

    def _value(self, text: str, position: int, depth: int) -> tuple[Any, int]:
        """Read the value at `position`; returns it and its end. Raises ValueError."""
        found = self._patterns[1].match(text, position)
        if found is None:
            raise ValueError(f"expected a value, got {text[position : position + 20]!r}")
        if found["text"] is not None:
            return found["text"], found.end()
        if found["json"] is not None:
            return STRICT.decode(found["json"]), found.end()
        if found["bracket"] is not None:
            if depth >= MAX_DEPTH:
                raise ValueError("nested too deeply")
            return self._inside(text, found.end(), depth + 1, is_list=found["bracket"] == "[")
        word = found["word"]
        if word in _WORDS:
            return _WORDS[word], found.end()
        if not _NUMBER.fullmatch(word):
            raise ValueError(f"{word!r:.40} is no value: a text stands between {self.quote}")
        return STRICT.decode(word), found.end()

    def _inside(self, text: str, position: int, depth: int, *, is_list: bool) -> tuple[Any, int]:
        """Read the elements of a list or an object, and its closing bracket."""
        items: list[Any] = []
        pairs: dict[str, Any] = {}
        close = "]" if is_list else "}"
        first = True
        while True:
            position = _skip(text, position)
            if text.startswith(close, position) and first:
                return (items if is_list else pairs), position + 1
            first = False
            if is_list:
                value, position = self._value(text, position, depth)
                items.append(value)
            else:
                key = self._patterns[0].match(text, position)
                if key is None:
                    raise ValueError(f"expected a key, got {text[position : position + 20]!r}")
                name = key["quoted"] if key["quoted"] is not None else key["plain"].strip()
                pairs[name], position = self._value(text, key.end(), depth)
            position = _skip(text, position)
            if text.startswith(close, position):
                return (items if is_list else pairs), position + 1
            if not text.startswith(",", position):
                raise ValueError(f"expected , or {close}, got {text[position : position + 20]!r}")
            position += 1

    def guess_name(self, raw: str) -> str:
        """Return the name behind `call:`."""
        found = re.search(r"call:\s*([^\s{}<]+)", raw[:400])
        return found[1] if found else ""

    def written(self, calls: Sequence[ToolCall]) -> str:
        """Return the calls, one after the other; keys are sorted."""
        return "".join(f"{self.opening}call:{call.name}{self._text(call.arguments)}{self.closing}" for call in calls)

    def _text(self, value: Any) -> str:
        if isinstance(value, str):
            return f"{self.quote}{value}{self.quote}"
        if isinstance(value, list):
            return f"[{','.join(map(self._text, value))}]"
        if isinstance(value, dict):
            pairs = sorted(value.items(), key=lambda pair: pair[0].lower())
            return f"{{{','.join(f'{self._key(key)}:{self._text(inner)}' for key, inner in pairs)}}}"
        return as_json(value)

    def _key(self, key: str) -> str:
        return key if _PLAIN_KEY.fullmatch(key) and key == key.strip() else f"{self.quote}{key}{self.quote}"

    def assistant_message(self, text: str, calls: Sequence[ToolCall], *, malformed: bool = False) -> Message:
        """Return the message with the thought as `reasoning_content`, since the chat template drops it from content."""
        message = super().assistant_message(text, calls, malformed=malformed)
        thought = self.parse(text).thought.strip()
        if not thought or self.think == "<think>":
            return message
        content = "".join(piece.text for piece in self.pieces(str(message["content"])) if piece.kind != "thought")
        return {**message, "content": content, "reasoning_content": thought}


class FunctionGemma(Gemma):
    """Calls of FunctionGemma. See the module's docstring."""

    name = "functiongemma"
    think = "<think>"
    instruction = INSTRUCTION
    thoughts = (("<think>", "</think>"),)
    quote = "<escape>"
    opening = "<start_function_call>"
    closing = "<end_function_call>"
    result_openers = ("<start_function_response>",)
    control_words = (
        "<start_function_call>", "<end_function_call>", "<start_function_response>", "<end_function_response>",
        "<start_function_declaration>", "<end_function_declaration>", "<start_of_turn>", "<end_of_turn>", "<escape>",
        *THINK_WORDS,
    )  # fmt: skip
    opener = r"<start_function_call>"
    closer = r"<end_function_call>"


def _skip(text: str, position: int) -> int:
    """Return the position of the next character that is no white space."""
    while position < len(text) and text[position].isspace():
        position += 1
    return position
