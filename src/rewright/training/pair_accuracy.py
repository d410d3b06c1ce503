"""How well scores rank preference pairs, and how well no reward model at all would: by length alone.

Chosen and rejected trajectories differ in surface too: repaired ones are often shorter, and well formed. A reward model
whose accuracy falls to that of the length rule, or falls on pairs of matched format, has learned the surface.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["Score", "length_rule", "pair_accuracies"]

Score = Callable[[Sequence[Sequence[int]]], list[float]]
"""One number per token sequence: `RewardModel.score` or `RewardClient.score`."""


def pair_accuracies(score: Score, pairs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Accuracies of `score` on pairs (rows of preferences.jsonl with `chosen_ids`, `rejected_ids`, `matched_format`).

    `accuracy`: the share of pairs whose chosen trajectory scores higher; ties count half. `shorter_wins`: the same for
    the rule that the trajectory of fewer tokens is the better one (1 minus it is the opposite rule's accuracy). Both
    again with `_matched_format`, on the pairs whose two sides are both well formed. None where there are no pairs.
    """
    scores = score([pair["chosen_ids"] for pair in pairs] + [pair["rejected_ids"] for pair in pairs]) if pairs else []
    by_score = [_right(one, other) for one, other in zip(scores[: len(pairs)], scores[len(pairs) :], strict=True)]
    by_length = [_right(len(pair["rejected_ids"]), len(pair["chosen_ids"])) for pair in pairs]
    matched = [index for index, pair in enumerate(pairs) if pair["matched_format"]]
    return {
        "accuracy": _mean(by_score),
        "accuracy_matched_format": _mean([by_score[index] for index in matched]),
        "shorter_wins": _mean(by_length),
        "shorter_wins_matched_format": _mean([by_length[index] for index in matched]),
        "held_out_pairs": float(len(pairs)),
        "matched_format_pairs": float(len(matched)),
    }


def length_rule(accuracies: Mapping[str, float | None]) -> tuple[str, float, float | None] | None:
    """(`shorter` or `longer`, its accuracy, its accuracy on pairs of matched format): the better of the two rules."""
    shorter, matched = accuracies.get("shorter_wins"), accuracies.get("shorter_wins_matched_format")
    if shorter is None:
        return None
    if shorter >= 0.5:
        return "shorter", shorter, matched
    return "longer", 1.0 - shorter, None if matched is None else 1.0 - matched


def _right(better: float, worse: float) -> float:
    return 1.0 if better > worse else 0.5 if better == worse else 0.0


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
