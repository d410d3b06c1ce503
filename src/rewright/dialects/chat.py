"""The `chat` dialect: native tool calls of a chat model, and its last message without a call is the answer.

For served models that are told nothing about tags. The prompt is the task's own; the server writes the calls with the
model's chat template and reads them from its text. The whole message, without thoughts, is the answer: the judge's
extractor finds the part that is compared (`rewright.judging.extraction`).

Stored text has calls in the form of the dialect `hermes`. So a call that the server left in the text (it has no parser
for calls, or the call is malformed) is read too. An answer in `<answer>` tags, which a task may ask for, is used alone.
"""

from __future__ import annotations

import msgspec

from rewright.core.records import Message, Task
from rewright.dialects.base import Parsed
from rewright.dialects.hermes import Hermes

__all__ = ["Chat"]


class Chat(Hermes):
    """The `chat` dialect. See the module's docstring."""

    name = "chat"
    prose = True

    def parse(self, text: str) -> Parsed:
        """Parse one turn (see `Dialect.parse`). A turn with calls has no answer, and neither has an empty one."""
        if "<" not in text:  # the usual case: nothing but a message
            said = text.strip()
            return Parsed((), said or None, "", text, "answer" if said else None, whole=True)
        pieces = self.pieces(text)
        parsed = self.parsed(pieces)
        if parsed.calls:
            return msgspec.structs.replace(parsed, answer=None, open=None)
        if parsed.answer is None:
            # The end of the message ends the answer: if a token limit ends it, it is not complete.
            said = "".join(piece.text for piece in pieces if piece.kind == "text").strip()
            parsed = msgspec.structs.replace(parsed, answer=said or None, open="answer" if said else None)
        return msgspec.structs.replace(parsed, whole=True)

    def messages(self, task: Task) -> list[Message]:
        """Return the task's messages unchanged."""
        return [dict(message) for message in task.messages]
