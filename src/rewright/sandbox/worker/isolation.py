"""The isolation levels: set up once in the fork server (`prepare`), and in every child before it runs code (`confine`).

strict   The fork server enters its own file system view and drops root. Each child is cloned into its own user, pid,
         mount, ipc, host-name and network namespaces, with a private tmpfs, no capabilities and a seccomp filter. If
         any step fails, nothing is executed.
process  A process group with resource limits; for untrusted code also the seccomp filter and Landlock, if available.
unsafe   A process without limits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import tempfile
from pathlib import Path
from typing import Any

from . import kernel, landlock, limits, seccomp, view

__all__ = ["Isolation"]

NOBODY = 65534
NAMESPACES = kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS

NO_NAMESPACES = "namespaces are not allowed here: by the kernel, its user.max_*_namespaces settings, or the container"
EXPLANATIONS = {
    "unshare": NO_NAMESPACES,
    "clone": NO_NAMESPACES,
    "uid_map": "this user may not be mapped into a user namespace (root without CAP_SETFCAP may not)",
    "mount": "mounting in a user namespace is not allowed (AppArmor restricts it, or the container does)",
    "mount_setattr": "mount_setattr is missing: Linux 5.12 or later is needed",
    "seccomp": "the kernel has no seccomp filters",
}


class Isolation:
    """Confines the children of one fork server."""

    def __init__(self, configuration: dict[str, Any], home: str) -> None:
        self.level: str = configuration["level"]
        self.trusted: bool = configuration["trusted"]
        self.network: bool = configuration["network"]
        self.limits: dict[str, Any] = configuration["limits"]
        self.home = home
        self.readable = view.readable(configuration["visible"], self.network)
        self.landlock = landlock.version()
        self.filter: seccomp.Filter | None = None
        if kernel.MACHINE in seccomp.ARCHITECTURES:
            self.filter = seccomp.Filter(self.limits["processes"], self.network, self.level == "strict")
        self.proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
        self.namespaces = NAMESPACES | (0 if self.network else kernel.CLONE_NEWNET)

    def prepare(self) -> None:
        """Prepare the fork server, and test the confinement on one child. Raises `OSError` for a missing feature."""
        tempfile.tempdir = None  # reset, so that the child determines its own
        os.environ.clear()
        os.environ.update({"HOME": view.PRIVATE_DISK, "TMPDIR": view.PRIVATE_DISK, "LANG": "C.UTF-8", "TZ": "UTC"})
        if self.level != "unsafe" and (self.level == "strict" or not self.trusted):
            limits.reserve_user_processes()
            selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc, assignment]  # epoll is refused
        if self.level == "strict":
            if self.filter is None:
                raise OSError(errno.ENOSYS, f"level strict supports x86_64 and aarch64, not {kernel.MACHINE}")
            self._enter_view()
            kernel.drop_capabilities()
            self._try()
        else:
            limits.become_subreaper()

    def fork(self) -> int:
        """Fork a child into its namespaces. Returns its process id in the parent, 0 in the child."""
        if self.level == "strict":
            return kernel.clone(self.namespaces | kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID)
        return os.fork()

    def confine(self, session: int, mapped: int) -> None:
        """Apply the restrictions of the level in the child. `mapped`: bytes of memory that do not count."""
        if self.level == "strict":
            self._enter_strict()
            folder = view.PRIVATE_DISK
        else:
            folder = f"{self.home}/{session}"
            Path(folder).mkdir()
        os.close(self.proc)
        os.chdir(folder)
        if self.level != "strict":
            os.environ.update({"HOME": folder, "TMPDIR": folder})
        # A process group, to be killed as one. Not a session: with autogrouping, each child would get as much CPU time
        # as the trainer.
        os.setpgid(0, 0)
        limits.die_with_parent()
        if self.level == "unsafe":
            return
        limits.apply(self.limits, mapped, trusted=self.trusted and self.level != "strict")
        if self.level == "strict":
            assert self.filter is not None
            kernel.set_no_new_privileges()
            self.filter.install()
        elif not self.trusted:
            kernel.drop_capabilities()
            kernel.set_no_new_privileges()
            kernel.set_dumpable(False)  # as at level strict: a crash starts no core-dump handler outside the sandbox
            if self.landlock:
                landlock.confine(self.readable, folder, self.landlock)
            if self.filter is not None:
                with contextlib.suppress(OSError):  # optional at this level; capabilities() reports it
                    self.filter.install()

    def _enter_view(self) -> None:
        """Move the fork server into its own namespaces and drop root."""
        user, group = os.getuid(), os.getgid()
        try:
            kernel.unshare(self.namespaces)  # as root, files that only root can read can be made visible
        except PermissionError:
            kernel.unshare(self.namespaces | kernel.CLONE_NEWUSER)
            kernel.map_user(self.proc, NOBODY, user, group)
            view.enter(self.readable)
            return
        view.enter(self.readable)
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        except OSError:  # root without permission to change its user, as in a single-user container
            kernel.unshare(kernel.CLONE_NEWUSER)
            kernel.map_user(self.proc, NOBODY, user, group)

    def _enter_strict(self) -> None:
        user, group = self.outside
        kernel.set_dumpable(True)  # required to write its own user maps
        kernel.map_user(self.proc, NOBODY, user, group)
        kernel.mount_memory(view.PRIVATE_DISK, self.limits["disk_bytes"], "700")
        kernel.drop_capabilities()
        kernel.set_dumpable(False)

    def _try(self) -> None:
        """Confine a test child, so that missing features are detected at startup."""
        self.outside = os.getuid(), os.getgid()
        read, write = os.pipe()
        process = self.fork()
        if process == 0:
            text = "confined"
            try:
                self.confine(0, limits.mapped_bytes(self.proc))
            except BaseException as error:
                text = (isinstance(error, OSError) and error.strerror) or str(error)
            os.write(write, text.encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            text = pipe.read()
        os.waitpid(process, 0)
        if text != "confined":
            raise OSError(errno.EPERM, text or "the child died")


def explain(error: OSError) -> str:
    """Explain which feature for level `strict` is missing on this machine."""
    text = error.strerror or str(error)
    call = text.split(" ")[0].rstrip(":")
    return f"{EXPLANATIONS[call]} ({text})" if call in EXPLANATIONS else text
