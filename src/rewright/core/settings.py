"""What all settings have in common, in a recipe or given by a program: unknown keys are errors, numbers are checked."""

from __future__ import annotations

import math
from typing import Final

import msgspec

__all__ = ["Settings"]

AT_LEAST: Final[dict[str, int]] = {
    **dict.fromkeys(("slots", "max_length", "concurrency", "attempts", "n", "count", "limit", "memory_mb"), 1),
    **dict.fromkeys(
        ("batch_size", "micro_batch_size", "lora_rank", "save_steps", "tasks_per_step", "updates_per_step", "steps"), 1
    ),
    **dict.fromkeys(("output_characters", "passages"), 1),
    "generations": 2,  # a group of one has no advantage
}
AT_MOST: Final[dict[str, int]] = {
    **dict.fromkeys(("top_p", "gamma", "held_out_fraction", "minimum_accuracy"), 1),
    "seed": 2**32 - 1,  # numpy takes no larger one
}
MOST: Final = 10**9
"""Of every other number, seconds and tokens among them: clocks, arrays and servers can hold no much larger one."""
POSITIVE: Final = (
    *("stage_seconds", "judge_seconds", "timeout_seconds", "max_wait_seconds", "wall_seconds", "top_p"),
    *("turns", "turn_tokens", "trajectory_tokens", "tool_calls", "tool_seconds", "tool_characters"),
    *("trajectory_seconds", "length_deviation", "reg", "learning_rate", "epochs"),
)
SIGNED: Final = ("entropy", "unmatched")
"""Which numbers are allowed, by the name of the key; all others are 0 or more."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all settings. Raises ValueError for a number that its key does not allow."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int | float) and not isinstance(number, bool):
                    _check(name, number)


def _check(name: str, number: float) -> None:
    most = AT_MOST.get(name, MOST)
    if number > most and number != math.inf:
        shown = number if number < 10**20 else f"{number:.3g}" if isinstance(number, float) else "a much larger number"
        raise ValueError(f"{name} must be at most {most}, got {shown}")
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {number}")
    if name in POSITIVE and number <= 0:
        raise ValueError(f"{name} must be positive, got {number}")
    if number < AT_LEAST.get(name, 0) and name not in SIGNED:
        least = f"be at least {AT_LEAST[name]}" if name in AT_LEAST else "not be negative"
        raise ValueError(f"{name} must {least}, got {number}")
