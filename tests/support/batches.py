"""Healthy dumps of training batches from stored rollouts, and the twelve misalignments planted into them."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from rewright.core.records import Trajectory
from rewright.core.storage import read_strict
from rewright.credit import advantages

__all__ = ["PLANTED", "one_row_each", "step_wise", "write"]

STORED = Path(__file__).parents[1] / "pipeline" / "stored_runs" / "format1" / "rollouts.jsonl"
Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> Path:
    """Write a dump as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one_row_each(*, estimator: str = "grpo", std: bool = True) -> Rows:
    """The 16 rollouts of a stored step as rows of the documented format: outcome rewards, one advantage per row.

    Without `std` the advantages are those of Dr. GRPO.
    """
    stored = [record for _, record in read_strict(STORED, Trajectory)][:16]
    turn_rewards = [list(one.credit.turn_rewards) for one in stored]
    rewards = [one.credit.trajectory_reward for one in stored]
    groups = [one.task_id for one in stored]
    credited = advantages(turn_rewards, groups, estimator=estimator, trajectory_rewards=rewards)
    if not std:
        credited = [
            np.full(len(row), rewards[i] - np.mean([rewards[j] for j in range(16) if groups[j] == groups[i]]))
            for i, row in enumerate(turn_rewards)
        ]
    rows = []
    for one, reward, values in zip(stored, rewards, credited, strict=True):
        start = len(one.prompt_ids)
        spans = [(span.start - start, span.end - start) for span in one.spans]
        mask = one.mask[start:]
        row = {
            "group": one.task_id,
            "trajectory": one.id,
            "prompt_ids": list(one.prompt_ids),
            "response_ids": one.token_ids[start:],
            "mask": mask,
            "turns": spans,
            "turn_ids": [list(turn.token_ids) for turn in one.turns],
            "reward": reward,
            "token_rewards": [0.0] * (len(mask) - 1) + [reward],
            "advantages": [0.0] * len(mask),
            "log_probs": [p for turn in one.turns for p in [*turn.log_probs, *([0.0] * len(turn.suffix_ids))]],
            "truncated": one.stop_reason == "token_limit",
        }
        for value, (first, end) in zip(values, spans, strict=True):
            row["advantages"][first:end] = [float(value)] * (end - first)
        rows.append(row)
    return rows


def step_wise() -> Rows:
    """The same rollouts as step-wise trainers have them: one row per turn, the advantage of the trajectory on all."""
    rows = []
    for row in one_row_each():
        for number, (start, end) in enumerate(row["turns"]):
            values = row["advantages"][start:end]
            rows.append(
                {
                    "group": row["group"],
                    "trajectory": row["trajectory"],
                    "prompt_ids": row["prompt_ids"] + row["response_ids"][:start],
                    "response_ids": row["response_ids"][start:end],
                    "mask": [1] * (end - start),
                    "turns": [(0, end - start)],
                    "reward": row["reward"],
                    "advantages": values,
                    "log_probs": row["log_probs"][start:end],
                    "last_step": number == len(row["turns"]) - 1,
                }
            )
    return rows


def _credited(rows: Rows, rewards: list[float], counted: dict[str, list[float]], ids: Callable[[int], str]) -> Rows:
    for index, row in enumerate(rows):
        sample = np.array(counted[ids(index)])
        value = (rewards[index] - sample.mean()) / (sample.std(ddof=1) + 1e-6) if np.ptp(sample) else 0.0
        row["advantages"] = [value * trained for trained in row["mask"]]
    return rows


def copied_last_step() -> tuple[Rows, int]:
    """1: the last step's advantages, right-aligned, are copied onto the earlier ones."""
    rows = step_wise()
    width = max(len(row["mask"]) for row in rows)
    for row in rows:  # right-aligned, padded at the left
        pad = width - len(row["mask"])
        for key, fill in (("response_ids", 0), ("mask", 0), ("advantages", 0.0), ("log_probs", 0.0)):
            row[key] = [fill] * pad + row[key]
        row["real"] = [0] * pad + [1] * (width - pad)
        row["turns"] = [(pad, width)]
        row["prompt_ids"] = row["prompt_ids"][:]
    for index, row in enumerate(rows):
        last = next(other for other in rows[index:] if other["last_step"])
        row["advantages"] = list(last["advantages"])
    wrong = next(
        i
        for i, row in enumerate(rows)
        if any(m and not a for m, a in zip(row["mask"], row["advantages"], strict=True)) and any(row["advantages"])
    )
    return rows, wrong


def turns_in_mean() -> tuple[Rows, int]:
    """2: every row counts in the mean of its group."""
    rows = step_wise()
    counted: dict[str, list[float]] = {}
    for row in rows:
        counted.setdefault(row["group"], []).append(row["reward"])
    _credited(rows, [row["reward"] for row in rows], counted, lambda i: rows[i]["group"])
    longest = max(rows, key=lambda row: len(row["prompt_ids"]) if row["group"] == "town-train-short-0-3" else 0)
    return rows, next(i for i, row in enumerate(rows) if row["trajectory"] == longest["trajectory"])


def mixed_prompts() -> tuple[Rows, int]:
    """3: one rollout is in the group of another task."""
    rows = one_row_each()
    rows[5]["group"] = rows[0]["group"]
    return rows, 5


def single_groups() -> tuple[Rows, int]:
    """4: every trajectory is a group."""
    rows = one_row_each()
    for row in rows:
        row["group"] = row["trajectory"]
        row["advantages"] = [row["reward"] * trained for trained in row["mask"]]
    return rows, 0


def inverted_mask() -> tuple[Rows, int]:
    """5: the results of tools are trained."""
    rows = one_row_each()
    for row in rows:
        row["mask"] = [1 - trained for trained in row["mask"]]
    return rows, 0


def shifted_mask() -> tuple[Rows, int]:
    """6: the mask is one token late."""
    rows = one_row_each()
    for row in rows:
        row["mask"] = [0, *row["mask"][:-1]]
    return rows, 0


def mask_beside_text() -> tuple[Rows, int]:
    """7: a result of a tool was tokenized again into two tokens more; mask and turns are the old ones."""
    rows = one_row_each()
    row = rows[4]
    end = row["turns"][0][1]
    row["response_ids"] = [*row["response_ids"][:end], 7, 7, *row["response_ids"][end:]][: len(row["mask"])]
    return rows, 4


def turn_boundaries() -> tuple[Rows, int]:
    """8: a start of a turn is there twice."""
    rows = one_row_each()
    for row in rows:
        row["turn_starts"] = [start for start, _ in row["turns"]]
        row["turn_ends"] = [end for _, end in row["turns"]]
    rows[2]["turn_starts"].insert(1, rows[2]["turns"][0][1] - 3)
    return rows, 2


def lost_reward() -> tuple[Rows, int]:
    """9: the tokens of a response that was cut off have no reward."""
    rows = one_row_each()
    rows[8]["token_rewards"] = [0.0] * len(rows[8]["mask"])
    return rows, 8


def masked_log_probs() -> tuple[Rows, int]:
    """10: masked log-probabilities are 1."""
    rows = one_row_each()
    for row in rows:
        row["old_log_probs"] = row["log_probs"]
        row["log_probs"] = [p if m else 1.0 for p, m in zip(row["log_probs"], row["mask"], strict=True)]
    return rows, 0


def last_turn_only() -> tuple[Rows, int]:
    """11: only the last turn is in the mask."""
    rows = one_row_each()
    for row in rows:
        start, end = row["turns"][-1]
        row["mask"] = [int(start <= position < end) for position in range(len(row["mask"]))]
    return rows, 0


def padding_in_statistics() -> tuple[Rows, int]:
    """12: two untrained copies of the first row of a group count in its mean."""
    rows = one_row_each()
    first = next(i for i, row in enumerate(rows) if row["group"] == "town-train-short-0-3")
    for _ in range(2):
        rows.append(deepcopy(rows[first]) | {"padding": True, "mask": [0] * len(rows[first]["mask"])})
    counted: dict[str, list[float]] = {}
    for row in rows:
        counted.setdefault(row["group"], []).append(row["reward"])
    return _credited(rows, [row["reward"] for row in rows], counted, lambda i: rows[i]["group"]), 16


PLANTED: dict[str, Callable[[], tuple[Rows, int]]] = {
    "step_advantages": copied_last_step,
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
}
"""The planted rows and a row that the checker has to name, by the check that finds it."""
