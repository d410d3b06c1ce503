"""Arguments of the Python API as settings of a recipe, so that both have one meaning, one check and one default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from rewright.core.errors import InputError
from rewright.engines.base import Engine, Generation, Request
from rewright.engines.settings import EngineSettings, ModelSettings
from rewright.recipe.loader import load_recipe
from rewright.recipe.schema import Recipe
from rewright.rollout.settings import Limits
from rewright.sandbox.settings import SandboxSettings

__all__ = ["LimitsLike", "ModelLike", "RecipeLike", "SandboxLike", "recipe_with"]

ModelLike: TypeAlias = str | Path | Mapping[str, Any] | ModelSettings | Engine
"""A path, a Hugging Face id, a shipped or a served name; a recipe's `model` section; or an engine that is open."""
RecipeLike: TypeAlias = str | Path | Mapping[str, Any] | Recipe
"""A recipe file, its sections as a mapping, or a recipe that was loaded (such as that of a run)."""
LimitsLike: TypeAlias = Mapping[str, Any] | Limits
"""A recipe's section `limits`."""
SandboxLike: TypeAlias = str | Mapping[str, Any] | SandboxSettings
"""A level of isolation, or a recipe's section `sandbox`."""


def recipe_with(
    recipe: RecipeLike | None = None,
    *,
    model: ModelLike | None = None,
    base_url: str | None = None,
    tokenizer: Any = None,
    key: str = "model",
    **settings: Any,
) -> Recipe:
    """Load a recipe and set the given arguments in it; arguments that are None leave the recipe as it is.

    Args:
        recipe: the recipe to start from; None: all defaults.
        model: the model of the section `key`.
        base_url: address of the OpenAI-compatible server of the model.
        tokenizer: the tokenizer of a model that is an engine.
        key: the section of the model.
        **settings: sections (mappings set single keys) and keys, with `__` for the dots: `synth__n=2`.

    Raises InputError for a setting that a recipe could not have.
    """
    given: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            given |= {f"{name.replace('__', '.')}.{part}": item for part, item in value.items()}
        elif value is not None:
            given[name.replace("__", ".")] = value
    engine = model if _is_engine(model) else None
    given |= _model(model, base_url, key) if engine is None else _engine(engine, base_url, key)
    path, stored = None, False
    if isinstance(recipe, Recipe):
        given = {**msgspec.to_builtins(recipe), **given}
        stored = True
    elif isinstance(recipe, Mapping):
        given = {**recipe, **given}
    elif recipe is not None:
        path = Path(recipe)
    try:
        loaded = load_recipe(path, settings=given, stored=stored, trusted=None)
    except InputError as problem:
        raise InputError(_as_arguments(str(problem))) from None
    return loaded if engine is None else _with_engine(loaded, engine, tokenizer, key)


def _as_arguments(text: str) -> str:
    """Name the arguments of the API in an error message in the place of the keys of a recipe."""
    plain = re.sub(r"^argument \S+: ", "", text)
    if plain == text:
        return text
    return re.sub(r"^(unknown key )?(?:(synth\.n)\b|(?:synth|tasks|repair)\.)", _argument, plain)


def _argument(found: re.Match[str]) -> str:
    return (found[1] or "") + ("samples" if found[2] else "")


def _model(model: Any, base_url: str | None, key: str) -> dict[str, Any]:
    """Return the settings of a model that is no engine."""
    given: dict[str, Any] = {}
    if isinstance(model, ModelSettings):
        given = {key: msgspec.to_builtins(model)}
    elif isinstance(model, Mapping):
        given = {key: dict(model)}
    elif isinstance(model, str | Path):
        given = {f"{key}.path": str(model)}
    elif model is not None:
        raise InputError(f"{key} is {model!r:.80}: expected a path or name, a mapping of settings, or an engine")
    if base_url is not None:
        if model is None:
            raise InputError(
                f"base_url is {base_url}, and there is no {key}: expected the name under which it is served"
            )
        given |= {f"{key}.engine": "openai", f"{key}.base_url": base_url}
    return given


def _is_engine(model: object) -> bool:
    return not isinstance(model, ModelSettings | str | Path | Mapping | type) and hasattr(model, "generate")


def _engine(engine: Any, base_url: str | None, key: str) -> dict[str, Any]:
    """Return the settings that stand for an engine: ids depend on its name, and the dialect on its kind."""
    if base_url is not None:
        raise InputError(f"base_url is {base_url}, and the {key} is an engine already: expected one of the two")
    kind = "hf" if engine.tokens else "openai"
    served = {} if engine.tokens else {f"{key}.base_url": "http://localhost", f"{key}.mode": "chat"}
    return {f"{key}.path": engine.name or "engine", f"{key}.engine": kind, **served}


def _with_engine(recipe: Recipe, engine: Any, tokenizer: Any, key: str) -> Recipe:
    tokenizer = tokenizer if tokenizer is not None else getattr(engine, "tokenizer", None)
    if engine.tokens and tokenizer is None:
        raise InputError(f"engine {engine.name} is given token ids: expected its tokenizer, as tokenizer=")

    class Given(EngineSettings, frozen=True):
        """The settings of an engine that the caller has opened, and closes."""

        async def open(self) -> tuple[Engine, Any]:
            """Return the engine. It is not closed when the rollouts are done."""
            return _Borrowed(engine), tokenizer if engine.tokens else None

        @property
        def tokenizer_path(self) -> str | None:
            """None: the tokenizer is an object."""
            return None

    section = recipe.model if key == "model" else recipe.repair.model
    given = Given(path=str(getattr(section, "path", "engine")), engine="engine")
    if key == "model":
        return msgspec.structs.replace(recipe, model=given)
    return msgspec.structs.replace(recipe, repair=msgspec.structs.replace(recipe.repair, model=given))


class _Borrowed:
    """An engine that stays open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.tokens = engine.name, engine.tokens

    async def generate(self, request: Request) -> Generation:
        return await self._engine.generate(request)

    async def release(self, session: str) -> None:
        await self._engine.release(session)

    async def close(self) -> None:
        """The caller closes the engine."""
