"""Decide whether RL may use a reward model, trained by this run or served, by its accuracy on held-out pairs.

RL against an unvalidated reward model can optimize anything. The accuracy of the run's model was measured after its
training. A served model is evaluated right before RL starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.pipeline.run_directory import Run
from rewright.serving.reward_client import RewardClient
from rewright.training.pair_accuracy import pair_accuracies
from rewright.training.settings import RewardSettings, RLSettings

__all__ = ["connect", "has_validated_reward_model", "why_no_reward_model"]

Accuracies = Mapping[str, float | None]


def has_validated_reward_model(run: Run, settings: RewardSettings) -> bool:
    """Whether the run has a reward model with sufficient held-out accuracy.

    False without a model or with too few held-out pairs. Raises InputError if the accuracy is too low.
    """
    state = run.state().get("reward", {})
    if not state.get("done") or state.get("skipped"):
        return False
    accuracies: Accuracies = state.get("accuracies", {})
    pairs = int(accuracies.get("held_out_pairs") or 0)
    if pairs < max(1, settings.minimum_pairs):
        say(
            f"rl: only {pairs} held-out pairs (reward.minimum_pairs is {settings.minimum_pairs}): the accuracy of the "
            "reward model is unknown, so RL runs without it"
        )
        return False
    _refuse_bad(accuracies, settings, "the reward model")
    return True


def connect(run: Run, settings: RewardSettings, vocabulary: str) -> tuple[RewardClient, dict[str, float | None]]:
    """Connect to the model at `reward.url`. Returns the client and its accuracies on the run's held-out pairs.

    Raises InputError if the accuracy is too low, if there are too few held-out pairs (RL does not silently ignore a
    configured model), and if the vocabularies differ. Raises ServerError if the server does not answer.
    """
    pairs = [pair for pair in run.pairs() if pair["split"] == "heldout" and {"chosen_ids", "rejected_ids"} <= {*pair}]
    if len(pairs) < max(1, settings.minimum_pairs):
        raise InputError(
            f"{run.file('preferences.jsonl')} has {len(pairs)} held-out pairs with token ids, reward.minimum_pairs is "
            f"{settings.minimum_pairs}: the accuracy of the model at {settings.url} is unknown (build more pairs, "
            "raise build.held_out_fraction, or leave reward.url out)"
        )
    client = RewardClient(
        str(settings.url),
        vocabulary=vocabulary,
        timeout_seconds=settings.timeout_seconds,
        attempts=settings.attempts,
    )
    try:
        accuracies = pair_accuracies(client.score, pairs)
        _refuse_bad(accuracies, settings, f"the reward model at {client.url}")
    except BaseException:
        client.close()
        raise
    say(f"rl: the reward model at {client.url} ranks {accuracies['accuracy']:.1%} of {len(pairs)} held-out pairs right")
    return client, accuracies


def why_no_reward_model(settings: RLSettings) -> str:
    """The reason why RL with these settings uses no reward model (see `uses_reward_model`)."""
    if settings.trajectory_reward == "matchtir":
        return "rl.trajectory_reward is matchtir, which has no reward model"
    if settings.reward_model_weight > 0:
        return f"the estimator {settings.credit.estimator_name} reads outcomes, not trajectory rewards"
    return "rl.reward_model_weight is 0"


def _refuse_bad(accuracies: Mapping[str, Any], settings: RewardSettings, which: str) -> None:
    accuracy, pairs = accuracies["accuracy"], int(accuracies["held_out_pairs"])
    if accuracy < settings.minimum_accuracy:
        raise InputError(
            f"{which} ranks only {accuracy:.0%} of {pairs} held-out pairs right, reward.minimum_accuracy is "
            f"{settings.minimum_accuracy:.0%}: RL on it is refused (more pairs, more epochs, or another limit)"
        )
