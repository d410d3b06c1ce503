"""A simulated user in one file: asks the questions in its `data`, one after another, and thanks for the last answer."""

from __future__ import annotations

from rewright.core.registry import register
from rewright.rollout.users import Conversation, Reply, UserKind


class Asking:
    """See `rewright.rollout.users.User`."""

    def __init__(self, conversation: Conversation) -> None:
        self.questions = list(conversation.user.data["questions"])

    async def reply(self, heard: str | None) -> Reply:
        """The next question, or the end."""
        return Reply(self.questions.pop(0)) if self.questions else Reply(f"Thanks for {heard}.", ended=True)

    async def close(self) -> None:
        """Nothing is held."""


register("user", "toy_asking", UserKind(Asking))
