"""Unguarded worker (`rewright.workers.pool`): loads the tasks of an environment of verifiers, and scores trajectories.

It has the user's permissions, since the user named the environment.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

__all__ = ["answer", "prepare"]

_MODULE = "rewright.benchmarks.verifiers.environment"


def prepare(**_: Any) -> dict[str, Any] | None:
    """Import verifiers before a time limit starts. Returns a reply only if it is not installed."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            importlib.import_module(_MODULE)
        except ImportError as problem:
            return {"missing": str(problem)}
    return None


def answer(ask: str, **arguments: Any) -> dict[str, Any]:
    """Return `tasks` (`ask` is "load") or the scores (`ask` is "score"), or `problem` with the reason."""
    environment = importlib.import_module(_MODULE)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            if ask == "load":
                return {"tasks": environment.load(**arguments)}
            return dict(environment.score(**arguments))
        except environment.UnsupportedError as problem:
            return {"problem": str(problem)}
        except BaseException as problem:  # the environment's code can raise anything
            return {"raised": f"{type(problem).__name__}: {' '.join(str(problem).split())}"}
