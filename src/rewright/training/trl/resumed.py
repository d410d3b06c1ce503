"""Say which settings of a training that goes on from a checkpoint are not those with which it began.

The trainer restores the weights and the optimizer with its settings from the checkpoint, so that these are not the
recipe's. All other settings hold from there on; the finished steps are counted as steps of the new settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from rewright.core.dotted import dotted, shown
from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.core.storage import write_atomically
from rewright.training.settings import SectionSettings

__all__ = ["check_settings", "store_settings"]

FILE: Final = "settings.json"
"""File beside the checkpoints: the settings with which the training began."""

OF_OPTIMIZER: Final = ("learning_rate", "arguments.learning_rate", "arguments.weight_decay", "arguments.adam_")
OF_WEIGHTS: Final = ("lora_rank", "arguments.optim")
"""Settings without which the state of a checkpoint cannot be loaded."""
OF_NO_STEP: Final = (
    "backend", "concurrency", "engine", "keep_rollouts", "micro_batch_size", "minimum_", "report_to", "save_steps",
    "server", "verl", "vllm", "arguments.save_", "arguments.logging_",
)  # fmt: skip
"""Settings that say how and where steps are made, and change none of them (but for rounding)."""
MODEL: Final = "model"


def store_settings(folder: Path, settings: SectionSettings, seed: int, weights: list[int]) -> None:
    """Write the settings and the checksums of the `weights` with which a training begins beside its checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FILE, [json.dumps(_comparable(settings, seed, weights), default=str).encode()])


def check_settings(
    folder: Path, settings: SectionSettings, seed: int, weights: list[int], *, label: str, steps: tuple[int, int]
) -> None:
    """Say which settings differ from those that are stored in `folder`, and which of them have no effect.

    `weights`: checksums of the weights before the checkpoint is loaded. `steps`: that of the checkpoint, and the
    number of all. Raises InputError for settings with which it cannot be loaded. Nothing is said if none are stored.
    """
    try:
        before: dict[str, Any] = json.loads((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return
    now: dict[str, Any] = json.loads(json.dumps(_comparable(settings, seed, weights), default=str))
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    was, is_now = ({name: shown(of[name]) if name in of else "unset" for name in changed} for of in (before, now))
    step, anew = f"step {steps[0]} of {steps[1]}", f"to begin anew, remove {folder}"
    refused = next((name for name in changed if name.startswith(OF_WEIGHTS)), None)
    if refused is not None:
        raise InputError(
            f"{label}: cannot go on from {step}: {refused} was {was[refused]}, and is {is_now[refused]}: expected the "
            f"value from before; {anew}"
        )
    kept = [
        f"{name} {was[name]} of the checkpoint, not {is_now[name]}" for name in changed if name.startswith(OF_OPTIMIZER)
    ]
    kept += ["the weights of the checkpoint, which began as another model"] if MODEL in changed else []
    others = [name for name in changed if name != MODEL and not name.startswith(OF_OPTIMIZER)]
    parts = [f"with {' and '.join(kept)}"] if kept else []
    parts += [f"{name} is {is_now[name]} from here on, and was {was[name]}" for name in others]
    if parts:
        say(f"warning: {label}: goes on from {step}, {'; '.join(parts)}: {anew}")


def _comparable(settings: SectionSettings, seed: int, weights: list[int]) -> dict[str, Any]:
    found = dotted(msgspec.to_builtins(settings))
    named = {name: value for name, value in found.items() if not name.startswith(OF_NO_STEP) and value != {}}
    return {**named, "seed": seed, MODEL: weights}
