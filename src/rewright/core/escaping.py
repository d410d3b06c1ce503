"""Tool text is data: control tokens and tags in it are broken up, so that a model reads them as plain text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["common_pattern", "control_pattern", "escape_control_tokens"]

COMMON: Final = (
    r"<\|[^<>|\s]{1,64}\|>", r"<｜[^<>｜\s]{1,64}｜>", r"</?s>", r"<(?:bos|eos|pad|unk)>", r"<(?:start|end)_of_turn>",
    r"\[/?(?:INST|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|AVAILABLE_TOOLS|SYSTEM_PROMPT|THINK)\]",
)  # fmt: skip
"""Shapes of the control tokens that chat models use: `<|…|>` (most), `<｜…｜>` (DeepSeek), Llama 2, Gemma, Mistral."""


def control_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Finds any of `words` (control tokens, tags), the longest first.

    White space around a word does not count, and single characters are no control words: runs of white space are
    tokens of some vocabularies, and a space would make them longer.
    """
    kept = sorted({word.strip() for word in words if len(word.strip()) > 1}, key=len, reverse=True)
    return re.compile("|".join(re.escape(word) for word in kept))


def common_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Finds `words` and whatever looks like a control token: for texts whose tokenizer is not known."""
    return re.compile("|".join((control_pattern(words).pattern, *COMMON)))


def escape_control_tokens(text: str, pattern: re.Pattern[str]) -> str:
    """`text` with a space after the first character of everything that `pattern` finds. Idempotent."""
    previous = None
    while previous != text:  # breaking one word up may join another
        previous, text = text, pattern.sub(lambda match: match[0][0] + " " + match[0][1:], text)
    return text
