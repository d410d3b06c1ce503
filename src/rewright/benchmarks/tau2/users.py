"""The scripted user `tau2-ticket`: states its ticket at once and says yes to everything.

It is no simulation of a customer, and results with it are not results on tau2: most scenarios have conditions ("if the
agent refuses, …") that a script cannot follow, and some test whether the model resists a request.
"""

from __future__ import annotations

import re
from typing import Final

from rewright.rollout.users import Conversation, Reply, UserKind

__all__ = ["TICKET"]

_TRANSFER: Final = re.compile(r"transferred to a human agent", re.IGNORECASE)
_CONFIRM: Final = re.compile(r"\b(?:confirm|proceed|go ahead)\b|\byes\b", re.IGNORECASE)
_ASKS: Final = re.compile(r"\?|\bplease (?:confirm|provide|tell|share|specify|let me know)\b", re.IGNORECASE)


class _Ticket:
    """Answers a request for confirmation with yes, any other question with the rest of the ticket, else ends."""

    def __init__(self, conversation: Conversation) -> None:
        self._rest = str(conversation.user.data.get("rest", ""))

    async def reply(self, heard: str | None) -> Reply:
        """Return the next message."""
        said = heard or ""
        if _TRANSFER.search(said):
            return Reply("###TRANSFER###", ended=True)
        if not _ASKS.search(said):
            return Reply("###STOP###", ended=True)
        return Reply("Yes." if _CONFIRM.search(said) else self._rest)

    async def close(self) -> None:
        """Nothing is open."""


TICKET: Final = UserKind(_Ticket)
