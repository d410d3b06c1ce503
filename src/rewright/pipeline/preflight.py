"""Check a recipe for all of its stages before the first stage runs.

Training follows hours of rollouts, so an invalid trainer argument must be found earlier.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable

from rewright.dialects import get_dialect
from rewright.engines.settings import ModelSettings
from rewright.judging.extraction import find_extractor
from rewright.pipeline.registry import Stage
from rewright.recipe.schema import Recipe

__all__ = ["check_stages"]


def check_stages(recipe: Recipe, stages: Iterable[Stage]) -> None:
    """Raise InputError for the first problem of any of the stages. Neither runs nor loads a model.

    RL tasks in a file are read to count them.
    """
    wanted = list(stages)
    get_dialect(recipe.dialect)
    if recipe.extractor not in (None, "judge"):
        find_extractor(str(recipe.extractor), setting="extractor")
    for key in dict.fromkeys(key for stage in wanted for key in stage.models):
        model: ModelSettings | None = operator.attrgetter(key)(recipe)
        if model is not None:
            model.check(key)
    for stage in wanted:
        if stage.check is not None:
            stage.check(recipe)
