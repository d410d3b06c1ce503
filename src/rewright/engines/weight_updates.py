"""New weights for a model that a thread of this process runs: the methods of `TrainableEngine` for the engine `hf`."""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import Future
from typing import Any, Literal

from rewright.core.errors import EngineError
from rewright.engines.base import NamedWeights
from rewright.engines.slots import Command, Job

__all__ = ["WeightUpdates"]


class WeightUpdates:
    """Base of an engine whose thread reads `_inbox`, obeys `Command`s between two steps, and completes their futures.

    While `_paused`, the thread starts no request. It completes the futures in `_pausing` when none is running.
    """

    name: str
    model: Any
    _thread: threading.Thread

    def __init__(self) -> None:
        self.weights_version: int | None = None
        """Version of the current weights; None: those that the engine was opened with."""
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closed = False
        self._problem: EngineError | None = None
        self._paused = False
        self._pausing: list[Future[None]] = []

    def refresh(self) -> None:
        """Invalidate the KV cache after the weights were changed in place. Blocks until the engine has done so."""
        if not self._closed:
            self._command("refresh").result()

    async def update_weights(self, named: NamedWeights, version: int) -> None:
        """Copy weights into the model; those that are the model's own tensors, changed in place, are not copied.

        Args:
            named: weights by the names of the model's parameters.
            version: see `TrainableEngine`.

        Raises EngineError for an unknown name or another shape; the other weights of `named` may then be changed.
        """
        import torch

        paused = self._paused
        await self.pause()
        try:
            targets = dict(self.model.named_parameters())
            with torch.no_grad():
                for name, value in named:
                    target = targets.get(name)
                    if target is None or target.shape != value.shape:
                        raise EngineError(f"{self.name} has no weight {name} of shape {tuple(value.shape)}")
                    if target.data_ptr() != value.data_ptr() or target.dtype != value.dtype:
                        target.copy_(value)
            await asyncio.wrap_future(self._command("refresh"))
            self.weights_version = version
        finally:
            if not paused:
                await self.resume()

    async def pause(self) -> None:
        """Complete the running requests; later ones wait for `resume`."""
        await asyncio.wrap_future(self._command("pause"))

    async def resume(self) -> None:
        """Continue with the requests that wait."""
        await asyncio.wrap_future(self._command("resume"))

    async def sleep(self) -> None:
        """Pause, and free the KV cache. The weights stay where they are: the model may be the trained one."""
        await self.pause()
        await asyncio.wrap_future(self._command("sleep"))

    async def wake(self) -> None:
        """End `sleep`."""
        await self.resume()

    async def alive(self) -> bool:
        """Return False after `close`, or if the model failed (out of memory, for example)."""
        return self._thread.is_alive() and not self._closed and self._problem is None

    def _command(self, kind: Literal["pause", "resume", "refresh", "sleep"]) -> Future[None]:
        """Have the engine's thread do something. Raises EngineError if the engine is closed."""
        if self._closed:
            raise EngineError(f"engine {self.name} is closed")
        future: Future[None] = Future()
        self._inbox.put(Command(kind, future))
        return future

    def _drain(self, closed: EngineError) -> None:
        """After the last step: fail the requests in the inbox, and let no one wait for a command."""
        for future in self._pausing:
            future.set_result(None)
        self._pausing = []
        while not self._inbox.empty():
            item = self._inbox.get()
            if isinstance(item, Command):
                item.future.set_result(None)
            elif isinstance(item, Job):
                item.finish(closed)
