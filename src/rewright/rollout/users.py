"""Simulated users: who answers the model when it has ended its turn.

A task names its user (`Task.user`), and the loop asks for the next message when the model has ended its turn and no
follow-up of the task is left. A kind is registered as `user`:

    register("user", "mine", UserKind(MyUser))      # or the import path of the UserKind

`MyUser(conversation)` is made for one trajectory. It hears what the model says outside of thoughts and calls, and can
call the tools of its own, which share their state with the model's. What it says is never trained on. A failure of its
own (a server that does not answer) is raised, and is a failure of the rollout, not of the model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Protocol

import msgspec

from rewright.core.errors import InputError, RewrightError
from rewright.core.records import FollowUp, MessageUsage, SimulatedUser, Task, ToolCall, ToolResult
from rewright.core.registry import find
from rewright.engines.base import Engine, Sampling
from rewright.engines.served import OpenAISettings
from rewright.rollout.settings import UserSettings
from rewright.sandbox.errors import refused_call

__all__ = ["Conversation", "Partner", "Reply", "User", "UserKind", "Users", "check_users", "needs_model"]

HOW_TO_GIVE: Final = (
    "expected user.model, as user.model.engine=openai user.model.base_url=http://localhost:8000/v1 user.model.path=NAME"
)


class Reply(msgspec.Struct, frozen=True):
    """A message of a simulated user, and the calls that it made before."""

    text: str
    """The message."""
    calls: tuple[ToolCall, ...] = ()
    """Calls of its tools, in order."""
    results: tuple[ToolResult, ...] = ()
    """Their results."""
    ended: bool = False
    """The message ends the conversation, and the model does not read it."""
    usage: MessageUsage | None = None
    """What a model has spent on it. None: no model wrote it."""


class User(Protocol):
    """The simulated user of one trajectory."""

    async def reply(self, heard: str | None) -> Reply | None:
        """Return the next message, given what the model said (None: the user opens the conversation).

        None: the user gives up, and the trajectory ends with the stop reason `turn_limit`. Raises RewrightError.
        """
        ...

    async def close(self) -> None:
        """Release what the user holds."""
        ...


class Conversation(msgspec.Struct, frozen=True):
    """What a user is made with."""

    user: SimulatedUser
    """The task's user."""
    call: Callable[[ToolCall], Awaitable[ToolResult]]
    """Runs a call of one of its tools. A failure is a result."""
    session: str
    """Identifies the conversation."""
    seed: int
    """Seed of what the user draws."""
    timeout_seconds: float | None = None
    """Time limit of one message, in seconds."""
    engine: Engine | None = None
    """The users' model. Not None for a kind with `needs_model`."""
    sampling: Sampling = Sampling()
    """Sampling parameters of the users' model."""


class UserKind(msgspec.Struct, frozen=True):
    """A kind of simulated user."""

    open: Callable[[Conversation], User]
    """Makes the user of one trajectory."""
    needs_model: bool = False
    """Whether it generates its messages with the model in `user.model`."""


class Partner:
    """The simulated user of one trajectory, as the loop asks it."""

    def __init__(self, user: User, simulated: SimulatedUser, escape: Callable[[str], str]) -> None:
        self.opens = simulated.opens
        """Whether the user is asked before the model's first turn."""
        self.ended = False
        """Whether the last message has ended the conversation."""
        self._user, self._limit, self._escape = user, simulated.replies, escape
        self._count = 0

    async def ask(self, heard: str | None) -> FollowUp | None:
        """Return the user's next message. None: it has reached its limit. Raises RewrightError."""
        reply = await self._user.reply(heard) if self._limit is None or self._count < self._limit else None
        if reply is None:
            return None
        self._count += 1
        self.ended = reply.ended
        message = {"role": "user", "content": self._escape(reply.text)}
        return FollowUp((message,), heard=heard, calls=reply.calls, results=reply.results, usage=reply.usage)


class Users:
    """Makes the simulated users of a run. Belongs to one event loop, and opens their model when the first one needs it.

    Args:
        settings: the recipe's section `user`; None: no model.
    """

    def __init__(self, settings: UserSettings | None = None) -> None:
        self._settings = settings or UserSettings()
        self._engine: asyncio.Task[Engine] | None = None

    @asynccontextmanager
    async def open(
        self,
        simulated: SimulatedUser | None,
        execute: Callable[[ToolCall], Awaitable[ToolResult]],
        *,
        escape: Callable[[str], str],
        session: str,
        seed: int,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[Partner | None]:
        """Make the user of one trajectory; None if there is none.

        Args:
            simulated: the task's user.
            execute: runs a call in the trajectory's toolset.
            escape: escapes control tokens in what the model reads.
            session: identifies the conversation.
            seed: seed of what the user draws.
            timeout_seconds: time limit of one message.

        Raises InputError for an unknown kind, and for one without its model.
        """
        if simulated is None:
            yield None
            return
        kind = _kind(simulated)
        engine = await self._opened() if kind.needs_model else None
        names = [tool.name for tool in simulated.tools]

        async def call(made: ToolCall) -> ToolResult:
            refused = refused_call(made, names)  # the toolset would run the model's tools too
            return refused if refused is not None else await execute(made)

        sampling = Sampling(temperature=self._settings.temperature, max_tokens=self._settings.turn_tokens)
        user = kind.open(Conversation(simulated, call, session, seed, timeout_seconds, engine, sampling))
        try:
            yield Partner(user, simulated, escape)
        finally:
            await user.close()

    async def _opened(self) -> Engine:
        if self._engine is None:
            self._engine = asyncio.ensure_future(_open_model(self._settings))
        # Shielded, because others may wait for the same model when this trajectory reaches its time limit.
        return await asyncio.shield(self._engine)

    async def close(self) -> None:
        """Close the users' model."""
        opening, self._engine = self._engine, None
        if opening is None:
            return
        try:
            engine = await opening
        except RewrightError:
            return  # the trajectories have it as their failure
        await engine.close()

    def faults(self) -> Mapping[str, int]:
        """Return the failed requests to the users' model, by cause."""
        opening = self._engine
        if opening is None or not opening.done() or opening.exception() is not None:
            return {}
        return dict(getattr(opening.result(), "faults", {}))


async def _open_model(settings: UserSettings) -> Engine:
    engine, _ = await _chat_model(settings).open()
    return engine


def _chat_model(settings: UserSettings) -> OpenAISettings:
    """Return the settings of the users' model. Raises InputError if there is none, or it cannot be asked for chat."""
    if settings.model is None:
        raise InputError(f"its simulated user is a model: {HOW_TO_GIVE}")
    if not isinstance(settings.model, OpenAISettings):
        raise InputError(f"user.model.engine is {settings.model.engine}: expected openai, with user.model.base_url")
    return msgspec.structs.replace(settings.model, mode="chat")


def check_users(tasks: Iterable[Task], settings: UserSettings | None = None) -> None:
    """Raise InputError for a task with a simulated user of an unknown kind, or of one that needs a missing model.

    `settings`: the recipe's section `user`; None: there is no model.
    """
    first = {task.user.kind: task for task in reversed(list(tasks)) if task.user is not None}
    for task in first.values():
        try:
            if task.user is not None and _kind(task.user).needs_model:
                _chat_model(settings or UserSettings()).check("user.model")
        except InputError as problem:
            raise InputError(f"task {task.id}: {problem}") from None


def needs_model(user: SimulatedUser) -> bool:
    """Whether a model writes the messages of a simulated user. Raises InputError for an unknown kind."""
    return _kind(user).needs_model


def _kind(user: SimulatedUser) -> UserKind:
    # A task file can name a registered kind only: an import path would run code.
    if ":" in user.kind:
        raise InputError(f"user.kind is {user.kind!r}: expected a registered name, not an import path")
    found = find("user", user.kind, setting="user.kind")
    if not isinstance(found, UserKind):
        raise InputError(f"user.kind: {user.kind!r} is a {type(found).__name__}: expected a UserKind")
    return found
