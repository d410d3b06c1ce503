"""Rounds of expert iteration (`repair.rounds`): the stages from synth to eval_sft again, with the trained policy.

A later round is not another runner: each of its stages is a stage of the run, `synth_2` for example, which calls the
function of `synth` with a view of the run. In this view the files of the stages have places of their own:

    rounds/2/trajectories.jsonl, verdicts.jsonl, …, sft.jsonl, preferences.jsonl
    models/sft_2, evaluations/sft_2.jsonl

The tasks and all other files are those of the run. So a round is resumed, redone and reported as every stage is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.core.records import Task
from rewright.engines.settings import ModelSettings
from rewright.pipeline.context import Context
from rewright.pipeline.registry import Generated, Stage, stages
from rewright.pipeline.run_directory import Run
from rewright.recipe.schema import Recipe

__all__ = [
    "RoundContext",
    "RoundRun",
    "all_rounds",
    "in_round",
    "last_sets",
    "round_file",
    "stage_in_round",
    "unsolved_tasks",
]

NEEDED: Final = ("synth", "judge", "score", "repair", "build", "sft")
"""The stages without which there is no further round."""


def in_round(name: str, number: int) -> str:
    """The name of a repeated stage in a round."""
    return name if number == 1 else f"{name}_{number}"


def round_file(name: str, number: int) -> str:
    """The place of a file or folder of a repeated stage in a round, relative to the run directory."""
    folder, separator, rest = name.partition("/")
    if number == 1:
        return name
    if not separator or folder not in ("models", "evaluations"):
        return f"rounds/{number}/{name}"
    stem, dot, suffix = rest.partition(".")
    return f"{folder}/{stem}_{number}{dot}{suffix}"


class RoundRun(Run):
    """A view of a run with the files and stages of a later round under the names of the first."""

    def __init__(self, outer: Run, number: int) -> None:
        self.whole, self.number = outer, number
        repeated = [stage for stage in stages() if stage.repeated]
        self._files = {file for stage in repeated for file in stage.files}
        self._stages = {stage.name for stage in repeated}
        super().__init__(outer.path)
        self.trusted = outer.trusted

    # Overrides of `Run`.

    @property
    def outer(self) -> Run:
        """The run itself."""
        return self.whole

    def file(self, name: str) -> Path:
        """Path of a file or folder, given its name in the first round."""
        return self.whole.file(round_file(name, self.number) if name in self._files else name)

    def state(self) -> dict[str, Any]:
        """The entries of the finished stages; those of this round are under the names of the first."""
        state = self.whole.state()
        others = {name: entry for name, entry in state.items() if name not in self._stages}
        own = {name: state[key] for name in self._stages if (key := in_round(name, self.number)) in state}
        return others | own

    def is_done(self, stage: str) -> bool:
        """Whether the stage is done in this round."""
        return self.whole.is_done(in_round(stage, self.number) if stage in self._stages else stage)

    def set_metrics(self, stage: str, rows: Sequence[dict[str, Any]]) -> None:
        """Replace the metrics of a stage of this round."""
        self.whole.set_metrics(in_round(stage, self.number) if stage in self._stages else stage, rows)


class RoundContext(Context):
    """The context of the stages of a later round: the view of the run, the trained policy, the unsolved tasks first."""

    def __init__(self, outer: Context, number: int) -> None:
        super().__init__(RoundRun(outer.run, number), outer.recipe)
        self.outer, self.number = outer, number
        self.faults = outer.faults
        self.take_tasks(outer)

    # Overrides of `Context`.

    @property
    def tasks(self) -> list[Task]:
        """The tasks of this round: those that no earlier round has solved, then the others."""
        if "_in_order" not in self.__dict__:
            unsolved = unsolved_tasks(self.outer, self.number)
            first = [task for task in self.outer.tasks if task.id in unsolved]
            rest = [task for task in self.outer.tasks if task.id not in unsolved]
            self.unsolved = len(first)
            self._in_order = [*first, *rest][: self.recipe.repair.round_tasks]
        return self._in_order

    @property
    def eval_tasks(self) -> list[Task]:
        """The held-out tasks."""
        return self.outer.eval_tasks

    def load_tasks(self) -> list[Task]:
        """As many tasks as the round has. Writes nothing; which ones they are is known only later."""
        return self.outer.load_tasks()[: self.recipe.repair.round_tasks]

    def tasks_by_id(self) -> Mapping[str, Task]:
        """All tasks of the candidates by their ids."""
        return self.outer.tasks_by_id()

    def label(self, stage: str) -> str:
        """The name of a stage in ids and records of this round."""
        return in_round(stage, self.number)

    def candidate_model(self) -> ModelSettings:
        """The newest policy of the rounds before."""
        from rewright.pipeline.stages.policy import policy_before

        return policy_before(self.outer, in_round("synth", self.number))

    def training_start(self) -> ModelSettings:
        """The model that SFT starts from."""
        return self.recipe.model if self.recipe.repair.round_start == "base" else self.candidate_model()

    def earlier_sets(self) -> Run | None:
        """The round before, whose sets this round adds to."""
        return run_of_round(self.outer.run, self.number - 1)


def run_of_round(run: Run, number: int) -> Run:
    """The run itself for round 1, else its view."""
    return run if number == 1 else RoundRun(run, number)


def all_rounds(run: Run) -> list[Run]:
    """The run itself for round 1, and the views of its later rounds."""
    return [run_of_round(run, number) for number in range(1, run.rounds + 1)]


def last_sets(run: Run, rounds: int | None = None) -> Run:
    """The view of the newest round that has built its sets; they include those of the rounds before.

    `rounds`: those of the recipe, for a stage, whose policy is of these rounds; None: all that the run has.
    """
    last = run.rounds if rounds is None else min(rounds, run.rounds)
    return run_of_round(run, next((n for n in range(last, 1, -1) if run.is_done(in_round("build", n))), 1))


def unsolved_tasks(context: Context, number: int) -> set[str]:
    """The ids of the tasks of which no round before `number` has a kept candidate or an accepted repair."""
    solved: set[str] = set()
    for earlier in range(1, number):
        run = run_of_round(context.run, earlier)
        kept = {quality.trajectory_id for quality in run.qualities if quality.selected == "kept"}
        solved.update(trajectory.task_id for trajectory in run.trajectories if trajectory.id in kept)
        solved.update(repair.task_id for repair in run.repairs if repair.accepted)
    return {task.id for task in context.tasks} - solved


def stage_in_round(stage: Stage, number: int) -> Stage:
    """The row of a repeated stage in a later round."""
    repeated = {one.name for one in stages() if one.repeated}
    files = tuple(round_file(name, number) for name in stage.files)

    def names(given: Iterable[str]) -> tuple[str, ...]:
        return tuple(in_round(name, number) if name in repeated else name for name in given)

    def run(context: Context) -> Mapping[str, Any] | None:
        inner = RoundContext(context, number)
        for name in files:
            context.run.file(name).parent.mkdir(parents=True, exist_ok=True)
        try:
            return stage.run(inner)
        finally:
            inner.run.close()

    def check(recipe: Recipe) -> None:
        _check_rounds(recipe)
        if stage.check is not None:
            stage.check(recipe)

    def written(about: Mapping[str, Any]) -> Sequence[str]:
        assert stage.written_files is not None
        return [round_file(name, number) for name in stage.written_files(about)]

    def plan(context: Context) -> dict[str, Any]:
        found = {} if stage.plan is None else stage.plan(RoundContext(context, number))
        return {f"{key}_{number}": value for key, value in found.items()}

    # The tasks that no round has solved, and the newest policy; the sets that those of this round begin with.
    solved = tuple(in_round(name, one) for one in range(1, number) for name in ("synth", "score", "repair"))
    earlier = {"synth": (*solved, in_round("sft", number - 1)), "build": (in_round("build", number - 1),)}
    return dataclasses.replace(
        stage,
        name=in_round(stage.name, number),
        run=run,
        after=None,
        round=number,
        reads=(*names(stage.reads), *earlier.get(stage.name, ())),
        requires=names(stage.requires),
        files=files,
        written_files=None if stage.written_files is None else written,
        evaluates=None if stage.evaluates is None else in_round(stage.evaluates, number),
        title=stage.title and f"{stage.title}, round {number}",
        curve=None if stage.curve is None else (stage.curve[0], f"{stage.curve[1]}, round {number}"),
        generates=None
        if stage.generates is None
        else Generated(file=round_file(stage.generates.file, number), repairs=stage.generates.repairs),
        check=check,
        plan=None if stage.plan is None or stage.evaluates is not None else plan,
    )


def _check_rounds(recipe: Recipe) -> None:
    """Raise InputError for a recipe whose rounds lack a stage, or do not train on what they repair."""
    rounds = recipe.repair.rounds
    missing = next((name for name in NEEDED if name not in recipe.stages), None)
    if missing is not None:
        raise InputError(
            f"repair.rounds is {rounds}: a further round needs the stages {', '.join(NEEDED)}, and {missing} is not "
            f"among the stages: expected {missing} in stages"
        )
    if recipe.sft.source != "run":
        raise InputError(
            f"repair.rounds is {rounds}, and sft.source is {recipe.sft.source}: expected sft.source: run, because each "
            "round trains on what it has repaired"
        )
