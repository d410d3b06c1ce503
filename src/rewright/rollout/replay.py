"""Replay the first turns of a stored trajectory in fresh tools, and go on from there with an engine.

The rollout loop itself replays: `ReplayEngine` returns the stored turns, so that their calls are executed again and the
context is built as it was. Before each turn the context is compared with the stored token ids, and afterwards the
results with the stored ones. If anything differs, the world is not in the stored state: the continuation has the
failure `replay`, and no outcome.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from rewright.core.errors import RewrightError
from rewright.core.records import Failure, FollowUp, Task, ToolCall, Trajectory, Turn
from rewright.credit.calls import read_call
from rewright.dialects.base import Dialect, read_turn
from rewright.engines.base import Engine, Generation, Request
from rewright.rollout.loop import Plan, Rollout

__all__ = ["REPLAY", "Continued", "Replayer", "turn_key", "turn_of_text"]

REPLAY: Final = "replay"
"""Kind of the failure of a continuation whose prefix could not be restored."""
STOPPED: Final = "stopped"
"""Kind of the failure of a continuation that ended after the requested number of turns."""


class ReplayError(RewrightError, RuntimeError):
    """The stored prefix does not come about again."""

    kind = REPLAY


class _StoppedError(RewrightError):
    """As many turns as requested were generated."""

    kind = STOPPED


class _Session:
    """A continuation in progress: the stored turns, the stored context before each, and how many turns may follow."""

    def __init__(self, turns: Sequence[Turn], contexts: Sequence[list[int]] | None, limit: int | None) -> None:
        self.turns, self.contexts, self.limit = turns, contexts, limit
        self.played = self.generated = 0
        self.unfinished: list[int] | None = None
        """The context after the last generation. A request with it is for the rest of the same turn."""


class ReplayEngine:
    """An engine that returns stored turns, then those of another engine. Closing it does not close that engine."""

    def __init__(self, engine: Engine, dialect: Dialect) -> None:
        self._engine, self._dialect = engine, dialect
        self.name, self.tokens = engine.name, engine.tokens
        self._sessions: dict[str, _Session] = {}

    def start(
        self, session: str, turns: Sequence[Turn], contexts: Sequence[list[int]] | None, limit: int | None
    ) -> None:
        """Prepare a session. `contexts`: token ids before each turn and after the last; None: they are not checked."""
        self._sessions[session] = _Session(turns, contexts, limit)

    async def generate(self, request: Request) -> Generation:
        """Return the next stored turn, else generate. Raises ReplayError if the context is not the stored one."""
        session = self._sessions[request.session]
        place = session.played
        if session.contexts is not None and session.generated == 0 and place < len(session.contexts):
            context = list(request.token_ids or ())
            if context != session.contexts[place]:
                raise ReplayError(f"the tokens before turn {place + 1} are not the stored ones")
        if place < len(session.turns):
            session.played += 1
            turn = session.turns[place]
            said = None if self.tokens else _said_beside_calls(turn, self._dialect)
            return Generation(
                text=turn.text if said is None else said,
                calls=None if said is None else turn.calls,
                token_ids=turn.token_ids,
                log_probs=turn.log_probs,
                stop=turn.stop,
                prompt_tokens=turn.prompt_tokens,
                completion_tokens=turn.completion_tokens,
            )
        ids = None if request.token_ids is None else list(request.token_ids)
        if ids is None or ids != session.unfinished:
            if session.generated == session.limit:
                raise _StoppedError(f"{session.limit} turns were generated")
            session.generated += 1
        generation = await self._engine.generate(request)
        session.unfinished = None if ids is None else [*ids, *(generation.token_ids or ())]
        return generation

    async def release(self, session: str) -> None:
        """Forget the session."""
        self._sessions.pop(session, None)
        await self._engine.release(session)

    async def close(self) -> None:
        """Do nothing: the other engine has an owner."""


class Continued(NamedTuple):
    """A continuation. `stopped`: it could go on, but as many turns as requested were generated."""

    trajectory: Trajectory
    stopped: bool

    @property
    def failure(self) -> str | None:
        """Why it has no outcome: the label of its failure, or the limit of time, which depends on the machine."""
        if self.trajectory.failure is not None:
            return self.trajectory.failure.label
        return "time limit" if self.trajectory.stop_reason == "time_limit" else None

    @property
    def problem(self) -> str | None:
        """Why the prefix did not come about again; None if it did."""
        failure = self.trajectory.failure
        return failure.message if failure is not None and failure.kind == REPLAY else None


class Replayer:
    """Continues stored trajectories with the engine, the tools and the limits of a rollout loop."""

    def __init__(self, rollout: Rollout) -> None:
        self._engine = ReplayEngine(rollout.engine, rollout.dialect)
        self.dialect, self.renderer, self.limits = rollout.dialect, rollout.renderer, rollout.limits
        self._rollout = Rollout(
            self._engine,
            rollout.dialect,
            rollout.tools,
            renderer=rollout.renderer,
            limits=rollout.limits,
            sampling=rollout.sampling,
            users=rollout.users,
        )

    async def run(
        self,
        identity: str,
        task: Task,
        trajectory: Trajectory,
        prefix: Sequence[Turn],
        seed: int,
        *,
        stage: str = "branch",
        generate: int | None = None,
        known: int | None = None,
    ) -> Continued:
        """Return the trajectory that begins with the turns `prefix`, and goes on with generated ones.

        Args:
            identity: its id, unique among the running ones.
            task: the task.
            trajectory: the stored trajectory, whose prompt must come about again.
            prefix: stored turns with their results, not necessarily those of the trajectory.
            seed: seed of the generated turns.
            stage: its stage.
            generate: end after so many generated turns; None: when the trajectory ends.
            known: number of turns of the prefix whose results are stored and compared; None: all.

        The failure is that of a rollout, or of kind `replay` if the prefix did not come about again. Raises ServerError
        as the loop does.
        """
        known = len(prefix) if known is None else known
        contexts = None if self.renderer is None else _contexts(trajectory, prefix[:known])
        self._engine.start(identity, prefix, contexts, generate)
        plan = Plan(id=identity, task=task, stage=stage, index=trajectory.index, seed=seed)
        found = await self._rollout.run(plan)
        stopped = found.failure is not None and found.failure.kind == STOPPED
        if stopped:
            found = msgspec.structs.replace(found, failure=None, stop_reason="turn_limit")
        if found.failure is None:
            problem = _difference(found, trajectory, prefix, known)
            if problem is not None:
                failure = Failure(REPLAY, problem)
                found = msgspec.structs.replace(found, failure=failure, stop_reason="error")
        return Continued(found, stopped)


def turn_of_text(text: str, task: Task, replayer: Replayer) -> Turn:
    """Make a turn of a text, as if the model of the replayer had written it. Its calls have no results yet."""
    dialect, renderer = replayer.dialect, replayer.renderer
    stopped = any(text.endswith(word) for word in dialect.stop)
    stop: Literal["stop", "end"] = "stop" if stopped else "end"
    calls = read_turn(dialect, text, stop, [tool.schema for tool in task.all_tools]).calls
    if renderer is None:
        return Turn(text=text, calls=calls, stop=stop)
    ids = renderer.encode_text(text)
    if not stopped:
        ids = [*ids, *renderer.end_ids(calls)]
    return Turn(text=text, token_ids=tuple(ids), calls=calls, stop=stop)


def _said_beside_calls(turn: Turn, dialect: Dialect) -> str | None:
    """The text of a turn before the loop appended calls that a server had read; None if it cannot have done that.

    Read from the text again, such a call has another raw text, and a malformed one another error.
    """
    if not turn.calls:
        return None
    head = turn.text.removesuffix(dialect.write("", turn.calls))
    before = (head[: len(head) - separator] for separator in range(3))
    return next((said for said in before if dialect.write(said, turn.calls) == turn.text), None)


def turn_key(turn: Turn, dialect: Dialect) -> Hashable:
    """A key that is equal for turns that do the same: the same calls, in any order, or the same final text.

    Arguments are compared as JSON. Thoughts do not count.
    """
    if turn.calls:
        return tuple(sorted(map(repr, map(_call_key, turn.calls))))
    parsed = read_turn(dialect, turn.opening + turn.text, turn.stop)
    return " ".join((parsed.rest if parsed.answer is None else parsed.answer).split())


def _call_key(call: ToolCall) -> Hashable:
    read = read_call(call)
    if read is None:
        return ("malformed", call.raw)
    return (read[0], tuple(sorted(((key, _number(value)) for key, value in read[1].items()), key=repr)))


def _number(value: Hashable) -> Hashable:
    """5.0 as 5, because keys are compared as text."""
    if isinstance(value, tuple):
        return tuple(map(_number, value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _contexts(trajectory: Trajectory, prefix: Sequence[Turn]) -> list[list[int]] | None:
    """The token ids before each turn of the prefix and after the last; None if they are not stored."""
    if trajectory.prompt_ids is None or any(turn.token_ids is None for turn in prefix):
        return None
    contexts = [list(trajectory.prompt_ids)]
    for turn in prefix:
        contexts.append([*contexts[-1], *(turn.token_ids or ()), *turn.suffix_ids])
    return contexts


def _difference(found: Trajectory, trajectory: Trajectory, prefix: Sequence[Turn], known: int) -> str | None:
    """Say where a replayed trajectory is not the stored one."""
    if not _same_message(found.opening, trajectory.opening):
        return "the simulated user opens the conversation with another message"
    if len(found.turns) < len(prefix):
        return f"it ended after turn {len(found.turns)} of {len(prefix)} ({found.stop_reason})"
    for number, (one, stored) in enumerate(zip(found.turns, prefix[:known], strict=False), 1):
        # Not their raw text, which depends on who has read a call: the server, or here the dialect.
        if [read_call(call) for call in one.calls] != [read_call(call) for call in stored.calls]:
            return f"the calls of turn {number} are read differently"
        results = [[(result.content, result.error) for result in turn.results] for turn in (one, stored)]
        if results[0] != results[1]:
            pair = next((pair for pair in zip(*results, strict=False) if pair[0] != pair[1]), (results[0], results[1]))
            return f"a result of turn {number} was {_short(pair[1])} and is now {_short(pair[0])}"
        # After the last turn there is a message of the user only if the conversation went on.
        if number < len(prefix) and not _same_message(one.follow_up, stored.follow_up):
            return f"the user's message after turn {number} is another one"
    return None


def _same_message(one: FollowUp | None, other: FollowUp | None) -> bool:
    return (() if one is None else one.messages) == (() if other is None else other.messages)


def _short(value: object) -> str:
    text = str(value[0] if isinstance(value, tuple) else value)
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
