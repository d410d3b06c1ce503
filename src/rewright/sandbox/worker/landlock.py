"""Restrict file access without namespaces: Landlock, for level `process` (Linux 5.13 and later).

An unprivileged process restricts itself irrevocably: it can read files beneath the given paths and write beneath one
folder. From Linux 6.12 on, it also cannot send signals or use abstract sockets outside the confined process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Sequence

from . import kernel

__all__ = ["confine", "version"]

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
PATH_BENEATH = 1
GET_VERSION = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIRECTORY = 1, 2, 4, 8
DIRECTORY_RIGHTS = READ_DIRECTORY | sum(1 << bit for bit in range(4, 14))
TRUNCATE, DEVICE_IOCTL = 1 << 14, 1 << 15
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | DEVICE_IOCTL
READ = EXECUTE | READ_FILE | READ_DIRECTORY


def version() -> int:
    """Return the kernel's version of Landlock; 0 if it has none."""
    try:
        return kernel.syscall("landlock", CREATE_RULESET, 0, 0, GET_VERSION)
    except OSError:
        return 0


def _handled(offered: int) -> int:
    """Return the access rights of this version."""
    rights = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):
        if offered >= since:
            rights |= 1 << bit
    return rights


def confine(readable: Sequence[str], folder: str, offered: int) -> None:
    """Restrict this process: read beneath `readable`, read and write beneath `folder` and into /dev/null."""
    handled = _handled(offered)
    # Fields by version: file rights; from 4 network rights (seccomp has those); from 6 scopes (sockets, signals).
    words = [handled, *([0] if offered >= 4 else []), *([3] if offered >= 6 else [])]
    attributes = struct.pack(f"={len(words)}Q", *words)
    ruleset = kernel.syscall("landlock_create_ruleset", CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path, rights in (*((path, READ) for path in readable), (folder, handled), ("/dev/null", READ | WRITE_FILE)):
            with contextlib.suppress(FileNotFoundError):
                _allow(ruleset, path, rights & handled)
        kernel.syscall("landlock_restrict_self", RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        allowed = rights if os.path.isdir(path) else rights & FILE_RIGHTS  # noqa: PTH112 - called for every child
        rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, beneath), 12)
        kernel.syscall("landlock_add_rule", ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(beneath)
