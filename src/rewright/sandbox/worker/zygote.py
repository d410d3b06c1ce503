"""The fork server: import the modules of the tools once, then fork one child per session.

Started by `rewright.sandbox.forkserver` as a separate process. It has one thread and executes no untrusted code. It
exchanges JSON packets over a Unix socket: it receives `spawn` (with the child's connection as a passed descriptor) and
`kill`, and sends `ready`, `ended` and `failed`. When the trainer ends, the socket closes, and all children are killed
with the fork server.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import json
import os
import random
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from . import files, frames, harness, isolation, kernel, limits

__all__ = ["main"]

PACKET_BYTES = 65536


class Zygote:
    """One fork server: its configuration and its running children."""

    def __init__(self, control: socket.socket, configuration: dict[str, Any]) -> None:
        self.control = control
        self.configuration = configuration
        self.children: dict[int, int] = {}  # process id -> session id
        self.cleaners: set[int] = set()  # processes that remove the folders of ended sessions
        self.names: dict[str, Any] = {}
        self.home: str = configuration["home"]  # empty at level strict, where each child has a private disk

    def run(self) -> None:
        """Serve until the trainer closes the control socket."""
        wake_read, wake_write = socket.socketpair()
        wake_read.setblocking(False)
        wake_write.setblocking(False)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the trainer, which closes the socket
        self.private = (wake_read, wake_write)
        self.lifeline = os.pipe()  # only this process holds the write end: end of file means that it has ended
        self._preload()
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
        self.isolation = isolation.Isolation(self.configuration, self.home)
        try:
            self.isolation.prepare()
        except OSError as error:
            self._send({"op": "refused", "message": isolation.explain(error)})
            return
        self._send({"op": "ready"})
        poller = select.poll()
        poller.register(self.control, select.POLLIN)
        poller.register(wake_read, select.POLLIN)
        try:
            while True:
                for descriptor, _ in poller.poll():
                    if descriptor == wake_read.fileno():
                        with contextlib.suppress(BlockingIOError):
                            wake_read.recv(4096)
                        self._reap()
                    elif not self._receive():
                        return
        finally:
            for process in self.children:
                limits.kill_group(process)
            for process in self.cleaners:
                os.kill(process, signal.SIGKILL)
            for process in (*self.children, *self.cleaners):
                os.waitpid(process, 0)
            if self.home:
                files.remove_tree(self.home)

    def _preload(self) -> None:
        for path in self.configuration["paths"]:
            if path not in sys.path:
                sys.path.append(path)
        for module, name in self.configuration["preload"]:
            try:
                self.names[name] = importlib.import_module(module)
            except ImportError as error:
                self._send({"op": "missing", "module": module, "message": str(error)})
        if "numpy" in sys.modules:
            importlib.import_module("numpy.random")  # numpy itself loads it at first use
        gc.collect()
        gc.freeze()  # so that garbage collection in children does not copy the shared pages
        kernel.collapse_memory()

    def _receive(self) -> bool:
        packet, descriptors, _, _ = socket.recv_fds(self.control, PACKET_BYTES, 4)
        if not packet:
            return False
        message = json.loads(packet)
        if message["op"] == "spawn":
            try:
                self._spawn(message, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        elif message["op"] == "kill":
            for process, session in self.children.items():
                if session == message["id"]:
                    limits.kill_group(process)
        return True

    def _spawn(self, message: dict[str, Any], descriptors: list[int]) -> None:
        for module in message["modules"]:
            if module not in sys.modules:
                with contextlib.suppress(Exception):  # the child reports it if the function is called
                    importlib.import_module(module)
        try:
            mapped = limits.mapped_bytes(self.isolation.proc)
            process = self.isolation.fork()
        except OSError as error:
            self._send({"op": "failed", "id": message["id"], "message": str(error)})
            return
        if process:
            self.children[process] = message["id"]
            return
        status = 1
        try:
            self._child(message["id"], mapped, descriptors)
            status = 0
        finally:
            harness.exit_immediately(status)

    def _child(self, session: int, mapped: int, descriptors: list[int]) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        connection = socket.socket(fileno=os.dup(descriptors[0]))
        for private in (*self.private, self.control):
            private.detach()
        lifeline = self.lifeline[0]
        kept = sorted({connection.fileno(), self.isolation.proc, lifeline})
        for start, end in itertools.pairwise([2, *kept, 4096]):
            os.closerange(start + 1, end)
        try:
            self.isolation.confine(session, mapped)
        except OSError as error:
            connection.sendall(frames.encode({"id": 0, "failed": str(error)}))
            return
        # From `confine` on, the kernel kills this process when the fork server dies. Check that it has not died before.
        if select.select([lifeline], [], [], 0)[0]:
            return
        os.close(lifeline)
        random.seed(0)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(0)
        harness.serve(connection, self.configuration["limits"]["output_chars"], self.names)

    def _reap(self) -> None:
        while True:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if dead is None:
                self._kill_orphans()
                return
            process = dead.si_pid
            if process in self.children:  # kill its group before reaping, while its process id cannot be reused
                limits.kill_group(process)
            _, status, usage = os.wait4(process, 0)
            self.cleaners.discard(process)
            session = self.children.pop(process, None)
            if session is None:
                continue
            self._remove(session)
            code = os.waitstatus_to_exitcode(status)
            self._send({"op": "ended", "id": session, "code": code, "cpu": usage.ru_utime + usage.ru_stime})

    def _kill_orphans(self) -> None:
        """Kill orphaned descendants that left their process group to outlive their session."""
        for process in limits.own_children():
            if process not in self.children and process not in self.cleaners:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def _remove(self, session: int) -> None:
        """Remove a session's folder; if it is not empty, in a separate process, so that other sessions do not wait."""
        if not self.home:
            return
        folder = Path(self.home, str(session))
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        try:
            process = os.fork()
        except OSError:  # process limit reached: the folder is removed at the end
            return
        if process == 0:
            try:
                os.closerange(3, 4096)  # includes the lifeline, whose end of file signals the fork server's end
                files.remove_tree(str(folder))
            finally:
                harness.exit_immediately(0)
        self.cleaners.add(process)

    def _send(self, message: dict[str, Any]) -> None:
        self.control.send(json.dumps(message).encode())


def main(descriptor: int, configuration: dict[str, Any]) -> None:
    """Serve on an inherited socket `descriptor`."""
    Zygote(socket.socket(fileno=descriptor), configuration).run()
