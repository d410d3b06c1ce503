"""Target of the tools of an environment, in the worker process of one trajectory."""

from __future__ import annotations

import json
from typing import Any

from rewright.benchmarks.verifiers.environment import Session

__all__ = ["call"]

_sessions: dict[str, Session] = {}
"""Sessions of this worker process. A worker serves one trajectory."""


def call(data: dict[str, Any], /, **arguments: Any) -> str:
    """Run the tool `data["tool"]` of the environment `data["environment"]` for the task with `data["task"]`."""
    key = json.dumps([data["environment"], data["arguments"], data["task"]], sort_keys=True)
    if key not in _sessions:
        _sessions[key] = Session(data["environment"], data["arguments"], data["task"])
    return _sessions[key].call(data["tool"], arguments)
