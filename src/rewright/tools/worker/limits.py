"""Resource limits and process groups of a child: what every level but `unsafe` sets before it runs anything."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path
from typing import Any

__all__ = ["apply", "become_subreaper", "die_with_parent", "enter_group", "kill_group", "own_children"]

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies. Cleared by a change of user: set it after."""
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def become_subreaper() -> None:
    """Have orphaned descendants become children of this process, so that none is out of reach."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def enter_group() -> None:
    """A session and process group of its own, so that one signal reaches the child and its children."""
    os.setsid()
    die_with_parent()


def kill_group(process: int) -> None:
    """SIGKILL to `process` and to its process group."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(process, signal.SIGKILL)


def own_children() -> list[int]:
    """Process ids of this process's children; empty where the kernel does not list them."""
    try:
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def apply(limits: dict[str, Any]) -> None:
    """Set the limits (a value of None leaves one as it is). Memory counts on top of what is loaded already."""
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: limits["open_files"],
    }
    if limits["memory_bytes"] is not None:
        wanted[resource.RLIMIT_AS] = _mapped_bytes() + limits["memory_bytes"]
    for kind, limit in wanted.items():
        if limit is None:
            continue
        _, hard = resource.getrlimit(kind)
        value = int(limit) if hard == resource.RLIM_INFINITY else min(int(limit), hard)
        # At the soft limit of CPU time comes SIGXCPU, which names the cause; at the hard one SIGKILL.
        soft = max(1, value - 1) if kind == resource.RLIMIT_CPU else value
        resource.setrlimit(kind, (soft, value))


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
