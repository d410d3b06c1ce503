"""The work of a guarded worker (`rewright.workers.pool`): arguments against a schema that may take forever to check."""

from __future__ import annotations

from typing import Any

import jsonschema  # noqa: F401  # here, because afterwards the worker refuses what its import needs

from rewright.tasks.schemas import disagreements

__all__ = ["answer"]


def answer(parameters: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """`problems`: how `arguments` disagree with the JSON text of a schema."""
    return {"problems": disagreements(parameters, arguments)}
