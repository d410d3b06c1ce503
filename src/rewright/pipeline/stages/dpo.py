"""Direct preference optimization of the policy on the (repaired, original) pairs."""

from __future__ import annotations

from typing import Any

from rewright.core.errors import InputError
from rewright.pipeline.context import Context
from rewright.pipeline.processes import trainer
from rewright.pipeline.registry import Stage
from rewright.pipeline.rounds import last_sets
from rewright.pipeline.stages.held_out import unseen_pairs
from rewright.pipeline.stages.lengths import within_length
from rewright.pipeline.stages.policy import check_token_ids, first_policy, policy_before, skip
from rewright.recipe.schema import Recipe
from rewright.training.backend import check_training

__all__ = ["DPO", "dpo"]

COLUMNS = ("chosen_ids", "chosen_mask", "rejected_ids", "rejected_mask")


def dpo(context: Context) -> dict[str, Any]:
    """Train the newest policy on preferences.jsonl, and save it to models/dpo."""
    run, recipe = context.run, context.recipe
    sets = last_sets(run, recipe.repair.rounds)
    pairs = sets.pairs()
    if not any(pair["split"] == "train" for pair in pairs):
        return skip(
            context, "dpo", "no repair was accepted, or all pairs are held out", "there is nothing to learn from"
        )
    if not all(set(COLUMNS) <= {*pair} for pair in pairs):
        raise InputError(
            f"{sets.file('preferences.jsonl')} has pairs without token ids and masks: expected model.tokenizer in the "
            f"recipe, and pairs of this version: rewright build {run.path}"
        )
    for number, pair in enumerate(pairs, 1):
        if any(len(pair[f"{side}_ids"]) != len(pair[f"{side}_mask"]) for side in ("chosen", "rejected")):
            raise InputError(
                f"{sets.file('preferences.jsonl')}:{number}: expected chosen_mask and rejected_mask of the lengths of "
                "chosen_ids and rejected_ids"
            )
    unseen = unseen_pairs(sets, pairs, "dpo")
    splits = [[pair for pair in unseen if (pair["split"] == "train") == trains] for trains in (True, False)]
    columns, limit = ("chosen_ids", "rejected_ids"), recipe.dpo.max_length
    training = within_length("dpo", "training pairs", splits[0], limit, *columns)
    held_out = within_length("dpo", "held-out pairs", splits[1], limit, *columns)
    history, accuracies = trainer(context, "dpo").train_dpo(
        [*training, *held_out],
        policy_before(context, "dpo"),
        recipe.dpo,
        run.model_folder("dpo"),
        seed=recipe.seed,
    )
    run.set_metrics("dpo", history)
    return {"pairs": len(training), "accuracies": accuracies}


def _check(recipe: Recipe) -> None:
    check_token_ids(recipe, "dpo")
    check_training("dpo", recipe.dpo, first_policy(recipe), recipe.training)


DPO = Stage(
    name="dpo",
    run=dpo,
    reads=("build", "sft"),
    files=("models/dpo",),
    verb="dpo",
    help="Train the policy on the pairs (direct preference optimization).",
    trains="policy",
    curve=("rewards/accuracies", "DPO: accuracy on training pairs"),
    check=_check,
)
