"""Pool of worker processes with time limits. Safe to use from any thread, from async code and after a fork.

Worker processes are needed because some libraries can't be interrupted from a thread, and SIGALRM only works in the
main thread. The caller names a module; the worker imports it and calls its `answer(**arguments)` for each request
(`rewright.workers.worker`). There are two kinds of workers:

- `call_guarded` runs built-in code on untrusted data. Each request has a CPU time limit enforced by the kernel, a
  memory limit, and no file writes or network connections. CPU time is used so that machine load does not change
  results.
- `call_unguarded` runs user-defined code, which may wait for a server. It has the user's environment and a wall-clock
  limit.

Workers are reused between requests, and replaced if they die.
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

__all__ = ["CPU_SECONDS", "RequestError", "call_guarded", "call_unguarded", "close"]

CPU_SECONDS = 3.0
_WALL_SECONDS = 120.0
"""Wall-clock backstop for a blocked or starved worker; CPU time is the real limit."""
_START_SECONDS = 120.0
_MAX_WORKERS = {"guarded": 2, "unguarded": 4}
_PROGRAM = "from rewright.workers.worker import main; import sys; main(int(sys.argv[1]), *sys.argv[2:])"


class RequestError(Exception):
    """A request failed. The message describes the failure, for example "takes more than 3 s".

    `cause`: `time` (time limit exceeded), `memory` (memory limit exceeded), `raised` (`answer` raised an exception) or
    `died` (the process ended).
    """

    def __init__(self, cause: Literal["time", "memory", "raised", "died"], message: str) -> None:
        super().__init__(message)
        self.cause = cause


class _Worker:
    """A child process and the connection to it."""

    def __init__(self, kind: str, module: str) -> None:
        self._connection, child_connection = Pipe()
        self.late = False
        descriptor = child_connection.fileno()
        user_code = kind == "unguarded"  # user-defined code gets the user's environment, and its output is shown
        environment = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        environment = {**(os.environ if user_code else environment), "PYTHONPATH": os.pathsep.join(sys.path)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(descriptor), kind, module],
                pass_fds=(descriptor,),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=2 if user_code else subprocess.DEVNULL,
                stderr=None if user_code else subprocess.PIPE,
            )
        except OSError as problem:
            raise WorkerError(f"a worker process could not start: {problem}") from problem
        finally:
            child_connection.close()
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

    def request(self, message: dict[str, Any], wall_seconds: float) -> dict[str, Any] | None:
        """Send a request and return the reply, or None if the worker died or timed out (`late`)."""
        try:
            self._connection.send_bytes(json.dumps(message).encode())
            if self._connection.poll(wall_seconds):
                reply: dict[str, Any] = json.loads(self._connection.recv_bytes())
                return reply
            self.late = True
            self._process.kill()
        except (EOFError, OSError):
            pass
        except BaseException:  # on Ctrl-C or a deadline, the worker would otherwise continue with the request
            self._process.kill()
            raise
        return None

    def end(self) -> int:
        """Close the connection, which ends the child, and return its exit status (negative for a signal)."""
        self._connection.close()
        try:
            return self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class _Pool:
    """Workers of one kind for one module, started on demand."""

    def __init__(self, kind: str, module: str) -> None:
        self._kind, self._module = kind, module
        self._idle: list[_Worker] = []
        self._slots = threading.Semaphore(_MAX_WORKERS[kind])
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the slots that limit the number of concurrent requests."""
        with self._slots:
            yield

    def take(self) -> _Worker:
        """Return an idle worker, or start a new one."""
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        return worker or _Worker(self._kind, self._module)

    def put(self, worker: _Worker) -> None:
        """Return a worker to the pool."""
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
    # Workers take over sys.path at their start, so user code needs new workers after sys.path has changed.
    key = (kind, module, *(sys.path if kind == "unguarded" else ()))
    with _pools_lock:
        if key not in _pools:
            _pools[key] = _Pool(kind, module)
        return _pools[key]


def _drop_inherited_pools() -> None:
    """Drop the pools in a forked child, because the workers belong to its parent."""
    global _pools, _pools_lock
    _pools, _pools_lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_drop_inherited_pools)


def call_guarded(module: str, arguments: dict[str, Any], cpu_seconds: float = CPU_SECONDS) -> dict[str, Any]:
    """Call `answer(**arguments)` of the built-in `module` in a guarded worker.

    Arguments and result must be JSON-serialisable. The module's optional `prepare(**arguments)` runs first and does not
    count towards the limit of `cpu_seconds` of CPU time. Raises `RequestError` if the request fails, and `WorkerError`
    if no worker can be started or the worker gets no CPU time.
    """
    pool = _pool("guarded", module)
    with pool.slot():
        worker = pool.take()
        reply = worker.request({"arguments": arguments, "cpu_seconds": cpu_seconds}, _WALL_SECONDS)
        if reply is not None:
            pool.put(worker)
            return _unwrap(reply)
        code = worker.end()
    if worker.late:  # the machine is overloaded, so this is not a failure of the request
        raise WorkerError(f"a request got less than {cpu_seconds:g} s of CPU time within {_WALL_SECONDS:g} s")
    if code == -signal.SIGPROF:
        raise RequestError("time", f"takes more than {cpu_seconds:g} s")
    raise RequestError("died", f"ended its process (exit status {code})")


def call_unguarded(module: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Call `answer(**arguments)` of `module` in an unguarded worker, which has the user's permissions.

    The module's optional `prepare(**arguments)` runs first and does not count towards `seconds` of wall-clock time.
    Raises `RequestError` if the request fails, and `WorkerError` if no worker can be started.
    """
    pool = _pool("unguarded", module)
    with pool.slot():
        worker = pool.take()
        reply = worker.request({"prepare": arguments}, _START_SECONDS)
        if reply == {}:
            reply = worker.request({"arguments": arguments, "seconds": seconds}, seconds)
        if reply is not None:
            pool.put(worker)
            return _unwrap(reply)
        code = worker.end()
    if worker.late:
        raise RequestError("time", f"takes more than {seconds:g} s")
    raise RequestError("died", f"ended its process (exit status {code})")


def _unwrap(reply: dict[str, Any]) -> dict[str, Any]:
    if "failed" in reply:
        raise RequestError(*reply["failed"])
    answer: dict[str, Any] = reply["answer"]
    return answer


def close() -> None:
    """End all workers of this process. The next request starts new ones."""
    for pool in list(_pools.values()):
        pool.close()


atexit.register(close)
