"""The `model:` section of a recipe: a model and the engine that runs it.

Every engine has its own settings: a subclass of `EngineSettings`, registered under the engine's name
(`rewright.core.registry`, kind `engine`) and selected by `model.engine`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from rewright.core.errors import InputError
from rewright.core.registry import find, known
from rewright.core.settings import Settings, UnusedKey

if TYPE_CHECKING:
    from rewright.engines.base import Engine

__all__ = ["DEFAULT_ENGINE", "EngineSettings", "ModelSettings", "repeats_greedily", "unused_keys"]

DEFAULT_ENGINE = "hf"


class ModelSettings:
    """Interface of all engine settings, and the type of a field that holds the settings of any engine.

    `path`: a pico model (`pico`, …), `smollm2`, a local folder, a Hugging Face id, or the name of a served model.
    """

    path: str
    engine: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    tokenizer: str | None
    template_options: dict[str, Any]
    trust_remote_code: bool

    @staticmethod
    def kind(section: Mapping[str, Any]) -> type[EngineSettings]:
        """Return the settings class of the engine that a section names. Raises InputError for an unknown engine."""
        name = section.get("engine", DEFAULT_ENGINE)
        settings_class = find("engine", name if isinstance(name, str) else str(name))
        if not isinstance(settings_class, type) or not issubclass(settings_class, EngineSettings):
            raise InputError(f"engine {name!r} is {settings_class!r:.60}: expected a subclass of EngineSettings")
        return settings_class

    async def open(self) -> tuple[Engine, Any]:
        """Return the engine, and its tokenizer if it is a token engine, else None."""
        raise NotImplementedError

    def check(self, where: str) -> None:
        """Raise InputError for errors of `open` that can be detected without opening the engine.

        `where`: the recipe section, such as `repair.model`.
        """

    def addresses(self) -> dict[str, str]:
        """Return the server addresses in the settings, by key."""
        return {}

    @property
    def tokenizer_path(self) -> str | None:
        """Path or id of the tokenizer; None if only the server has it."""
        raise NotImplementedError

    @property
    def default_dialect(self) -> str:
        """The dialect of a recipe that names none."""
        return "hermes"

    def trained(self, folder: str) -> ModelSettings:
        """Return the settings for a model that a training stage saved in `folder`."""
        raise NotImplementedError


class EngineSettings(Settings, ModelSettings, frozen=True):
    """Base class of all engine settings. A subclass sets `engine` to its name and defines `open`."""

    path: str = "pico"
    """A pico model (`pico`, …), `smollm2`, a local folder, a Hugging Face id, or the name of a served model."""
    engine: str = DEFAULT_ENGINE
    """Name of the engine."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """dtype of the weights, for a local model."""
    tokenizer: str | None = None
    """Folder or id of the tokenizer, if it is not the model's."""
    template_options: dict[str, Any] = msgspec.field(default_factory=dict)
    """Arguments of the chat template, such as `enable_thinking: false`."""
    trust_remote_code: bool = False
    """Run code that comes with a model or a tokenizer."""

    @property
    def tokenizer_path(self) -> str | None:
        """The configured tokenizer, else the model's."""
        return self.tokenizer or self.path

    def trained(self, folder: str) -> ModelSettings:
        """Return the same settings with the weights in `folder`. Engines that cannot load a folder override this."""
        return msgspec.structs.replace(self, path=folder, tokenizer=None)


def repeats_greedily(model: ModelSettings) -> bool:
    """Whether the model gives the same tokens each time at temperature 0: a local one. A server may not."""
    return model.engine in ("hf", "vllm")


def unused_keys(section: Mapping[str, Any]) -> Iterator[UnusedKey]:
    """Yield the keys of a `model:` section that only other engines have. Raises InputError for an unknown engine."""
    known_keys = ModelSettings.kind(section).__struct_fields__
    for key in section:
        others = [
            name for name in known("engine") if key not in known_keys and key in find("engine", name).__struct_fields__
        ]
        if others:
            hint = f"{key} is a setting of engine {' and '.join(others)}: expected engine: {others[0]}, or no {key}"
            yield UnusedKey(key, "engine", section.get("engine", DEFAULT_ENGINE), f", and {hint}")
