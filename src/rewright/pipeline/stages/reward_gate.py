"""Which reward model RL may use: the one that this run has trained, or a served one, if it ranks held-out pairs well.

A reward model nobody knows anything about steers RL anywhere. So its accuracy on the held-out pairs is known first: for
the run's own model from its training, for a served one by asking the server, right before RL starts.
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

__all__ = ["connect", "trusts_own_model", "without_reward_model"]

Accuracies = Mapping[str, float | None]


def trusts_own_model(run: Run, settings: RewardSettings) -> bool:
    """Has the run a reward model that is known to be good enough? Raises InputError for one known to be bad."""
    state = run.state().get("reward", {})
    if not state.get("done") or state.get("skipped"):
        return False
    accuracies: Accuracies = state.get("accuracies", {})
    pairs = int(accuracies.get("held_out_pairs") or 0)
    if pairs < max(1, settings.minimum_pairs):
        say(
            f"rl: only {pairs} held-out pairs (reward.minimum_pairs is {settings.minimum_pairs}): nobody knows how "
            "good the reward model is, so RL runs without it"
        )
        return False
    _refuse_bad(accuracies, settings, "the reward model")
    return True


def connect(run: Run, settings: RewardSettings, vocabulary: str) -> tuple[RewardClient, dict[str, float | None]]:
    """The client of the model at `reward.url`, and the server's accuracies on the run's held-out pairs.

    Raises InputError for a bad model, for pairs that are too few to tell (it was asked for: RL does not quietly go on
    without it), and for a model of another vocabulary; ServerError where the server does not answer.
    """
    pairs = [pair for pair in run.pairs() if pair["split"] == "heldout" and {"chosen_ids", "rejected_ids"} <= {*pair}]
    if len(pairs) < max(1, settings.minimum_pairs):
        raise InputError(
            f"{run.path}/preferences.jsonl has {len(pairs)} held-out pairs with token ids, reward.minimum_pairs is "
            f"{settings.minimum_pairs}: nobody knows how good the model at {settings.url} is (build more pairs, "
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


def without_reward_model(settings: RLSettings) -> str:
    """Why RL under these settings uses no reward model (`uses_reward_model`)."""
    if settings.trajectory_reward == "matchtir":
        return "rl.trajectory_reward is matchtir, which has no reward model"
    return "rl.reward_model_weight is 0"


def _refuse_bad(accuracies: Mapping[str, Any], settings: RewardSettings, which: str) -> None:
    accuracy, pairs = accuracies["accuracy"], int(accuracies["held_out_pairs"])
    if accuracy < settings.minimum_accuracy:
        raise InputError(
            f"{which} ranks only {accuracy:.0%} of {pairs} held-out pairs right, reward.minimum_accuracy is "
            f"{settings.minimum_accuracy:.0%}: RL on it is refused (more pairs, more epochs, or another limit)"
        )
