"""The scripted user `tau2-ticket`: states its ticket at once and says yes to everything.

It is no simulation of a customer, and results with it are not results on tau2: most scenarios have conditions ("if the
agent refuses, …") that a script cannot follow, and some test whether the model resists a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from rewright.rollout.users import Conversation, Reply, UserKind

__all__ = ["TICKET"]


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE | re.VERBOSE)


_TRANSFER: Final = _pattern(r"transferred\ to\ a\ human\ agent")
_SENTENCES: Final = _pattern(r"(?<=[.!?])\s+ | \n+")
_CLAUSES: Final = _pattern(
    r"[,;:—–] | \b(?:and|or|but)\b (?=\s+(?:is|are|do|does|can|could|would|will|may|what|how)\b)"
)
_QUESTION: Final = _pattern(
    r"\W* (?:(?:and|or|but|so|also)\s+)? (?:is|are|do|does|did|can|could|would|will|shall|should|may|have|has|what|"
    r"which|who|when|where|why|how)\b"
)
_YES: Final = r"\byes\W*(?:/|or)\W*no\b | \b(?:reply|respond|answer|type|say)\s+(?:with\s+)?\W*yes\b"
_ASKS: Final = _pattern(
    r"\? | \bplease\s+(?:confirm|provide|tell|share|specify|reply|respond|answer|say|type|give|send|state)\b"
    r"| \blet\ me\ know\b (?!\W*$ | \s+(?:if|should)\s+(?:you\s+(?:need|have)|there)) | " + _YES
)
_CLOSES: Final = _pattern(
    r"\b(?:anything|something|what|how)\s+else\b | \banything\s+(?:more|further|additional)\b | \bany\s+questions?\b"
    r"| \b(?:any|some)\s+(?:other|more|further|additional)\s+"
    r"(?:questions?|requests?|concerns?|issues?|needs?|ways?|help|assistance|things?|matters?)\b"
    r"| \bfurther\s+(?:help|assist\w*|questions?)\b | \b(?:help|assist)\s+(?:you\s+)?further\b"
)
_CONFIRM: Final = _pattern(
    r"\b(?:proceed|go\ ahead)\b | "
    + _YES
    + r"| \bconfirm\b (?!\s+your\s+(?:\w+\s+){0,3}?(?:names?|ids?|e-?mail|zip|numbers?|identity))"
    r"| \b(?:would\ you\ like|do\ you\ want)\s+me\s+to\b (?!\s+(?:help|assist))"
    r"| (?:^\W*|[,;:]\s*|\b(?:so|and|then)\s+)(?:shall|should|may)\s+I\b (?!\s+(?:have|ask|know|help|assist))"
    r"| \b(?:is|are|does)\s+(?:this|that|these|it|everything|all)\b [^?]*"
    r"\b(?:correct|right|ok(?:ay)?|fine|acceptable|good|work|sound)\b"
    r"| \bok(?:ay)?\s+(?:with|for)\s+you\b | \bdo\ you\ (?:agree|accept)\b | \bare\ you\ sure\b"
)


def _questions(said: str) -> Iterator[str]:
    """Yield the sentences that ask for an answer, without the parts that offer further help."""
    for sentence in _SENTENCES.split(said):
        clauses = _CLAUSES.split(sentence)
        kept = [clause for clause in clauses if not _CLOSES.search(clause)]
        if len(kept) == len(clauses):
            asking = bool(_ASKS.search(sentence))
        else:  # a question mark may be that of the offer
            asking = any(_QUESTION.match(clause) or _ASKS.search(clause) for clause in kept)
        if asking:
            yield ", ".join(kept)


class _Ticket:
    """Says yes to a request for confirmation, and the rest of the ticket to the first other question; else it ends.

    An offer of further help is no question: the ticket has no other request.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._rest: str | None = str(conversation.user.data.get("rest", ""))

    async def reply(self, heard: str | None) -> Reply:
        """Return the next message."""
        said = heard or ""
        if _TRANSFER.search(said):
            return Reply("###TRANSFER###", ended=True)
        questions = list(_questions(said))
        if any(_CONFIRM.search(question) for question in questions):
            return Reply("Yes.")
        if questions and self._rest is not None:
            rest, self._rest = self._rest, None
            return Reply(rest)
        return Reply("###STOP###", ended=True)

    async def close(self) -> None:
        """Nothing is open."""


TICKET: Final = UserKind(_Ticket)
