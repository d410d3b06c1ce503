"""Execute a plan: replay, sample alternatives, continue; every result is a line in the audit's folder.

An audit that was interrupted goes on where it stood, and its results are those of an uninterrupted one: a continuation
depends on its seed only, and alternatives are the first k distinct ones in the order of their seeds.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from rewright.audit.effects import Effects
from rewright.audit.plan import TRIES, AuditPlan, PlannedTurn
from rewright.core.concurrency import as_completed
from rewright.core.errors import InputError
from rewright.core.progress import Bar
from rewright.core.records import Task, Trajectory, Turn
from rewright.core.storage import RecordFile
from rewright.rollout.branches import Draw, continued_within, generated_tokens
from rewright.rollout.budget import Budget, BudgetError
from rewright.rollout.replay import Continued, Replayer, turn_key

__all__ = [
    "Alternative",
    "Alternatives",
    "AuditFiles",
    "Draws",
    "Replayed",
    "SignalValues",
    "content_of",
    "effects_of",
    "replay_all",
]

Judge = Callable[[Task, Trajectory], float]
FACTUAL: Final = "factual"
MOST_REFUSED: Final = 0.5
"""If more of the trajectories cannot be replayed, the world cannot be."""


class Replayed(msgspec.Struct, frozen=True):
    """The replay of a whole trajectory. `problem`: what came out differently; None if nothing did.

    `content`: `content_of` the trajectory; empty in audits of older versions.
    """

    trajectory: str
    problem: str | None = None
    content: str = ""


class Alternative(msgspec.Struct, frozen=True):
    """Another turn that the policy wrote in the same state, with its results. `outcome`: set if it was the last one."""

    turn: Turn
    outcome: float | None = None
    ended: bool = False


class Alternatives(msgspec.Struct, frozen=True):
    """The distinct alternatives of a planned turn, and what looking for them cost."""

    key: str
    found: tuple[Alternative, ...]
    tries: int
    generations: int
    tokens: int
    failed: int = 0


class SignalValues(msgspec.Struct, frozen=True):
    """A signal at the planned turns, and what computing it cost. None: missing."""

    key: str
    values: tuple[float | None, ...]
    generations: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, key: str, values: NDArray[np.float64], generations: int, tokens: int, seconds: float) -> SignalValues:
        """Build it from an array with NaN for missing values."""
        return cls(key, tuple(None if np.isnan(one) else float(one) for one in values), generations, tokens, seconds)

    @property
    def array(self) -> NDArray[np.float64]:
        """The values (N,), NaN where missing."""
        return np.array([np.nan if one is None else one for one in self.values], dtype=np.float64)


class AuditFiles:
    """The record files of an audit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.replays = RecordFile(folder / "replays.jsonl", Replayed, lambda one: one.trajectory)
        self.alternatives = RecordFile(folder / "alternatives.jsonl", Alternatives, lambda one: one.key)
        self.draws = RecordFile(folder / "draws.jsonl", Draw, lambda one: one.key)
        self.branches = RecordFile(folder / "branches.jsonl", Draw, lambda one: one.key)
        self.signals = RecordFile(folder / "signals.jsonl", SignalValues, lambda one: one.key)

    def create(self, replays: Sequence[Replayed]) -> None:
        """Make the folder with its replays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.replays.rewrite(replays)

    @property
    def spent(self) -> int:
        """The number of turns that were generated for what is stored."""
        return sum(one.generations for file in (self.alternatives, self.draws, self.branches) for one in file)

    def close(self) -> None:
        """Close the files."""
        for file in (self.replays, self.alternatives, self.draws, self.branches, self.signals):
            file.close()


def content_of(trajectory: Trajectory) -> str:
    """A hash of what the model wrote and of what came back, by which a trajectory that was made anew is known."""
    parts = [(one.text, one.token_ids, [result.content for result in one.results]) for one in trajectory.turns]
    return hashlib.sha256(repr(parts).encode(errors="surrogatepass")).hexdigest()[:16]


def key_of(turn: PlannedTurn, arm: str = "", repeat: int | None = None) -> str:
    """The key of a planned turn, or of one of its draws."""
    key = f"{turn.trajectory}#{turn.turn}"
    return key if repeat is None else f"{key}#{arm}#{repeat}"


async def replay_all(
    replayer: Replayer, trajectories: Sequence[Trajectory], tasks: Callable[[str], Task], *, concurrency: int
) -> list[Replayed]:
    """Replay whole trajectories without generating anything.

    Raises InputError if more than half of them come out differently: the world cannot be replayed.
    """

    async def replayed(one: Trajectory) -> Replayed:
        done = await replayer.run(f"replay/{one.id}", tasks(one.task_id), one, one.turns, 0, stage="replay", generate=0)
        problem = done.problem
        if problem is None:
            problem = done.failure
        if problem is None and done.stopped:
            problem = f"it goes on after its last turn (it had ended with {one.stop_reason})"
        return Replayed(one.id, problem, content_of(one))

    found: dict[str, Replayed] = {}
    with Bar("replays", len(trajectories)) as bar:
        async with aclosing(as_completed(map(replayed, trajectories), concurrency=concurrency)) as ready:
            async for one in ready:
                found[one.trajectory] = one
                bar.step()
    bad = [one for one in found.values() if one.problem is not None]
    if len(bad) > MOST_REFUSED * len(found):
        raise InputError(
            f"the world cannot be replayed: {len(bad)} of {len(found)} trajectories came out differently, such as "
            f"{bad[0].trajectory}: {bad[0].problem}: expected tools that give the same results again"
        )
    return [found[one.id] for one in trajectories]


class Draws:
    """Makes the draws of a plan that are not stored yet.

    Args:
        plan: the plan.
        files: its files.
        replayer: continues trajectories.
        trajectories: the stored trajectories by id.
        tasks: finds a task by its id.
        judge: returns the outcome of a trajectory. It may block.
        budget: the generated turns that are allowed.
        concurrency: number of continuations at once.
    """

    def __init__(
        self,
        plan: AuditPlan,
        files: AuditFiles,
        replayer: Replayer,
        *,
        trajectories: Callable[[str], Trajectory],
        tasks: Callable[[str], Task],
        judge: Judge,
        budget: Budget,
        concurrency: int,
    ) -> None:
        self._plan, self._files, self._replayer = plan, files, replayer
        self._trajectories, self._tasks, self._judge = trajectories, tasks, judge
        self._budget, self._concurrency = budget, concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._judging = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rewright-judge")
        self._alternatives = {one.key: one for one in files.alternatives}
        self._done = {one.key for one in files.draws}

    async def run(self) -> None:
        """Make all missing draws. Raises BudgetError when the budget does not suffice; what was drawn is stored."""
        bad = {one.trajectory for one in self._files.replays if one.problem is not None}
        turns = [one for one in self._plan.turns if one.trajectory not in bad]
        refused: BudgetError | None = None
        at_once = max(1, self._concurrency // max(1, self._plan.factual))
        try:
            with Bar("turns", len(turns)) as bar:
                async with aclosing(as_completed(map(self._tried, turns), concurrency=at_once)) as ready:
                    async for over in ready:
                        refused = refused or over
                        bar.step(detail=f"{self._budget.spent} generations")
        finally:
            self._judging.shutdown(wait=True)
        if refused is not None:
            raise refused

    async def _tried(self, planned: PlannedTurn) -> BudgetError | None:
        """Make the draws of a turn. Returns the error of a budget that is spent: what runs is to end, and be stored."""
        try:
            await self._turn(planned)
        except BudgetError as over:
            return over
        return None

    async def _turn(self, planned: PlannedTurn) -> None:
        alternatives = self._alternatives.get(key_of(planned))
        if alternatives is None:
            alternatives = await self._look_for_alternatives(planned)
        if len(alternatives.found) < self._plan.k:
            return  # not defined, so that continuations would be of no use
        stored = self._trajectories(planned.trajectory)
        prefix = stored.turns[: planned.turn + 1]
        repeats = self._plan.factual if planned.turn + 1 < planned.turns else 1
        work = [self._draw(planned, FACTUAL, repeat, prefix) for repeat in range(repeats)]
        for number, alternative in enumerate(alternatives.found):
            if not alternative.ended:
                other = [*prefix[:-1], alternative.turn]
                work += [self._draw(planned, str(number), repeat, other) for repeat in range(self._plan.repeat)]
        results = await asyncio.gather(*work, return_exceptions=True)
        problems = [one for one in results if isinstance(one, BaseException)]
        for problem in sorted(problems, key=lambda one: isinstance(one, BudgetError)):  # others say more
            raise problem

    async def _look_for_alternatives(self, planned: PlannedTurn) -> Alternatives:
        stored = self._trajectories(planned.trajectory)
        prefix = stored.turns[: planned.turn]
        dialect = self._replayer.dialect
        seen = {turn_key(stored.turns[planned.turn], dialect)}
        found: list[Alternative] = []
        tries = generations = tokens = failed = 0
        distinct = self._plan.alternatives == "distinct"
        most = TRIES * self._plan.k
        async with self._budget.reserved(self._plan.k, most) as cost:
            while len(found) < self._plan.k and tries < most:
                numbers = range(tries, min(tries + self._plan.k, most))
                for done in await self._tries(planned, numbers, prefix):
                    made = done.trajectory.turns[len(prefix) :]
                    tries += 1
                    generations += len(made)
                    cost.made = generations
                    tokens += generated_tokens(made)
                    if done.failure is not None or not made:
                        failed += 1
                        continue
                    key = turn_key(made[0], dialect)
                    if (not distinct or key not in seen) and len(found) < self._plan.k:
                        seen.add(key)
                        outcome = None if done.stopped else await self._outcome(planned, done)
                        found.append(Alternative(made[0], outcome, not done.stopped))
        result = Alternatives(key_of(planned), tuple(found), tries, generations, tokens, failed)
        self._files.alternatives.append(result)
        return result

    async def _tries(self, planned: PlannedTurn, numbers: Sequence[int], prefix: Sequence[Turn]) -> list[Continued]:
        """The policy's next turn with each of these seeds, in their order."""
        stored, task = self._trajectories(planned.trajectory), self._tasks(planned.task)

        async def one(number: int) -> Continued:
            seed, identity = self._plan.seed_of(planned, "try", number), key_of(planned, "try", number)
            async with self._slots:
                return await self._replayer.run(identity, task, stored, prefix, seed, stage="audit", generate=1)

        return await asyncio.gather(*map(one, numbers))

    async def _draw(self, planned: PlannedTurn, arm: str, repeat: int, prefix: Sequence[Turn]) -> None:
        key = key_of(planned, arm, repeat)
        if key in self._done:
            return
        stored, task = self._trajectories(planned.trajectory), self._tasks(planned.task)
        seed = self._plan.seed_of(planned, arm, repeat)
        done, generations, tokens = await continued_within(
            self._budget, self._replayer, key, task, stored, prefix=prefix, seed=seed, slots=self._slots, stage="audit"
        )
        outcome = None if done.failure is not None else await self._outcome(planned, done)
        self._files.draws.append(Draw(key, outcome, generations, tokens, done.failure))
        self._done.add(key)

    async def _outcome(self, planned: PlannedTurn, done: Continued) -> float:
        task = self._tasks(planned.task)
        return await asyncio.get_running_loop().run_in_executor(self._judging, self._judge, task, done.trajectory)


def effects_of(plan: AuditPlan, files: AuditFiles) -> tuple[Effects, dict[str, int]]:
    """The effects of all planned turns, NaN where they are not defined, and how many are not, by cause."""
    count = len(plan.turns)
    factual = np.full((count, plan.factual), np.nan)
    others = np.full((count, plan.k, plan.repeat), np.nan)
    exact, others_exact = np.zeros(count, dtype=bool), np.zeros((count, plan.k), dtype=bool)
    alternatives = {one.key: one for one in files.alternatives}
    draws = {one.key: one.outcome for one in files.draws}
    bad = {one.trajectory for one in files.replays if one.problem is not None}
    causes = {"not replayed": 0, "too few alternatives": 0, "no outcome": 0}

    def drawn(planned: PlannedTurn, arm: str, repeats: int) -> list[float]:
        found = [draws.get(key_of(planned, arm, repeat)) for repeat in range(repeats)]
        return [np.nan if one is None else one for one in found]

    for row, planned in enumerate(plan.turns):
        found = alternatives.get(key_of(planned))
        if planned.trajectory in bad:
            causes["not replayed"] += 1
            continue
        if found is None or len(found.found) < plan.k:
            causes["too few alternatives"] += 1
            continue
        exact[row] = planned.turn + 1 == planned.turns
        factual[row] = drawn(planned, FACTUAL, 1 if exact[row] else plan.factual)
        for number, alternative in enumerate(found.found):
            others_exact[row, number] = alternative.ended
            own = alternative.outcome
            others[row, number] = (
                (np.nan if own is None else own) if alternative.ended else drawn(planned, str(number), plan.repeat)
            )
        # An arm without any outcome would change what the effect is a difference of.
        if np.isnan(factual[row]).all() or np.isnan(others[row]).all(axis=1).any():
            factual[row] = np.nan
            causes["no outcome"] += 1
    return Effects(factual, others, exact, others_exact), {key: value for key, value in causes.items() if value}
