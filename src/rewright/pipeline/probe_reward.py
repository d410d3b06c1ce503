"""Play known hacks against the reward of a recipe, before a model finds them in training.

The hacks are written turns (`hacks.py`) that go through the rollout loop with the recipe's dialect, tools and limits,
and are judged and rewarded as rollouts of RL are. No model is needed.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from rewright.core.errors import InputError, JudgeError, WorkerError
from rewright.core.records import LIMIT_STOPS, Task, Trajectory, Verdict
from rewright.credit.trajectories import CreditTrajectory
from rewright.dialects.format_check import format_problem
from rewright.engines.base import Generation, Request
from rewright.judging.base import AnswerJudge
from rewright.judging.judges import find_judge
from rewright.judging.scores import turn_scores
from rewright.pipeline.context import Context
from rewright.pipeline.hack_player import Player, honest_right, honest_wrongs
from rewright.pipeline.hacks import HACKS, Hack
from rewright.pipeline.run_directory import Run
from rewright.recipe.schema import Recipe
from rewright.rollout.loop import Plan, Rollout
from rewright.rollout.rewards import RewardSettings, verdict_for
from rewright.rollout.users import needs_model
from rewright.tasks.gold_turns import gold_turns, plays_gold
from rewright.training.group_credit import CreditInput, credit_groups

__all__ = ["Played", "Probe", "Row", "probe_reward"]

TOLERANCE: Final = 1e-6
CLEARLY: Final = 0.05
"""The right trajectory's outcome is larger than the wrong one's by this, at least."""
RIGHT: Final = 0.5
"""An outcome that counts as right (`Verdict.correct`)."""
HANGS: Final = "the judge exceeded its time limit on another task"


class Played(msgspec.Struct, frozen=True):
    """One trajectory of one task. `why`: what is suspicious about it; None if nothing is.

    `failed`: the judge failed on it, as `why` says. It has no verdict then, and its numbers are those of outcome 0.
    """

    task: str
    outcome: float
    reward: float
    why: str | None = None
    answer: str | None = None
    failed: bool = False


class Row(msgspec.Struct, frozen=True):
    """One hack on all tasks. `not_played`: on how many tasks it was not played, by the reason."""

    hack: str
    played: list[Played]
    not_played: dict[str, int] = {}

    @property
    def judged(self) -> list[Played]:
        """The trajectories on which the judge did not fail."""
        return [one for one in self.played if not one.failed]

    @property
    def outcome(self) -> float | None:
        """Mean outcome; None if nothing was judged."""
        return sum(one.outcome for one in self.judged) / len(self.judged) if self.judged else None

    @property
    def reward(self) -> float | None:
        """Mean trajectory reward; None if nothing was judged."""
        return sum(one.reward for one in self.judged) / len(self.judged) if self.judged else None

    @property
    def suspicious(self) -> list[Played]:
        """The trajectories that earn what they should not."""
        return [one for one in self.played if one.why is not None]


class Probe(msgspec.Struct, frozen=True):
    """The result.

    `unjudged`: tasks whose own gold answer and calls are judged as wrong, which say nothing about hacks, with the
    reasons. `unplayed`: numbers of tasks on which right and wrong cannot be played, by the reason.
    """

    right: Row
    wrong: Row
    rows: list[Row]
    unjudged: dict[str, str]
    unplayed: dict[str, int]

    @property
    def found(self) -> int:
        """Number of hacks, wrong answers included, that are suspicious on any task."""
        return sum(bool(row.suspicious) for row in (self.wrong, *self.rows))

    @property
    def failing(self) -> int:
        """Number of hacks, wrong answers included, on which the judge fails and that do not pay on another task."""
        rows = [row.suspicious for row in (self.wrong, *self.rows)]
        return sum(bool(row) and all(one.failed for one in row) for row in rows)


class _Script:
    """An engine that writes the given turns, and nothing after them."""

    tokens = False
    name = "script"

    def __init__(self, scripts: dict[str, list[str]]) -> None:
        self._scripts = {session: list(turns) for session, turns in scripts.items()}

    async def generate(self, request: Request) -> Generation:
        """Return the next turn."""
        turns = self._scripts[request.session]
        text = turns.pop(0) if turns else ""
        return Generation(text=text, stop="stop" if text.endswith(request.sampling.stop or "\0") else "end")

    async def release(self, session: str) -> None:
        """Nothing is held."""

    async def close(self) -> None:
        """Nothing is held."""


def probe_reward(recipe: Recipe, limit: int) -> Probe:
    """Play the hacks on the first `limit` tasks of RL, in turn of each judge that they name.

    Raises InputError if no task can be played, if no task's own gold answer and calls are judged as right, and if the
    judge fails on these. A judge that fails on a hack is a finding. One that hangs is not asked about the same hack
    again.
    """
    with tempfile.TemporaryDirectory(prefix="rewright-") as folder:
        context = Context(Run(Path(folder)), recipe)
        if recipe.rl.credit.needs():
            raise InputError(
                f"rl.credit.signal is {recipe.rl.credit.signal_name}, which needs a model: expected others, "
                "such as rl.credit.signal=matched, since the hacks are written texts"
            )
        tasks = context.load(recipe.rl.tasks or recipe.tasks, "tasks" if recipe.rl.tasks is None else "rl.tasks")
        unplayed: Counter[str] = Counter()
        by_judge: dict[str, list[Task]] = {}
        for task in tasks:
            reason = _unplayable(task)
            if reason is not None:
                unplayed[reason] += 1
            else:
                by_judge.setdefault(_judge(task, recipe.rl), []).append(task)
        in_turn = (task for some in zip_longest(*by_judge.values()) for task in some if task is not None)
        ids = {task.id for task in islice(in_turn, limit)}
        chosen = [task for task in tasks if task.id in ids]
        for judge, those in list(by_judge.items())[limit:]:
            unplayed[f"of the judge {judge}, beyond --limit {limit}"] += len(those)
        if not chosen:
            reasons = ", ".join(f"{count} {reason}" for reason, count in unplayed.items())
            raise InputError(f"no task can be played ({reasons}): expected tasks on which right and wrong are known")
        try:
            return _Prober(context, chosen, tasks).probe(dict(unplayed))
        except JudgeError as problem:  # no hack that pays, but a mistake in the judge
            raise InputError(str(problem)) from problem


def _unplayable(task: Task) -> str | None:
    """Why right and wrong trajectories of a task cannot be played; None if they can. Raises InputError."""
    if not task.gold.answers and task.gold.calls is None:
        return "without gold.answers and gold.calls"
    if task.user is not None and needs_model(task.user):
        return "whose user is a model"
    if task.gold.calls is not None and not plays_gold(task):
        return "without metadata.calls_per_message, whose gold calls may belong to any of several messages"
    gold_turns(task)  # metadata that do not fit are a mistake, not a reason
    return None


def _judge(task: Task, settings: RewardSettings) -> str:
    """The judge that RL uses for a task."""
    return task.judge if settings.outcome == "judge" else settings.outcome


class _Result(NamedTuple):
    played: Played
    well_formed: bool
    reason: str
    cut_short: str | None = None
    """Why not all of the script was played; None if it was."""
    results: tuple[str, ...] = ()
    """What the tools returned."""


class _Prober:
    def __init__(self, context: Context, tasks: Sequence[Task], others: Sequence[Task]) -> None:
        self._context, self._tasks, self._settings = context, tasks, context.recipe.rl
        golds = dict.fromkeys(task.gold.answers[0] for task in others if task.gold.answers)
        limits = context.recipe.limits
        self._players = [Player(task, context.dialect, limits, list(golds)) for task in tasks]

    def probe(self, unplayed: dict[str, int]) -> Probe:
        for thinks in (False, True):  # some dialects want a thought in each turn
            for player in self._players:
                player.thinks = thinks
            right = self._play([(player, honest_right(player)) for player in self._players])
            if all(isinstance(one, _Result) and one.well_formed for one in right):
                break
        wrong = self._honest_wrongs(right)
        unjudged: dict[str, str] = {}
        kept: list[tuple[Player, Played, Played]] = []
        for player, good, bad in zip(self._players, right, wrong, strict=True):
            assert isinstance(good, _Result)
            better = good.played.outcome >= RIGHT or good.played.outcome >= bad.outcome + CLEARLY
            if better and good.cut_short is None:
                player.results = good.results
                kept.append((player, good.played, self._wrong(player, bad, good.played)))
            else:
                unjudged[player.task.id] = good.cut_short or good.reason
        if not kept:
            task, reason = next(iter(unjudged.items()))
            what = f"task {task}: its own gold answer and calls are judged as wrong ({reason})"
            raise InputError(f"{what}: expected a judge that accepts them")
        self._players = [player for player, _, _ in kept]
        rights, wrongs = [good for _, good, _ in kept], [bad for _, _, bad in kept]
        scripts = [(player, hack.script(player)) for hack in HACKS for player in self._players]
        names = [hack.name for hack in HACKS for _ in self._players]
        results, size = self._play(scripts, names), len(self._players)
        rows = [
            self._row(hack, results[number * size : (number + 1) * size], rights, wrongs)
            for number, hack in enumerate(HACKS)
        ]
        return Probe(Row("honest, right", rights), Row("honest, wrong", wrongs), rows, unjudged, unplayed)

    def _honest_wrongs(self, right: Sequence[_Result | str]) -> list[Played]:
        """Return a wrong trajectory of each task: the first one that is judged clearly worse, else the last."""
        candidates = [honest_wrongs(player) for player in self._players]
        found = [Played(player.task.id, 0.0, 0.0) for player in self._players]
        failures: dict[int, Played] = {}
        refused: set[int] = set()
        for number in range(max(map(len, candidates))):
            open_ = [at for at, those in enumerate(candidates) if number < len(those) and at not in refused]
            scripts = [(self._players[at], candidates[at][number][1]) for at in open_]
            results = self._play(scripts, [f"wrong answer {number + 1}"] * len(scripts))
            for at, result in zip(open_, results, strict=True):
                good, player = right[at], self._players[at]
                assert isinstance(result, _Result) and isinstance(good, _Result)
                found[at], player.wrong = result.played, candidates[at][number][0]
                is_judged = isinstance(find_judge(_judge(player.task, self._settings)), AnswerJudge)
                player.answer_counts = is_judged or found[at].outcome <= good.played.outcome - CLEARLY
                if result.played.failed:
                    failures.setdefault(at, result.played)
                elif found[at].outcome < good.played.outcome / 2:
                    refused.add(at)
        for at, failure in failures.items():  # is named, also where another wrong answer is the measure
            found[at] = msgspec.structs.replace(found[at], why=failure.why, answer=failure.answer, failed=True)
        return found

    def _wrong(self, player: Player, wrong: Played, right: Played) -> Played:
        """An honest wrong trajectory. It is suspicious if it is taken for right by a judge that reads what is wrong."""
        if wrong.failed:
            return wrong
        reads_answer = find_judge(_judge(player.task, self._settings)).reads_answer
        reads = reads_answer or player.ends_by_call or player.ends_by_wrong_call
        same = reads and wrong.outcome > right.outcome - CLEARLY
        return msgspec.structs.replace(wrong, why="is judged as right") if same else wrong

    def _row(
        self, hack: Hack, results: Iterable[_Result | str], rights: Sequence[Played], wrongs: Sequence[Played]
    ) -> Row:
        found, not_played = [], Counter[str]()
        for result, player, right, wrong in zip(results, self._players, rights, wrongs, strict=True):
            if isinstance(result, str):
                not_played[result] += 1
            elif result.cut_short is not None:
                not_played[result.cut_short] += 1
            else:
                why = result.played.why or self._problem(hack, player.task, result.played, right, wrong)
                found.append(msgspec.structs.replace(result.played, why=why))
        return Row(hack.name, found, dict(not_played))

    def _problem(self, hack: Hack, task: Task, played: Played, right: Played, wrong: Played) -> str | None:
        """Say what is suspicious about a trajectory, against the honest ones of the same task."""
        if hack.must_be != "bad":
            if played.reward > right.reward + TOLERANCE:
                return f"earns {played.reward:.3g}, more than the right trajectory ({right.reward:.3g})"
            if played.outcome > right.outcome + TOLERANCE:
                return f"is judged {played.outcome:.3g}, better than the right trajectory ({right.outcome:.3g})"
            if hack.must_be == "worse" and self._judges_calls(task) and played.outcome >= right.outcome - TOLERANCE:
                return f"is judged {played.outcome:.3g} with wrong calls, as the right trajectory"
            if hack.must_be == "worse" and self._counts_calls(task) and played.reward >= right.reward - TOLERANCE:
                return f"earns {played.reward:.3g} with wrong calls, as much as the right trajectory"
            return None
        if wrong.outcome > right.outcome - CLEARLY:
            wrong = Played(wrong.task, 0.0, 0.0)  # the answer does not count, so the wrong one is as good
        if played.outcome > (wrong.outcome + right.outcome) / 2 + TOLERANCE:
            return f"is judged {played.outcome:.3g}, nearer to right than to wrong"
        if played.reward > (wrong.reward + right.reward) / 2 + TOLERANCE:
            return f"earns {played.reward:.3g}: right {right.reward:.3g}, wrong {wrong.reward:.3g}"
        return None

    def _judges_calls(self, task: Task) -> bool:
        return bool(task.gold.calls) and not find_judge(_judge(task, self._settings)).reads_answer

    def _counts_calls(self, task: Task) -> bool:
        """Return True if the reward depends on the calls: through the judge, or through matched credit."""
        matched = self._settings.trajectory_reward != "autotraj" and self._settings.call_weight > 0
        scaled = matched and self._settings.credit.match_scale > 0
        return self._judges_calls(task) or (bool(task.gold.calls) and scaled)

    def _play(
        self, scripts: Sequence[tuple[Player, list[str] | str]], hacks: Sequence[str] | None = None
    ) -> list[_Result | str]:
        """Play each script on its player's task. A reason in the place of a script is kept.

        `hacks`: the hack of each script, on which the judge may fail. None: the scripts are right.
        """
        turns = {
            str(number): (player.task, script)
            for number, (player, script) in enumerate(scripts)
            if not isinstance(script, str)
        }
        trajectories = asyncio.run(self._trajectories(turns))
        hung: set[tuple[str, str]] = set()
        results: list[_Result | str] = []
        for number, (player, script) in enumerate(scripts):
            if isinstance(script, str):
                results.append(script)
                continue
            key = None if hacks is None else (hacks[number], _judge(player.task, self._settings))
            if key in hung:
                results.append(HANGS)
                continue
            begun = time.monotonic()
            result = self._scored(player.task, script, trajectories[str(number)], may_fail=key is not None)
            if (
                key is not None
                and result.played.failed
                and time.monotonic() - begun >= self._context.recipe.judge_seconds
            ):
                hung.add(key)
            results.append(result)
        return results

    async def _trajectories(self, turns: dict[str, tuple[Task, list[str]]]) -> dict[str, Trajectory]:
        tools = self._context.open_tools()
        engine = _Script({name: written for name, (_, written) in turns.items()})
        try:
            rollout = Rollout(engine, self._context.dialect, tools, limits=self._context.recipe.limits)
            plans = [Plan(name, task, "rl", 0, 0) for name, (task, _) in turns.items()]
            return {one.id: one async for one in rollout.run_many(plans, concurrency=8)}
        finally:
            await tools.close()

    def _scored(self, task: Task, script: Sequence[str], trajectory: Trajectory, *, may_fail: bool) -> _Result:
        recipe, settings = self._context.recipe, self._settings
        failure = None
        try:
            verdict = verdict_for(task, trajectory, settings, seconds=recipe.judge_seconds)
        except JudgeError as problem:
            if not may_fail or isinstance(problem.__cause__, WorkerError):  # not for what was answered
                raise
            failure = " ".join(str(problem).splitlines()[:1])
            verdict = Verdict(trajectory_id=trajectory.id, outcome=0.0, reason=failure, answer=trajectory.answer)
        malformed = format_problem(trajectory, recipe.dialect)
        scores = partial(turn_scores, task, trajectory)
        scored = CreditTrajectory.of(trajectory, task, outcome=verdict.outcome, scores=scores)
        (credit,) = credit_groups([CreditInput(scored, group=None, format_ok=malformed is None)], settings)
        if credit.left_out:
            raise InputError(
                f"rl.credit.signal {settings.credit.signal_name} has no number for a trajectory that is played here "
                f"({credit.missing}): expected another signal, or rl.credit.missing: bridge"
            )
        played = Played(
            task.id, verdict.outcome, credit.trajectory_reward or 0.0, failure, verdict.answer, failure is not None
        )
        cut_short = None
        if trajectory.failure is not None:
            cut_short = f"{trajectory.failure.kind} error: {trajectory.failure.message}"
        elif trajectory.stop_reason in LIMIT_STOPS and len(trajectory.turns) < len(script):
            cut_short = f"{trajectory.stop_reason} before its end: expected higher limits"
        results = tuple(one.content for one in trajectory.results if one.error is None)
        return _Result(played, malformed is None, verdict.reason, cut_short, results)
