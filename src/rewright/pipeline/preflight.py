"""What can be wrong with a recipe for its stages, seen before the first stage runs.

Rolling out comes before training: a wrong name among the arguments of a trainer must not be found hours later.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable

from rewright.dialects import get_dialect
from rewright.engines.settings import ModelSettings
from rewright.pipeline.registry import Stage
from rewright.recipe.schema import Recipe

__all__ = ["check_stages"]


def check_stages(recipe: Recipe, stages: Iterable[Stage]) -> None:
    """Raise InputError for the first thing that some of the stages would trip over. Runs and loads no model.

    Tasks of RL that are read from a file are read, to count them.
    """
    wanted = list(stages)
    get_dialect(recipe.dialect)
    for key in dict.fromkeys(key for stage in wanted for key in stage.models):
        model: ModelSettings | None = operator.attrgetter(key)(recipe)
        if model is not None:
            model.check(key)
    for stage in wanted:
        if stage.check is not None:
            stage.check(recipe)
