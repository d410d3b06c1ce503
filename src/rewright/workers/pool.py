"""Work in child processes that can be killed: safe in any thread, in async code and after a fork.

Some libraries can't be interrupted from a thread, and an alarm signal works in the main thread only. So a few warm
workers do the work. The caller names a module; the worker imports it and calls its `answer(**arguments)` for each
request (`rewright.workers.worker`). There are two kinds of worker:

- `ask` runs code of ours on untrusted data: each request has CPU seconds that the kernel enforces, limited memory, and
  no way to write files or open connections. CPU time is counted, not waiting: a loaded machine changes no answer.
- `call` runs the user's own code, which may wait for a server: it has the user's environment and a limit in real time.

A worker that dies is replaced.
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
from typing import Any, Literal

from rewright.core.errors import WorkerError

__all__ = ["CPU_SECONDS", "RequestError", "ask", "call", "close"]

CPU_SECONDS = 3.0
_WALL_SECONDS = 120.0
"""Wall-clock backstop for a blocked or starved worker; CPU time is the real limit."""
_START_SECONDS = 120.0
_PLACES = {"guarded": 2, "unguarded": 4}
_PROGRAM = "from rewright.workers.worker import main; import sys; main(int(sys.argv[1]), *sys.argv[2:])"


class RequestError(Exception):
    """One request failed; the message says how, as in "takes more than 3 s". `cause` is one word for it.

    `time`: it took too long. `memory`: it needed too much. `raised`: `answer` raised. `died`: its process ended.
    """

    def __init__(self, cause: Literal["time", "memory", "raised", "died"], message: str) -> None:
        super().__init__(message)
        self.cause = cause


class _Worker:
    """One child and the connection to it."""

    def __init__(self, kind: str, module: str) -> None:
        self._connection, theirs = Pipe()
        self.late = False
        descriptor = theirs.fileno()
        own = kind == "unguarded"  # the user's code: in the user's environment, and what it prints is shown
        environment = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        environment = {**(os.environ if own else environment), "PYTHONPATH": os.pathsep.join(sys.path)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(descriptor), kind, module],
                pass_fds=(descriptor,),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=2 if own else subprocess.DEVNULL,
                stderr=None if own else subprocess.PIPE,
            )
        except OSError as problem:
            raise WorkerError(f"a worker process could not start: {problem}") from problem
        finally:
            theirs.close()
        try:
            if not self._connection.poll(_START_SECONDS):
                raise WorkerError(f"a worker process did not start within {_START_SECONDS:.0f} s")
            self._connection.recv_bytes()
        except (EOFError, OSError):
            stderr = self._process.stderr.read().decode(errors="replace") if self._process.stderr else ""
            lines = stderr.strip().splitlines() or ["no message"]
            raise WorkerError(f"a worker process could not start: {lines[-1]}") from None
        finally:
            if self._process.stderr:
                self._process.stderr.close()

    def ask(self, request: dict[str, Any], wall_seconds: float) -> dict[str, Any] | None:
        """The reply, or None where the worker died or gave none in time (`late`)."""
        try:
            self._connection.send_bytes(json.dumps(request).encode())
            if self._connection.poll(wall_seconds):
                reply: dict[str, Any] = json.loads(self._connection.recv_bytes())
                return reply
            self.late = True
            self._process.kill()
        except (EOFError, OSError):
            pass
        except BaseException:  # Ctrl-C, a deadline: what it is at would outlive us
            self._process.kill()
            raise
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
    """A few workers of one kind for one module, started when they are needed."""

    def __init__(self, kind: str, module: str) -> None:
        self._kind, self._module = kind, module
        self._idle: list[_Worker] = []
        self._places = threading.Semaphore(_PLACES[kind])
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
        return worker or _Worker(self._kind, self._module)

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


_pools: dict[tuple[str, ...], _Pool] = {}
_pools_lock = threading.Lock()


def _pool(kind: str, module: str) -> _Pool:
    # A worker that was started earlier can't import from a folder that was added to sys.path later.
    key = (kind, module, *(sys.path if kind == "unguarded" else ()))
    with _pools_lock:
        if key not in _pools:
            _pools[key] = _Pool(kind, module)
        return _pools[key]


def _forget() -> None:
    """In a forked child: its parent's workers are not its own."""
    global _pools, _pools_lock
    _pools, _pools_lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_forget)


def ask(module: str, arguments: dict[str, Any], cpu_seconds: float = CPU_SECONDS) -> dict[str, Any]:
    """What `answer(**arguments)` of `module`, one of ours, returns in a guarded worker. Both are JSON.

    The module's optional `prepare(**arguments)` runs before it and is not counted among the `cpu_seconds`. Raises
    `RequestError` where the request fails, and `WorkerError` where no worker can be started or gets processor time.
    """
    pool = _pool("guarded", module)
    with pool.place():
        worker = pool.take()
        reply = worker.ask({"arguments": arguments, "cpu_seconds": cpu_seconds}, _WALL_SECONDS)
        if reply is not None:
            pool.put(worker)
            return _answered(reply)
        code = worker.end()
    if worker.late:  # this says nothing about the request
        raise WorkerError(f"a request got no {cpu_seconds:g} s of processor time within {_WALL_SECONDS:g} s")
    if code == -signal.SIGPROF:
        raise RequestError("time", f"takes more than {cpu_seconds:g} s")
    raise RequestError("died", f"ended its process (exit status {code})")


def call(module: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What `answer(**arguments)` of `module` returns in a worker without guards, which may do what the user may.

    The module's optional `prepare(**arguments)` is not counted among its `seconds`, which are real time. Raises
    `RequestError` where the request fails, and `WorkerError` where no worker can be started.
    """
    pool = _pool("unguarded", module)
    with pool.place():
        worker = pool.take()
        reply = worker.ask({"prepare": arguments}, _START_SECONDS)
        if reply == {}:
            reply = worker.ask({"arguments": arguments, "seconds": seconds}, seconds)
        if reply is not None:
            pool.put(worker)
            return _answered(reply)
        code = worker.end()
    if worker.late:
        raise RequestError("time", f"takes more than {seconds:g} s")
    raise RequestError("died", f"ended its process (exit status {code})")


def _answered(reply: dict[str, Any]) -> dict[str, Any]:
    if "failed" in reply:
        raise RequestError(*reply["failed"])
    answer: dict[str, Any] = reply["answer"]
    return answer


def close() -> None:
    """End this process's workers; the next request starts new ones."""
    for pool in list(_pools.values()):
        pool.close()


atexit.register(close)
