r"""Format check of the tags dialect: the format gate of AutoTraj's reward, with reasons.

Rules: think tags are paired, and there is at least one block. Every `<search>` and `<code>` (or `<python>`) is closed
and followed by its result. There is exactly one `<answer>`; it is closed, has content in `\boxed{}`, and nothing
follows it. Results come from the record: a `<result>` that the model wrote itself is an error. The content of results,
and tags inside a think block, a call or the answer, are ignored. Linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from rewright.core.answer_text import boxed
from rewright.core.records import Turn

__all__ = ["FormatReport", "validate_text", "validate_turns"]


class FormatReport(msgspec.Struct, frozen=True):
    """Whether the format is valid, and the reasons if not (each once, in order of appearance)."""

    valid: bool
    reasons: tuple[str, ...] = ()


_TAGS = re.compile(r"<(/?)(think|search|code|python|result|answer)>")
_CALLS = ("search", "code", "python")


class _Reader:
    """One pass over model text and results.

    Attributes:
        recorded: results come from the record, so a `<result>` in the text was written by the model.
        open: the unclosed tag, if any.
        waiting: the tag of the call that has no result yet, if any.
    """

    def __init__(self, *, recorded: bool = False) -> None:
        self.recorded = recorded
        self.reasons: dict[str, None] = {}
        self.open: str | None = None
        self.waiting: str | None = None
        self.thoughts = 0
        self.answers: list[str] = []
        self._answer_parts: list[str] = []

    def add_reason(self, reason: str) -> None:
        self.reasons.setdefault(reason)

    def result(self) -> None:
        """Process a result from the record."""
        if self.open is not None:
            self.add_reason(f"<{self.open}> is not closed before its result")
            self.open = None
        elif self.waiting is None:
            self.add_reason("a result without a call")
        self.waiting = None

    def between(self, text: str) -> None:
        """Process text outside all tags."""
        if text.strip():
            if self.waiting is not None:
                self.add_reason(f"</{self.waiting}> is not followed by its result")
                self.waiting = None
            if self.answers:
                self.add_reason("text follows </answer>")

    def model(self, text: str) -> None:
        """Process one turn's text."""
        position = 0
        for tag in _TAGS.finditer(text):
            closing, name = bool(tag[1]), tag[2]
            piece = text[position : tag.start()]
            position = tag.end()
            if self.open is not None:
                self._inside(name, closing, piece, tag[0])
            else:
                self.between(piece)
                self._outside(name, closing)
        rest = text[position:]
        if self.open is None:
            self.between(rest)
        elif self.open == "answer":
            self._answer_parts.append(rest)

    def _inside(self, name: str, closing: bool, piece: str, tag: str) -> None:
        if self.open == "answer":
            self._answer_parts.append(piece)
        # <python> is an alias of <code>, as for the parser.
        if name != self.open and {name, self.open} != {"code", "python"}:
            if self.open == "answer":
                self._answer_parts.append(tag)
            return
        if not closing:
            self.add_reason(f"<{name}> inside <{name}>")
            return
        if name == "think":
            self.thoughts += 1
        elif name == "answer":
            self.answers.append("".join(self._answer_parts))
            self._answer_parts = []
        elif name in _CALLS:
            self.waiting = name
        self.open = None

    def _outside(self, name: str, closing: bool) -> None:
        if closing:
            self.add_reason(f"</{name}> has no opening tag")
            return
        if self.waiting is not None:
            self.add_reason(f"</{self.waiting}> is not followed by its result")
            self.waiting = None
        if self.answers:
            self.add_reason("more than one <answer>" if name == "answer" else f"<{name}> follows </answer>")
        if name == "result":
            self.add_reason("the model wrote a <result> itself" if self.recorded else "a result without a call")
        self.open = name

    def report(self) -> FormatReport:
        if self.open is not None:
            self.add_reason(f"<{self.open}> is not closed")
        if self.waiting is not None:
            self.add_reason(f"</{self.waiting}> is not followed by its result")
        if self.thoughts == 0:
            self.add_reason("no think block")
        if not self.answers:
            self.add_reason("no answer")
        elif not (boxed(self.answers[-1]) or "").strip():
            self.add_reason("the answer has no non-empty \\boxed{}")
        return FormatReport(not self.reasons, tuple(self.reasons))


def validate_turns(turns: Sequence[Turn]) -> FormatReport:
    """Check the format of a trajectory's turns; results are those of the record."""
    reader = _Reader(recorded=True)
    for turn in turns:
        reader.model(turn.opening + turn.text)
        for _ in turn.results[:1]:
            reader.result()
    return reader.report()


_RESULT = re.compile(r"<result>")


def validate_text(text: str) -> FormatReport:
    """Check the format of a whole trajectory as one text, with results in `<result>` tags right after their calls.

    A `<result>` inside an open tag is part of that tag's content.
    """
    reader = _Reader()
    position = 0
    for opening in _RESULT.finditer(text):
        if opening.start() < position:
            continue
        reader.model(text[position : opening.start()])
        position = opening.end()
        if reader.open is not None:
            continue
        end = text.find("</result>", position)
        if end < 0:
            reader.add_reason("<result> is not closed")
            return reader.report()
        reader.result()
        position = end + len("</result>")
    reader.model(text[position:])
    return reader.report()
