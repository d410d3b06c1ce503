"""A whole run in seconds, and what of its directory must be the same whenever it is made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["LOG_PROBS", "RECIPE", "STAGES", "contents", "same"]

STAGES = (
    "eval_base", "synth", "judge", "score", "repair", "build", "sft", "eval_sft", "reward", "rl", "eval_rl",
)  # fmt: skip

# Deadlines so long that a busy machine changes nothing.
RECIPE = """\
name: micro
model: {path: pico, slots: 8}
tasks: {format: town, split: train, profile: short, count: 6}
synth: {n: 2, temperature: 1.0, top_p: 1.0}
limits: {turns: 4, turn_tokens: 64, trajectory_tokens: 320, tool_seconds: 600, trajectory_seconds: 3000}
sandbox: {level: process, wall_seconds: 600}
repair: {model: {path: pico-repairer, slots: 8}, temperature: 0.7, calls: 4}
build: {held_out_fraction: 0.4}
sft: {learning_rate: 6.0e-4, batch_size: 2, epochs: 1, save_steps: 1}
reward: {learning_rate: 3.0e-4, batch_size: 2, epochs: 1, save_steps: 1, minimum_pairs: 1, minimum_accuracy: 0.0}
rl: {learning_rate: 1.0e-4, steps: 2, tasks_per_step: 2, generations: 2, save_steps: 1}
eval: {tasks: {format: town, split: heldout, profile: short, count: 3, seed: 1}}
"""

LOG_PROBS = 1e-4
"""Of one token. Which rows were in a batch together depends on time; with contexts of over some 300 tokens it moves
the last bits, so far measured up to 1.6e-5 (tokens are equal)."""

_NOT_COMPARED = ("libraries.log", "environment.json", ".lock", "report.html", "learning_curves.png")
"""When the run was started, who held it, and pictures of the rest."""


def contents(run: Path) -> dict[str, Any]:
    """Every file of a run by its path: JSON without times, a digest of everything else (the weights among it)."""
    return {
        str(path.relative_to(run)): _content(path)
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in _NOT_COMPARED
    }


def same(found: Path, expected: Path) -> None:
    """Two runs have the same files with the same contents: all to the last bit but log-probabilities, to LOG_PROBS."""
    left, right = contents(found), contents(expected)
    assert sorted(left) == sorted(right)
    differences = [f"{name}{where}" for name in left for where in _differences(left[name], right[name], "")]
    assert differences == []


def _differences(left: Any, right: Any, where: str) -> Iterator[str]:
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        for key in left:
            yield from _differences(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, pair in enumerate(zip(left, right, strict=True)):
            yield from _differences(*pair, f"{where}[{index}]")
    elif left != right and not (".log_probs[" in where and abs(left - right) <= LOG_PROBS):
        yield f"{where}: {left!r:.80} and {right!r:.80}"


def _content(path: Path) -> Any:
    if path.suffix == ".jsonl":
        return [_without_times(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.name == "state.json":
        return _without_times(json.loads(path.read_text(encoding="utf-8")))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(part) for key, part in value.items() if key != "seconds"}
    return [_without_times(part) for part in value] if isinstance(value, list) else value
