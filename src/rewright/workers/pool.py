"""Comparisons in child processes that can be killed: safe in any thread, in async code and after a fork.

sympy can't be interrupted from a thread, and an alarm signal works in the main thread only. So a few warm workers
(`rewright.workers.worker`) compare, each request within CPU seconds that the kernel enforces; a worker that dies is
replaced. Work counts, not waiting: a loaded machine doesn't change a verdict. A user's own judge, which may wait for a
server, has a limit in real time (`run_own`).
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
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Pipe
from typing import Any

from rewright.core.answer_text import shown
from rewright.core.errors import InputError, JudgeError

__all__ = ["CPU_SECONDS", "OWN_SECONDS", "ask", "close", "run_own"]

CPU_SECONDS = 3.0
OWN_SECONDS = 60.0
"""How long a user's own judge may take for one answer, unless the recipe says otherwise."""
_WALL_SECONDS = 120.0
"""Only for a worker that waits without working, or a machine that gives it no time at all."""
_START_SECONDS = 120.0
_WORKERS = 2
_OWN_WORKERS = 4
_PROGRAM = "from rewright.workers.worker import main; import sys; main(int(sys.argv[1]), sys.argv[2])"


class _Worker:
    """One child and the connection to it."""

    def __init__(self, kind: str) -> None:
        self._connection, theirs = Pipe()
        self.late = False
        descriptor = theirs.fileno()
        own = kind == "own"  # the user's code: in the user's environment, and what it prints is shown
        environment = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        environment = {**(os.environ if own else environment), "PYTHONPATH": os.pathsep.join(sys.path)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(descriptor), kind],
                pass_fds=(descriptor,),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=2 if own else subprocess.DEVNULL,
                stderr=None if own else subprocess.PIPE,
            )
        except OSError as problem:
            raise JudgeError(f"the judge's process could not start: {problem}") from problem
        finally:
            theirs.close()
        try:
            if not self._connection.poll(_START_SECONDS):
                raise JudgeError(f"the judge's process did not start within {_START_SECONDS:.0f} s")
            self._connection.recv_bytes()
        except (EOFError, OSError):
            stderr = self._process.stderr.read().decode(errors="replace") if self._process.stderr else ""
            lines = stderr.strip().splitlines() or ["no message"]
            raise JudgeError(f"the judge's process could not start: {lines[-1]}") from None
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
    """A few workers of one kind, started when they are needed."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._idle: list[_Worker] = []
        self._places = threading.Semaphore(_OWN_WORKERS if kind == "own" else _WORKERS)
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


_pools: dict[tuple[str, ...], _Pool] = {}
_pools_lock = threading.Lock()


def _pool(kind: str) -> _Pool:
    # A module that came into sight later is not in the sight of a worker that was started before.
    key = (kind, *sys.path) if kind == "own" else (kind,)
    with _pools_lock:
        if key not in _pools:
            _pools[key] = _Pool(kind)
        return _pools[key]


def _forget() -> None:
    """In a forked child: its parent's workers are not its own."""
    global _pools, _pools_lock
    _pools, _pools_lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_forget)


def ask(kind: str, arguments: dict[str, Any], cpu_seconds: float = CPU_SECONDS) -> dict[str, Any]:
    """The worker's reply to one request; an outcome 0 with the reason where it was killed.

    Raises `JudgeError` only where a worker can't be started at all, or gets no processor time.
    """
    pool = _pool(kind)
    with pool.place():
        worker = pool.take()
        reply = worker.ask({"arguments": arguments, "cpu_seconds": cpu_seconds}, _WALL_SECONDS)
        if reply is not None:
            pool.put(worker)
            return reply
        code = worker.end()
    if worker.late:  # no verdict: it says nothing about the answer
        raise JudgeError(f"a comparison got no {cpu_seconds:g} s of processor time within {_WALL_SECONDS:g} s")
    if code == -signal.SIGPROF:
        return {"outcome": 0.0, "reason": f"comparing takes more than {cpu_seconds:g} s"}
    return {"outcome": 0.0, "reason": f"comparing ended the judge's process (exit status {code})"}


def run_own(path: str, answer: str, golds: Sequence[str], seconds: float = OWN_SECONDS) -> dict[str, Any]:
    """What the function at the import path `path` says of an answer: `{"outcome", "reason", "metrics"}`.

    Importing its module is not among its `seconds`. Raises `JudgeError` where the function raises, returns something
    else than a `Judgement`, takes too long or ends its process; `InputError` where it raises that itself.
    """
    pool = _pool("own")
    with pool.place():
        worker = pool.take()
        reply = worker.ask({"load": path}, _START_SECONDS)
        if reply == {}:
            reply = worker.ask({"path": path, "answer": answer, "golds": list(golds), "seconds": seconds}, seconds)
        if reply is not None:
            pool.put(worker)
        else:
            code = worker.end()
            reason = f"takes more than {seconds:g} s" if worker.late else f"ended its process (exit status {code})"
            reply = {"raised": reason}
    if "input" in reply:
        raise InputError(str(reply["input"]))
    if "raised" in reply:
        raise JudgeError(f"judge {path!r} failed on {shown(answer)}: {reply['raised']}")
    return reply


def close() -> None:
    """End this process's workers; the next comparison starts new ones."""
    for pool in list(_pools.values()):
        pool.close()


atexit.register(close)
