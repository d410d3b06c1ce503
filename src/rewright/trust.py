"""Which code a file may name. A file can name any function of any package: only what its user has named is run.

A task file is checked against the recipe or the command line (`sandbox.trusted`, `judges`). The recipe of a stored run
is a file too, and is checked against the command line (`recipe_code`). Of Rewright itself a file reaches the tools of
its own tasks (`OWN_TARGETS`) and the dimensions of quality (`OWN_DIMENSIONS`), whatever anybody trusts: other functions
of the package, which remove folders or write files, were never meant to be called by a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rewright.errors import InputError

if TYPE_CHECKING:
    from rewright.recipe import Recipe

__all__ = [
    "OWN_DIMENSIONS",
    "OWN_TARGETS",
    "check_packages",
    "check_recipe_code",
    "is_own",
    "names_one_of",
    "recipe_code",
    "target_problem",
]

OWN_TARGETS: Final = (
    "rewright.worlds.town:look_up",
    "rewright.worlds.town:calculate",
    "rewright.benchmarks.bfcl_world:call",
)
"""The tools of Rewright's own tasks."""
OWN_DIMENSIONS: Final = (
    *(f"rewright.quality:{name}" for name in ("confidence", "length", "repetition")),
    *(f"rewright.quality_dimensions:{name}" for name in ("tool_errors", "redundant_calls", "well_formed")),
    "rewright.quality_dimensions:tags_format",
)
"""What `quality.dimensions` may name of Rewright."""
UNSAFE: Final = "unsafe"


def is_own(path: str) -> bool:
    """True where a module, or an import path `"package.module:function"`, is one of Rewright's."""
    return path.partition(":")[0].strip().partition(".")[0] == "rewright"


def names_one_of(path: str, trusted: Iterable[str]) -> bool:
    """True where the import path `"package.module:function"` is in `trusted`, or its module or package is."""
    return any(path == one or (":" not in one and path.startswith((f"{one}.", f"{one}:"))) for one in trusted)


def check_packages(packages: Iterable[str], where: str) -> None:
    """Raise InputError where `packages`, which the user trusts by the key or flag `where`, hold Rewright's own."""
    for one in packages:
        if is_own(one) and one not in OWN_TARGETS:
            raise InputError(
                f"{where} names {one!r}: expected packages of your own (the tools and judges of Rewright that a task "
                "file may name need no trust, and it may name no others)"
            )


def target_problem(name: str, target: str) -> str | None:
    """What is wrong with the `target` of the tool `name`, wherever it would run; None where nothing is."""
    if ":" not in target:
        return f"tool {name}: target {target!r} is not of the form package.module:function"
    if is_own(target) and target not in OWN_TARGETS:
        return (
            f"tool {name}: target {target!r} is a function of Rewright: expected {', '.join(OWN_TARGETS)} or your own"
        )
    return None


def recipe_code(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(key, what) for all code that a recipe has run as the user's own: import paths, packages, a model's own code.

    For `sandbox.level: unsafe`, which runs what models and data sets have written with nothing around it, `what` is
    that word.
    """
    for dimension in recipe.quality.dimensions:
        if dimension.function not in OWN_DIMENSIONS:
            yield "quality.dimensions", dimension.function
    if ":" in recipe.rl.credit.estimator:
        yield "rl.credit.estimator", recipe.rl.credit.estimator
    yield from (("judges", package) for package in recipe.judges)
    yield from (("sandbox.trusted", package) for package in recipe.sandbox.trusted)
    if recipe.sandbox.level == UNSAFE:
        yield "sandbox.level", UNSAFE
    for key, model in (("model", recipe.model), ("repair.model", recipe.repair.model)):
        if model is not None and model.trust_remote_code:
            yield f"{key}.trust_remote_code", model.path


def check_recipe_code(code: Iterable[tuple[str, str]], trusted: Sequence[str], where: str) -> None:
    """Raise InputError where `code` (of `recipe_code`, of the recipe `where`) is not all `trusted`."""
    missing = [(key, what) for key, what in code if not names_one_of(what, trusted)]
    if missing:
        flags = " ".join(dict.fromkeys(f"--trusted {what.partition(':')[0]}" for _, what in missing))
        named = ", ".join(f"{key}: {what}" for key, what in missing)
        raise InputError(f"{where} names code ({named}), which runs only if you name it too: expected {flags}")
