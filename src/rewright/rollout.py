"""The one multi-turn loop: a model writes, its calls are executed, the results go back, until something ends it.

Synthesis, repair, RL and evaluation all call `Rollout.run`. A bad rollout is data: whatever a model, a tool or an
engine does, the outcome is a `Trajectory` with a stop reason. Only the model's tokens carry log-probabilities and
belong to spans; the results' tokens are appended once, neutralised, and never read for calls or answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import msgspec

from rewright.dialects.base import Dialect, Parsed
from rewright.engines.base import Engine, Generation, Request, Sampling
from rewright.errors import RewrightError
from rewright.records import Failure, Message, Provenance, StopReason, Task, ToolCall, ToolResult, Trajectory, Turn
from rewright.rendering import Renderer
from rewright.tools.base import Toolset, ToolsetFactory

__all__ = ["Limits", "Plan", "Rollout", "derive_seed"]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a trajectory ends. None: no limit.

    `trajectory_tokens` counts everything after the prompt, tool results included (as TRL's `max_completion_length`).
    """

    turns: int | None = 10
    turn_tokens: int = 1024
    trajectory_tokens: int | None = 8192
    tool_calls: int | None = None
    tool_seconds: float = 5.0
    tool_characters: int | None = 4000
    trajectory_seconds: float | None = 600.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")


class Plan(msgspec.Struct, frozen=True):
    """One trajectory to make."""

    id: str
    task: Task
    stage: str
    index: int
    seed: int
    parent: str | None = None


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from anything printable: the same on every machine and in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class _State:
    """A trajectory under way."""

    def __init__(self, messages: list[Message], prompt_ids: list[int] | None) -> None:
        self.messages = messages
        self.prompt_ids = prompt_ids
        self.context_ids = list(prompt_ids or ())
        self.turns: list[Turn] = []
        self.calls = 0
        self.answer: str | None = None
        self.failure: Failure | None = None

    @property
    def used(self) -> int:
        """Tokens after the prompt."""
        return len(self.context_ids) - len(self.prompt_ids or ())


class Rollout:
    """The loop, with everything that stays the same between trajectories.

    `renderer` is needed for token engines (they are given token ids); message engines are given messages.
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
    ) -> None:
        if engine.tokens and renderer is None:
            raise ValueError(f"engine {engine.name} is given token ids: a renderer with its tokenizer is needed")
        self.engine, self.dialect, self.tools = engine, dialect, tools
        self.renderer = renderer if engine.tokens else None
        self.limits = limits or Limits()
        self.sampling = sampling or Sampling()

    async def run(self, plan: Plan) -> Trajectory:
        """One trajectory. Never raises for what a model, a tool or an engine does."""
        started = time.monotonic()
        task = plan.task
        messages = self.dialect.messages(task)
        state = _State(messages, None)
        try:
            if self.renderer is not None:
                state = _State(messages, self.renderer.prompt_ids(messages, self.dialect.schemas(task)))
            async with asyncio.timeout(self.limits.trajectory_seconds), self.tools.open(task.tools) as toolset:
                reason = await self._loop(plan, state, toolset)
        except TimeoutError:
            reason = "time_limit"
        except RewrightError as problem:
            reason = "error"
            state.failure = Failure(kind=problem.kind, message=str(problem))
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
            provenance=Provenance(
                model=self.engine.name, sampling=sampling, seed=plan.seed, parent=plan.parent, tokenizer=fingerprint
            ),
            seconds=round(time.monotonic() - started, 3),
        )

    async def run_many(
        self, plans: Iterable[Plan], *, concurrency: int = 64, on_done: Callable[[Trajectory], None] | None = None
    ) -> AsyncIterator[Trajectory]:
        """Trajectories as they become ready. At most `concurrency` are under way; plans are drawn when needed."""
        source = iter(plans)
        running: set[asyncio.Task[Trajectory]] = set()
        try:
            while True:
                while len(running) < concurrency and (plan := next(source, None)) is not None:
                    running.add(asyncio.create_task(self.run(plan)))
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for finished in done:
                    trajectory = finished.result()
                    if on_done is not None:
                        on_done(trajectory)
                    yield trajectory
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _loop(self, plan: Plan, state: _State, toolset: Toolset) -> StopReason:
        limits = self.limits
        while limits.turns is None or len(state.turns) < limits.turns:
            room = limits.turn_tokens
            if self.renderer is not None and limits.trajectory_tokens is not None:
                room = min(room, limits.trajectory_tokens - state.used)
            if room <= 0:
                return "token_limit"
            generation = await self.engine.generate(self._request(plan, state, room))
            parsed, text = self._read(generation)
            state.context_ids += generation.token_ids or ()
            turn = Turn(
                text=text,
                token_ids=generation.token_ids,
                log_probs=generation.log_probs,
                calls=parsed.calls,
                stop=generation.stop,
            )
            state.turns.append(turn)
            allowed = len(turn.calls) if limits.tool_calls is None else max(0, limits.tool_calls - state.calls)
            results = await self._call_tools(turn.calls[:allowed], toolset)
            state.calls += len(results)
            state.turns[-1] = turn = msgspec.structs.replace(turn, results=tuple(results))
            if parsed.answer is not None:
                state.answer = parsed.answer
                return "answered"
            if len(results) < len(turn.calls):
                return "tool_limit"
            if generation.stop == "length":
                return "token_limit"
            if not turn.calls:
                return "no_answer"
            if not self._append_results(state, turn):
                return "token_limit"
        return "turn_limit"

    def _request(self, plan: Plan, state: _State, room: int) -> Request:
        seed = derive_seed(plan.seed, len(state.turns)) % 2**31  # servers take 32-bit seeds
        sampling = msgspec.structs.replace(self.sampling, max_tokens=room, stop=self.dialect.stop, seed=seed)
        return Request(
            messages=tuple(state.messages),
            tools=tuple(self.dialect.schemas(plan.task)),
            sampling=sampling,
            token_ids=tuple(state.context_ids) if self.renderer is not None else None,
            session=plan.id,
            timeout_seconds=self.limits.trajectory_seconds,
        )

    def _read(self, generation: Generation) -> tuple[Parsed, str]:
        """The turn's calls and answer, and its text with calls that a server took out written back in."""
        if generation.calls is None:
            return self.dialect.parse(generation.text), generation.text
        text = self.dialect.write(generation.text, generation.calls)
        parsed = self.dialect.parse(generation.text)
        return msgspec.structs.replace(parsed, calls=generation.calls), text

    async def _call_tools(self, calls: Sequence[ToolCall], toolset: Toolset) -> list[ToolResult]:
        async def one(call: ToolCall) -> ToolResult:
            if call.error is not None:
                return ToolResult(content=f"Error: {call.error}", error=call.error)
            result = await toolset.call(call, wall_seconds=self.limits.tool_seconds)
            most = self.limits.tool_characters
            if most is not None and len(result.content) > most:
                half = most // 2
                cut = f"{result.content[:half]}...{result.content[-half:]}"
                result = msgspec.structs.replace(result, content=cut)
            return result

        return list(await asyncio.gather(*(one(call) for call in calls)))

    def _append_results(self, state: _State, turn: Turn) -> bool:
        """Put the results where the model will read them. False: they do not fit any more."""
        if self.renderer is None:
            state.messages.append(self.dialect.assistant_message(turn.text, turn.calls, malformed=True))
            state.messages += self.dialect.results_as_messages(turn.calls, turn.results)
            return True
        suffix = self.renderer.suffix_ids(turn.calls, turn.results, ended=turn.stop == "end")
        limit = self.limits.trajectory_tokens
        if limit is not None and state.used + len(suffix) >= limit:
            return False
        state.context_ids += suffix
        state.turns[-1] = msgspec.structs.replace(turn, suffix_ids=tuple(suffix))
        return True


def group_by_task(trajectories: Iterable[Trajectory]) -> dict[str, list[Trajectory]]:
    """Groups: the trajectories of one task, in order of appearance."""
    groups: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault(trajectory.task_id, []).append(trajectory)
    return groups


def failures(trajectories: Iterable[Trajectory]) -> dict[str, int]:
    """How many trajectories failed, by the part that failed."""
    counts: dict[str, int] = {}
    for trajectory in trajectories:
        if trajectory.failure is not None:
            counts[trajectory.failure.kind] = counts.get(trajectory.failure.kind, 0) + 1
    return counts
