"""Plug-in check of `rewright doctor`: which trainers are installed, and whether their plug-ins load.

verl logs a plug-in that fails to load at debug level only; this check reports the error.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import NamedTuple

__all__ = ["PluginState", "check_plugins"]

_PLUGINS = {
    "trl": ("rewright.integrations.trl", "TurnCreditTrainer"),
    "verl": ("rewright.integrations.verl", "compute_rewright_advantage"),
    "skyrl": ("rewright.integrations.skyrl", "compute_rewright_advantage"),
    "verifiers": ("rewright.integrations.verifiers", "write_turn_rewards"),
}
"""By distribution: the plug-in module and a name that it must define. slime is not a package."""


class PluginState(NamedTuple):
    """State of the plug-in for one trainer.

    Attributes:
        trainer: name of the trainer's distribution.
        installed: its version; None: not installed.
        problem: one line; None if the plug-in loads or the trainer is not installed.
    """

    trainer: str
    installed: str | None
    problem: str | None


def check_plugins() -> list[PluginState]:
    """Check every plug-in whose trainer is installed. Importing a trainer can take seconds."""
    return [_check(trainer, *plugin) for trainer, plugin in _PLUGINS.items()]


def _check(trainer: str, module: str, name: str) -> PluginState:
    try:
        installed = version(trainer)
    except PackageNotFoundError:
        return PluginState(trainer, None, None)
    try:
        getattr(importlib.import_module(module), name)
    except Exception as problem:  # a trainer can raise anything while it is imported
        reason = " ".join(f"{type(problem).__name__}: {problem}".split())
        return PluginState(trainer, installed, f"{module} does not load: {reason}")
    if trainer == "verl" and not any(point.value == module for point in entry_points(group="verl.plugins")):
        return PluginState(trainer, installed, f"not found by verl itself: set VERL_USE_EXTERNAL_MODULES={module}")
    return PluginState(trainer, installed, None)
