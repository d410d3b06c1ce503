"""Child process of `rewright.workers.pool`: imports one module and calls its `answer` for each request.

Started as `python -c "from rewright.workers.worker import main; main(fd, kind, module)"`. Each message is one JSON
request, and the reply is JSON: `{"answer": …}` or `{"failed": [cause, message]}`. `module` defines:

- `answer(**arguments)`: computes the answer; must be JSON-serialisable;
- `prepare(**arguments)`, optional: work that does not count towards the time limit, such as an import.

A `guarded` worker has a CPU time limit per request (enforced by the kernel, so it also stops C code), a memory limit,
no file writes, and an audit hook that blocks processes, sockets and file changes. The hook is defence in depth for
libraries that evaluate text; it is not a sandbox for hostile code. An `unguarded` worker runs user-defined code with
the user's permissions and only has a time limit.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

__all__ = ["main"]

MEMORY_BYTES = 3 * 1024**3
_BLOCKED_EVENTS = (
    "os.exec", "os.fork", "os.forkpty", "os.kill", "os.link", "os.posix_spawn", "os.remove", "os.rename", "os.rmdir",
    "os.spawn", "os.startfile", "os.symlink", "os.system", "os.truncate", "os.chmod", "os.chown", "os.mkdir",
    "os.putenv", "pty.spawn", "shutil.", "signal.pthread_kill", "socket.", "subprocess.", "ctypes.", "urllib.",
)  # fmt: skip


def _audit_hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(_BLOCKED_EVENTS):
        raise PermissionError(f"{event} is refused in a guarded worker")
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        raise PermissionError("writing files is refused in a guarded worker")


def _answer(module: ModuleType, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"answer": module.answer(**arguments)}
    except MemoryError:
        return {"failed": ["memory", f"needs more than {MEMORY_BYTES // 1024**3} GB of memory"]}
    except Exception as problem:  # libraries raise many types on malformed input, including RecursionError
        return {"failed": ["raised", f"{type(problem).__name__}: {str(problem)[:200]}"]}


def _exit_with_parent(descriptor: int) -> None:
    """End this process when its parent exits, even if the user's code is blocked."""
    poller = select.poll()
    poller.register(descriptor, 0)  # with no events requested, only a hang-up is reported
    poller.poll()
    os._exit(0)


def _serve(connection: Connection, reply_to: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer requests until the parent closes the connection."""
    connection.send_bytes(b"{}")
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        reply = json.dumps(reply_to(request)).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send_bytes(reply)


def _serve_unguarded(connection: Connection, module: ModuleType) -> None:
    threading.Thread(target=_exit_with_parent, args=(connection.fileno(),), daemon=True).start()
    prepare = getattr(module, "prepare", None)

    def reply_to(request: dict[str, Any]) -> dict[str, Any]:
        # The parent enforces the time limit. This timer ends an endless loop if the parent has been killed.
        signal.setitimer(signal.ITIMER_PROF, (os.cpu_count() or 1) * request.get("seconds", 3600.0))
        if "prepare" in request:
            early = prepare(**request["prepare"]) if prepare is not None else None
            return {"answer": early} if early else {}
        return _answer(module, request["arguments"])

    _serve(connection, reply_to)


def _serve_guarded(connection: Connection, module: ModuleType) -> None:
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_audit_hook)
    prepare = getattr(module, "prepare", None)

    def reply_to(request: dict[str, Any]) -> dict[str, Any]:
        if prepare is not None:
            prepare(**request["arguments"])
        signal.setitimer(signal.ITIMER_PROF, request["cpu_seconds"])
        return _answer(module, request["arguments"])

    _serve(connection, reply_to)


def main(descriptor: int, kind: str, module: str) -> None:
    """Serve requests of a module on the connection `descriptor` until the parent closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and closes the connection
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    connection = Connection(descriptor)
    # Imports don't count towards a request's CPU time, and some need operations that the audit hook blocks later.
    loaded = importlib.import_module(module)
    (_serve_unguarded if kind == "unguarded" else _serve_guarded)(connection, loaded)
