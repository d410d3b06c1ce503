"""Which model a stage works with: the newest policy that was trained before it."""

from __future__ import annotations

from typing import Any

from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.engines.settings import ModelSettings
from rewright.pipeline.context import Context
from rewright.pipeline.registry import run_order

__all__ = ["policy", "skip"]


def policy(context: Context, upto: str) -> ModelSettings:
    """The newest policy up to the stage of that name, it included; the recipe's own where nothing was trained.

    Raises InputError where a stage should have trained one and has not, or where its model is missing.
    """
    run, recipe = context.run, context.recipe
    order = run_order(recipe)
    last = next((index for index, stage in enumerate(order) if stage.name == upto), -1)
    state = run.state()
    for stage in reversed(order[: last + 1]):
        if stage.trains != "policy" or state.get(stage.name, {}).get("skipped"):
            continue
        folder = run.model_folder(stage.name)
        if run.is_done(stage.name):
            run.require([stage])
            return recipe.model.trained(str(folder))
        if stage.name in recipe.stages or folder.exists():
            raise InputError(f"{run.path}: no model of stage {stage.name}: that stage is not done, run it first")
    return recipe.model


def skip(context: Context, stage: str, reason: str, so: str) -> dict[str, Any]:
    """What a stage returns that has nothing to do: it says so, and has no numbers."""
    say(f"{stage}: skipped: {reason}, so {so}")
    context.run.set_metrics(stage, [])
    return {"skipped": True, "reason": reason}
