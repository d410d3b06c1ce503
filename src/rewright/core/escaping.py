"""Escape control tokens and tags in tool output, so that a model reads them as plain text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["common_pattern", "control_pattern", "escape_control_tokens"]

COMMON_CONTROL_TOKENS: Final = (
    r"<\|[^<>|\s]{1,64}\|>", r"<｜[^<>｜\s]{1,64}｜>", r"</?s>", r"<(?:bos|eos|pad|unk)>", r"<(?:start|end)_of_turn>",
    r"<\|[a-z_]{1,32}>", r"<[a-z_]{1,32}\|>", r"<(?:start|end)_function_(?:call|response|declaration)>",
    r"\[/?(?:INST|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|AVAILABLE_TOOLS|SYSTEM_PROMPT|THINK|ARGS|CALL_ID)\]",
    r"\[gMASK\]", r"<sop>",
)  # fmt: skip
"""Shapes of the control tokens of chat models: `<|…|>` (most), `<｜…｜>` (DeepSeek), Llama 2, Gemma, Mistral, GLM."""


def control_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Compile a pattern that matches any of `words` (control tokens, tags), the longest first.

    White space around a word is ignored, and single characters are skipped: runs of white space are tokens of some
    vocabularies, and the inserted space would make them longer. Without a word left the pattern matches nothing.
    """
    kept = sorted({word.strip() for word in words if len(word.strip()) > 1}, key=len, reverse=True)
    return re.compile("|".join(re.escape(word) for word in kept) or "(?!)")


def common_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Compile a pattern that matches `words` and common control tokens, for use when the tokenizer is not known."""
    return re.compile("|".join((control_pattern(words).pattern, *COMMON_CONTROL_TOKENS)))


def escape_control_tokens(text: str, pattern: re.Pattern[str]) -> str:
    """Insert a space after the first character of every match of `pattern` in `text`. Idempotent."""
    previous = None
    while previous != text:  # escaping one word may form another
        previous, text = text, pattern.sub(lambda match: match[0][0] + " " + match[0][1:], text)
    return text
