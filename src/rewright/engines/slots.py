"""The slots of the `hf` engine and the requests that run in them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Literal

import numpy as np

from rewright.core.errors import EngineError
from rewright.engines.base import Generation, Request

if TYPE_CHECKING:
    from rewright.engines.slot_cache import SlotCache

__all__ = ["Command", "Job", "Slot", "common_prefix_length", "copy_prompts", "leader_of"]


class Job:
    """One request inside the engine."""

    def __init__(self, request: Request, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Generation]) -> None:
        self.request, self.loop, self.future = request, loop, future
        self.tokens: list[int] = []
        self.log_probs: list[float] = []
        sampling = request.sampling
        # One uniform number per token, from the request's own seed.
        self.uniform_T = np.random.default_rng(sampling.seed).random(max(1, sampling.max_tokens))

    def finish(self, result: Generation | EngineError) -> None:
        """Pass the result to the waiting coroutine, in its event loop."""

        def deliver() -> None:
            if self.future.done():
                return
            if isinstance(result, EngineError):
                self.future.set_exception(result)
            else:
                self.future.set_result(result)

        try:
            self.loop.call_soon_threadsafe(deliver)
        except RuntimeError:  # the loop is closed, so no coroutine waits for the result
            return


class Command:
    """Something that the engine's thread does between two steps. The caller waits for `future`."""

    def __init__(self, kind: Literal["pause", "resume", "refresh", "sleep"], future: Future[None]) -> None:
        self.kind, self.future = kind, future


class Slot:
    """One row of the KV cache.

    Attributes:
        session: the trajectory for which the slot is reserved; "": none.
        ids: the tokens whose keys and values are in the cache.
        pending: tokens of the context that still have to be processed.
        job: the request that runs in the slot, if any.
        used: time of the last use, in started requests.
        leader: a slot in which the same prompt is being prefilled, and its request. Its keys and values are copied when
            they are complete.
    """

    def __init__(self) -> None:
        self.session = ""
        self.ids: list[int] = []
        self.pending: list[int] = []
        self.job: Job | None = None
        self.used = 0
        self.leader: tuple[Slot, Job] | None = None

    def prefills(self, ids: list[int]) -> bool:
        """Whether the slot's request is prefilling the prompt `ids`, all but the last token of it."""
        if self.job is None or self.job.tokens or len(self.pending) < 2:
            return False
        return self.ids + self.pending == ids


def common_prefix_length(first: list[int], second: list[int]) -> int:
    """Return the length of the common prefix of two token sequences."""
    limit = min(len(first), len(second))
    if first[:limit] == second[:limit]:
        return limit
    low, high = 0, limit  # first[:low] agrees, first[:high] does not
    while high - low > 1:
        middle = (low + high) // 2
        if first[:middle] == second[:middle]:
            low = middle
        else:
            high = middle
    return low


def leader_of(ids: list[int], slots: Sequence[Slot]) -> tuple[Slot, Job] | None:
    """Return the slot, and its request, in which the prompt `ids` is being prefilled; None if there is none."""
    for slot in slots:
        if slot.job is not None and slot.leader is None and slot.prefills(ids):
            return slot, slot.job
    return None


def copy_prompts(slots: Sequence[Slot], cache: SlotCache) -> int:
    """Copy the prompts that leaders have prefilled to their followers. Returns the number of those that still wait."""
    waiting = 0
    for index, slot in enumerate(slots):
        if slot.leader is None:
            continue
        leader, job = slot.leader
        if slot.job is None or leader.job is not job:  # ended or cancelled: the slot prefills its prompt itself
            slot.leader = None
            continue
        prompt = slot.ids + slot.pending
        shared = len(prompt) - 1
        if len(leader.ids) < shared:
            waiting += 1
            continue
        cache.copy(slots.index(leader), index, shared)
        slot.ids, slot.pending, slot.leader = prompt[:shared], prompt[shared:], None
    return waiting
