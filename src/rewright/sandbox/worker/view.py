"""The file system view of the sandbox: the interpreter with its packages, read-only, and no user files."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from . import kernel

__all__ = ["PRIVATE_DISK", "enter", "readable"]

PRIVATE_DISK = "/box"  # mount point of a child's private disk
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
DATA = ("/etc/ld.so.cache", "/usr/share/zoneinfo")
NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/pki", "/usr/share/ca-certificates")


def readable(extra: Sequence[str], network: bool) -> list[str]:
    """Return the readable paths, without those that lie beneath another one."""
    paths = [*LIBRARIES, *DATA, *extra, *(NETWORK if network else ())]
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}:
        paths += [f"{prefix}/lib", f"{prefix}/lib64"]
    paths += [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    kept: list[str] = []
    for path in sorted({os.path.normpath(path) for path in paths if path}):
        inside = any(path.startswith(f"{other}/") for other in kept)
        if not inside and Path(path).exists():
            kept.append(path)
    return kept


def enter(paths: Sequence[str]) -> None:
    """Reduce the file system to `paths` and four devices, read-only, with an empty mount point `PRIVATE_DISK`.

    Requires a private mount namespace. The new root is built in a small tmpfs over /tmp. Moving the root into it
    uncovers the real /tmp while the old root is visible, so that paths beneath /tmp can be bound too.
    """
    visible = {path: os.path.realpath(path) for path in (*paths, *DEVICES)}
    kernel.make_private()
    kernel.mount_memory("/tmp", 1 << 20, "755")
    for folder in ("/tmp/old", "/tmp/new"):
        Path(folder).mkdir()
    kernel.pivot_root("/tmp", "/tmp/old")
    os.chdir("/")
    kernel.mount_memory("/new", 1 << 20, "755")
    for path, real in visible.items():
        source, target = Path(f"/old{real}"), Path(f"/new{path}")
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        kernel.bind(str(source), str(target))
        kernel.restrict_mount(str(target), devices=path in DEVICES)
    Path(f"/new{PRIVATE_DISK}").mkdir()
    if not Path("/new/tmp").exists():
        Path("/new/tmp").symlink_to(PRIVATE_DISK)
    os.chdir("/new")
    kernel.pivot_root(".", ".")
    kernel.unmount(".")
    os.chdir("/")
    kernel.restrict_mount("/", recursive=False)
