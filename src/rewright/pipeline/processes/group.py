"""Launch a group of processes, send each its job, and receive what they report until all have ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any, Final

from rewright.core.errors import RewrightError, TrainingError
from rewright.core.progress import Bar, say
from rewright.core.records import Trajectory
from rewright.training.launch import PLAIN, Launch

__all__ = ["run_group"]

WORKER: Final = "rewright.pipeline.processes.worker"
POLL_SECONDS: Final = 0.2
GRACE_SECONDS: Final = 1.5
"""After a process has failed, the others may report within this time: the cause may be theirs."""
END_SECONDS: Final = 30.0


def run_group(
    job: bytes,
    launch: Launch,
    *,
    label: str,
    log: Path,
    on_rollouts: Callable[[list[Trajectory]], None] | None = None,
) -> Any:
    """Run a job in a group of processes. Returns the result of the main one.

    Args:
        job: the job, from `rewright.pipeline.processes.jobs.encode`.
        launch: the processes.
        label: name of the stage in messages.
        log: file to which the output of the processes is appended.
        on_rollouts: stores rollouts of the main process, which waits for it.

    If one process fails, all are stopped, and its exception is raised if it is one of Rewright's; TrainingError
    otherwise, or if a process has ended without a message. They are stopped as well if this raises.
    """
    # In the system's own folder for temporary files: a socket's path has at most some 100 characters.
    with tempfile.TemporaryDirectory(prefix="rewright-", ignore_cleanup_errors=True) as folder:
        address = str(Path(folder) / "socket")
        with socket.socket(socket.AF_UNIX) as server, log.open("ab") as output:
            start = output.tell()
            server.bind(address)
            server.listen(launch.processes)
            process = _launch(launch, address, output)
            group = _Group(launch.processes, label, log, start, on_rollouts)
            try:
                return group.serve(server, process, job)
            finally:
                group.close()
                _stop(process)
                if not log.stat().st_size:
                    log.unlink()


@dataclass
class _Group:
    """What the launching process knows of the group."""

    processes: int
    label: str
    log: Path
    log_start: int
    on_rollouts: Callable[[list[Trajectory]], None] | None
    connections: dict[Connection, int | None] = field(default_factory=dict)
    results: dict[int, Any] = field(default_factory=dict)
    failures: list[tuple[int, BaseException]] = field(default_factory=list)
    ended: list[int | None] = field(default_factory=list)
    """The ranks that ended without a message."""
    shown: dict[str, int] = field(default_factory=dict)
    said: dict[tuple[int | None, str], int] = field(default_factory=dict)
    bar: Bar | None = None

    def serve(self, server: socket.socket, process: subprocess.Popen[bytes], job: bytes) -> Any:
        """Receive messages until every process has sent its result. Raises the failure of one."""
        deadline: float | None = None
        listening: list[socket.socket] = [server]
        missing = self.processes
        while len(self.results) < self.processes:
            running = process.poll() is None
            ready = wait([*listening, *self.connections], timeout=POLL_SECONDS if running else 0)
            for one in ready:
                if isinstance(one, Connection):
                    self._receive(one, job)
                    continue
                self.connections[Connection(server.accept()[0].detach())] = None
                missing -= 1
                if not missing:  # closed before any tool is executed: no other process may connect
                    server.close()
                    listening.clear()
            failed = bool(self.failures or self.ended)
            if failed and deadline is None:
                deadline = time.monotonic() + GRACE_SECONDS
            over = not running and not ready
            if over or (deadline is not None and (time.monotonic() > deadline or not self.connections)):
                raise self._failure()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        return self.results[0]

    def close(self) -> None:
        """Close the connections, which ends the processes, and the progress bar."""
        for connection in self.connections:
            connection.close()
        if self.bar is not None:
            self._end_bar(failed=True)

    def _receive(self, connection: Connection, job: bytes) -> None:
        rank = self.connections[connection]
        try:
            kind, *content = connection.recv()
        except (EOFError, OSError):
            del self.connections[connection]
            connection.close()
            if rank is None or (rank not in self.results and rank not in [one for one, _ in self.failures]):
                self.ended.append(rank)
            return
        if kind == "hello":
            self.connections[connection] = content[0]
            with suppress(OSError):  # it has ended, which the next reading shows
                connection.send_bytes(job)
        elif kind == "result":
            self.results[rank or 0] = content[0]
        elif kind == "failed":
            self.failures.append((rank or 0, content[0]))
        elif kind == "rollouts":
            if self.on_rollouts is not None:
                self.on_rollouts(content[0])
            with suppress(OSError):
                connection.send("stored")
        elif kind == "say":
            self._say(rank, content[0])
        elif rank == 0:
            self._progress(kind, content)

    def _say(self, rank: int | None, text: str) -> None:
        """Show a notice once, even if several processes have it."""
        count = self.said[rank, text] = self.said.get((rank, text), 0) + 1
        if count > self.shown.get(text, 0):
            self.shown[text] = count
            say(text)

    def _progress(self, kind: str, content: list[Any]) -> None:
        if kind == "bar":
            label, total, done = content
            self.bar = Bar(label, total, done=done).__enter__()
        elif kind == "step" and self.bar is not None:
            self.bar.step(*content)
        elif kind == "bar_end" and self.bar is not None:
            self._end_bar(failed=content[0])

    def _end_bar(self, *, failed: bool) -> None:
        if self.bar is not None:
            error = RuntimeError() if failed else None
            self.bar.__exit__(type(error) if failed else None, error, None)  # type: ignore[arg-type]
            self.bar = None

    def _failure(self) -> BaseException:
        """The cause: a failure of Rewright's, else a process that was killed, else the first of the other failures.

        If a process ends, the others fail in their next collective, which says nothing about the cause.
        """
        own = [problem for _, problem in self.failures if isinstance(problem, RewrightError)]
        if own:
            return own[0]
        ended = [rank for rank in self.ended if rank is not None]
        if ended:
            which = f"process {ended[0]} of {self.processes}"
            return TrainingError(f"{self.label}: {which} has ended without a message (killed, or out of memory)")
        if self.failures:
            rank, problem = self.failures[0]
            reason = " ".join(str(problem).split())[:300]
            return TrainingError(
                f"{self.label}: process {rank} of {self.processes} failed: {reason} (its traceback is in {self.log})"
            )
        if self.connections:
            return TrainingError(f"{self.label}: the launcher of the {self.processes} processes has ended (killed)")
        return TrainingError(f"{self.label}: the {self.processes} processes did not start: {self._last_line()}")

    def _last_line(self) -> str:
        with self.log.open("rb") as file:
            file.seek(self.log_start)
            lines = file.read().decode(errors="replace").split("\n")
        errors = [line.strip() for line in lines if "Error" in line]
        return f"{errors[0] if errors else 'no reason given'} ({self.log})"


def _launch(launch: Launch, address: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the launcher in a session of its own, so that Ctrl-C comes to this process alone."""
    import torch

    count, has_gpu = str(launch.processes), torch.cuda.is_available()
    # With a file without FSDP or DeepSpeed, accelerate starts one process on a CPU.
    if launch.config is None or (launch.kind in PLAIN and not (has_gpu and launch.kind == "MULTI_GPU")):
        start = ["torch.distributed.run", "--nproc-per-node", count, "--max-restarts", "0"]
        # A rendezvous on the loopback interface, at a free port.
        start += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"]
    else:
        start = ["accelerate.commands.launch", "--config_file", str(launch.config), "--num_processes", count]
        start += ["--main_process_port", "0"]
    # The processes share the cores.
    environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // launch.processes)), **os.environ}
    if not has_gpu:
        if launch.kind != "FSDP":
            environment |= {"ACCELERATE_USE_CPU": "true"}
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return subprocess.Popen(
        [sys.executable, "-m", *start, "--module", WORKER, address],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the launcher. The processes end themselves, because their connections are closed."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
