"""What is silently wrong in a batch that another trainer is about to train on.

`check_batch` makes every check of `CHECKS`. A check that lacks what it needs is `NotChecked`, never passed. Rows come
from `rewright.reports.batch_files`; docs/check_batch.md describes the checks and the file format.
"""

from __future__ import annotations

from typing import Final

from rewright.credit.batch_checks.evidence import generated
from rewright.credit.batch_checks.groups import mixed_prompts, single_groups, step_advantages
from rewright.credit.batch_checks.masks import (
    inverted_mask,
    last_turn_only,
    mask_beside_text,
    shifted_mask,
    turn_boundaries,
)
from rewright.credit.batch_checks.rows import Batch, BatchRow, Check, Finding, NotChecked, Result
from rewright.credit.batch_checks.statistics import padding_in_statistics, turns_in_mean
from rewright.credit.batch_checks.values import lost_reward, masked_log_probs, not_finite

__all__ = ["CHECKS", "Batch", "BatchRow", "Finding", "NotChecked", "Result", "check_batch", "rows_read"]

CHECKS: Final[dict[str, Check]] = {
    "step_advantages": step_advantages,
    "turns_in_mean": turns_in_mean,
    "mixed_prompts": mixed_prompts,
    "single_groups": single_groups,
    "inverted_mask": inverted_mask,
    "shifted_mask": shifted_mask,
    "mask_beside_text": mask_beside_text,
    "turn_boundaries": turn_boundaries,
    "lost_reward": lost_reward,
    "masked_log_probs": masked_log_probs,
    "last_turn_only": last_turn_only,
    "padding_in_statistics": padding_in_statistics,
    "not_finite": not_finite,
}
"""The checks by name, in the order of docs/check_batch.md."""


def rows_read(batch: Batch) -> dict[str, tuple[int, int]]:
    """Of how many rows some checks can speak, and of how many they should: those of evidence, and `masked_log_probs`.

    Rows that are not trained or fill up the batch need no evidence.
    """
    known = sum(generated(batch, row) is not None for row in batch.trained)
    by_evidence = (known, len(batch.trained))
    given = sum(row.log_probs is not None or row.old_log_probs is not None for row in batch.rows)
    names = ["inverted_mask", "shifted_mask"]
    if all(len(one.rows) == 1 for one in batch.trajectories(batch.rows)):  # the steps of others are evidence, too
        names.append("last_turn_only")
    return dict.fromkeys(names, by_evidence) | {"masked_log_probs": (given, len(batch.rows))}


def check_batch(batch: Batch) -> dict[str, Result]:
    """Make every check: the findings of each, or why it could not be made."""
    return {name: check(batch) for name, check in CHECKS.items()}
