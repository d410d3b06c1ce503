"""Recipe for evaluating a model on a benchmark: `rewright eval --benchmark NAME --model MODEL`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rewright.benchmarks import find_benchmark
from rewright.core.errors import InputError, MissingDataError
from rewright.recipe.loader import load_recipe
from rewright.recipe.overrides import override_of
from rewright.recipe.schema import Recipe

__all__ = ["benchmark_recipe", "saying_where_to_get"]


def benchmark_recipe(name: str, model: str | None, limit: int | None, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe with one stage: the evaluation of `model` on a registered benchmark.

    If `model` is None, the benchmark's model is used, else pico. `overrides` take precedence, as in `rewright run`.
    Raises InputError for an unknown benchmark, with the known ones.
    """
    found = find_benchmark(name, "--benchmark")
    settings = [
        override_of("name", name.replace(":", ".")),
        "stages=[eval_base]",
        override_of("eval.benchmark", name),
        "model.path=pico",
    ]
    settings += found.settings
    if model is not None:
        settings.append(override_of("model.path", model))
    if limit is not None:
        if limit < 1:
            raise InputError(f"--limit is {limit}: expected at least 1")
        settings.append(f"eval.tasks.limit={limit}")
    return load_recipe(None, [*settings, *overrides])


@contextmanager
def saying_where_to_get(name: str | None) -> Iterator[None]:
    """Add to an error about missing data of the benchmark `name` where its files come from. None: nothing is added."""
    try:
        yield
    except MissingDataError as problem:
        data = "" if name is None else find_benchmark(name, "--benchmark").data
        if not data:
            raise
        raise InputError(f"{problem}; get the file of {name} from {data}") from None
