"""Report which sandbox features this machine supports, for `rewright doctor`."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import threading
from pathlib import Path
from typing import Literal

import msgspec

from rewright.core.errors import SandboxError
from rewright.sandbox.sandbox import Level, Sandbox
from rewright.sandbox.worker import landlock

__all__ = ["Capabilities", "Capability", "capabilities"]

Use = Literal["strict", "process", "-"]


class Capability(msgspec.Struct, frozen=True):
    """A feature of the kernel or the machine; `needed` is the level that requires it."""

    name: str
    present: bool
    detail: str
    needed: Use = "-"


class Capabilities(msgspec.Struct, frozen=True):
    """Result of the check. `levels`: those with which a sandbox started; `refusal`: why strict did not start."""

    system: str
    levels: tuple[Level, ...]
    refusal: str | None
    items: tuple[Capability, ...]

    @property
    def strict(self) -> bool:
        """True if the kernel can isolate untrusted code."""
        return "strict" in self.levels

    @property
    def missing(self) -> tuple[Capability, ...]:
        """The features that are missing."""
        return tuple(item for item in self.items if not item.present)


def capabilities() -> Capabilities:
    """Inspect the machine, and start and stop a sandbox of each level. Takes about half a second.

    Can be called inside or outside a running event loop.
    """
    results: list[tuple[tuple[Level, ...], str | None]] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(_try_levels())))
    thread.start()
    thread.join()
    levels, refusal = results[0]
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return Capabilities(system=system, levels=levels, refusal=refusal, items=tuple(_items()))


async def _try_levels() -> tuple[tuple[Level, ...], str | None]:
    levels: list[Level] = []
    refusal = None
    all_levels: tuple[Level, ...] = ("strict", "process", "unsafe")
    for level in all_levels:
        try:
            async with Sandbox(level, preload=(), prefork=0) as sandbox:
                result = await sandbox.run("6 * 7")
            if result.content != "42":
                raise SandboxError(result.error or "a program gave a wrong result")
            levels.append(level)
        except SandboxError as error:
            if level == "strict":
                refusal = str(error)
    return tuple(levels), refusal


def _items() -> list[Capability]:
    items = [
        Capability("linux", sys.platform == "linux", platform.release(), "process"),
        Capability("architecture", platform.machine() in ("x86_64", "aarch64"), platform.machine(), "strict"),
    ]
    items += [_user_namespaces(), _seccomp(), _landlock(), _memory_control()]
    user = "root (children become nobody)" if os.getuid() == 0 else f"user {os.getuid()}"
    return [*items, Capability("user", True, user)]


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _user_namespaces() -> Capability:
    limit = _read("/proc/sys/user/max_user_namespaces")
    problems = [
        ("user.max_user_namespaces is 0", limit == "0"),
        ("kernel.unprivileged_userns_clone is 0", _read("/proc/sys/kernel/unprivileged_userns_clone") == "0"),
        (
            "kernel.apparmor_restrict_unprivileged_userns is 1",
            _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1",
        ),
        ("the kernel has none", not Path("/proc/self/ns/user").exists()),
    ]
    causes = [text for text, present in problems if present]
    return Capability("user namespaces", not causes, "; ".join(causes) or f"up to {limit}", "strict")


def _seccomp() -> Capability:
    modes = [line for line in _read("/proc/self/status").splitlines() if line.startswith("Seccomp:")]
    filtered = bool(modes) and modes[0].split()[1] == "2"
    detail = "filters available" + ("; this process is already under one (a container's)" if filtered else "")
    return Capability("seccomp", bool(modes), detail if modes else "the kernel has none", "strict")


def _landlock() -> Capability:
    version = landlock.version()
    return Capability("landlock", version > 0, f"version {version}" if version else "not offered by this kernel")


def _memory_control() -> Capability:
    """Report cgroup memory control. The sandbox does not use it; users can limit the memory of a whole run with it."""
    mounted = _read("/sys/fs/cgroup/cgroup.controllers")
    present = "memory" in mounted.split()
    detail = "cgroup v2 with memory control" if present else "no cgroup v2 memory control at /sys/fs/cgroup"
    return Capability("cgroups", present, detail)
