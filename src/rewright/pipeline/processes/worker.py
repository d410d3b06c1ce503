"""One process of a group (`python -m rewright.pipeline.processes.worker SOCKET`), started by torchrun or accelerate.

It reports to the process that has launched the group, and ends when that one does.
"""

from __future__ import annotations

import os
import queue
import shutil
import socket
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rewright.core.errors import RewrightError
from rewright.core.progress import forward
from rewright.core.records import Trajectory
from rewright.training.launch import as_portable

__all__ = ["main"]


class _Link:
    """The connection to the launching process."""

    def __init__(self, address: str) -> None:
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(address)
        self._connection = Connection(connected.detach())
        self._folder = Path(address).parent
        self._lock = threading.Lock()
        self._replies: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def open(self, rank: int) -> bytes:
        """Say which process this is. Returns the job."""
        self.send("hello", rank)
        job = self._connection.recv_bytes()
        threading.Thread(target=self._watch, name="launcher", daemon=True).start()
        return job

    def send(self, *message: Any) -> None:
        """Send a message. Ends this process if the launching one has ended."""
        try:
            with self._lock:
                self._connection.send(message)
        except OSError:
            self._end()

    def store(self, rollouts: list[Trajectory]) -> None:
        """Have rollouts stored, and wait until they are: a checkpoint must not be ahead of them."""
        self.send("rollouts", rollouts)
        self._replies.get()

    def _watch(self) -> None:
        while True:
            try:
                self._replies.put(self._connection.recv())
            except (EOFError, OSError):
                self._end()

    def _end(self) -> None:
        """End at once, also from within a collective; nothing can be told to anybody."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(1)


def main() -> None:
    """Run the job of this process."""
    from rewright.pipeline.processes.jobs import decode, run_job

    rank = int(os.environ.get("RANK", "0"))
    try:
        link = _Link(sys.argv[1])
        data = link.open(rank)
    except (OSError, EOFError):
        sys.exit(1)  # the launching process has ended

    def report(kind: str, *content: Any) -> None:
        if kind == "say" or rank == 0:
            link.send(kind, *content)

    forward(report)
    try:
        if os.environ.get("ACCELERATE_USE_FSDP") == "true":
            _allow_fsdp_on_cpu()
        result = run_job(decode(data), link.store)
        link.send("result", result if rank == 0 else None)
    except BaseException as problem:
        traceback.print_exc()
        sys.stderr.flush()
        if not isinstance(problem, RewrightError):
            problem = RuntimeError(f"{type(problem).__name__}: {problem}".removesuffix(": "))
        link.send("failed", as_portable(problem))
        os._exit(1)  # other processes may wait in a collective, which an orderly end would wait for, too
    _leave_group()


def _allow_fsdp_on_cpu() -> None:
    """Let accelerate (1.15) use FSDP over gloo: without a GPU it silently trains a whole copy in each process."""
    import torch
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    if torch.cuda.is_available():
        return
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"

    def prepare(self: PartialState, *_: Any, **__: Any) -> tuple[str, DistributedType]:
        return "gloo", DistributedType.MULTI_GPU  # the type for which it looks at the settings of FSDP

    PartialState._prepare_backend = prepare


def _leave_group() -> None:
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
