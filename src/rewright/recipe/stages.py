"""Names and order of stages."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Final, Protocol

from rewright.core.errors import InputError
from rewright.core.registry import find, names_in_order

__all__ = ["ALL_STAGES", "check_stage_names", "stage_order"]

ALL_STAGES: Final = (
    "eval_base", "synth", "judge", "score", "repair", "build", "sft", "eval_sft", "reward", "rl", "eval_rl",
)  # fmt: skip
"""Default stages of a recipe: all built-in ones. Other packages may register more."""


class _Row(Protocol):
    """The attributes of a registered stage that determine its position."""

    @property
    def name(self) -> str: ...
    @property
    def after(self) -> str | None: ...


def stage_order() -> list[str]:
    """Return the names of all registered stages in run order: built-in ones, and others after their `after` stage.

    A stage of another package that can't be loaded is skipped with a warning. A stage with an unknown `after` is last.
    """
    rows: dict[str, _Row] = {}
    for name in names_in_order("stage"):
        try:
            rows[name] = _row(name)
        except InputError as problem:
            warnings.warn(f"rewright: {problem}", RuntimeWarning, stacklevel=2)
    order = [name for name, row in rows.items() if row.after is None]
    # Reversed, because each stage is inserted directly after its `after` stage.
    waiting = [name for name in reversed(rows) if name not in order]
    while placed := [name for name in waiting if rows[name].after in order]:
        for name in placed:
            order.insert(order.index(str(rows[name].after)) + 1, name)
            waiting.remove(name)
    return [*order, *reversed(waiting)]


def _row(name: str) -> _Row:
    row: _Row = find("stage", name)
    if getattr(row, "name", None) != name or not hasattr(row, "after"):
        raise InputError(f"what is registered as stage {name!r} is not a rewright.pipeline.registry.Stage of that name")
    return row


def check_stage_names(names: Sequence[str]) -> None:
    """Raise ValueError if there is no stage, an unknown or duplicate one, or the order is wrong.

    A stage given by import path runs at its position in the list and is not imported here.
    """
    if not names:
        raise ValueError("stages must name at least one stage, got none")
    registered = [name for name in names if ":" not in name]
    if not all(name in ALL_STAGES for name in registered):
        for name in registered:
            try:
                _row(name)
            except InputError as problem:
                raise ValueError(f"stages must hold known names: {problem}") from None
    order = stage_order() if not all(name in ALL_STAGES for name in registered) else list(ALL_STAGES)
    right = sorted(dict.fromkeys(registered), key=order.index)
    if registered != right or len({*names}) != len(names):
        raise ValueError(f"stages must be in the order in which they run, each once: [{', '.join(right)}]")
