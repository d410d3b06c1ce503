"""The dialects `deepseek` (V3.1) and `deepseek-v3` (V3, R1): calls between DeepSeek's control tokens.

`deepseek` writes `<｜tool▁call▁begin｜>name<｜tool▁sep｜>{…}<｜tool▁call▁end｜>`. `deepseek-v3` writes the type
`function` in the place of the name, and then the name, and the arguments in a code fence. Both read both. All calls of
a turn are between `<｜tool▁calls▁begin｜>` and `<｜tool▁calls▁end｜>`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from rewright.core.records import ToolCall
from rewright.dialects.native import THINK_WORDS, NativeDialect, as_json, read_object

__all__ = ["DeepSeek", "DeepSeekV3"]

BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, SEPARATOR, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_HEAD: Final = re.compile(rf"\s*(?P<name>[^<{{}}\n`]*?)\s*{SEPARATOR}")
_FENCED: Final = re.compile(r"\s*(?P<name>[^\n`{]*?)\s*\n\s*```(?:json)?\s*(?=\{)")
_CLOSED: Final = re.compile(rf"\s*(?:```)?\s*(?:{CALL_END}\s*(?:{END})?|\Z)")


class DeepSeek(NativeDialect):
    """Calls of DeepSeek V3.1. See the module's docstring."""

    name = "deepseek"
    control_words = (
        BEGIN, END, CALL, SEPARATOR, CALL_END, "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>",
        "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>",
        *THINK_WORDS,
    )  # fmt: skip
    opener = rf"{BEGIN}\s*(?:{CALL})?|{CALL}"
    closer = rf"{CALL_END}\s*(?:{END})?|{END}"
    between = ""
    """What stands between two calls."""

    def read_call(self, text: str, opening: re.Match[str]) -> tuple[tuple[ToolCall, ...], int]:
        """Read one call."""
        start, position = opening.start(), opening.end()
        if not opening[0].endswith(CALL):
            raise ValueError(f"no {CALL} after {BEGIN}")
        head = _HEAD.match(text, position)
        if head is None:
            raise ValueError(f"expected a name and {SEPARATOR}")
        name, position = head["name"], head.end()
        if fenced := _FENCED.match(text, position):
            name, position = fenced["name"], fenced.end()
        arguments, end = read_object(text, position)
        closed = _CLOSED.match(text, end)
        if closed is None:
            raise ValueError(f"expected the end of the call, got {text[end : end + 20]!r}")
        return (self.call(name, arguments, text[start : closed.end()]),), closed.end()

    def guess_name(self, raw: str) -> str:
        """Return the name in front of or behind the separator."""
        before, _, after = raw[:400].partition(SEPARATOR)
        name = before.rpartition(CALL)[2].strip()
        return after.partition("\n")[0].strip() if name == "function" else name if after else ""

    def one(self, call: ToolCall) -> str:
        """Return one call."""
        return f"{CALL}{call.name}{SEPARATOR}{as_json(call.arguments)}{CALL_END}"

    def written(self, calls: Sequence[ToolCall]) -> str:
        """Return the calls between their tokens."""
        return BEGIN + self.between.join(map(self.one, calls)) + END


class DeepSeekV3(DeepSeek):
    """Calls of DeepSeek V3 and R1. See the module's docstring."""

    name = "deepseek-v3"
    between = "\n"

    def one(self, call: ToolCall) -> str:
        """Return one call."""
        return f"{CALL}function{SEPARATOR}{call.name}\n```json\n{as_json(call.arguments)}\n```{CALL_END}"
