"""Settings of the engine `hf`: a transformers model in this process (`rewright.engines.hf`)."""

from __future__ import annotations

from typing import Any

from rewright.core.settings import PositiveInt
from rewright.engines.base import Engine
from rewright.engines.settings import EngineSettings

__all__ = ["HFSettings"]


class HFSettings(EngineSettings, frozen=True):
    """A model that is loaded and sampled in this process."""

    slots: PositiveInt = 48
    """Maximum number of sequences in the running batch."""
    max_length: PositiveInt | None = None
    """Context length in tokens; default: the model's."""

    def check(self, where: str) -> None:
        """Raise InputError for a missing package, folder, tokenizer or chat template, and a dtype that is not run."""
        from rewright.engines.checks import check_dtype, check_layers, check_tokenizer, check_weights

        check_tokenizer(self, where)
        check_weights(self, where)
        check_layers(self, where)
        check_dtype(self, where)

    async def open(self) -> tuple[Engine, Any]:
        """Load the model. Returns the engine and its tokenizer. Raises InputError for a missing model or package."""
        from rewright.engines.loading import load_model, load_tokenizer, require_package

        tokenizer = load_tokenizer(self)
        require_package("torch", self.path)
        from rewright.engines.hf import HFEngine

        engine = HFEngine(load_model(self), tokenizer, name=self.path, slots=self.slots, max_length=self.max_length)
        return engine, tokenizer
