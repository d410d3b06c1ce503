"""Comparisons in child processes that can be killed: safe in any thread, in async code and after a fork.

sympy can't be interrupted from a thread, and an alarm signal works in the main thread only. So a few warm workers
(`rewright.judging.worker`) compare, each request within CPU seconds that the kernel enforces; a worker that dies is
replaced. Work counts, not waiting: a loaded machine doesn't change a verdict.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Pipe
from typing import Any

from rewright.errors import JudgeError

__all__ = ["CPU_SECONDS", "ask", "close"]

CPU_SECONDS = 3.0
_WALL_SECONDS = 120.0
"""Only for a worker that waits without working, or a machine that gives it no time at all."""
_START_SECONDS = 120.0
_WORKERS = 2
_PROGRAM = "from rewright.judging.worker import main; import sys; main(int(sys.argv[1]), sys.argv[2])"


class _Worker:
    """One child and the connection to it."""

    def __init__(self, kind: str) -> None:
        self._connection, theirs = Pipe()
        descriptor = theirs.fileno()
        environment = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(descriptor), kind],
                pass_fds=(descriptor,),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        except OSError as problem:
            raise JudgeError(f"the math judge could not start: {problem}") from problem
        finally:
            theirs.close()
        try:
            if not self._connection.poll(_START_SECONDS):
                raise JudgeError(f"the math judge did not start within {_START_SECONDS:.0f} s")
            self._connection.recv_bytes()
        except (EOFError, OSError):
            stderr = self._process.stderr.read().decode(errors="replace") if self._process.stderr else ""
            lines = stderr.strip().splitlines() or ["no message"]
            raise JudgeError(f"the math judge could not start: {lines[-1]}") from None
        finally:
            if self._process.stderr:
                self._process.stderr.close()

    def ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The reply, or None where the worker died or gave none in time."""
        try:
            self._connection.send_bytes(json.dumps(request).encode())
            if self._connection.poll(_WALL_SECONDS):
                reply: dict[str, Any] = json.loads(self._connection.recv_bytes())
                return reply
            self._process.kill()
        except (EOFError, OSError):
            pass
        return None

    def end(self) -> int:
        """Close the connection, which ends the child, and return its exit status (negative: the signal it died of)."""
        self._connection.close()
        try:
            return self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class _Pool:
    """At most `_WORKERS` workers of one kind, started when they are needed."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._idle: list[_Worker] = []
        self._places = threading.Semaphore(_WORKERS)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Wait for one of the places."""
        with self._places:
            yield

    def take(self) -> _Worker:
        """An idle worker, or a new one."""
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        return worker or _Worker(self._kind)

    def put(self, worker: _Worker) -> None:
        """Give a healthy worker back."""
        with self._lock:
            self._idle.append(worker)

    def close(self) -> None:
        """End the idle workers."""
        with self._lock:
            workers, self._idle = self._idle, []
        for worker in workers:
            worker.end()


_pools: dict[str, _Pool] = {}
_pools_lock = threading.Lock()


def _pool(kind: str) -> _Pool:
    with _pools_lock:
        if kind not in _pools:
            _pools[kind] = _Pool(kind)
        return _pools[kind]


def _forget() -> None:
    """In a forked child: its parent's workers are not its own."""
    global _pools, _pools_lock
    _pools, _pools_lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_forget)


def ask(kind: str, arguments: dict[str, Any], cpu_seconds: float = CPU_SECONDS) -> dict[str, Any]:
    """The worker's reply to one request; an outcome 0 with the reason where it was killed.

    Raises `JudgeError` only where a worker can't be started at all.
    """
    pool = _pool(kind)
    with pool.place():
        worker = pool.take()
        reply = worker.ask({"arguments": arguments, "cpu_seconds": cpu_seconds})
        if reply is not None:
            pool.put(worker)
            return reply
        code = worker.end()
    if code == -signal.SIGPROF:
        return {"outcome": 0.0, "reason": f"comparing takes more than {cpu_seconds:g} s"}
    return {"outcome": 0.0, "reason": f"comparing ended the judge's process (exit status {code})"}


def close() -> None:
    """End this process's workers; the next comparison starts new ones."""
    for pool in list(_pools.values()):
        pool.close()


atexit.register(close)
