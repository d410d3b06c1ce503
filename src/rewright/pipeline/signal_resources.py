"""Open what credit signals need besides the trajectories (`rewright.credit.resources.Resources`).

A resource is opened by a function of `ResourceSources`, which `BUILDERS` names by import path, so that nothing is
imported that no signal needs. What it returns is the callable that `Resources` describes; if it has a method `close`,
it is called at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.core.import_paths import load_function
from rewright.credit.resources import NEEDS, Resources
from rewright.credit.settings import TurnCredit
from rewright.engines.settings import ModelSettings
from rewright.recipe.schema import Recipe

__all__ = ["BUILDERS", "Builder", "LazyResource", "ResourceSources", "lazy_resources", "open_resources", "resources_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSources:
    """What a resource is made from. It can be sent to another process.

    Attributes:
        recipe: the recipe, with the section `signals`.
        run: the run directory; None: the trajectories are of no run.
        policy: the policy before RL, for a scorer that is not set; None: there is none.
        vocabulary: `Renderer.fingerprint` of the tokenizer of the trajectories' token ids; None: the policy's.
    """

    recipe: Recipe
    run: Path | None = None
    policy: ModelSettings | None = None
    vocabulary: str | None = None


Builder = Callable[[ResourceSources], Any]
"""Opens a resource. Raises InputError for what is missing, or cannot be opened."""

BUILDERS: dict[str, str | Builder] = {
    "log_prob": "rewright.pipeline.signal_models:log_prob_resource",
    "tokenize": "rewright.pipeline.signal_models:tokenize_resource",
    "judge": "rewright.pipeline.judge_resource:open_judge",
    "branch": "rewright.pipeline.branch_resource:open_branch",
    "prefix_score": "rewright.pipeline.signal_models:prefix_score_resource",
}
"""The builder of each resource, or its import path "package.module:function"."""
FROM: Final[Mapping[str, str]] = {
    "log_prob": "signals.scorer (rewright credit: --scorer MODEL)",
    "tokenize": "signals.scorer (rewright credit: --scorer MODEL)",
    "judge": "signals.judge (rewright credit: --judge MODEL)",
    "prefix_score": "signals.reward_model (rewright credit: --reward-model FOLDER), or a run with a reward model",
    "branch": "a run directory, whose model and tools make the continuations",
}
"""Where each resource comes from, for messages."""


class LazyResource:
    """A resource that is opened when it is first called, in the process that calls it."""

    def __init__(self, name: str, sources: ResourceSources) -> None:
        self.name, self._sources = name, sources
        self._opened: Any = None

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """Call the resource."""
        return self.open()(*args, **settings)

    def __getattr__(self, name: str) -> Any:
        """An attribute of what was opened, such as a tokenizer's `answer_form`."""
        if name.startswith("_"):  # copy and pickle ask for such
            raise AttributeError(name)
        return getattr(self.open(), name)

    def __getstate__(self) -> dict[str, Any]:
        """Without what was opened: another process opens its own."""
        return {"name": self.name, "_sources": self._sources, "_opened": None}

    def open(self) -> Any:
        """Open the resource, once. Raises InputError."""
        if self._opened is None:
            builder = BUILDERS[self.name]
            function = load_function(builder, f"resource {self.name}") if isinstance(builder, str) else builder
            self._opened = function(self._sources)
        return self._opened

    def close(self) -> None:
        """Close the resource, if it was opened."""
        close = getattr(self._opened, "close", None)
        self._opened = None
        if close is not None:
            close()


def resources_of(credit: TurnCredit, sources: ResourceSources) -> Resources | None:
    """Return what the signals of `credit` need, not opened yet; None if they need nothing.

    Raises InputError for a resource that the recipe does not name, and one that this version cannot open.
    """
    needs = credit.needs()
    return lazy_resources(needs, credit.signal_name, sources) if needs else None


def lazy_resources(needs: Collection[str], signal: str, sources: ResourceSources) -> Resources:
    """Return the resources of these names, not opened yet. `signal`: who needs them, for messages.

    Raises InputError as `resources_of` does.
    """
    recipe = sources.recipe
    trained = "reward" in recipe.stages and recipe.reward.url is None  # with reward.url the stage trains none
    own = sources.run is not None and (trained or (sources.run / "models" / "reward").is_dir())
    missing = {
        "log_prob": recipe.signals.scorer is None and sources.policy is None,
        "tokenize": recipe.signals.scorer is None and sources.policy is None,
        "judge": recipe.signals.judge is None,
        "prefix_score": recipe.signals.reward_model is None and not own,
        "branch": sources.run is None,
    }
    for need in needs:
        if missing[need]:
            served = need == "prefix_score" and recipe.reward.url is not None
            why = " (the model at reward.url scores whole trajectories only)" if served else ""
            raise InputError(f"signal {signal} needs {NEEDS[need]}: expected {FROM[need]}{why}")
        if need not in BUILDERS:
            raise InputError(f"signal {signal} needs {NEEDS[need]}, which cannot be opened here")
    return Resources(**{need: LazyResource(need, sources) for need in needs})


@contextmanager
def open_resources(
    credit: TurnCredit, sources: ResourceSources, *, later: Collection[str] = ()
) -> Iterator[Resources | None]:
    """Open what the signals of `credit` need, and close it at the end. Raises InputError as `resources_of` does.

    `later`: names of resources that are opened when they are first called.
    """
    found = resources_of(credit, sources)
    lazy = {} if found is None else {need: one for need in NEEDS if (one := getattr(found, need)) is not None}
    try:
        for need, resource in lazy.items():
            if need not in later:
                resource.open()
        yield found
    finally:
        for resource in lazy.values():
            resource.close()
