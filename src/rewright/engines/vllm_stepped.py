"""vLLM in this process, on the device of the trainer: its LLMEngine, stepped by a thread.

TRL's colocate mode holds such an engine, too (`trainer.vllm_generation.llm.llm_engine`), but generates whole batches of
one turn with it. Here a request joins the running batch at any step, so that others generate while a tool runs. New
weights are handed over in memory.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from rewright.core.errors import EngineError
from rewright.engines.base import NamedWeights
from rewright.engines.vllm_engine import VLLMEngine, end_token_ids, output_to_log, quiet_vllm

__all__ = ["SteppedVLLMEngine", "open_stepped"]


class SteppedVLLMEngine(VLLMEngine):
    """A token engine on an LLMEngine of vLLM (see the module's docstring).

    Args:
        core: the LLMEngine, with one worker in this process, `logprobs_mode="processed_logprobs"` and the worker
            extension.
        tokenizer, name, end_ids, max_length: see `VLLMEngine`.
        on_close: called by `close`, after the last step.
    """

    def __init__(
        self,
        core: Any,
        tokenizer: Any,
        *,
        name: str,
        end_ids: set[int],
        max_length: int,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(tokenizer, name, end_ids, max_length)
        self._core, self._on_close = core, on_close
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closed = False
        self._problem: EngineError | None = None
        self._thread = threading.Thread(target=self._work, name=f"vllm-{name}", daemon=True)
        self._thread.start()

    async def _run(self, number: str, prompt: dict[str, Any], params: Any) -> Any:
        return await self._ask((number, prompt, params))

    async def _load(self, named: NamedWeights, version: int) -> None:
        weights = [(name, value.detach()) for name, value in named]

        def load() -> None:
            self._core.collective_rpc("load_named", args=(weights,))
            self._core.reset_prefix_cache()

        await self._ask(load)

    async def _set_asleep(self, asleep: bool) -> None:
        try:
            await self._ask(lambda: self._core.sleep(1) if asleep else self._core.wake_up())
        except EngineError:
            raise
        except Exception as problem:
            raise self.failed(problem) from problem

    async def alive(self) -> bool:
        """Return False after `close`, or if a step of vLLM failed."""
        return self._thread.is_alive() and not self._closed and self._problem is None

    async def close(self) -> None:
        """Stop the thread, and free vLLM's memory. Running requests fail with EngineError."""
        if self._closed:
            return
        self._closed = True
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join, 60)
        if self._on_close is not None:
            self._on_close()

    async def _ask(self, what: Any) -> Any:
        """Have the thread answer a request, or call a function between two steps. Returns the result."""
        if self._closed:
            raise EngineError(f"engine {self.name} is closed")
        future: Future[Any] = Future()
        self._inbox.put((what, future))
        return await asyncio.wrap_future(future)

    # The engine's thread.

    def _work(self) -> None:
        waiting: dict[str, Future[Any]] = {}
        while self._receive(waiting):
            gone = [number for number, future in waiting.items() if future.cancelled()]
            for number in gone:
                del waiting[number]
            try:
                if gone:
                    self._core.abort_request(gone)
                outputs = self._core.step() if waiting else []
            except Exception as problem:  # out of memory, for example: vLLM does not recover from it
                self._problem = self.failed(problem)
                self._end(waiting, self._problem)
                continue
            for output in outputs:
                if output.finished and (future := waiting.pop(output.request_id, None)) is not None:
                    _set(future, output)
        closed = EngineError(f"engine {self.name} was closed")
        self._end(waiting, closed)
        while not self._inbox.empty():
            if (item := self._inbox.get()) is not None:
                _set(item[1], problem=closed)

    def _receive(self, waiting: dict[str, Future[Any]]) -> bool:
        """Process the inbox; block only if there is no other work. Returns False if the engine was closed."""
        block = not waiting
        while True:
            try:
                item = self._inbox.get(block=block)
            except queue.Empty:
                return True
            if item is None:
                return False
            what, future = item
            try:
                if self._problem is not None:
                    _set(future, problem=self._problem)
                elif callable(what):
                    _set(future, what())
                else:
                    number, prompt, params = what
                    self._core.add_request(number, prompt, params)
                    waiting[number] = future
                    block = False
            except Exception as problem:
                _set(future, problem=problem)

    def _end(self, waiting: dict[str, Future[Any]], problem: EngineError) -> None:
        for future in waiting.values():
            _set(future, problem=problem)
        waiting.clear()


def _set(future: Future[Any], result: Any = None, problem: Exception | None = None) -> None:
    """Complete a future that its coroutine may have cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    if problem is not None:
        future.set_exception(problem)
    else:
        future.set_result(result)


def open_stepped(arguments: dict[str, Any], tokenizer: Any, *, name: str) -> SteppedVLLMEngine:
    """Start vLLM in this process. Raises EngineError if it does not start. See `rewright.engines.vllm_async`."""
    quiet_vllm()
    with output_to_log() as log, _own_settings():
        try:
            from vllm.engine.arg_utils import EngineArgs
            from vllm.v1.engine.llm_engine import LLMEngine
            from vllm.v1.executor import Executor

            config = EngineArgs(**arguments, distributed_executor_backend="uni").create_engine_config()
            # A platform may prefer processes of workers.
            config.parallel_config.distributed_executor_backend = "uni"
            core = LLMEngine(
                vllm_config=config,
                executor_class=Executor.get_class(config),
                log_stats=False,
                multiprocess_mode=False,
            )
        except Exception as problem:
            reason = " ".join(str(problem).split())[:300]
            where = "" if log is None else f" (see {log})"
            raise EngineError(f"{name}: vLLM does not start: {reason}{where}") from problem
    ends = end_token_ids(arguments["model"], tokenizer, core.model_config.hf_config)

    def close() -> None:
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        core.engine_core.shutdown()
        cleanup_dist_env_and_memory()

    return SteppedVLLMEngine(
        core, tokenizer, name=name, end_ids=ends, max_length=int(core.model_config.max_model_len), on_close=close
    )


@contextmanager
def _own_settings() -> Iterator[None]:
    """Keep settings of torch that vLLM changes for its whole process: threads and the default dtype."""
    import torch

    set_threads, threads, dtype = torch.set_num_threads, torch.get_num_threads(), torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
