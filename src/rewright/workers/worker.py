"""The child process in which answers meet sympy: comparisons there can take forever or all memory.

`python -c "from rewright.workers.worker import main; main(fd, kind)"`, started by `rewright.workers.pool`. It reads
one JSON request a message and writes one JSON answer. Its guards: CPU seconds for each request (the kernel ends the
process, also inside C code), a limit on memory, no file writes, and an audit hook that refuses processes, sockets and
file changes. The hook is a second fence for scorers that evaluate text; it is no sandbox for hostile code. A worker of
kind `own` runs the user's own judges, which may do whatever the user may: it has none of the guards but the end of its
time.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import math
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["main"]

MEMORY_BYTES = 3 * 1024**3
_REFUSED = (
    "os.exec", "os.fork", "os.forkpty", "os.kill", "os.link", "os.posix_spawn", "os.remove", "os.rename", "os.rmdir",
    "os.spawn", "os.startfile", "os.symlink", "os.system", "os.truncate", "os.chmod", "os.chown", "os.mkdir",
    "os.putenv", "pty.spawn", "shutil.", "signal.pthread_kill", "socket.", "subprocess.", "ctypes.", "urllib.",
)  # fmt: skip


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(_REFUSED):
        raise PermissionError(f"{event} is refused while judging")
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        raise PermissionError("writing files is refused while judging")


@lru_cache(maxsize=4096)
def _read(text: str) -> tuple[Any, ...] | str:
    """Every reading of a formula, or why there is none."""
    from rewright.judging.formula_reading import UnreadableFormulaError, readings

    try:
        return tuple(readings(text))
    except UnreadableFormulaError as problem:
        return str(problem)


def _math(answer: str, gold: str) -> dict[str, Any]:
    from rewright.judging.formula_equality import equal

    golds, answers = _read(gold), _read(answer)
    if isinstance(golds, str):
        return {"outcome": 0.0, "reason": f"the gold answer can not be read: {golds}", "unread": golds}
    if isinstance(answers, str):
        return {"outcome": 0.0, "reason": f"the answer can not be read: {answers}"}
    same = answer == gold or any(equal(one, other) for one in golds for other in answers)
    return {"outcome": float(same), "reason": "equal" if same else "not equal"}


def _reasoning_gym(answer: str, dataset: str, entry: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    from rewright.benchmarks.reasoning_gym.entries import decoded

    try:
        outcome = float(_scorer(dataset, json.dumps(settings))(answer, decoded(entry)))
    except ModuleNotFoundError as problem:
        if problem.name != "reasoning_gym":
            raise
        return {"missing": "reasoning-gym"}
    if math.isnan(outcome):
        return {"outcome": 0.0, "reason": f"the scorer of {dataset} returned NaN"}
    outcome = min(max(outcome, 0.0), 1.0)
    return {"outcome": outcome, "reason": f"the scorer of {dataset} gives {outcome:g}"}


@lru_cache(maxsize=256)
def _scorer(dataset: str, settings: str) -> Callable[[str, dict[str, Any]], float]:
    """The scorer of a set with its settings. Some sets read files of many megabytes before they can score."""
    from rewright.benchmarks.reasoning_gym.entries import decoded

    package = importlib.import_module("reasoning_gym")
    scorer: Callable[[str, dict[str, Any]], float]
    scorer = package.create_dataset(dataset, **decoded(json.loads(settings))).score_answer
    return scorer


def _prepare_reasoning_gym(dataset: str, settings: dict[str, Any], **_: Any) -> None:
    with contextlib.suppress(Exception):  # the request itself says what is wrong
        _scorer(dataset, json.dumps(settings))


def _bfcl(entry: str, exchanges: list[list[list[tuple[str, dict[str, Any]]]]]) -> dict[str, Any]:
    try:
        from rewright.benchmarks.bfcl.world import check
    except ImportError:
        return {"missing": "bfcl-eval"}
    found = check(entry, exchanges)
    if found["valid"]:
        return {"outcome": 1.0, "reason": "states and results are as they should be"}
    return {"outcome": 0.0, "reason": f"{found['error_type']}: {found['error_message']}"}


def _schema(parameters: str, arguments: dict[str, Any]) -> dict[str, Any]:
    from rewright.tasks.schemas import disagreements

    return {"problems": disagreements(parameters, arguments)}


_TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "math": _math,
    "reasoning_gym": _reasoning_gym,
    "bfcl": _bfcl,
    "schema": _schema,
}
_MODULES = {
    "math": ("rewright.judging.formula_reading", "rewright.judging.formula_equality"),
    "bfcl": ("rewright.benchmarks.bfcl.world",),
    "schema": ("jsonschema",),
}
"""What a kind imports before anything is refused, where it has another name."""
_PREPARE: dict[str, Callable[..., None]] = {"reasoning_gym": _prepare_reasoning_gym}
"""Work for a request that does not depend on the answer: it is not counted among the request's CPU seconds."""


def _answer(kind: str, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return _TASKS[kind](**request["arguments"])
    except MemoryError:
        return {"outcome": 0.0, "reason": f"comparing needs more than {MEMORY_BYTES // 1024**3} GB of memory"}
    except Exception as problem:
        # RecursionError among them: whatever sympy raises on an answer says that it can't be read.
        return {"outcome": 0.0, "reason": f"could not be compared: {type(problem).__name__}: {str(problem)[:200]}"}


def _own(request: dict[str, Any]) -> dict[str, Any]:
    """Import or call a user's own judge. Whatever goes wrong in there is part of the reply."""
    from rewright.core.errors import InputError
    from rewright.core.import_paths import load_function
    from rewright.judging.base import Judgement

    try:
        if "load" in request:
            load_function(request["load"], "judge")
            return {}
        found = load_function(request["path"], "judge")(request["answer"], request["golds"])
        if not isinstance(found, Judgement):
            return {"raised": f"it returned {found!r:.80}, expected a rewright.judging.Judgement"}
        metrics = {str(name): float(value) for name, value in found.metrics.items()}
        return {"outcome": float(found.outcome), "reason": str(found.reason), "metrics": metrics}
    except InputError as problem:
        return {"input": str(problem)}
    except BaseException as problem:  # SystemExit too: a judge does not end its process by what an answer says
        return {"raised": f"{type(problem).__name__}: {problem}"}


def _leave_with_parent(descriptor: int) -> None:
    """End this process when its parent is gone, whatever a judge waits for."""
    poller = select.poll()
    poller.register(descriptor, 0)  # nothing but the end of the connection
    poller.poll()
    os._exit(0)


def _serve_own(connection: Connection) -> None:
    threading.Thread(target=_leave_with_parent, args=(connection.fileno(),), daemon=True).start()
    connection.send_bytes(b"{}")
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        # The parent keeps the time. This is for a judge in an endless loop whose parent has been killed.
        signal.setitimer(signal.ITIMER_PROF, (os.cpu_count() or 1) * request.get("seconds", 3600.0))
        reply = json.dumps(_own(request)).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send_bytes(reply)


def main(descriptor: int, kind: str) -> None:
    """Serve requests of one kind on the connection `descriptor` until the parent closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the parent, which closes the connection
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    connection = Connection(descriptor)
    if kind == "own":
        _serve_own(connection)
        return
    logging.disable(logging.CRITICAL)
    # Imports don't count among a request's CPU seconds, and some need what is refused afterwards.
    for module in _MODULES.get(kind, (kind,)):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_refuse)
    connection.send_bytes(b"{}")
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        if kind in _PREPARE:
            _PREPARE[kind](**request["arguments"])
        signal.setitimer(signal.ITIMER_PROF, request["cpu_seconds"])
        reply = json.dumps(_answer(kind, request)).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send_bytes(reply)
