"""Recipe for evaluating a model on a benchmark: `rewright eval --benchmark NAME --model MODEL`."""

from __future__ import annotations

from collections.abc import Sequence

from rewright.benchmarks import find_benchmark
from rewright.core.errors import InputError
from rewright.recipe.loader import load_recipe
from rewright.recipe.schema import Recipe

__all__ = ["benchmark_recipe"]


def benchmark_recipe(name: str, model: str | None, limit: int | None, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe with one stage: the evaluation of `model` on a registered benchmark.

    If `model` is None, the benchmark's model is used, else pico. `overrides` take precedence, as in `rewright run`.
    Raises InputError for an unknown benchmark, with the known ones.
    """
    found = find_benchmark(name, "--benchmark")
    settings = [f"name={name.replace(':', '.')}", "stages=[eval_base]", f"eval.benchmark={name}", "model.path=pico"]
    settings += found.settings
    if model is not None:
        settings.append(f"model.path={model}")
    if limit is not None:
        if limit < 1:
            raise InputError(f"--limit is {limit}: expected at least 1")
        settings.append(f"eval.tasks.limit={limit}")
    return load_recipe(None, [*settings, *overrides])
