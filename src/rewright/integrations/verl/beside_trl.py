"""verl 0.9.1 in one environment with TRL 1.16: verl wants a class of TRL whenever TRL is installed, and 1.16 has none.

The class, a model with a value head, is for critics of TRL's old PPO. Importing this module makes verl treat a TRL
without it as not installed. It is imported while verl itself is, before the modules that ask.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from verl.utils import import_utils

__all__ = ["with_value_head"]

PLACES = ("trl.experimental.ppo", "trl")
CLASS = "AutoModelForCausalLMWithValueHead"


def with_value_head(is_installed: Callable[[], bool]) -> Callable[[], bool]:
    """A function like verl's `is_trl_available` that also asks for the class."""

    def is_available() -> bool:
        return is_installed() and any(_has_class(place) for place in PLACES)

    return is_available


def _has_class(place: str) -> bool:
    try:
        return hasattr(importlib.import_module(place), CLASS)
    except (ImportError, RuntimeError):  # RuntimeError: of TRL's lazy imports
        return False


import_utils.is_trl_available = with_value_head(import_utils.is_trl_available)
