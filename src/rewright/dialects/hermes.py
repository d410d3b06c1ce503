"""The `hermes` dialect (Qwen3 and most open models): calls as JSON in `<tool_call>`, results as tool messages.

Reasoning is in `<think>`, the final answer in `<answer>`. The parser is tolerant: a Python dict is read as well as
JSON, and a call that is not closed, neither of the two, or has no name is kept as a call with an `error`, which the
model is shown.

A tag inside a JSON string of a valid call is part of the string; a tag inside a thought is part of the thought. Parsing
is linear in the length of the text: every search moves forward, and a character belongs to the bodies of at most two
calls (see `_body_end`), each of which is decoded at most twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from rewright.core.records import ToolCall
from rewright.core.strict_json import MAX_DEPTH, STRICT
from rewright.dialects.literals import python_literal_instead
from rewright.dialects.pieces import ANSWER, INSTRUCTION, Piece, PieceDialect, call_of

__all__ = ["INSTRUCTION", "Hermes", "split_thought", "text_outside_tags"]

OPEN: Final = "<tool_call>"
CLOSE: Final = "</tool_call>"
THINK: Final = "<think>"
THINK_CLOSE: Final = "</think>"
_THINK_TAG: Final = re.compile("</?think>")
_END: Final = re.compile(f"{CLOSE}|{OPEN}|{THINK}")
_OUTSIDE_STRINGS: Final = re.compile(rf'"(?:[^"\\]|\\.)*+"|(?P<end>{CLOSE}|{OPEN}|{THINK})|{ANSWER}|["\\]', re.DOTALL)
"""A complete JSON string, a tag, or invalid JSON: an unterminated string, a backslash outside a string."""

_CALLS_LAST: Final = re.compile(rf"([^<]*+)(?:{OPEN}[^<]*+{CLOSE}\s*+)+")
"""A text without tags, and calls after it: what `Hermes.write` makes of the usual turn."""


def _pieces(text: str) -> list[Piece]:
    """Split a turn into its parts in order; joined, they are `text`.

    An unclosed `<think>` runs to the end. A `</think>` without an opening tag closes a thought that the prompt opened
    (Qwen3's thinking templates), so all text before it is thought. Of nested thoughts, the outermost closed one counts.
    """
    if "<" not in text:
        return [Piece("text", text)] if text else []
    pieces: list[Piece] = []
    position = _end_of_prompt_thought(text)
    if position:
        pieces.append(Piece("thought", text[:position], text[: position - len(THINK_CLOSE)]))
    closings: dict[int, int] | None = None
    think, call = text.find(THINK, position), text.find(OPEN, position)
    while think >= 0 or call >= 0:
        is_call = think < 0 or 0 <= call < think
        start = call if is_call else think
        if start > position:
            pieces.append(Piece("text", text[position:start]))
        if is_call:
            read, position = _read_call(text, start + len(OPEN))
            pieces.append(Piece("call", text[start:position], calls=(read,)))
        else:
            inside = start + len(THINK)
            end = text.find(THINK_CLOSE, inside)
            inner = text[inside : end if end >= 0 else len(text)]
            if end >= 0 and THINK in inner:
                closings = _closings(text) if closings is None else closings
                end = closings.get(start, end)
                inner = text[inside:end]
            position = end + len(THINK_CLOSE) if end >= 0 else len(text)
            pieces.append(Piece("thought", text[start:position], inner))
        if position == len(text):
            return pieces
        if 0 <= think < position:
            think = text.find(THINK, position)
        if 0 <= call < position:
            call = text.find(OPEN, position)
    if position < len(text):
        pieces.append(Piece("text", text[position:]))
    return pieces


def _end_of_prompt_thought(text: str) -> int:
    """Return the end (closing tag included) of a thought that the prompt opened; 0 if there is none."""
    end = -1 if text.startswith(THINK) else text.find(THINK_CLOSE)
    if end < 0 or text.find(THINK, 0, end) >= 0:
        return 0
    position = 0
    while (start := text.find(OPEN, position, end)) >= 0:
        call, position = _read_call(text, start + len(OPEN))
        if position > end and call.error is None:
            return 0  # the tag is inside a string of this call
    return end + len(THINK_CLOSE)


def _closings(text: str) -> dict[int, int]:
    """Map the start of each closed `<think>` to the start of its `</think>`."""
    opened: list[int] = []
    pairs: dict[int, int] = {}
    for tag in _THINK_TAG.finditer(text):
        if tag[0] == THINK:
            opened.append(tag.start())
        elif opened:
            pairs[opened.pop()] = tag.start()
    return pairs


def split_thought(text: str) -> tuple[str, str]:
    """Split a text into (thought, rest): the text inside and outside think tags. See `_pieces`."""
    thoughts: list[str] = []
    rest: list[str] = []
    for piece in _pieces(text):
        if piece.kind == "thought":
            thoughts.append(piece.shown)
        else:
            rest.append(piece.text)
    return "\n".join(thoughts), "".join(rest)


def text_outside_tags(text: str) -> str:
    """Return the text outside thoughts and calls."""
    return "".join(piece.text for piece in _pieces(text) if piece.kind == "text")


_decoder = STRICT


def _decode_call(body: str) -> ToolCall:
    """Decode the body of a call: JSON, or a Python dict. Raises ValueError with a reason for the model."""
    stripped = body.strip()
    if stripped.startswith("```"):
        stripped = stripped.strip("`").removeprefix("json").strip()
    try:
        value, end = _decoder.raw_decode(stripped)
    except ValueError as problem:
        value, end = python_literal_instead(stripped, problem), len(stripped)
    if stripped[end:].strip():
        raise ValueError(f"unexpected text after the JSON object: {stripped[end : end + 20]!r}")
    if not isinstance(value, dict):
        raise ValueError("a call must be a JSON object with name and arguments")
    return call_of(value.get("name"), value.get("arguments", value.get("parameters", {})), body)


class _UsualCall(msgspec.Struct):
    """A call with `name` and `arguments`, the usual form. Other keys are ignored."""

    name: str
    arguments: dict[str, Any]


_usual_decoder = msgspec.json.Decoder(_UsualCall)


def _decode_usual_call(body: str) -> ToolCall | None:
    """Fast path: decode a call in the usual form; None if `_decode_call` has to decode it or report an error."""
    try:
        read = _usual_decoder.decode(body)
    except (ValueError, RecursionError):
        return None
    if not read.name or (len(body) > MAX_DEPTH and body.count("[") + body.count("{") > MAX_DEPTH):
        return None
    return ToolCall(name=read.name, arguments=read.arguments, raw=body)


def _name_in(body: str) -> str:
    """Guess the tool name of a malformed call; "" if it cannot be found."""
    _, key, rest = body[:400].partition('"name"')
    pieces = rest.split('"') if key else []
    return pieces[1] if len(pieces) > 2 and pieces[0].strip() == ":" else ""


def _body_end(text: str, start: int) -> re.Match[str] | int | None:
    """Find the end of the call body that starts at `start`, read as JSON: a tag outside its strings, or a position.

    Returns None if the body is not JSON. If two bodies contain the same position, it is inside a string of one and
    outside the strings of the other, and one of them ends at the next tag or backslash. So no position is read more
    than twice.
    """
    answer: int | None = None
    for match in _OUTSIDE_STRINGS.finditer(text, start):
        if match["end"] is not None:
            # An unclosed call does not contain the answer after it.
            return match if match[0] == CLOSE or answer is None else answer
        if match[0] == ANSWER:
            answer = match.start() if answer is None else answer
        elif len(match[0]) == 1:
            return None
    return len(text) if answer is None else answer


def _read_call(text: str, start: int) -> tuple[ToolCall, int]:
    """Parse the call whose body starts at `start`. Returns it and the position where parsing continues."""
    following = text.find(OPEN, start)
    close = text.find(CLOSE, start) if following < 0 else text.find(CLOSE, start, following)
    # If the text up to the first closing tag is complete JSON, no other tag can end the body.
    if close >= 0 and (call := _decode_usual_call(text[start:close])) is not None:
        return call, close + len(CLOSE)
    end = _body_end(text, start)
    if end is not None:
        stop = end if isinstance(end, int) else end.start()
        try:
            return _decode_call(text[start:stop]), _resume_position(end)
        except (ValueError, RecursionError):
            pass  # invalid: the body then ends at the first tag, even inside a string
    tag = _END.search(text, start)
    end = tag if tag is not None else len(text)
    stop = end if isinstance(end, int) else end.start()
    if not isinstance(end, re.Match) or end[0] != CLOSE:
        answer = text.find(ANSWER, start, stop)
        end = stop = stop if answer < 0 else answer
    body = text[start:stop]
    try:
        return _decode_call(body), _resume_position(end)
    except ValueError as problem:
        reason = str(problem)
    except RecursionError:
        reason = "nested too deeply"
    return ToolCall(name=_name_in(body), arguments={}, raw=body, error=f"malformed call: {reason}"), _resume_position(
        end
    )


def _resume_position(end: re.Match[str] | int) -> int:
    """Return the position where parsing continues: after a closing tag, at any other tag."""
    if isinstance(end, int):
        return end
    return end.end() if end[0] == CLOSE else end.start()


class Hermes(PieceDialect):
    """The `hermes` dialect. See the module's docstring."""

    name = "hermes"
    control_words: tuple[str, ...] = (
        OPEN, CLOSE, "<tool_response>", "</tool_response>", "<think>", "</think>", "<answer>", "</answer>",
    )  # fmt: skip

    def pieces(self, text: str) -> list[Piece]:
        """Split a turn into its parts (see `_pieces`)."""
        return _pieces(text)

    def _without_calls(self, text: str, *, malformed: bool) -> str:
        """Remove the calls (see `PieceDialect`), without reading them where the whole text is clear."""
        match = _CALLS_LAST.fullmatch(text) if malformed else None
        return match[1] if match else super()._without_calls(text, malformed=malformed)

    def write(self, text: str, calls: Sequence[ToolCall]) -> str:
        """Append every call to `text`, in its tags."""
        lines = [text] if text else []
        for call in calls:
            body = call.raw if call.error else json.dumps({"name": call.name, "arguments": call.arguments})
            lines.append(f"{OPEN}\n{body}\n{CLOSE}")
        return "\n".join(lines)
