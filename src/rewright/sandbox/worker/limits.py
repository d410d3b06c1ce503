"""Resource limits and process groups of a child: what every level but `unsafe` sets before it runs anything."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
from pathlib import Path
from typing import Any

from . import kernel

__all__ = [
    "apply",
    "become_subreaper",
    "die_with_parent",
    "kill_group",
    "mapped_bytes",
    "own_children",
    "reserve_user_processes",
]

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
THREADS = 32  # of a child that may not start processes
SIGNALS = 16  # queued real-time signals, and POSIX timers, of a child
RESERVE = 256  # of the user's processes: as many (or an eighth of a small quota) stay free for everything else
QUOTAS = {  # of the user as a whole: untrusted code has no use for them
    resource.RLIMIT_MEMLOCK: 0,
    resource.RLIMIT_MSGQUEUE: 0,
    resource.RLIMIT_NICE: 0,
    resource.RLIMIT_RTPRIO: 0,
    resource.RLIMIT_SIGPENDING: SIGNALS,
}


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies. Cleared by a change of user: set it after."""
    kernel.prctl("prctl PR_SET_PDEATHSIG", PR_SET_PDEATHSIG, int(signal.SIGKILL))


def become_subreaper() -> None:
    """Have orphaned descendants become children of this process, so that none is out of reach."""
    kernel.prctl("prctl PR_SET_CHILD_SUBREAPER", PR_SET_CHILD_SUBREAPER, 1)


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


def reserve_user_processes() -> None:
    """Have this process, and all its children together, leave the last of the user's processes to others.

    Lowers the soft limit alone. In a user namespace below this process, it bounds what the namespace adds to the user's
    number (from Linux 5.14 on). The kernel does not count root's processes.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    bounds = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    for name in ("threads-max", "pid_max"):
        with contextlib.suppress(OSError, ValueError):
            bounds.append(int(Path("/proc/sys/kernel", name).read_text()))
    if bounds:
        quota = min(bounds)
        resource.setrlimit(resource.RLIMIT_NPROC, (quota - min(RESERVE, quota // 8), hard))


def apply(limits: dict[str, Any], mapped: int, *, trusted: bool) -> None:
    """Set the limits of this process. Memory counts on top of the `mapped` bytes that are loaded already.

    Code that is not `trusted` is also kept from the user's quotas, and loses a priority above the ordinary one.
    """
    wanted = {
        resource.RLIMIT_AS: mapped + limits["memory_bytes"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: math.ceil(limits["cpu_seconds"]) + 1,
        resource.RLIMIT_FSIZE: limits["disk_bytes"],
        resource.RLIMIT_NOFILE: limits["open_files"],
    }
    if limits["level"] == "strict":  # elsewhere it would count every process that the user has
        wanted[resource.RLIMIT_NPROC] = THREADS if limits["processes"] == 1 else limits["processes"]
    if not trusted:
        wanted |= QUOTAS
        wanted.setdefault(
            resource.RLIMIT_NPROC, resource.getrlimit(resource.RLIMIT_NPROC)[0]
        )  # may not be raised again
        _be_ordinary()
    for kind, limit in wanted.items():
        _, hard = resource.getrlimit(kind)
        value = int(limit) if hard == resource.RLIM_INFINITY else min(int(limit), hard)
        # At the soft limit of CPU time comes SIGXCPU, which the first process of a pid namespace does not feel; at
        # the hard one SIGKILL.
        soft = max(1, value - 1) if kind == resource.RLIMIT_CPU else value
        resource.setrlimit(kind, (soft, value))


def _be_ordinary() -> None:
    """Give up the real-time policy and the negative niceness that a trainer may run with, and its children inherit."""
    if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if os.getpriority(os.PRIO_PROCESS, 0) < 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0)


def mapped_bytes(proc: int) -> int:
    """The size of this process's address space. `proc` is a descriptor of a proc file system's root."""
    descriptor = os.open("self/statm", os.O_RDONLY, dir_fd=proc)
    try:
        return int(os.read(descriptor, 4096).split()[0]) * resource.getpagesize()
    finally:
        os.close(descriptor)
