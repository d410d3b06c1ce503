"""Train the trajectory reward model on the preference pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.pipeline.context import Context
from rewright.pipeline.processes import trainer
from rewright.pipeline.registry import Stage
from rewright.pipeline.rounds import last_sets
from rewright.pipeline.stages.held_out import unseen_pairs, warn_if_too_few_pairs
from rewright.pipeline.stages.lengths import within_length
from rewright.pipeline.stages.policy import check_token_ids, first_policy, policy_before, skip
from rewright.pipeline.stages.prefix_pairs import prefix_pairs
from rewright.pipeline.stages.reward_gate import why_no_reward_model
from rewright.recipe.schema import Recipe
from rewright.training.backend import check_training
from rewright.training.group_credit import uses_reward_model

__all__ = ["REWARD", "reward"]


def reward(context: Context) -> dict[str, Any]:
    """Train a reward model on preferences.jsonl, initialized from the SFT policy, and save it to models/reward."""
    run, recipe = context.run, context.recipe
    if recipe.reward.url is not None:
        return skip(context, "reward", "reward.url names a served model", "none is trained")
    if "rl" in recipe.stages and not uses_reward_model(recipe.rl):
        say(f"reward: {why_no_reward_model(recipe.rl)}: RL will not use the model that is trained here")
    sets = last_sets(run, recipe.repair.rounds)
    pairs = sets.pairs()
    if not any(pair["split"] == "train" for pair in pairs):
        reason = "no repair was accepted, or all pairs are held out"
        return skip(context, "reward", reason, "RL will run without a reward model")
    if not all("chosen_ids" in pair and "rejected_ids" in pair for pair in pairs):
        raise InputError(
            f"{sets.file('preferences.jsonl')} has pairs without token ids: expected model.tokenizer in the recipe"
        )
    pairs = unseen_pairs(sets, pairs)
    warn_if_too_few_pairs("reward", pairs, recipe)
    if recipe.reward.prefixes:
        prefixes = prefix_pairs(context, pairs)
        say(f"reward: {len(prefixes)} pairs of turn prefixes are added to {len(pairs)} pairs")
        pairs += prefixes
    training = [pair for pair in pairs if pair["split"] == "train"]
    training = within_length(
        "reward", "training pairs", training, recipe.reward.max_length, "chosen_ids", "rejected_ids"
    )
    held_out = [pair for pair in pairs if pair["split"] == "heldout"]
    history, accuracies = trainer(context, "reward").train_reward_model(
        [*training, *held_out],
        policy_before(context, "reward"),
        recipe.reward,
        run.model_folder("reward"),
        seed=recipe.seed,
        dialect=recipe.dialect,
    )
    run.set_metrics("reward", history)
    if recipe.reward.prefixes:
        _say_prefixes(accuracies)
    return {"accuracies": accuracies}


def _say_prefixes(accuracies: Mapping[str, float | None]) -> None:
    auc = accuracies.get("prefix_auc")
    if auc is None:
        say("reward: no turn prefixes are held out, so how well the model scores them is unknown")
        return
    say(
        f"reward: AUC {auc:.3f} on {accuracies['prefix_pairs']:.0f} pairs of turn prefixes of "
        f"{accuracies['prefix_tasks']:.0f} held-out tasks (by length alone: {accuracies['prefix_auc_shorter']:.3f})"
    )


def _check(recipe: Recipe) -> None:
    if recipe.reward.url is None:
        check_token_ids(recipe, "reward")
        check_training("reward", recipe.reward, first_policy(recipe), recipe.training)


REWARD = Stage(
    name="reward",
    run=reward,
    reads=("build", "sft", "dpo"),
    files=("models/reward",),
    verb="reward",
    help="Train the reward model on the pairs.",
    trains="reward_model",
    curve=("accuracy", "reward model: accuracy on training pairs"),
    check=_check,
)
