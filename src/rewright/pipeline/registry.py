"""The table of stages: one row says everything about a stage that anything else needs to know.

A stage of one's own is a row and a registration; its recipe then names it in `stages:`.

    from rewright.core.registry import register
    from rewright.pipeline.registry import Stage

    def shorten(context):                      # a rewright.pipeline.context.Context: the run, its recipe, its tasks
        ...
        return {"shortened": 3}                # kept with the stage in state.json

    register("stage", "shorten", Stage(name="shorten", run=shorten, after="build", files=("short.jsonl",)))

The command line, preflight, redo, costs and reports read this table; none of them knows the name of a stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rewright.core.errors import InputError
from rewright.core.registry import find
from rewright.recipe.schema import Recipe
from rewright.recipe.stages import stage_order

if TYPE_CHECKING:  # what a stage is given; the table itself is needed below it
    from rewright.pipeline.context import Context

__all__ = ["Generated", "Stage", "get_stage", "recipe_stages", "run_order", "stages"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """The trajectories that a stage generates: those of a file, or those of its repairs, or of its other ones."""

    file: str
    repairs: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of a run. Only `name` and `run` are needed."""

    name: str
    run: Callable[[Context], Mapping[str, Any] | None]
    """What the stage does. What it returns is kept in state.json; `skipped` and `reason` say that it had no work."""
    after: str | None = None
    """The stage behind which it stands; None: behind those that were registered before it."""
    reads: tuple[str, ...] = ()
    """The stages whose files it reads."""

    # What it owns.
    files: tuple[str, ...] = ()
    """The files and folders it writes, by their names in the run directory (its rows of metrics.jsonl besides)."""
    owes: Callable[[Mapping[str, Any]], Sequence[str]] | None = None
    """Which of `files` a finished stage has written, by its entry in state.json; None: all."""
    id_sections: tuple[str, ...] = ()
    """The sections of the recipe that the ids of its trajectories depend on."""

    # How it is done again.
    verb: str | None = None
    """`rewright VERB RUN` does it (again); None: it has no verb."""
    help: str = ""
    redone: bool = True
    """Doing it again makes its files anew and replaces them at the end; False: it makes what its files lack."""

    # What it is for.
    evaluates: str | None = None
    """It evaluates the model of the stage of that name, or the `base` model: `rewright eval RUN --model NAME`."""
    title: str = ""
    """Of an evaluation, in reports, such as "After SFT"."""
    trains: Literal["policy", "reward_model"] | None = None
    """What it trains. The newest policy is the one that later stages use."""
    curve: tuple[str, str] | None = None
    """A key of its rows in metrics.jsonl that reports draw over the steps, and the title of that curve."""
    generates: Generated | None = None
    """What its generating cost is read from."""

    # What it needs.
    models: tuple[str, ...] = ()
    """The recipe's model sections that it opens."""
    uses_tools: bool = False
    """It executes the tools of tasks."""
    uses_tasks: bool = False
    """It reads the tasks that candidates are made for."""
    check: Callable[[Recipe], None] | None = None
    """Raises InputError for a mistake in the recipe, before anything runs. Loads no model."""
    prepare: Callable[[Context], None] | None = None
    """Raises InputError for tasks that it cannot use, before the first stage runs. Writes nothing."""
    plan: Callable[[Context], Mapping[str, Any]] | None = None
    """What `--dry-run` says of it. Writes nothing (`context.load_tasks`, not `context.tasks`)."""

    def owed(self, about: Mapping[str, Any]) -> Sequence[str]:
        """The files that must be there when the stage is done, by its entry in state.json."""
        if about.get("skipped"):
            return ()
        return self.files if self.owes is None else self.owes(about)

    def command(self, run: object) -> str:
        """The command that does it again in a run directory."""
        if self.evaluates is not None:
            return f"rewright eval {run} --model {self.evaluates}"
        return f"rewright {self.verb} {run}" if self.verb else f"rewright run {run}/recipe.yaml"


def stages() -> list[Stage]:
    """All registered stages in the order of a run."""
    return [find("stage", name) for name in stage_order()]


def get_stage(name: str) -> Stage:
    """The registered stage of that name. Raises InputError for an unknown one."""
    stage: Stage = find("stage", name)
    return stage


def recipe_stages(recipe: Recipe) -> list[Stage]:
    """The stages of a recipe in their order. Imports those that are named by import path.

    Raises InputError for an import path to no stage, and for one with the name of another stage.
    """
    found: list[Stage] = []
    for name in recipe.stages:
        stage = find("stage", name, setting="stages")
        if not isinstance(stage, Stage):
            raise InputError(f"stages: {name} is no stage: expected a rewright.pipeline.registry.Stage")
        if ":" in name and stage.name in {*stage_order(), *(one.name for one in found)}:
            raise InputError(f"stages: {name} is named {stage.name!r}, as another stage is: expected a name of its own")
        found.append(stage)
    return found


def run_order(recipe: Recipe) -> list[Stage]:
    """All stages that a run of the recipe may have: the registered ones, and its own ones where they stand."""
    order, before = stages(), -1
    for stage in recipe_stages(recipe):
        place = next((index for index, one in enumerate(order) if one.name == stage.name), None)
        if place is None:
            order.insert(before + 1, stage)
        before = before + 1 if place is None else place
    return order
