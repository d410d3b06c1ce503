"""The recipe with which a model is evaluated on a benchmark: `rewright eval --benchmark NAME --model MODEL`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rewright.core.errors import InputError
from rewright.recipe.loader import load_recipe
from rewright.recipe.schema import Recipe

__all__ = ["BENCHMARKS", "benchmark_recipe"]

BENCHMARKS: Final[dict[str, tuple[str, ...]]] = {
    # As bfcl-eval: nearly greedy, at most 20 steps with calls for a message of the user. Its only other limit is the
    # model's context.
    "bfcl-multi-turn": (
        "eval.tasks.format=bfcl-multi-turn",
        "eval.tasks.path=all",
        "eval.temperature=0.001",
        "limits.turns=21",
        "limits.turn_tokens=4096",
        "limits.trajectory_tokens=null",
        "limits.tool_characters=null",
        "limits.trajectory_seconds=null",
    )
}


def benchmark_recipe(name: str, model: str, limit: int | None, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe of one stage, the evaluation of `model`. `overrides` come last, as in `rewright run`."""
    if name not in BENCHMARKS:
        raise InputError(f"--benchmark is {name!r}: expected one of {', '.join(BENCHMARKS)}")
    settings = [f"name={name}", "stages=[eval_base]", *BENCHMARKS[name], f"model.path={model}"]
    if limit is not None:
        if limit < 1:
            raise InputError(f"--limit is {limit}: expected at least 1")
        settings.append(f"eval.tasks.limit={limit}")
    return load_recipe(None, [*settings, *overrides])
