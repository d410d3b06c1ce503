"""Start verl as a group of processes that ends with this one, follow it, and find out why it has failed."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from rewright.core.errors import InputError, StorageError, TrainingError
from rewright.training.verl.interpreter import script

__all__ = ["SLOW_START", "environment_of", "exclusive", "ray_folder", "run"]

POLL_SECONDS: Final = 0.5
END_SECONDS: Final = 60.0
LOCK_SECONDS: Final = 60.0
MAX_FOLDER: Final = 40
"""Maximum length of the path of Ray's folder: below it are sockets, whose paths have at most 107 characters."""
PREFIX: Final = re.compile(rb"\x1b\[[0-9;]*m|^\((?:raylet|autoscaler|\w[^()]*pid=\d+)[^()]*\)\s*")
CAUSE: Final = re.compile(r"^(?:[A-Za-z_]\w*\.)*(?:[A-Z]\w*)?(?:Error|Exception|Interrupt)(?:\([\w.]+\))?: .+")
REFUSED: Final = 2
OWN: Final = b"rewright: "
"""Exit status and start of the line with which `rewright.integrations.verl.check` refuses a run."""
SLOW_START: Final = "The current node timed out during startup"
"""Ray gives its own processes 30 seconds to start, which can be too little on a busy machine."""
NODE_DEATH: Final = rb"Raylet is terminated|The node with node id|ActorUnavailableError|NodeDiedError"
DEATH: Final = re.compile(NODE_DEATH + rb"|A worker died or was killed|actor died|ActorDiedError")
"""What Ray writes to the log of its driver if a worker or a node is lost."""
LOST: Final = "Ray has lost a node or a worker"


def ray_folder() -> Path:
    """Make a folder for the temporary files of a Ray of its own. The supervisor removes it."""
    given = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="rewright-ray-", dir=given if len(given) < MAX_FOLDER else "/tmp"))


@contextmanager
def exclusive(folder: Path) -> Iterator[int]:
    """Hold the lock of a training, and yield its file descriptor, for a process to hold it as well.

    The processes of a `rewright` that was killed may need some time to end. Raises TrainingError if they do not.
    """
    with (folder / "lock").open("w") as file:
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TrainingError(f"rl: another verl uses {folder}: expected it to end first") from None
                time.sleep(POLL_SECONDS)
        yield file.fileno()


def run(
    command: Sequence[str],
    *,
    folder: Path,
    log: Path,
    what: str,
    environment: Mapping[str, str],
    lock: int,
    temporary: Path | None = None,
    poll: Callable[[], bool] = lambda: False,
    stall_seconds: float = float("inf"),
) -> None:
    """Run a command of verl to its end. Its processes end before this returns or raises, and if this one is killed.

    Args:
        command: the command.
        folder: its working directory.
        log: file to which its output is appended.
        what: its name in messages.
        environment: its environment variables.
        lock: file descriptor that is kept open while one of the processes lives.
        temporary: folder that is removed at the end.
        poll: called regularly; returns whether there was progress.
        stall_seconds: after Ray has lost a worker, the time within which there must be progress or an end.

    Raises TrainingError with the cause from the log if it fails, InputError if it is Rewright's check, which refuses.
    """
    try:
        output = log.open("ab")
    except OSError as problem:
        raise StorageError(f"cannot write {log}: {problem.strerror or problem}") from problem
    with output:
        output.write(f"\n=== {' '.join(command)}\n".encode())
        output.flush()
        start = output.tell()
        process = subprocess.Popen(
            [sys.executable, script("supervisor.py"), str(temporary or ""), str(lock), *command],
            cwd=folder,
            env={**environment},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C comes to this process alone
            pass_fds=(lock,),
        )
        try:
            stalled = _wait(process, log, start, poll, stall_seconds)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
    poll()
    if stalled is not None:
        raise TrainingError(
            f"rl: {what} failed: {LOST}: no step in the {stall_seconds:g} s after it: {stalled} (log: {log})"
        )
    if process.returncode == REFUSED and (said := _refusal(log, start)) is not None:
        raise InputError(f"rl: {said}")
    if process.returncode != 0:
        raise TrainingError(f"rl: {what} failed: {_cause(log, start, process.returncode)} (log: {log})")


def _wait(
    process: subprocess.Popen[bytes], log: Path, start: int, poll: Callable[[], bool], stall_seconds: float
) -> str | None:
    """Wait for the end. Returns the line of the log about a lost worker if nothing has happened since."""
    offset, lost, since = start, None, 0.0
    while process.poll() is None:
        if poll():
            lost = None
        with log.open("rb") as file:
            file.seek(offset)
            new = file.read()
        offset += len(new)
        for line in new.splitlines() if DEATH.search(new) else ():
            if lost is None and DEATH.search(line):
                lost, since = _clean(line), time.monotonic()
        if lost is not None and time.monotonic() - since > stall_seconds:
            return lost[:200]
        time.sleep(POLL_SECONDS)
    return None


def _refusal(log: Path, start: int) -> str | None:
    """The last line that Rewright's own check has written."""
    with log.open("rb") as file:
        file.seek(start)
        lines = [line.decode(errors="replace") for line in file.read().splitlines() if line.startswith(OWN)]
    return lines[-1][len(OWN) :].strip() if lines else None


def _cause(log: Path, start: int, status: int) -> str:
    """The last exception in the log; without one, the exit status."""
    with log.open("rb") as file:
        file.seek(start)
        content = file.read()
    lines = [_clean(line) for line in content.splitlines()]
    # The exceptions are then those of the processes that are left, which say nothing about it.
    lost = f"{LOST}: " if re.search(NODE_DEATH, content) else ""
    found = [line for line in lines if CAUSE.match(line) and "ray.exceptions" not in line]
    found = found or [line for line in lines if CAUSE.match(line)]
    if found:
        return lost + found[-1][:300]
    number = -status if status < 0 else status - 128  # of the supervisor, or of the command
    return f"it was killed by signal {number}" if number > 0 else f"exit status {status}"


def _clean(line: bytes) -> str:
    """A line without Ray's prefix and colours."""
    text = line
    while (shorter := PREFIX.sub(b"", text)) != text:
        text = shorter
    return text.decode(errors="replace").strip()


def environment_of(path: Sequence[str], extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of verl's processes. `path`: folders of modules."""
    own = {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1", "HYDRA_FULL_ERROR": "1", **extra}
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | own
