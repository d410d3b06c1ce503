"""SFT of the policy on the kept and repaired trajectories, on gold calls, or on demonstrations of the world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewright.core.errors import InputError
from rewright.pipeline.context import Context
from rewright.pipeline.processes import trainer
from rewright.pipeline.registry import Stage
from rewright.pipeline.stages.gold import check_gold, gold_rows
from rewright.pipeline.stages.held_out import held_out_keys, question_keys
from rewright.pipeline.stages.lengths import within_length
from rewright.pipeline.stages.policy import check_token_ids, skip
from rewright.recipe.schema import Recipe
from rewright.tasks.worlds.town import generate
from rewright.training.backend import check_training

__all__ = ["SFT", "sft"]


def sft(context: Context) -> dict[str, Any]:
    """Train the recipe's model on sft.jsonl or on demonstrations, and save it to models/sft."""
    run, recipe = context.run, context.recipe
    settings = recipe.sft
    if settings.source == "gold":
        rows = gold_rows(context)
    else:
        rows = _demonstrations(context) if settings.source == "demonstrations" else run.sft_rows()
    if not rows:
        return skip(
            context, "sft", "nothing was kept or repaired, or all is held out", "there is nothing to learn from"
        )
    rows = within_length("sft", "rows", rows, settings.max_length, "input_ids")
    history = trainer(context, "sft").train_sft(
        rows, context.training_start(), settings, run.model_folder("sft"), seed=recipe.seed
    )
    run.set_metrics("sft", history)
    return {"rows": len(rows), "source": settings.source}


def _demonstrations(context: Context) -> list[dict[str, Any]]:
    from rewright.engines.loading import load_tokenizer
    from rewright.rendering.renderer import Renderer
    from rewright.tasks.worlds.demonstrations import demonstrate

    settings, model = context.recipe.sft, context.recipe.model
    renderer = Renderer(load_tokenizer(model), context.dialect, template_options=model.template_options)
    held_out = held_out_keys(context.run.pairs())
    rows = []
    for task in generate("train", settings.demonstrations, seed=context.recipe.seed, profile=settings.profile):
        if question_keys(task, context.dialect.messages(task)) & held_out:
            continue
        ids, mask = renderer.encode_trajectory(task, demonstrate(task))
        rows.append({"input_ids": ids, "mask": mask})
    return rows


def _check(recipe: Recipe) -> None:
    if recipe.sft.source == "demonstrations" and recipe.dialect != "hermes":
        raise InputError(
            f"sft.source is demonstrations, which are written in the dialect hermes, and dialect is {recipe.dialect}: "
            "expected sft.source: run"
        )
    if recipe.sft.source == "demonstrations":
        try:
            next(generate("train", 1, profile=recipe.sft.profile))
        except InputError as problem:
            raise InputError(f"sft.profile: {problem}") from None
    if recipe.sft.source in ("run", "gold"):
        check_token_ids(recipe, "sft")
    check_training("sft", recipe.sft, recipe.model, recipe.training)


def _prepare(context: Context) -> None:
    if context.recipe.sft.source == "gold":
        check_gold(context)


def _written_files(about: Mapping[str, Any]) -> tuple[str, ...]:
    return SFT.files if about.get("source") == "gold" else SFT.files[:1]


SFT = Stage(
    name="sft",
    run=sft,
    repeated=True,
    reads=("build",),
    files=("models/sft", "demonstrations.jsonl"),
    written_files=_written_files,
    verb="sft",
    help="Train the policy on the SFT set.",
    trains="policy",
    curve=("loss", "SFT: loss on model tokens"),
    check=_check,
    prepare=_prepare,
)
