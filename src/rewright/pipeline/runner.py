"""Run the stages of a recipe in order; resumable at any point.

Finished stages are skipped. An interrupted stage continues from its stored records. Training stages save their model
atomically, so an interrupted one starts again, from its last checkpoint if the recipe saves any. A redone stage
replaces its earlier results when it is finished (`rewright.pipeline.redo`). The stages are implemented in
`rewright.pipeline.stages` and described by the table in `rewright.pipeline.registry`.
"""

from __future__ import annotations

import time

from rewright.core.deadline import deadline
from rewright.core.errors import InputError
from rewright.core.library_logs import library_logs
from rewright.core.progress import format_counts, say
from rewright.pipeline.context import Context
from rewright.pipeline.redo import Redo, complete, discard_later
from rewright.pipeline.registry import Stage, get_stage, recipe_stages, run_order
from rewright.pipeline.run_directory import Run
from rewright.tasks.licences import licence_warning
from rewright.tasks.stored import each_task
from rewright.training.trackers import tracked_stage

__all__ = ["Pipeline", "redo"]


class Pipeline:
    """Runs the stages of a recipe in a run directory, which the caller has locked.

    `checked`: the context of `rewright.pipeline.preflight.check_run`, whose tasks are used. Raises InputError for a
    recipe that refers to untrusted code (see `Run.open`).
    """

    def __init__(self, run: Run, *, checked: Context | None = None) -> None:
        run.check_code()
        complete(run)
        self.run, self.recipe = run, run.recipe()
        self.stages = {stage.name: stage for stage in run_order(self.recipe)}
        self.context = Context(run, self.recipe)
        if checked is not None:
            self.context.take_tasks(checked)
        self._said: set[str] = set()

    def run_all(self) -> None:
        """Run every unfinished stage of the recipe, and resume interrupted redos."""
        wanted = {stage.name for stage in recipe_stages(self.recipe)}
        for stage in self.stages.values():
            if stage.name in wanted and stage.prepare is not None and not self.run.is_done(stage.name):
                stage.prepare(self.context)
        for stage in self.stages.values():
            pending = Redo.pending(self.run, stage)
            if pending is not None:
                _redo(pending)
            elif stage.name in wanted:
                self.run_stage(stage.name)

    def run_stage(self, name: str) -> None:
        """Run one stage unless it is done.

        Raises InputError for an unknown stage, and if a finished stage that it reads (or itself) lacks a file.
        """
        stage = self.stages[name] if name in self.stages else get_stage(name)
        if self.run.is_done(name):
            self.run.require([stage])
            say(f"{name}: done before")
            return
        self.run.require(self.stages[name] for name in self._inputs_of(stage))
        self._say_round(stage)
        self._say_licences(stage)
        started = time.monotonic()
        faults = self.context.faults
        faults.clear()
        try:
            limit = deadline(f"stage {name}", self.recipe.stage_seconds, setting="stage_seconds")
            with library_logs(self.run.path), tracked_stage(self.run.path, name, self.recipe.project), limit:
                details = stage.run(self.context) or {}
        finally:
            if faults:
                say(f"{name}: failed attempts at the engine: {format_counts(faults)}")
        if faults:
            details = {**details, "faults": dict(faults)}
        discard_later(self.run, stage)  # first: after a kill in between they would be continued with earlier inputs
        self.run.finish(name, time.monotonic() - started, **details)

    def _say_round(self, stage: Stage) -> None:
        """Say once in which later round the stages are, whose lines are those of the first."""
        line = f"round {stage.round} of {self.recipe.repair.rounds}"
        if stage.round > 1 and line not in self._said:
            self._said.add(line)
            say(line)

    def _say_licences(self, stage: Stage) -> None:
        """Warn once, when tasks are first used and before training, of licences that forbid commercial use."""
        trains = stage.trains is not None or any(other.trains is not None for other in recipe_stages(self.recipe))
        if not trains or not (stage.uses_tasks or stage.trains is not None):
            return
        warning = licence_warning(each_task(self.context.task_lookup()) if stage.uses_tasks else self.run.tasks)
        if warning is not None and warning not in self._said:
            self._said.add(warning)
            say(f"{stage.name}: {warning}")

    def _inputs_of(self, stage: Stage) -> list[str]:
        """The stages whose files a stage reads; after the last round those of every round."""
        unknown = next((name for name in stage.reads if name not in self.stages), None)
        if unknown is not None:
            raise InputError(f"stage {stage.name} reads the files of stage {unknown}, which is not registered")
        return [
            other.name
            for other in self.stages.values()
            if other.name in stage.reads or (not stage.repeated and other.base in stage.reads)
        ]


def redo(run: Run, stage: Stage, *, checked: Context | None = None) -> None:
    """Run a stage again from the beginning. Its earlier results stay until it is finished.

    If it is interrupted, its partial results are kept for `run_all`. `checked`: as for `Pipeline`.
    """
    Pipeline(run)  # checks the recipe and completes an interrupted replacement of files
    _redo(Redo.begin(run, stage), checked)


def _redo(attempt: Redo, checked: Context | None = None) -> None:
    try:
        Pipeline(attempt, checked=checked).run_stage(attempt.stage.name)
    finally:
        attempt.close()
        if not attempt.has_work():
            attempt.discard()
