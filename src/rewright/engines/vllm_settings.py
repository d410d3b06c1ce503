"""Settings of the engine `vllm`: vLLM in a child process (`rewright.engines.vllm_async`)."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from rewright.engines.base import Engine
from rewright.engines.settings import EngineSettings
from rewright.engines.vllm_options import VLLMOptions

__all__ = ["VLLMSettings"]

UTILIZATION: Final = 0.9


class VLLMSettings(EngineSettings, frozen=True):
    """A model that vLLM runs for this process."""

    engine: str = "vllm"
    """Name of the engine."""
    vllm: VLLMOptions | None = None
    """Settings of vLLM."""

    def check(self, where: str) -> None:
        """Raise InputError without vLLM, and for a missing folder, tokenizer or chat template."""
        from rewright.engines.checks import check_dtype, check_tokenizer, check_weights

        (self.vllm or VLLMOptions()).check(f"{where}.vllm", f"{where}.engine: vllm")
        check_tokenizer(self, where)
        check_weights(self, where)
        check_dtype(self, where)

    async def open(self) -> tuple[Engine, Any]:
        """Start vLLM. Returns the engine and its tokenizer. Raises EngineError if it does not start."""
        from rewright.engines.loading import compute_dtype, load_tokenizer, resolve_path
        from rewright.engines.vllm_async import open_async
        from rewright.engines.vllm_engine import engine_arguments

        tokenizer = load_tokenizer(self)
        arguments = engine_arguments(
            self.vllm or VLLMOptions(),
            resolve_path(self.path),
            tokenizer=None if self.tokenizer is None else resolve_path(self.tokenizer),
            dtype=compute_dtype(self),
            trust_remote_code=self.trust_remote_code,
            utilization=UTILIZATION,
        )
        return await asyncio.to_thread(open_async, arguments, tokenizer, name=self.path), tokenizer
