"""Runs a command and ends with all of its descendants: `python supervisor.py FOLDER LOCK COMMAND...`.

Ray starts its daemons and workers in sessions of their own, so that no signal to a process group reaches them. This
process adopts them (PR_SET_CHILD_SUBREAPER), and kills them when the command has ended, or when its own standard input
is closed: by the process that started it, or because that one was killed. FOLDER, Ray's folder for temporary files, is
removed then. LOCK, a file descriptor, is passed on to the command. The exit status is that of the command.

If this process is killed, the kernel kills the command too, and Ray's own processes end with that.

Started as a file, so that it imports nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_SECONDS = 0.2
KILL_SECONDS = 30.0


def main() -> int:
    """Run the command. Returns its exit status; 128 + n if signal n ended it."""
    folder, lock, *command = sys.argv[1:]
    kernel = ctypes.CDLL(None, use_errno=True)
    kernel.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    status = 128 + signal.SIGKILL
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=(int(lock),),
            preexec_fn=lambda: kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),  # noqa: PLW1509 - no threads
        )
        while process.poll() is None:
            if select.select([sys.stdin], [], [], POLL_SECONDS)[0] and not os.read(sys.stdin.fileno(), 1):
                break
        else:
            status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    finally:
        kill_descendants()
        shutil.rmtree(folder, ignore_errors=True)
    return status


def kill_descendants() -> None:
    """Kill the descendants of this process until there are none: a killed parent may have started another one."""
    end = time.monotonic() + KILL_SECONDS
    while time.monotonic() < end:
        found = descendants()
        for one in found:
            with contextlib.suppress(OSError):
                os.kill(one, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not found:
            return
        time.sleep(0.05)


def descendants() -> list[int]:
    """The ids of all living descendants of this process."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                state, parent = entry.joinpath("stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    children.setdefault(int(parent), []).append(int(entry.name))
    found, queue = [], [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


if __name__ == "__main__":
    sys.exit(main())
