"""The `llama` dialect (Llama 3.1, 3.2, 3.3): a call is a JSON object `{"name": …, "parameters": {…}}`, without tags.

Also read: several objects separated by `;`, and what follows `<|python_tag|>`: such objects, `tool.call(query="…")`
of the built-in tools, or else Python code, which is a call of the tool `python`. JSON inside `<answer>` is an answer.
The chat template takes one call per turn.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any, Final

from rewright.core.records import ToolCall
from rewright.core.strict_json import STRICT
from rewright.dialects.literals import MAX_LITERAL, python_literal
from rewright.dialects.native import THINK_WORDS, NativeDialect, as_json
from rewright.dialects.pieces import ANSWER

__all__ = ["Llama"]

TAG: Final = "<|python_tag|>"
_BUILT_IN: Final = re.compile(r"(?P<name>[A-Za-z_]\w*)\.call\(")
_BETWEEN: Final = re.compile(r"\s*;?\s*(?=\{)")
_NEXT: Final = re.compile(r"\s*;\s*(?=\{)")
_NAME: Final = re.compile(r'"name"\s*:\s*"(?P<name>[^"\\\n]*)"')
_END: Final = re.compile(r"\s*(?:<\|eo[mt]_id\|>\s*)?\Z")


class Llama(NativeDialect):
    """Calls as JSON objects. See the module's docstring."""

    name = "llama"
    control_words = (
        TAG, "<|eom_id|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>", *THINK_WORDS,
    )  # fmt: skip
    opener = (
        r'<\|python_tag\|>|<answer>|\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"[^"\\\n]*"\s*,\s*'
        r'"(?:parameters|arguments)"\s*:|\A\s*\{\s*"name"\s*:'
    )
    closer = r"<\|eo[mt]_id\|>"

    def read_call(self, text: str, opening: re.Match[str]) -> tuple[tuple[ToolCall, ...], int]:
        """Read one object, or everything behind `<|python_tag|>`."""
        start, end = opening.start(), opening.end()
        if opening[0] == ANSWER:
            closed = text.find("</answer>", end)
            return (), closed if closed >= 0 else len(text)
        if opening[0] != TAG:
            start += len(opening[0]) - len(opening[0].lstrip())
            calls, end = self._object(text, start, sure='"parameters"' in opening[0] or '"arguments"' in opening[0])
            following = _NEXT.match(text, end)
            return calls, end if following is None else following.end()
        body = text[end:].strip()
        if not body:
            raise ValueError("nothing follows <|python_tag|>")
        if body.startswith("{"):
            return self._objects(text, start, end)
        if found := _BUILT_IN.match(body):
            return (self.call(found["name"], _keywords(body), text[start:]),), len(text)
        return (self.call("python", {"code": body}, text[start:]),), len(text)

    def _objects(self, text: str, start: int, position: int) -> tuple[tuple[ToolCall, ...], int]:
        calls: list[ToolCall] = []
        while found := _BETWEEN.match(text, position):
            read, position = self._object(text, found.end(), sure=True)
            calls += read
        first = calls[0]
        calls[0] = ToolCall(first.name, first.arguments, text[start : text.index("{", start)] + first.raw)
        if _END.match(text, position):
            position = len(text)
        return tuple(calls), position

    def _object(self, text: str, start: int, *, sure: bool) -> tuple[tuple[ToolCall, ...], int]:
        value, end = STRICT.raw_decode(text, start)
        name, arguments = value.get("name"), value.get("parameters", value.get("arguments"))
        if not sure and arguments is None:
            return (), end  # an object that is no call
        return (self.call(name, {} if arguments is None else arguments, text[start:end]),), end

    def guess_name(self, raw: str) -> str:
        """Return the text of the key `name`."""
        found = _NAME.search(raw[:400])
        return found["name"] if found else ""

    def written(self, calls: Sequence[ToolCall]) -> str:
        """Return the calls, separated by `; `."""
        return "; ".join(f'{{"name": {as_json(call.name)}, "parameters": {as_json(call.arguments)}}}' for call in calls)


def _keywords(body: str) -> dict[str, Any]:
    """Read the keyword arguments of `tool.call(a="b")`. Raises ValueError. No code runs."""
    if len(body) > MAX_LITERAL:
        raise ValueError("the call is too long")
    try:
        read = ast.parse(body, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ValueError("expected tool.call(name=value)") from None
    if not isinstance(read, ast.Call) or read.args or any(one.arg is None for one in read.keywords):
        raise ValueError("expected tool.call(name=value)")
    return {str(one.arg): python_literal(f"[{ast.unparse(one.value)}]")[0] for one in read.keywords}
