"""What can be wrong with a recipe's training stages, seen before the first stage runs.

Rolling out comes before training: a wrong name among the arguments of a trainer must not be found hours later.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.dialects import get_dialect
from rewright.recipe.schema import Recipe, Stage
from rewright.tasks.from_recipe import drawn_count, draws_tasks, load_recipe_tasks
from rewright.training.settings import check_task_count

__all__ = ["check_stages"]

CONFIGS: Final = {"sft": "SFTConfig", "reward": "RewardConfig", "rl": "GRPOConfig"}
"""TRL's settings of each training stage."""
LOSSES: Final = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")
"""Those of TRL 1.16, which looks at the word in the first step only."""


def check_stages(recipe: Recipe, stages: Iterable[Stage]) -> None:
    """Raise InputError for the first thing that some of the stages would trip over. Runs and loads no model.

    Tasks of RL that are read from a file are read, to count them.
    """
    wanted = set(stages)
    get_dialect(recipe.dialect)
    if "sft" in wanted and recipe.sft.source == "demonstrations" and recipe.dialect != "hermes":
        raise InputError(
            f"sft.source is demonstrations, which are written in the dialect hermes, and dialect is {recipe.dialect}: "
            "expected sft.source: run"
        )
    models = {"model": recipe.model if wanted & {"eval_base", "synth"} else None}
    models["repair.model"] = recipe.repair.model if "repair" in wanted else None
    for name, model in models.items():
        if model is not None:
            model.check(name)
    training = [stage for stage in CONFIGS if stage in wanted]
    if "reward" in training and recipe.reward.url is not None:
        training.remove("reward")
    if not training:
        return
    missing = next((name for name in ("torch", "transformers", "trl") if importlib.util.find_spec(name) is None), None)
    if missing is not None:
        raise InputError(f"stage {training[0]} needs the package {missing}: pip install 'rewright[train]'")
    for stage in training:
        _check_batches(recipe, stage)
        _check_arguments(recipe, stage)
    if "rl" in training:
        check_task_count(_task_count(recipe), recipe.rl)


def _task_count(recipe: Recipe) -> int:
    """How many tasks RL will have. Worlds are not asked: they draw as many as they are told."""
    settings = recipe.tasks if recipe.rl.tasks is None else recipe.rl.tasks
    count = drawn_count(settings) if draws_tasks(settings) else len(load_recipe_tasks(settings, recipe.judges))
    return count if recipe.rl.tasks is not None or recipe.synth.limit is None else min(count, recipe.synth.limit)


def _check_batches(recipe: Recipe, stage: str) -> None:
    settings: Any = getattr(recipe, stage)
    if stage == "rl":
        if not settings.temperature:
            raise InputError("rl.temperature is 0: expected a positive number: rollouts must differ to be compared")
        rollouts = settings.tasks_per_step * settings.generations
        if rollouts % settings.updates_per_step:
            raise InputError(
                f"rl.updates_per_step is {settings.updates_per_step}: expected a divisor of the {rollouts} rollouts of "
                "a step (rl.tasks_per_step times rl.generations)"
            )
        batch = rollouts // settings.updates_per_step
    else:
        batch = settings.batch_size
    if settings.micro_batch_size is not None and batch % settings.micro_batch_size:
        raise InputError(
            f"{stage}.micro_batch_size is {settings.micro_batch_size}: expected a divisor of the {batch} sequences of "
            "an optimizer step"
        )


def _check_arguments(recipe: Recipe, stage: str) -> None:
    import trl
    from transformers import SchedulerType
    from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

    settings: Any = getattr(recipe, stage)
    known = [field.name for field in fields(getattr(trl, CONFIGS[stage])) if field.init]
    for name in settings.arguments:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "expected the name of one of its arguments"
            raise InputError(f"{stage}.arguments: TRL's {CONFIGS[stage]} has no argument {name}: {hint}")
    _check_word(f"{stage}.scheduler", getattr(settings, "scheduler", None), [one.value for one in SchedulerType])
    _check_word("rl.loss_type", getattr(settings, "loss_type", None), LOSSES)
    for logger in settings.report_to:
        _check_word(f"{stage}.report_to", logger, [*INTEGRATION_TO_CALLBACK, "all", "none"])
        if logger not in (*get_available_reporting_integrations(), "all", "none"):
            raise InputError(f"{stage}.report_to: {logger} is not installed: pip install {logger}")


def _check_word(key: str, word: str | None, known: Sequence[str]) -> None:
    if word is not None and word not in known:
        raise InputError(f"{key} is {word!r}: expected one of {', '.join(known)}")
