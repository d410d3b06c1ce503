"""Guarded worker (`rewright.workers.pool`) that validates arguments against a potentially expensive schema."""

from __future__ import annotations

from typing import Any

import jsonschema  # noqa: F401  # imported here, because the worker's audit hook would block it later

from rewright.tasks.schemas import disagreements

__all__ = ["answer"]


def answer(parameters: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return `problems`, the validation errors of `arguments` against the JSON text of a schema."""
    return {"problems": disagreements(parameters, arguments)}
