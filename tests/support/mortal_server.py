"""A chat server in a process of its own that dies in the middle of a request, as with kill -9.

    with mortal_server(dies_at=5) as url:
        ...  # the fifth request gets no answer, and no further connection is accepted

Its model is `adds`: it calls the tool `add` with the numbers of the question, then says the sum.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from support.chat_server import Body, calls, chat_server, results_of, said_by_user, says

__all__ = ["adds", "mortal_server"]


def adds(body: Body) -> dict[str, Any]:
    """Call the tool, then answer with its result."""
    if results_of(body):
        return says(f"The sum is {results_of(body)[-1]}.")
    found = re.search(r"(\d+) \+ (\d+)", said_by_user(body))
    assert found is not None
    return calls("add", a=int(found[1]), b=int(found[2]))


@contextmanager
def mortal_server(*, dies_at: int, port: int = 0) -> Iterator[str]:
    """The address of a server that kills itself at its `dies_at`-th request."""
    command = [sys.executable, "-m", "support.mortal_server", str(dies_at), str(port)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def _serve(dies_at: int, port: int) -> None:
    seen: list[Body] = []

    def reply(body: Body) -> dict[str, Any]:
        if len(seen) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return adds(body)

    async def started(_: web.Application) -> None:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)

    listener = socket.create_server(("127.0.0.1", port))
    application = chat_server(reply, seen=seen)
    application.on_startup.append(started)
    web.run_app(application, sock=listener, print=None)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
