"""The resource `branch` of credit signals (`rewright.credit.resources`): continuations of stored trajectories."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import msgspec

from rewright.core.records import Task, Trajectory, Turn
from rewright.core.storage import RecordFile
from rewright.credit.trajectories import CreditTrajectory
from rewright.rollout.budget import Budget
from rewright.rollout.loop import derive_seed
from rewright.rollout.replay import Continued, Replayer, turn_of_text

__all__ = ["Branches", "Draw", "continued_within", "generated_tokens"]


class Draw(msgspec.Struct, frozen=True):
    """One continuation. `outcome`: None after a failure. `generations`, `tokens`: what was generated for it."""

    key: str
    outcome: float | None
    generations: int
    tokens: int
    failure: str | None = None


class Branches:
    """Continues stored trajectories, for signals. Created inside the event loop that the engine runs in.

    Signals call it from another thread (`asyncio.to_thread`), because they wait for its results.

    Args:
        replayer: restores and continues a trajectory.
        trajectories: the stored trajectories by id.
        tasks: their tasks by id.
        outcome: judges a trajectory.
        budget: the generated turns that are allowed; None: no limit.
        drawn: file of continuations. Those in it are not made again, and the others are added to it. None: no file.

    Attributes `generations` and `tokens` count what was generated for the continuations, those in the file included.
    """

    def __init__(
        self,
        replayer: Replayer,
        trajectories: Mapping[str, Trajectory],
        tasks: Mapping[str, Task],
        outcome: Callable[[Task, Trajectory], Awaitable[float]],
        *,
        budget: Budget | None = None,
        drawn: RecordFile[Draw] | None = None,
    ) -> None:
        self._replayer, self._trajectories, self._tasks, self._outcome = replayer, trajectories, tasks, outcome
        self._loop = asyncio.get_running_loop()
        self._budget, self._drawn = budget or Budget(None), drawn
        self._known = {} if drawn is None else {one.key: one for one in drawn}
        self._calls = 0
        self.generations = self.tokens = 0

    def __call__(
        self, trajectory: CreditTrajectory, turn: int, count: int, seed: int, /, *, alternative: Any = None
    ) -> list[float | None]:
        """Return the outcomes of `count` continuations from the state before `turn` (0 to T); None for a failed one.

        `alternative`: text of the turn that is taken instead of a sampled one; the continuations begin after it.

        Raises ValueError for an unknown trajectory and a turn out of range, and RuntimeError in the event loop's own
        thread, which would wait for itself. Raises BudgetError if the budget does not suffice.
        """
        if trajectory.id not in self._trajectories:
            raise ValueError(f"trajectory {trajectory.id!r} is not stored: it cannot be continued")
        stored = self._trajectories[trajectory.id]
        if not 0 <= turn <= len(stored.turns):
            raise ValueError(f"turn is {turn}: expected 0 to {len(stored.turns)}")
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            raise RuntimeError("branch was called in the event loop of the engine: expected another thread")
        work = self._all(stored, turn, count, seed, alternative)
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _all(
        self, stored: Trajectory, turn: int, count: int, seed: int, alternative: str | None
    ) -> list[float | None]:
        task = self._tasks[stored.task_id]
        prefix = stored.turns[:turn]
        if alternative is not None:
            prefix = (*prefix, turn_of_text(alternative, task, self._replayer))
        self._calls += 1
        name = f"branch/{self._calls}/{stored.id}#{turn}"
        other = "" if alternative is None else hashlib.sha256(alternative.encode()).hexdigest()[:16]

        async def one(number: int) -> float | None:
            key = f"{stored.id}#{turn}#{other}#{seed}#{number}"
            draw = self._known.get(key)
            if draw is None:
                own = derive_seed(seed, stored.task_id, stored.id, turn, alternative or "", number)
                done, generations, tokens = await continued_within(
                    self._budget, self._replayer, f"{name}#{number}", task, stored, prefix=prefix, seed=own, known=turn
                )
                failure, outcome = done.failure, None
                if failure is None:
                    named = msgspec.structs.replace(done.trajectory, id=f"{name}#{number}")
                    outcome = await self._outcome(task, named)
                draw = Draw(key, outcome, generations, tokens, failure)
                if self._drawn is not None:
                    self._drawn.append(draw)
                    self._known[key] = draw
            self.generations += draw.generations
            self.tokens += draw.tokens
            return draw.outcome

        # All of them end before an error is raised, so that what was generated is stored.
        found = await asyncio.gather(*(one(number) for number in range(count)), return_exceptions=True)
        outcomes: list[float | None] = []
        for outcome in found:
            if isinstance(outcome, BaseException):
                raise outcome
            outcomes.append(outcome)
        return outcomes


async def continued_within(
    budget: Budget,
    replayer: Replayer,
    identity: str,
    task: Task,
    trajectory: Trajectory,
    *,
    prefix: Sequence[Turn],
    seed: int,
    slots: asyncio.Semaphore | None = None,
    **more: Any,
) -> tuple[Continued, int, int]:
    """Continue a trajectory (arguments as of `Replayer.run`) in one of the slots, and charge it to a budget.

    As many turns are expected as the stored trajectory has after the prefix. Returns the continuation and the numbers
    of generated turns and tokens. Raises BudgetError if the budget does not suffice, and as `Replayer.run` does.
    """
    over = tuple(prefix) == tuple(trajectory.turns)  # nothing follows a whole trajectory
    expected = 0 if over else max(1, len(trajectory.turns) - len(prefix))
    limit = replayer.limits.turns
    most = 0 if over else None if limit is None else limit - len(prefix)
    # The budget comes first: what waits for it takes no slot from a search that has reserved its part.
    async with budget.reserved(expected, most) as cost, slots or nullcontext():
        done = await replayer.run(identity, task, trajectory, prefix, seed, **more)
        made = done.trajectory.turns[len(prefix) :]
        cost.made = len(made)
    return done, len(made), generated_tokens(made)


def generated_tokens(turns: Sequence[Turn]) -> int:
    """The number of generated tokens of turns."""
    return sum(len(turn.token_ids) if turn.token_ids is not None else turn.completion_tokens or 0 for turn in turns)
