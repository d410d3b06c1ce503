"""The trajectories of a run as exporters of traces need them: one at a time, with task, verdict and chat messages.

Results are those that the tools returned, without escapes, because these formats are for reading, not for training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rewright.core.errors import InputError
from rewright.core.records import Message, Task, ToolCall, ToolResult, Trajectory, Turn, Verdict
from rewright.core.storage import read_jsonl
from rewright.dialects import Dialect, get_dialect
from rewright.dialects.base import prompt_messages
from rewright.importers.own_extras import keep, text_of, thought_and_text
from rewright.pipeline.rl_rollouts import rl_tasks
from rewright.pipeline.rounds import all_rounds
from rewright.pipeline.run_directory import Run, evaluation_files

__all__ = ["Attempt", "AttemptFile", "RunAttempts", "SpokenCall", "SpokenTurn", "run_attempts", "text_of"]


class SpokenCall(NamedTuple):
    """A call with its id in the conversation, and its result (None: it has none)."""

    id: str
    call: ToolCall
    result: ToolResult | None


class SpokenTurn(NamedTuple):
    """A turn: the thought, the text outside thoughts and calls, the calls, and the messages after the results."""

    turn: Turn
    thought: str
    text: str
    calls: list[SpokenCall]
    follow_up: Sequence[Message]

    @property
    def finish_reason(self) -> str:
        """Why the generation ended, in OpenAI's words: `tool_calls`, `length` or `stop`."""
        return "length" if self.turn.stop == "length" else "tool_calls" if self.calls else "stop"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One trajectory.

    Attributes:
        trajectory: the trajectory.
        task: its task; None if the run does not have it.
        verdict: its verdict; None if it has not been judged.
        number: its number among the attempts at its task in this file, from 1.
        dialect: dialect of the run.
    """

    trajectory: Trajectory
    task: Task | None
    verdict: Verdict | None
    number: int
    dialect: Dialect

    @property
    def prompt(self) -> list[Message]:
        """The messages before the first turn, as the model was shown them."""
        one = self.trajectory
        return [] if self.task is None else prompt_messages(self.dialect, one.began(self.task), one.opening)

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """The OpenAI function schemas of the tools."""
        return [] if self.task is None else self.task.schemas

    @property
    def functions(self) -> list[dict[str, Any]]:
        """The tools as name, description and parameters."""
        return [schema.get("function", schema) for schema in self.schemas]

    @property
    def reward(self) -> float | None:
        """The reward: that of RL, else the outcome of the verdict; None if it is unknown."""
        kept = self.trajectory.credit
        if kept is not None and kept.trajectory_reward is not None:
            return kept.trajectory_reward
        return None if self.verdict is None else self.verdict.outcome

    @property
    def turns(self) -> Iterator[SpokenTurn]:
        """The turns as messages."""
        number = 0
        for turn in self.trajectory.turns:
            calls: list[SpokenCall] = []
            for index, call in enumerate(turn.calls):
                result = turn.results[index] if index < len(turn.results) else None
                calls.append(SpokenCall(f"call_{number}", call, result))
                number += 1
            thought, text = thought_and_text(self.dialect, turn)
            after = () if turn.follow_up is None else turn.follow_up.messages
            yield SpokenTurn(turn, thought.strip(), text.strip(), calls, after)

    @property
    def usage(self) -> tuple[int, int]:
        """Number of prompt tokens and of generated tokens, summed over the turns; unknown ones count 0."""
        counts = list(self.tokens_per_turn())
        return sum(prompt or 0 for prompt, _ in counts), sum(generated or 0 for _, generated in counts)

    def tokens_per_turn(self) -> Iterator[tuple[int | None, int | None]]:
        """Yield (prompt tokens, generated tokens) of every turn: as reported by the engine, else counted, else None."""
        prompt = self.trajectory.prompt_ids
        before = None if prompt is None else len(prompt)
        for turn in self.trajectory.turns:
            generated = None if turn.token_ids is None else len(turn.token_ids)
            yield (
                before if turn.prompt_tokens is None else turn.prompt_tokens,
                generated if turn.completion_tokens is None else turn.completion_tokens,
            )
            before = None if before is None or generated is None else before + generated + len(turn.suffix_ids)

    def about(self) -> dict[str, Any]:
        """Return what formats of other projects have no field for, as JSON; keys without a value are left out."""
        one = self.trajectory
        found = {
            "stage": one.stage,
            "index": one.index,
            "stop_reason": one.stop_reason,
            "answer": one.answer,
            "failure": one.failure,
            "parent": one.provenance.parent,
            "form": one.provenance.form,
            "turn": one.provenance.turn,
            "sampling": one.provenance.sampling,
            "seed": one.provenance.seed,
            "tokenizer": one.provenance.tokenizer,
            "seconds": one.seconds,
            "credit": one.credit,
            "verdict": self.verdict,
        }
        return {key: msgspec.to_builtins(value) for key, value in found.items() if value not in (None, {})}

    def whole(self, *, tokens: bool = False) -> dict[str, Any]:
        """Return `about`, and what a reader needs to restore the trajectory (`rewright.importers.own_extras`).

        `tokens`: whether token ids are among it, for a format without a place for them.
        """
        return {**self.about(), **keep(self.trajectory, self.dialect, self.prompt, tokens=tokens)}

    def gold(self) -> dict[str, Any]:
        """Return `gold_answers` and `gold_calls` of the task, as far as they are known."""
        gold = None if self.task is None else self.task.gold
        found: dict[str, Any] = {}
        if gold is not None and gold.answers is not None:
            found["gold_answers"] = list(gold.answers)
        if gold is not None and gold.calls is not None:
            found["gold_calls"] = [{"name": call.name, "arguments": call.arguments} for call in gold.calls]
        return found


@dataclass(frozen=True)
class AttemptFile:
    """The trajectories of one stored file, read one at a time.

    Attributes:
        name: name of the file that an exporter writes: `trajectories`, `rollouts`, or that of an evaluation.
        stored: file of the trajectories.
        verdicts: file of their verdicts; None for RL rollouts, which hold theirs.
        tasks: the tasks by id.
        dialect: dialect of the run.
    """

    name: str
    stored: Path
    verdicts: Path | None
    tasks: Mapping[str, Task]
    dialect: Dialect

    @property
    def created(self) -> float:
        """When the file was last written, in seconds since the epoch. Trajectories have no date of their own."""
        return self.stored.stat().st_mtime

    def __iter__(self) -> Iterator[Attempt]:
        """Yield the attempts in the order of the file. Raises InputError for a corrupt line."""
        verdicts = _Verdicts(self.verdicts)
        counts: dict[str, int] = {}
        for _, trajectory in read_jsonl(self.stored, Trajectory):
            counts[trajectory.task_id] = counts.get(trajectory.task_id, 0) + 1
            credit = trajectory.credit
            yield Attempt(
                trajectory=trajectory,
                task=self.tasks.get(trajectory.task_id),
                verdict=credit.verdict if credit is not None else verdicts.find(trajectory.id),
                number=counts[trajectory.task_id],
                dialect=self.dialect,
            )


@dataclass(frozen=True)
class RunAttempts:
    """All trajectories of a run.

    Attributes:
        format: Name under which the exporter was selected.
        run: The run.
        name: Name of the run, from its recipe.
        model: Name of the policy, from the recipe.
        files: The stored files with at least one trajectory: candidates and repairs, evaluations, RL rollouts.
    """

    format: str
    run: Run
    name: str
    model: str
    files: Sequence[AttemptFile] = field(default_factory=tuple)

    def nothing_represented(self) -> InputError:
        """Return the error for a format that can represent none of the trajectories."""
        return InputError(
            f"{self.run.path}: {self.format} can represent none of its trajectories: docs/exports.md says what it can "
            "represent"
        )


def run_attempts(run: Run, export_format: str) -> RunAttempts:
    """Return the trajectories of a run, without reading them. Raises InputError if it has none."""
    recipe = run.recipe()
    dialect = get_dialect(recipe.dialect)
    own = {task.id: task for task in run.tasks}
    files = [AttemptFile("trajectories", run.file("trajectories.jsonl"), run.file("verdicts.jsonl"), own, dialect)]
    for number, later in enumerate(all_rounds(run)[1:], 2):
        stored, judged = later.file("trajectories.jsonl"), later.file("verdicts.jsonl")
        files.append(AttemptFile(f"trajectories_{number}", stored, judged, own, dialect))
    held_out = {task.id: task for task in run.eval_tasks}
    for stage in run.stages():
        if stage.evaluates is not None:
            stored, verdicts = map(run.file, evaluation_files(stage.evaluates))
            files.append(AttemptFile(stage.name, stored, verdicts, held_out, dialect))
    if run.rollouts.path.exists():
        trained = own if recipe.rl.tasks is None else {task.id: task for task in rl_tasks(run.path, recipe)}
        files.append(AttemptFile("rollouts", run.rollouts.path, None, trained, dialect))
    files = [file for file in files if file.stored.exists() and next(read_jsonl(file.stored, Trajectory), None)]
    if not files:
        raise InputError(f"{run.path} has no trajectories to export: expected trajectories.jsonl (rewright synth)")
    return RunAttempts(export_format, run, recipe.name, str(recipe.model.path), files)


class _Verdicts:
    """Verdicts by the id of the trajectory. They are stored in the order of the trajectories, and read alongside."""

    def __init__(self, path: Path | None) -> None:
        exists = path is not None and path.exists()
        self._ahead: dict[str, Verdict] = {}
        self._rest: Iterable[tuple[int, Verdict]] = read_jsonl(path, Verdict) if exists and path is not None else ()
        self._rest = iter(self._rest)

    def find(self, identity: str) -> Verdict | None:
        if identity in self._ahead:
            return self._ahead.pop(identity)
        for _, verdict in self._rest:
            if verdict.trajectory_id == identity:
                return verdict
            self._ahead[verdict.trajectory_id] = verdict
        return None
