"""Resource limits and process groups of children, for all levels except `unsafe`."""

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
MAX_THREADS = 32  # maximum number of threads of a child that may not start processes
MAX_QUEUED_SIGNALS = 16  # maximum number of queued real-time signals and POSIX timers of a child
RESERVED_PROCESSES = 256  # processes of the user (or an eighth of a small quota) that are kept free for other programs
PER_USER_LIMITS = {  # limits that count per user; untrusted code does not need them
    resource.RLIMIT_MEMLOCK: 0,
    resource.RLIMIT_MSGQUEUE: 0,
    resource.RLIMIT_NICE: 0,
    resource.RLIMIT_RTPRIO: 0,
    resource.RLIMIT_SIGPENDING: MAX_QUEUED_SIGNALS,
}


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies. A change of user clears this: call it afterwards."""
    kernel.prctl("prctl PR_SET_PDEATHSIG", PR_SET_PDEATHSIG, int(signal.SIGKILL))


def become_subreaper() -> None:
    """Let orphaned descendants become children of this process, so that they can be killed."""
    kernel.prctl("prctl PR_SET_CHILD_SUBREAPER", PR_SET_CHILD_SUBREAPER, 1)


def kill_group(process: int) -> None:
    """SIGKILL to `process` and to its process group."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(process, signal.SIGKILL)


def own_children() -> list[int]:
    """Return the process ids of this process's children; empty if the kernel does not list them."""
    try:
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def reserve_user_processes() -> None:
    """Limit this process and its descendants, so that a reserve of the user's process quota stays free.

    Only lowers the soft limit. In a user namespace below this process, the limit applies to the processes of the
    namespace (from Linux 5.14 on). The kernel exempts root.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    bounds = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    for name in ("threads-max", "pid_max"):
        with contextlib.suppress(OSError, ValueError):
            bounds.append(int(Path("/proc/sys/kernel", name).read_text()))
    if bounds:
        quota = min(bounds)
        resource.setrlimit(resource.RLIMIT_NPROC, (quota - min(RESERVED_PROCESSES, quota // 8), hard))


def apply(limits: dict[str, Any], mapped: int, *, trusted: bool) -> None:
    """Set the resource limits of this process. Memory counts on top of the `mapped` bytes that are loaded already.

    Untrusted code also gets no share of per-user quotas and no elevated scheduling priority.
    """
    resource_limits = {
        resource.RLIMIT_AS: mapped + limits["memory_bytes"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: math.ceil(limits["cpu_seconds"]) + 1,
        resource.RLIMIT_FSIZE: limits["disk_bytes"],
        resource.RLIMIT_NOFILE: limits["open_files"],
    }
    if limits["level"] == "strict":  # at other levels, all processes of the user would count
        resource_limits[resource.RLIMIT_NPROC] = MAX_THREADS if limits["processes"] == 1 else limits["processes"]
    if not trusted:
        resource_limits |= PER_USER_LIMITS
        # Makes the soft limit the hard limit too, so that the code cannot raise it.
        resource_limits.setdefault(resource.RLIMIT_NPROC, resource.getrlimit(resource.RLIMIT_NPROC)[0])
        _reset_priority()
    for kind, limit in resource_limits.items():
        _, hard = resource.getrlimit(kind)
        value = int(limit) if hard == resource.RLIM_INFINITY else min(int(limit), hard)
        # The soft limit of CPU time sends SIGXCPU, which process 1 of a pid namespace ignores; the hard limit sends
        # SIGKILL.
        soft = max(1, value - 1) if kind == resource.RLIMIT_CPU else value
        resource.setrlimit(kind, (soft, value))


def _reset_priority() -> None:
    """Reset a real-time policy and a negative niceness that were inherited from the trainer."""
    if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if os.getpriority(os.PRIO_PROCESS, 0) < 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0)


def mapped_bytes(proc: int) -> int:
    """Return the size of this process's address space in bytes. `proc`: descriptor of a proc file system's root."""
    descriptor = os.open("self/statm", os.O_RDONLY, dir_fd=proc)
    try:
        return int(os.read(descriptor, 4096).split()[0]) * resource.getpagesize()
    finally:
        os.close(descriptor)
