"""Recognise the dialect in which a chat template writes calls, or a text has them."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["detect_dialect"]

SIGNS: Final[tuple[tuple[str, str], ...]] = (
    ("hermes", r"<tool_call>(?:\s|\\n)*\{\s*[\"']"),
    ("harmony", r"<\|channel\|>"),
    ("gemma", r"<\|tool_call>|<\|channel>"),
    ("functiongemma", r"<start_function_call>"),
    ("deepseek-v3", r"<｜tool▁sep｜>(?s:.{0,80})```json"),
    ("deepseek", r"<｜tool▁sep｜>"),
    ("mistral", r"\[ARGS\]"),
    ("mistral-v3", r"\[TOOL_CALLS\]"),
    ("glm", r"<arg_key>"),
    ("qwen-xml", r"<function="),
    ("hermes", r"<tool_call>"),
    ("llama", r'<\|python_tag\|>|"parameters"\s*:'),
)
"""Dialects and what only they write, in the order of the search."""
_SIGNS: Final = tuple((name, re.compile(sign)) for name, sign in SIGNS)


def detect_dialect(text: str) -> str | None:
    """Return the name of the dialect whose marks are in a chat template or a turn; None if there are none we know."""
    return next((name for name, sign in _SIGNS if sign.search(text)), None)
