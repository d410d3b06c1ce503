"""The whole flow in order, one stage after another, resumable anywhere.

A stage that is marked as done is skipped; a stage that was interrupted goes on from the records that it has written.
Training stages save their model whole or not at all, so an interrupted one starts again (from its last checkpoint
where the recipe saves any). A stage that is done again replaces its earlier results when it is finished
(`rewright.pipeline.redo`). What each stage does is in `rewright.pipeline.stages`, and the table of them in
`rewright.pipeline.registry`.
"""

from __future__ import annotations

import time

from rewright.core.deadline import deadline
from rewright.core.errors import InputError
from rewright.core.progress import format_counts, say
from rewright.pipeline.context import Context
from rewright.pipeline.redo import Redo, complete, discard_later
from rewright.pipeline.registry import Stage, get_stage, recipe_stages, run_order
from rewright.pipeline.run_directory import Run

__all__ = ["Pipeline", "redo"]


class Pipeline:
    """Runs the stages of a recipe in a run directory (which the caller holds locked).

    Raises InputError for a recipe that names code which the run does not trust (`Run.open`).
    """

    def __init__(self, run: Run) -> None:
        run.check_code()
        complete(run)
        self.run, self.recipe = run, run.recipe()
        self.stages = {stage.name: stage for stage in run_order(self.recipe)}
        self.context = Context(run, self.recipe)

    def run_all(self) -> None:
        """Every stage of the recipe that is not done yet, and those that were stopped while they were done again."""
        wanted = {stage.name for stage in recipe_stages(self.recipe)}
        for stage in self.stages.values():
            if stage.name in wanted and stage.prepare is not None:
                stage.prepare(self.context)
        for stage in self.stages.values():
            again = Redo.pending(self.run, stage)
            if again is not None:
                _redo(again)
            elif stage.name in wanted:
                self.run_stage(stage.name)

    def run_stage(self, name: str) -> None:
        """One stage, unless it is done.

        Raises InputError for an unknown one, and where a stage that is done lacks one of its files.
        """
        stage = self.stages[name] if name in self.stages else get_stage(name)
        if self.run.is_done(name):
            self.run.require([stage])
            say(f"{name}: done before")
            return
        self.run.require(self.stages[one] for one in self._read_by(stage))
        started = time.monotonic()
        faults = self.context.faults
        faults.clear()
        try:
            with deadline(f"stage {name}", self.recipe.stage_seconds, setting="stage_seconds"):
                details = stage.run(self.context) or {}
        finally:
            if faults:
                say(f"{name}: failed attempts at the engine: {format_counts(faults)}")
        if faults:
            details = {**details, "faults": dict(faults)}
        self.run.finish(name, time.monotonic() - started, **details)
        discard_later(self.run, stage)

    def _read_by(self, stage: Stage) -> tuple[str, ...]:
        unknown = next((name for name in stage.reads if name not in self.stages), None)
        if unknown is not None:
            raise InputError(f"stage {stage.name} reads the files of stage {unknown}, which is not registered")
        return stage.reads


def redo(run: Run, stage: Stage) -> None:
    """Do a stage again, from the beginning. Its earlier results stay until it is finished.

    What a stage has written that was stopped is kept for `run_all`, unless it has written nothing.
    """
    Pipeline(run)  # checks the recipe, and finishes what a kill has interrupted
    _redo(Redo.begin(run, stage))


def _redo(again: Redo) -> None:
    try:
        Pipeline(again).run_stage(again.stage.name)
    finally:
        again.close()
        if not again.has_work():
            again.discard()
