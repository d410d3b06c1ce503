"""What `rewright doctor` says about plug-ins: which trainers are installed, and whether our part of them loads.

verl logs a plug-in that fails to load at debug level only, so a broken one looks like a missing one; here it is named.
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
"""Distribution -> module and the name in it that a user needs. slime is not a package."""


class PluginState(NamedTuple):
    """One trainer. `installed` is its version or None; `problem` is one line, None where all is well."""

    trainer: str
    installed: str | None
    problem: str | None


def check_plugins() -> list[PluginState]:
    """The state of every plug-in whose trainer is installed; importing a trainer can take seconds."""
    return [_check(trainer, *where) for trainer, where in _PLUGINS.items()]


def _check(trainer: str, module: str, name: str) -> PluginState:
    try:
        installed = version(trainer)
    except PackageNotFoundError:
        return PluginState(trainer, None, None)
    try:
        getattr(importlib.import_module(module), name)
    except Exception as problem:  # whatever a trainer raises while it is imported is what the user has to know
        reason = " ".join(f"{type(problem).__name__}: {problem}".split())
        return PluginState(trainer, installed, f"{module} does not load: {reason}")
    if trainer == "verl" and not any(point.value == module for point in entry_points(group="verl.plugins")):
        return PluginState(trainer, installed, f"not found by verl itself: set VERL_USE_EXTERNAL_MODULES={module}")
    return PluginState(trainer, installed, None)
