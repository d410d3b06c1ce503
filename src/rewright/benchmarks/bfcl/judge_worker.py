"""Guarded worker (`rewright.workers.pool`): runs BFCL's official checker on the calls of one trajectory."""

from __future__ import annotations

from typing import Any

try:
    from rewright.benchmarks.bfcl import world
except ImportError:  # bfcl-eval is optional
    world = None  # type: ignore[assignment]

__all__ = ["answer"]


def answer(
    entry: str,
    exchanges: list[list[list[tuple[str, dict[str, Any]]]]],
    made: list[tuple[str, dict[str, Any]]],
    ended: list[int],
) -> dict[str, Any]:
    """Return `outcome` and `reason`, `missing` with the name of a package that is not installed, or a `problem`.

    `ended`: for every call that ended the worker of the tools, how many of the calls in `made` came before it. `lost`
    is the index of the first that ended one with a changed state; None if there is none.
    """
    if world is None:
        return {"missing": "bfcl-eval"}
    try:
        world.official_entry(entry)
    except ValueError as problem:
        return {"problem": str(problem)}
    lost = next((index for index, count in enumerate(ended) if world.changes_state(entry, made[:count])), None)
    if lost is not None:
        return {"outcome": 0.0, "reason": "the tools lost their state", "lost": lost}
    result = world.check(entry, exchanges)
    if result["valid"]:
        return {"outcome": 1.0, "reason": "states and results are as expected"}
    return {"outcome": 0.0, "reason": f"{result['error_type']}: {result['error_message']}"}
