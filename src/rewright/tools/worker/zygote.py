"""The fork server: imports what the tools need once, then forks one child for every session.

Started by `rewright.tools.forkserver` as a process of its own. It has one thread, executes no untrusted code, and
speaks packets of JSON over a Unix socket: `spawn` (with the child's connection as a passed descriptor) and `kill` come
in; `ready`, `ended` and `failed` go out. When the trainer is gone, the socket closes, and every child dies with the
fork server.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import select
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import harness, limits

__all__ = ["main"]

PACKET_BYTES = 65536


class Zygote:
    """One fork server: its configuration and the children that live."""

    def __init__(self, control: socket.socket, configuration: dict[str, Any]) -> None:
        self.control = control
        self.configuration = configuration
        self.children: dict[int, int] = {}  # process id -> session id
        self.names: dict[str, Any] = {}
        self.home = tempfile.mkdtemp(prefix="rewright-")

    def run(self) -> None:
        """Serve until the trainer closes the control socket."""
        limits.become_subreaper()
        limits.die_with_parent()
        wake_read, wake_write = socket.socketpair()
        wake_read.setblocking(False)
        wake_write.setblocking(False)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the trainer, which closes the socket
        self.private = (wake_read, wake_write)
        self._preload()
        self._send({"op": "ready", "pid": os.getpid()})
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
            for process in self.children:
                os.waitpid(process, 0)
            shutil.rmtree(self.home, ignore_errors=True)

    def _preload(self) -> None:
        for path in self.configuration["paths"]:
            if path not in sys.path:
                sys.path.append(path)
        for module, name in self.configuration["preload"]:
            try:
                self.names[name] = importlib.import_module(module)
            except ImportError as error:
                self._send({"op": "missing", "module": module, "message": str(error)})
        gc.collect()
        gc.freeze()  # children must not touch (and so copy) the pages of what is loaded

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
                with contextlib.suppress(Exception):  # the child will report it, if the function is ever called
                    importlib.import_module(module)
        try:
            process = os.fork()
        except OSError as error:
            self._send({"op": "failed", "id": message["id"], "message": str(error)})
            return
        if process:
            self.children[process] = message["id"]
            return
        status = 1
        try:
            self._child(message["id"], descriptors)
            status = 0
        finally:
            harness.leave(status)

    def _child(self, session: int, descriptors: list[int]) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        connection = socket.socket(fileno=os.dup(descriptors[0]))
        output = os.dup(descriptors[1]) if len(descriptors) > 1 else os.open(os.devnull, os.O_WRONLY)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, standard in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, standard)
        folder = f"{self.home}/{session}"
        Path(folder).mkdir()
        os.chdir(folder)
        kept = connection.fileno()
        for wake in self.private:
            wake.detach()
        self.control.detach()
        os.closerange(3, kept)
        os.closerange(kept + 1, 4096)
        os.environ.clear()
        os.environ.update({"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "TZ": "UTC"})
        limits.enter_group()
        limits.apply(self.configuration["limits"])
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
                self._kill_strays()
                return
            process = dead.si_pid
            if process in self.children:  # its group, while the unreaped child still keeps the number from being reused
                limits.kill_group(process)
            _, status, usage = os.wait4(process, 0)
            session = self.children.pop(process, None)
            if session is None:
                continue
            shutil.rmtree(f"{self.home}/{session}", ignore_errors=True)
            code = os.waitstatus_to_exitcode(status)
            self._send({"op": "ended", "id": session, "code": code, "peak_kb": usage.ru_maxrss})

    def _kill_strays(self) -> None:
        """Orphans become children of the fork server: kill those that left their group to outlive their session."""
        for process in limits.own_children():
            if process not in self.children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def _send(self, message: dict[str, Any]) -> None:
        self.control.send(json.dumps(message).encode())


def main(descriptor: int, configuration: dict[str, Any]) -> None:
    """Serve on an inherited socket `descriptor`."""
    Zygote(socket.socket(fileno=descriptor), configuration).run()
