"""Check a recipe for all of its stages before the first stage runs.

Training follows hours of rollouts, so a mistake that a later stage would refuse must be found earlier: files that are
missing, models that cannot be loaded, tools without an implementation, arguments that the trainer does not take.
"""

from __future__ import annotations

import operator
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.dialects import get_dialect
from rewright.engines.settings import ModelSettings, repeats_greedily
from rewright.judging.extraction import find_extractor
from rewright.pipeline.context import Context
from rewright.pipeline.registry import Stage, get_stage, stages
from rewright.pipeline.run_directory import Run
from rewright.recipe.schema import Recipe
from rewright.recipe.stages import ALL_STAGES

__all__ = ["check_models", "check_run", "say_left_out"]


def check_run(recipe: Recipe, run: Run, stages: Iterable[Stage]) -> Context:
    """Raise InputError for the first problem of any of the stages. Neither runs nor loads a model, and writes nothing.

    Args:
        recipe: The recipe.
        run: The run directory, which need not exist.
        stages: The stages that will run, in order.

    Returns the context with the tasks that were read, so that the run need not read them again.
    """
    wanted = list(stages)
    get_dialect(recipe.dialect)
    if recipe.extractor not in (None, "judge"):
        find_extractor(str(recipe.extractor), setting="extractor")
    context = Context(run, recipe)
    _check_order(run, wanted)
    check_models(recipe, wanted)
    for stage in wanted:
        if stage.check is not None:
            stage.check(recipe)
    for stage in wanted:
        if stage.prepare is not None:
            stage.prepare(context)
    _check_disk(recipe, run, wanted)
    _say_copies(recipe, wanted)
    return context


def say_left_out(recipe: Recipe) -> None:
    """Say which training of a recipe that has settings for it does not run: one that only runs if `stages` names it."""
    for stage in stages():
        settings = getattr(recipe, stage.name, None)
        optional = stage.trains is not None and stage.name not in ALL_STAGES
        if optional and stage.name not in recipe.stages and settings is not None and settings != type(settings)():
            say(f"note: {stage.name} has settings and does not run: stages does not name it")


def check_models(recipe: Recipe, stages: Iterable[Stage]) -> None:
    """Raise InputError for settings of a model that a stage opens, which cannot work. Loads no model."""
    models: dict[str, ModelSettings] = {}
    for key in (key for stage in stages for key in stage.models):
        model: ModelSettings | None = operator.attrgetter(key)(recipe)
        models |= {"model": recipe.model} if model is None else {key: model}
    for key, chosen in models.items():
        chosen.check(key)


def _say_copies(recipe: Recipe, stages: Sequence[Stage]) -> None:
    """Warn of several trajectories of a task that are equal: greedy ones of a local model.

    A served model, and a model that plays the users, may answer otherwise each time.
    """
    if recipe.user.model is not None:
        return
    greedy = {
        "synth": any(stage.name == "synth" for stage in stages) and repeats_greedily(recipe.model),
        "eval": any(_evaluated_greedily(recipe, stage) for stage in stages),
    }
    for section, settings in (("synth", recipe.synth), ("eval", recipe.eval)):
        if greedy[section] and settings.n > 1 and settings.temperature == 0:
            so = ", and pass@k and pass^k are those of one" if section == "eval" else ""
            say(
                f"warning: {section}.n is {settings.n}, and {section}.temperature 0: the trajectories of a task are "
                f"copies of one, unless its tools differ each time{so}: expected a temperature above 0, or "
                f"{section}.n=1"
            )


def _evaluated_greedily(recipe: Recipe, stage: Stage) -> bool:
    if stage.evaluates is None:
        return False
    return repeats_greedily(recipe.model if stage.evaluates == "base" else recipe.model.trained("models"))


def _check_order(run: Run, wanted: Sequence[Stage]) -> None:
    """Raise InputError for a stage that needs another one, which neither runs before it nor has run."""
    for index, stage in enumerate(wanted):
        before = {one.name for one in wanted[:index]}
        for name in stage.requires:
            if name in before or run.is_done(name) or any(run.file(file).exists() for file in get_stage(name).files):
                continue
            needs = f"{run.path}: stage {stage.name} needs stage {name}, which is not done"
            if run.file("recipe.yaml").exists():
                raise InputError(f"{needs}: run {get_stage(name).command(run.path)} first")
            raise InputError(f"{needs} and not among the stages before it: expected {name} in stages")


def _check_disk(recipe: Recipe, run: Run, wanted: Sequence[Stage]) -> None:
    """Raise InputError if the disk has less room than the models that will be saved; their size is a lower bound."""
    from rewright.engines.checks import weights_bytes

    trained = [stage.name for stage in wanted if stage.trains is not None and not run.model_folder(stage.name).exists()]
    if not trained:
        return
    needed = weights_bytes(recipe.model) * len(trained)
    place = next((folder for folder in (run.path, *run.path.absolute().parents) if folder.is_dir()), Path())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(
            f"{run.path}: the models of {', '.join(trained)} take at least {needed / 1e6:,.0f} MB, and the disk has "
            f"{free / 1e6:,.0f} MB left: expected more room, or another --run"
        )
