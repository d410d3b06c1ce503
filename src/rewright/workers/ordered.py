"""Map a function over items in forked processes, with results in the order of the items.

For passes over stored data with code of our own. The children are forks: they see everything that this process has
read, and inherit no file or lock but their own pipe, so that a killed process leaves nothing locked. They end when
their parent does. (Requests with time limits, and code of users, go to `rewright.workers.pool`.)
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Final, Generic, TypeVar

from rewright.core.errors import WorkerError

__all__ = ["SPAN_BYTES", "in_order", "process_count"]

T = TypeVar("T")
R = TypeVar("R")

SPAN_BYTES: Final = 128 * 1024
"""Size of the part of a file that is one item: some dozens of trajectories."""
MIN_BYTES: Final = 8 * SPAN_BYTES
MAX_PROCESSES: Final = 4
"""More are of no use to one process that writes, and each takes some 15 MiB."""
SEND_SECONDS: Final = 0.2
"""Results are sent at least so often, so that an interrupted pass has stored what was computed."""
AHEAD: Final = 4
"""Items per process that may be under way or waiting for an earlier one."""


def process_count(data_bytes: int) -> int:
    """The number of processes for so much data: one per core, and 1, which is this process, for little data."""
    if data_bytes < MIN_BYTES or not hasattr(os, "fork"):
        return 1
    return min(MAX_PROCESSES, len(os.sched_getaffinity(0)))


def in_order(function: Callable[[T], Iterable[R]], items: Iterable[T], *, processes: int) -> Generator[R]:
    """Yield the results of `function(item)` for each item, in the order of the items.

    Args:
        function: returns an iterable of results, which can be pickled; may be a closure.
        items: the items, which are pickled; drawn as they are needed.
        processes: number of child processes; 1: no child, everything runs in this process.

    Memory holds the results of a few items. An exception of the function is raised in its place, after the results
    before it. Raises WorkerError if a child dies.
    """
    if processes <= 1:
        for item in items:
            yield from function(item)
        return
    children: list[_Child[T]] = []
    try:
        children += (_Child(function) for _ in range(processes))
        yield from _collected(children, enumerate(items))
    finally:
        for child in children:
            child.end()


def _collected(children: list[_Child[T]], source: Iterator[tuple[int, T]]) -> Iterator[Any]:
    waiting: dict[int, deque[Any]] = {}
    finished: dict[int, BaseException | None] = {}
    current = sent = 0
    more = True
    while True:
        for child in sorted(children, key=lambda one: one.items):
            if more and child.items < 2 and sent < current + AHEAD * len(children):
                following = next(source, None)
                if following is None:
                    more = False
                    break
                child.send(following)
                sent += 1
        while current in waiting or current in finished:
            results: Iterable[Any] = waiting.pop(current, ())
            ended = current in finished
            yield from results
            if ended:
                error = finished.pop(current)
                if error is not None:
                    raise error
                current += 1
        if not more and current == sent:
            return
        if not any(child.items for child in children):
            continue
        by_connection = {child.connection: child for child in children if child.items}
        for connection in wait(list(by_connection)):
            child = by_connection[connection]  # type: ignore[index]
            index, received, last, problem = child.receive()
            if received:
                waiting.setdefault(index, deque()).extend(received)
            if last:
                child.items -= 1
                finished[index] = problem


class _Child(Generic[T]):
    """A forked process. `items`: the items that it works on."""

    def __init__(self, function: Callable[[T], Iterable[Any]]) -> None:
        self.items = 0
        self.connection, theirs = Pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions of Python warn of a fork beside threads
            self._process = os.fork()
        if self._process == 0:
            try:
                _serve(theirs, function)
            finally:
                os._exit(1)
        theirs.close()

    def send(self, item: tuple[int, T]) -> None:
        """Give an item to the process."""
        try:
            self.connection.send_bytes(pickle.dumps(item))
        except OSError:
            self._died()
        self.items += 1

    def receive(self) -> tuple[int, list[Any], bool, BaseException | None]:
        """Index of the item, some results, whether they are the last, and the exception that ended it."""
        try:
            message: tuple[int, list[Any], bool, BaseException | None] = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self._died()
        return message

    def end(self) -> None:
        """End the process at once."""
        self.connection.close()
        if self._process:
            with suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            self._wait()

    def _died(self) -> Any:
        status = self._wait()
        raise WorkerError(f"a worker process ended before its work was done (exit status {status})") from None

    def _wait(self) -> int:
        process, self._process = self._process, 0
        with suppress(ChildProcessError):
            return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        return 0


def _serve(connection: Connection, function: Callable[[Any], Iterable[Any]]) -> None:
    """Work on items until the parent closes the connection or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    gc.freeze()  # what the parent has read stays shared with it
    own = connection.fileno()
    os.closerange(3, own)
    os.closerange(own + 1, os.sysconf("SC_OPEN_MAX"))
    while True:
        try:
            index, item = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)
        results: list[Any] = []
        error: BaseException | None = None
        sent = time.monotonic()
        try:
            for result in function(item):
                results.append(result)
                if time.monotonic() - sent > SEND_SECONDS:
                    connection.send_bytes(pickle.dumps((index, results, False, None)))
                    results, sent = [], time.monotonic()
        except Exception as problem:  # raised again in the parent
            error = problem
        try:
            message = pickle.dumps((index, results, True, error))
        except Exception:  # an exception that cannot be pickled
            message = pickle.dumps((index, results, True, WorkerError(f"{type(error).__name__}: {error}")))
        connection.send_bytes(message)
