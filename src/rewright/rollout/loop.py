"""The multi-turn rollout loop: generate a turn, execute its calls, append the results, repeat until a stop reason.

A task may have follow-ups: user messages that are sent when the model has ended its turn with an answer or without a
call. After them its simulated user answers, if it has one (`rewright.rollout.users`), until it ends the conversation.

Synthesis, repair, RL and evaluation all use `Rollout.run`. A failed rollout is data: whatever a model, a tool or an
engine does, the result is a `Trajectory` with a stop reason. Only generated tokens have log-probabilities and belong to
spans. The tokens of tool results are appended once, with control tokens escaped, and are never parsed for calls or
answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Any

import msgspec

from rewright.core.concurrency import TimeLimits, as_completed, rare_collections
from rewright.core.errors import EngineError, InputError, RewrightError, ServerError
from rewright.core.escaping import common_pattern, escape_control_tokens
from rewright.core.records import (
    Failure,
    FollowUp,
    Provenance,
    RepairForm,
    StopReason,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
)
from rewright.dialects.base import Dialect, Parsed, new_schemas, read_turn
from rewright.engines.base import Engine, Generation, Request, Sampling
from rewright.rendering.renderer import Renderer
from rewright.rollout.prefix import Prefix, replay
from rewright.rollout.settings import Limits
from rewright.rollout.state import RolloutState, joined
from rewright.rollout.users import Partner, Users
from rewright.sandbox.errors import error_result
from rewright.sandbox.session import truncate_middle
from rewright.tools.base import Toolset, ToolsetFactory
from rewright.tools.declared import declared_names

__all__ = ["Plan", "Rollout", "derive_seed"]


class Plan(msgspec.Struct, frozen=True):
    """A rollout to run: the task, and the id, stage, index and seed of the trajectory.

    `prefix` holds turns that the trajectory begins with; their calls are executed again (`rewright.rollout.prefix`).
    `form` says how a repair was made.
    """

    id: str
    task: Task
    stage: str
    index: int
    seed: int
    parent: str | None = None
    begun: bool = False
    """Whether the task begins with the state of its prerequisites (`rewright.rollout.prerequisites`)."""
    form: RepairForm | None = None
    prefix: Prefix | None = None


def derive_seed(*parts: object) -> int:
    """Derive a 63-bit seed from printable values. The result is the same on every machine and in every process."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class Rollout:
    """The rollout loop with an engine, a dialect and tools.

    Args:
        engine: the model.
        dialect: parses the model's turns and formats tool results.
        tools: opens the tools of each trajectory.
        renderer: required for token engines, which take token ids; message engines take messages.
        limits: when a trajectory ends.
        sampling: sampling parameters of every turn; `max_tokens`, `stop` and `seed` are set per turn.
        users: makes the simulated users of tasks; None: those that need no model.

    Raises ValueError for a token engine without a renderer.
    """

    def __init__(
        self,
        engine: Engine,
        dialect: Dialect,
        tools: ToolsetFactory,
        *,
        renderer: Renderer | None = None,
        limits: Limits | None = None,
        sampling: Sampling | None = None,
        users: Users | None = None,
    ) -> None:
        if engine.tokens and renderer is None:
            raise ValueError(f"engine {engine.name} takes token ids: expected a renderer with its tokenizer")
        self.engine, self.dialect, self.tools = engine, dialect, tools
        self.renderer = renderer if engine.tokens else None
        self._control = common_pattern(dialect.control_words)
        self.limits = limits or Limits()
        self.sampling = sampling or Sampling()
        self.users = users or Users()
        self._time_limits = TimeLimits()

    def escape(self, text: str) -> str:
        """Escape control tokens and tags of the engine's model in the text of a tool or of an earlier attempt."""
        if self.renderer is not None:
            return self.renderer.escape(text)
        return escape_control_tokens(text, self._control)

    async def run(self, plan: Plan) -> Trajectory:
        """Run one rollout. Failures of a model, a tool or an engine end the trajectory and are not raised.

        Raises `ServerError` if the server behind a tool does not answer after its retries.
        """
        started = time.monotonic()
        task = plan.task
        messages, schemas = self.dialect.messages(task), self.dialect.schemas(task)
        state = RolloutState(messages, schemas)
        try:
            if task.prerequisites is not None and not plan.begun:
                raise InputError(f"task {task.id} begins with what other tasks leave: only an evaluation runs those")
            if self.renderer is not None and not (task.user is not None and task.user.opens):
                state.set_prompt(self.renderer.prompt_ids(messages, schemas))
            seconds = self.limits.trajectory_seconds
            with self._time_limits.until(None if seconds is None else asyncio.get_running_loop().time() + seconds):
                async with self.tools.open(task.executed_tools) as toolset, self._partner(plan, toolset) as user:
                    reason = await self._loop(plan, state, toolset, user)
        except TimeoutError:
            reason = "time_limit"
        except ServerError:
            raise  # the server is shared by all trajectories: not a failure of this one
        except RewrightError as problem:
            reason = "error"
            cause = problem.cause if isinstance(problem, EngineError) else None
            state.failure = Failure(problem.kind, str(problem), cause)
        finally:
            await self.engine.release(plan.id)
        fingerprint = self.renderer.fingerprint if self.renderer is not None else None
        sampling = {"temperature": self.sampling.temperature, "top_p": self.sampling.top_p}
        return Trajectory(
            id=plan.id,
            task_id=task.id,
            stage=plan.stage,
            index=plan.index,
            turns=tuple(state.turns),
            stop_reason=reason,
            prompt_ids=None if state.prompt_ids is None else tuple(state.prompt_ids),
            answer=state.answer,
            failure=state.failure,
            opening=state.opening,
            ending=state.ending,
            prompt=task.messages if plan.begun else None,
            provenance=Provenance(
                model=self.engine.name,
                sampling=sampling,
                seed=plan.seed,
                parent=plan.parent,
                tokenizer=fingerprint,
                form=plan.form,
                turn=None if plan.prefix is None else state.kept,
            ),
            seconds=round(time.monotonic() - started, 3),
        )

    async def run_many(
        self,
        plans: Iterable[Plan],
        *,
        concurrency: int = 64,
        on_done: Callable[[Trajectory], None] | None = None,
        run: Callable[[Plan], Coroutine[Any, Any, Trajectory]] | None = None,
    ) -> AsyncGenerator[Trajectory]:
        """Yield trajectories as they complete, with at most `concurrency` rollouts running.

        Plans are taken from the iterable only when a slot is free. `on_done` is called before each yield. `run` runs
        each plan instead of this object's.
        """
        work = map(run or self.run, plans)
        with rare_collections():
            async with aclosing(as_completed(work, concurrency=concurrency)) as ready:
                async for trajectory in ready:
                    if on_done is not None:
                        on_done(trajectory)
                    yield trajectory

    def _partner(self, plan: Plan, toolset: Toolset) -> AbstractAsyncContextManager[Partner | None]:
        """Open the task's simulated user, if it has one."""
        return self.users.open(
            plan.task.user,
            lambda call: self._execute(call, toolset),
            escape=self.escape,
            session=f"{plan.id}/user",
            seed=derive_seed(plan.seed, "user"),
            timeout_seconds=self.limits.trajectory_seconds,
        )

    async def _loop(self, plan: Plan, state: RolloutState, toolset: Toolset, user: Partner | None) -> StopReason:
        limits, follow_ups, declared = self.limits, plan.task.follow_ups, declared_names(plan.task)
        if user is not None and user.opens:
            state.opening = await user.ask(None)
            if state.opening is None or user.ended:
                state.opening, state.ending = None, state.opening
                return "turn_limit" if state.ending is None else "no_answer"
            state.messages += [dict(message) for message in state.opening.messages]
            if self.renderer is not None:
                state.set_prompt(self.renderer.prompt_ids(state.messages, state.schemas))
        if plan.prefix is not None:
            call_tools = partial(self._call_tools, toolset=toolset, task=plan.task, state=state)
            if not await replay(plan.prefix, state, call_tools, partial(self._append, state), self.renderer):
                return "token_limit"
        while limits.turns is None or state.number < limits.turns:
            room = limits.turn_tokens
            if limits.trajectory_tokens is not None:
                room = min(room, limits.trajectory_tokens - state.used)
            if room <= 0:
                return "token_limit"
            generation, parsed = await self._generate(plan, state, room)
            state.record(generation)
            turn = Turn(
                text=generation.text,
                token_ids=generation.token_ids,
                log_probs=generation.log_probs,
                calls=parsed.calls,
                stop=generation.stop,
                prompt_tokens=generation.prompt_tokens,
                completion_tokens=generation.completion_tokens,
                opening=self._opening(state),
                weights_version=generation.weights_version,
            )
            state.turns.append(turn)
            if any(call.name in declared and call.error is None for call in turn.calls):
                return "called"
            allowed = len(turn.calls) if limits.tool_calls is None else max(0, limits.tool_calls - state.calls)
            results = await self._call_tools(turn.calls[:allowed], toolset, plan.task, state)
            state.calls += len(results)
            state.number += 1
            state.turns[-1] = turn = msgspec.structs.replace(turn, results=tuple(results))
            scripted = state.follow_ups < len(follow_ups)
            last = not scripted and user is None
            if parsed.answer is not None and last:
                state.answer = parsed.answer
                return "answered"
            if len(results) < len(turn.calls):
                return "tool_limit"
            if generation.stop == "length":
                return "token_limit"
            # In an inline dialect, no result can be appended to a message that the model has ended.
            ended = not turn.calls or parsed.answer is not None or (self.dialect.inline and generation.stop == "end")
            if ended and last:
                return "no_answer"
            follow_up = follow_ups[state.follow_ups] if ended and scripted else None
            if ended and not scripted and user is not None:
                said = (parsed.rest if parsed.answer is None else parsed.answer).strip()
                if not said:  # a user cannot answer an empty message
                    return "no_answer"
                follow_up = await user.ask(said)
                if follow_up is None:
                    return "turn_limit"
                if user.ended:
                    state.ending, state.answer = follow_up, parsed.answer
                    return "no_answer" if parsed.answer is None else "answered"
            if not self._append(state, turn, follow_up):
                return "token_limit"
        return "turn_limit"

    async def _generate(self, plan: Plan, state: RolloutState, room: int) -> tuple[Generation, Parsed]:
        """Generate one turn of at most `room` tokens; the text is as stored.

        A stop string that ends neither a call nor an answer (a tag mentioned in a thought, say) does not end the turn:
        a token engine continues it.
        """
        generation = await self.engine.generate(self._request(plan, state, room))
        while True:
            generation, parsed = self._read(generation, self._opening(state), plan.task)
            incomplete = parsed.open or (not parsed.calls and parsed.answer is None)
            if generation.stop != "stop" or self.renderer is None or not incomplete:
                return generation, parsed
            written = generation.token_ids or ()
            if len(written) >= room:
                cut_off = msgspec.structs.replace(generation, stop="length")
                return self._read(cut_off, self._opening(state), plan.task)
            more = await self.engine.generate(self._request(plan, state, room, written))
            generation = joined(generation, more)

    def _opening(self, state: RolloutState) -> str:
        return self.renderer.opening(state.number) if self.renderer is not None else ""

    def _request(self, plan: Plan, state: RolloutState, room: int, written: Sequence[int] = ()) -> Request:
        """Build the request for a turn, or for the rest of a turn whose first tokens are `written`."""
        parts = (len(state.turns), len(written)) if written else (len(state.turns),)
        seed = derive_seed(plan.seed, *parts) % 2**31  # servers take 32-bit seeds
        room -= len(written)
        sampling = msgspec.structs.replace(self.sampling, max_tokens=room, stop=self.dialect.stop, seed=seed)
        return Request(
            messages=tuple(state.messages),
            tools=tuple(state.schemas),
            sampling=sampling,
            token_ids=(*state.context_ids, *written) if self.renderer is not None else None,
            session=plan.id,
            timeout_seconds=self.limits.trajectory_seconds,
        )

    def _read(self, generation: Generation, opening: str, task: Task) -> tuple[Generation, Parsed]:
        """Parse the turn's calls and answer, and restore text that a server removed: parsed calls, a stop string.

        Token ids that no longer match the text are dropped.
        """
        if generation.calls is not None:
            parsed = read_turn(self.dialect, opening + generation.text, generation.stop)
            text = self.dialect.write(generation.text, generation.calls)
            answer = None if parsed.whole and generation.calls else parsed.answer
            parsed = msgspec.structs.replace(parsed, calls=generation.calls, answer=answer)
            return msgspec.structs.replace(generation, text=text), parsed
        if self.renderer is None:
            text = self.dialect.truncate_at_stop(generation.text)
            truncated = generation.stop == "length" and not generation.text.startswith(text)
            if text != generation.text and not truncated:
                generation = msgspec.structs.replace(generation, text=text, stop="stop", token_ids=None, log_probs=None)
        schemas = [tool.schema for tool in task.all_tools]
        parsed = read_turn(self.dialect, opening + generation.text, generation.stop, schemas)
        if generation.refused:
            parsed = msgspec.structs.replace(parsed, answer=None)
        return generation, parsed

    async def _call_tools(
        self, calls: Sequence[ToolCall], toolset: Toolset, task: Task, state: RolloutState
    ) -> list[ToolResult]:
        async def execute(call: ToolCall) -> ToolResult:
            if call.error is not None:
                return error_result("malformed", call.error)
            hidden = bool(task.follow_ups) or task.user is not None
            if hidden and all(tool.name != call.name for tool in task.all_tools):
                # Checked here, because the toolset would list tools of later follow-ups, and run those of the user.
                visible = [*task.tools, *(tool for part in task.follow_ups[: state.follow_ups] for tool in part.tools)]
                names = ", ".join(tool.name for tool in visible) or "none"
                return error_result("unknown_tool", f"unknown tool '{call.name}'; available: {names}")
            return await self._execute(call, toolset)

        if len(calls) == 1:  # the usual case needs no task
            return [await execute(calls[0])]
        return list(await asyncio.gather(*(execute(call) for call in calls)))

    async def _execute(self, call: ToolCall, toolset: Toolset) -> ToolResult:
        try:
            result = await toolset.call(call, wall_seconds=self.limits.tool_seconds)
        except RewrightError:
            raise
        except Exception as problem:  # a user's toolset may raise: recorded as a tool error
            result = error_result("exception", f"{type(problem).__name__}: {problem}")
        max_characters = self.limits.tool_characters
        if max_characters is not None and len(result.content) > max_characters:
            result = msgspec.structs.replace(result, content=truncate_middle(result.content, max_characters, "..."))
        return result

    def _append(self, state: RolloutState, turn: Turn, follow_up: FollowUp | None) -> bool:
        """Append results and follow-up to the conversation. Returns False if they exceed the token limit."""
        suffix: list[int] = []
        if self.renderer is None:
            state.messages.append(self.dialect.assistant_message(turn.text, turn.calls, malformed=True))
            if turn.results:
                shown = [
                    msgspec.structs.replace(result, content=self.escape(result.content)) for result in turn.results
                ]
                state.messages += self.dialect.results_as_messages(turn.calls, shown)
            if follow_up is not None:
                state.messages += [dict(message) for message in follow_up.messages]
                state.schemas = [*state.schemas, *new_schemas(self.dialect, follow_up)]
        else:
            ended = turn.stop == "end"
            end = turn.token_ids[-1] if ended and turn.token_ids else None
            suffix = self.renderer.suffix_ids(turn.calls, turn.results, ended=ended, follow_up=follow_up, end=end)
            limit = self.limits.trajectory_tokens
            if limit is not None and state.used + len(suffix) >= limit:
                return False
            state.context_ids += suffix
        if follow_up is not None:
            state.follow_ups += 1
            state.number = 0
        state.turns[-1] = msgspec.structs.replace(turn, suffix_ids=tuple(suffix), follow_up=follow_up)
        return True
