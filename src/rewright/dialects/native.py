"""The base of the dialects of model families: calls in the form in which the model's own chat template writes them.

A subclass names what opens and closes thoughts and calls, reads one call (`read_call`) and writes calls (`written`).
A call that cannot be read is kept with an `error`. Parsing is linear in the length of the text: after
`MAX_MALFORMED` malformed calls the rest of the turn is not searched for more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Final

from rewright.core.records import ToolCall
from rewright.core.strict_json import STRICT
from rewright.dialects.pieces import ANSWER, INSTRUCTION, Piece, PieceDialect, call_of

__all__ = ["INSTRUCTION", "MAX_MALFORMED", "NO_THOUGHT", "NativeDialect", "as_json", "read_object"]

MAX_MALFORMED: Final = 32
NO_THOUGHT: Final = (
    "Either call tools or give the final answer inside <answer></answer>. "
    "Call a tool whenever a fact has to be looked up or computed."
)
"""The instruction for models whose thoughts are in a channel of their own."""
THINK_WORDS: Final = ("<think>", "</think>", "<answer>", "</answer>")


def as_json(value: Any) -> str:
    """Encode a value as chat templates do (`tojson` of transformers)."""
    return json.dumps(value, ensure_ascii=False)


def read_object(text: str, start: int) -> tuple[dict[str, Any], int]:
    """Decode the JSON object at `start` (after white space); returns it and its end. Raises ValueError."""
    start += len(text[start : start + 64]) - len(text[start : start + 64].lstrip())
    value, end = STRICT.raw_decode(text, start)
    if not isinstance(value, dict):
        raise ValueError("arguments must be a JSON object")
    return value, end


class NativeDialect(PieceDialect):
    """A dialect of a model family. See the module's docstring."""

    native: ClassVar[bool] = True
    """The chat template writes the calls of this dialect, and results only after their calls."""
    text_values: ClassVar[bool] = False
    """Arguments are text: `rewright.dialects.typed` reads them by the tool's schema."""
    result_openers: ClassVar[tuple[str, ...]] = ()
    """Tokens that open results and at which the model stops, so that they end its turn."""
    thoughts: ClassVar[tuple[tuple[str, str], ...]] = (("<think>", "</think>"),)
    """What opens and closes thoughts."""
    opener: ClassVar[str]
    """Regular expression of what opens a call."""
    closer: ClassVar[str]
    """Regular expression of what ends a malformed call; a part of it."""

    def read_call(self, text: str, opening: re.Match[str]) -> tuple[tuple[ToolCall, ...], int]:
        """Read what `opening` opens: the calls and their end. No calls: it is text. Raises ValueError."""
        raise NotImplementedError

    def written(self, calls: Sequence[ToolCall]) -> str:
        """Return well-formed calls as the chat template writes them."""
        raise NotImplementedError

    def thought(self, text: str) -> str:
        """Return a thought as the model writes it, up to what follows."""
        opening, closing = self.thoughts[0]
        return f"{opening}\n{text}\n{closing}" + ("\n\n" if closing == "</think>" else "")

    def separator(self, text: str) -> str:
        """Return what the chat template writes between text and calls."""
        return ""

    def write(self, text: str, calls: Sequence[ToolCall]) -> str:
        """Append every call to `text`; a malformed call is its raw text."""
        if not calls:
            return text
        text += self.separator(text)
        good = [call for call in calls if call.error is None]
        written = self.written(good) if good else ""
        return text + written + "".join(call.raw for call in calls if call.error is not None)

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        opened = "|".join(re.escape(opening) for opening, _ in self.thoughts)
        return re.compile(f"(?P<thought>{opened})|(?P<call>{self.opener})")

    @cached_property
    def _ends(self) -> re.Pattern[str]:
        following = "|".join(re.escape(word) for word in (*(opening for opening, _ in self.thoughts), ANSWER))
        return re.compile(f"(?P<closer>{self.closer})|(?:{self.opener})|{following}")

    def pieces(self, text: str) -> list[Piece]:
        """Split a turn into its parts (see `PieceDialect.pieces`).

        An unclosed thought runs to the end; a closing mark without an opening one ends a thought that the prompt
        opened.
        """
        pieces: list[Piece] = []
        position = self._opened_by_prompt(text)
        if position:
            pieces.append(Piece("thought", text[:position], text[: position - len(self.thoughts[0][1])]))
        malformed, begin = 0, position
        while found := self._marks.search(text, position):
            if found["thought"] is not None:
                closing = dict(self.thoughts)[found[0]]
                inside = found.end()
                end = text.find(closing, inside)
                inner = text[inside : end if end >= 0 else len(text)]
                end = end + len(closing) if end >= 0 else len(text)
                piece = Piece("thought", text[found.start() : end], inner)
            else:
                calls, end = self._calls(text, found)
                if not calls:
                    position = max(end, found.end())
                    continue
                malformed += any(call.error is not None for call in calls)
                end = end if malformed <= MAX_MALFORMED else len(text)
                piece = Piece("call", text[found.start() : end], calls=calls)
            if found.start() > begin:
                pieces.append(Piece("text", text[begin : found.start()]))
            pieces.append(piece)
            position = begin = end
        if begin < len(text):
            pieces.append(Piece("text", text[begin:]))
        return pieces

    def _calls(self, text: str, opening: re.Match[str]) -> tuple[tuple[ToolCall, ...], int]:
        try:
            return self.read_call(text, opening)
        except ValueError as problem:
            reason = str(problem)
        except RecursionError:
            reason = "nested too deeply"
        found = self._ends.search(text, opening.end())
        stop = len(text) if found is None else found.end() if found["closer"] else found.start()
        raw = text[opening.start() : stop]
        return (ToolCall(self.guess_name(raw), {}, raw, f"malformed call: {reason}"),), stop

    def guess_name(self, raw: str) -> str:
        """Guess the tool name of a malformed call; "" if it cannot be found."""
        return ""

    def _opened_by_prompt(self, text: str) -> int:
        """Return the end (closing mark included) of a thought that the prompt opened; 0 if there is none."""
        opening, closing = self.thoughts[0]
        end = text.find(closing)
        if end < 0 or text.find(opening, 0, end) >= 0:
            return 0
        position = malformed = 0
        while malformed <= MAX_MALFORMED and (found := self._marks.search(text, position, end)):
            calls, position = self._calls(text, found) if found["call"] is not None else ((), found.end())
            broken = any(call.error is not None for call in calls)
            if position > end and calls and not broken:
                return 0  # the mark is inside a value of this call
            malformed += broken
            position = max(position, found.end())
        return end + len(closing)

    @staticmethod
    def call(name: Any, arguments: Any, raw: str) -> ToolCall:
        """Return a call (see `call_of`)."""
        return call_of(name, arguments, raw)
