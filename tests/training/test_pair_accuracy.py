"""How well scores rank pairs, and the length rule beside it (docs/reward_model.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rewright.reports.table import table
from rewright.training.pair_accuracy import length_rule, pair_accuracies


def pair(chosen: list[int], rejected: list[int], *, matched: bool = True) -> dict[str, Any]:
    return {"chosen_ids": chosen, "rejected_ids": rejected, "matched_format": matched}


def by_sum(sequences: Sequence[Sequence[int]]) -> list[float]:
    return [float(sum(sequence)) for sequence in sequences]


PAIRS = [
    pair([9], [1, 1]),  # right, shorter
    pair([9], [1, 1], matched=False),  # right, shorter
    pair([1], [2, 2], matched=False),  # wrong, shorter
    pair([4, 4], [8]),  # a tie, longer
    pair([4], [8]),  # wrong, as long
]


def test_accuracies_overall_and_on_pairs_of_matched_format() -> None:
    assert pair_accuracies(by_sum, PAIRS) == {
        "accuracy": pytest.approx(2.5 / 5),
        "accuracy_matched_format": pytest.approx(1.5 / 3),
        "shorter_wins": pytest.approx(3.5 / 5),
        "shorter_wins_matched_format": pytest.approx(1.5 / 3),
        "held_out_pairs": 5.0,
        "matched_format_pairs": 3.0,
    }
    nothing = pair_accuracies(by_sum, [])
    assert nothing["accuracy"] is None, "not computed, which is not 0"
    assert nothing["shorter_wins"] is None


def test_a_reward_model_that_knows_the_length_only_is_seen_in_the_table() -> None:
    longer = [pair([1] * 9, [1, 1]), pair([1] * 5, [1] * 4), pair([1], [1, 1], matched=False)]
    found = pair_accuracies(by_sum, longer)
    assert length_rule(found) == ("longer", pytest.approx(2 / 3), 1.0)
    assert found["accuracy"] == pytest.approx(2 / 3)
    rule = length_rule(found)
    assert rule is not None
    report = {
        "stages": [], "counts": {"candidates": 0}, "broke": {}, "skipped": {}, "costs": {}, "faults": {},
        "seconds": 1.0,
        "reward_model_accuracy": found["accuracy"],
        "reward_model_accuracy_matched_format": found["accuracy_matched_format"],
        "reward_model_held_out_pairs": 3, "reward_model_matched_format_pairs": 2,
        "length_rule": rule[0], "length_rule_accuracy": rule[1], "length_rule_accuracy_matched_format": rule[2],
    }  # fmt: skip
    shown = table(report)
    assert "reward model: 66.7% of 3 held-out pairs ranked right, 100.0% of the 2 of matched format" in shown
    assert "by length alone (the longer one wins): 66.7% ranked right, 100.0% of those of matched format" in shown
    assert length_rule({}) is None
