"""verl's metrics as rows of metrics.jsonl, with TRL's names for what means the same."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["Follower", "new_file", "row_of", "rows_of"]

NAMES: Final = {
    "actor/pg_loss": "loss",
    "actor/grad_norm": "grad_norm",
    "actor/lr": "learning_rate",
    "actor/entropy": "entropy",
    "actor/kl_loss": "kl",
    "actor/pg_clipfrac": "clip_ratio/region_mean",
    "critic/rewards/mean": "reward",
    "critic/rewards/max": "reward_max",
    "critic/rewards/min": "reward_min",
    "response_length/mean": "completions/mean_length",
    "response_length/max": "completions/max_length",
    "response_length/min": "completions/min_length",
    "response_length/clip_ratio": "completions/clipped_ratio",
    "training/num_turns/mean": "verl/num_turns",
    "training/rollout_probs_diff_mean": "verl/rollout_probs_diff_mean",
    "training/rollout_probs_diff_max": "verl/rollout_probs_diff_max",
    "rollout_corr/rollout_is_mean": "verl/rollout_is_mean",
}
"""TRL's name, or one of ours, by verl's. `loss` is the policy loss, without the terms for KL and entropy."""


def row_of(step: int, data: Mapping[str, Any]) -> dict[str, Any]:
    """A row of metrics.jsonl from what verl has logged for a step. Times and numbers of tokens are left out."""
    row: dict[str, Any] = {"step": step}
    for name, ours in NAMES.items():
        value = data.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            row[ours] = value
    return row


def new_file(folder: Path) -> Path:
    """The file for the metrics of another start of verl, which overwrites an existing file."""
    return folder / f"metrics-{len(list(folder.glob('metrics-*.jsonl'))):03d}.jsonl"


def rows_of(folder: Path, upto: int) -> dict[int, dict[str, Any]]:
    """The rows of the steps up to `upto` by step. Of a step that was made again, the last one."""
    rows: dict[int, dict[str, Any]] = {}
    for path in sorted(folder.glob("metrics-*.jsonl")):
        for step, data in Follower(path).read():
            if 1 <= step <= upto:
                rows[step] = row_of(step, data)
    return dict(sorted(rows.items()))


class Follower:
    """Reads the lines that are appended to a file of verl's logger `file`."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (step, metrics) of each new line that is complete."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                found = json.loads(line)
                yield int(found["step"]), found["data"]
            except (ValueError, KeyError, TypeError):
                continue  # verl was killed while it wrote
