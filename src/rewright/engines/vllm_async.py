"""vLLM in a child process of this one (vLLM's AsyncLLM): one GPU, several with tensor parallelism, or the CPU.

New weights come through a file in memory that the workers load (`rewright.engines.vllm_worker`), or by CUDA IPC.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from rewright.core.errors import EngineError
from rewright.engines.base import NamedWeights
from rewright.engines.vllm_engine import VLLMEngine, end_token_ids, output_to_log, quiet_vllm, while_alive
from rewright.engines.weight_file import WeightFile

__all__ = ["AsyncVLLMEngine", "open_async"]

LAUNCHER: Final = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables of torchrun, which are those of the trainer's processes and not of vLLM's."""

IN_PROCESS: Final = "VLLM_ENABLE_V1_MULTIPROCESSING"
"""With 0, a CPU's worker runs in the process of the engine's core; an AsyncLLM has a process for it in any case."""

Update = Callable[[Any, NamedWeights, int], Any]


class AsyncVLLMEngine(VLLMEngine):
    """A token engine on vLLM's AsyncLLM (see the module's docstring).

    Args:
        llm: the AsyncLLM, with `logprobs_mode="processed_logprobs"` and the worker extension; closed by `close`.
        tokenizer, name, end_ids, max_length: see `VLLMEngine`.
        update: coroutine function (llm, named, version) that loads weights another way; default: a file.
    """

    def __init__(
        self,
        llm: Any,
        tokenizer: Any,
        *,
        name: str,
        end_ids: set[int],
        max_length: int,
        update: Update | None = None,
    ) -> None:
        super().__init__(tokenizer, name, end_ids, max_length)
        self._llm, self._update = llm, update
        self._file = WeightFile()
        self._closed = False

    async def _run(self, number: str, prompt: dict[str, Any], params: Any) -> Any:
        if self._closed:
            raise EngineError(f"engine {self.name} is closed")
        last = None
        async for output in self._llm.generate(prompt, params, number):
            last = output
        if last is None:
            raise EngineError(f"{self.name}: vLLM has returned nothing")
        return last

    async def _load(self, named: NamedWeights, version: int) -> None:
        await while_alive(self._llm, self._llm.pause_generation(mode="wait", clear_cache=True))
        try:
            if self._update is not None:
                await self._update(self._llm, named, version)
            else:
                path = await asyncio.to_thread(self._file.write, named, version)
                await while_alive(self._llm, self._llm.collective_rpc("load_file", args=(str(path),)))
        finally:
            await while_alive(self._llm, self._llm.resume_generation())

    async def _set_asleep(self, asleep: bool) -> None:
        try:
            await while_alive(self._llm, self._llm.sleep(1, mode="wait") if asleep else self._llm.wake_up())
        except Exception as problem:
            raise self.failed(problem) from problem

    async def alive(self) -> bool:
        """Return False after `close`, or if vLLM's process has ended."""
        return not self._closed and not self._llm.errored

    async def close(self) -> None:
        """End vLLM's process, and delete the file with the weights."""
        if self._closed:
            return
        self._closed = True
        self._file.delete()
        llm, self._llm = self._llm, None
        if llm.output_handler is not None:
            llm.output_handler.cancel()
            await asyncio.sleep(0)
        await asyncio.to_thread(llm.shutdown)
        del llm
        gc.collect()  # at the end of the interpreter, its destructor fails


def open_async(
    arguments: dict[str, Any], tokenizer: Any, *, name: str, update: Update | None = None
) -> AsyncVLLMEngine:
    """Start vLLM. Raises EngineError if it does not start.

    Args:
        arguments: vLLM's, from `engine_arguments`.
        tokenizer: the tokenizer of the model.
        name: name in records and errors.
        update: see `AsyncVLLMEngine`.
    """
    quiet_vllm()
    with output_to_log() as log, _environment():
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

            if arguments["tensor_parallel_size"] == 1:
                arguments = {"distributed_executor_backend": "uni", **arguments}
            llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        except Exception as problem:
            reason = " ".join(str(problem).split())[:300]
            where = "" if log is None else f" (see {log})"
            raise EngineError(f"{name}: vLLM does not start: {reason}{where}") from problem
    config = llm.model_config
    ends = end_token_ids(arguments["model"], tokenizer, config.hf_config)
    return AsyncVLLMEngine(llm, tokenizer, name=name, end_ids=ends, max_length=int(config.max_model_len), update=update)


@contextmanager
def _environment() -> Iterator[None]:
    """Start vLLM's process without the variables of torchrun, and with one worker in it (by default on a GPU)."""
    kept = {key: os.environ.pop(key) for key in LAUNCHER if key in os.environ}
    before = os.environ.get(IN_PROCESS)
    os.environ[IN_PROCESS] = "0"
    try:
        yield
    finally:
        os.environ.update(kept)
        if before is None:
            del os.environ[IN_PROCESS]
        else:
            os.environ[IN_PROCESS] = before
