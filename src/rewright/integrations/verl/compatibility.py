"""Lets verl 0.9.1 load models in an environment with TRL 1.16, which has no value heads any more.

verl takes them from TRL if it is installed (`verl.models.transformers.monkey_patch`), and fails without them for every
model, although only its critics use them. With this, verl takes such a TRL for not installed.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

__all__ = ["hide_trl_without_value_heads"]


def hide_trl_without_value_heads() -> None:
    """Let verl find no TRL if the installed one has no value heads. Imports neither TRL nor more of verl."""
    found = find_spec("trl")
    folders = [Path(place) for place in (found.submodule_search_locations or ())] if found is not None else []
    value_heads = ("experimental/ppo", "models/modeling_value_head.py")
    if not folders or any((folder / name).exists() for folder in folders for name in value_heads):
        return
    from verl.utils import import_utils

    for name in ("verl.utils.import_utils", "verl.utils.model", "verl.models.transformers.monkey_patch"):
        if name == import_utils.__name__ or name in sys.modules:  # modules import the function by name
            vars(sys.modules[name])["is_trl_available"] = _is_not_available


def _is_not_available() -> bool:
    return False
