"""Which experiment trackers receive the metrics of a stage."""

from __future__ import annotations

from rewright.recipe.schema import Recipe

__all__ = ["stage_trackers"]


def stage_trackers(recipe: Recipe, stage: str, *, evaluation: bool) -> dict[str, str]:
    """The trackers of a stage, and the recipe key that names each."""
    if not evaluation:
        return dict.fromkeys(getattr(getattr(recipe, stage, None), "report_to", ()), f"{stage}.report_to")
    if recipe.eval.report_to is not None:
        return dict.fromkeys(recipe.eval.report_to, "eval.report_to")
    sections = {"rl": recipe.rl, "reward": recipe.reward, "dpo": recipe.dpo, "sft": recipe.sft}
    return {name: f"{key}.report_to" for key, section in sections.items() for name in section.report_to}
