"""A server that cannot be reached is one line: the address, the cause in words, what was expected there."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import in_process

TASK = {"id": "t", "messages": [{"role": "user", "content": "1 + 1?"}], "gold": {"answers": ["2"]}}
NOBODY = "cannot connect (Connection refused): expected a running server at this address (1 attempt in "


@contextmanager
def answering(reply: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that answers every connection with `reply`."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(10)
            reply(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def nobody() -> Iterator[str]:
    """An address that is taken, and at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def last_line(folder: Path, address: str, *command: str, mode: str = "chat") -> str:
    (folder / "tasks.jsonl").write_text(json.dumps(TASK) + "\n")
    model = f"{{path: m, engine: openai, base_url: '{address}/v1', attempts: 1, mode: {mode}}}"
    (folder / "r.yaml").write_text(f"stages: [synth]\nmodel: {model}\ntasks: tasks.jsonl\nsynth: {{n: 1}}\n")
    said = in_process.rewright(folder, *(word.replace("ADDRESS", f"{address}/v1") for word in command))
    assert said.code == 1 and "Traceback" not in said.errors
    line = said.errors.splitlines()[-1]
    assert line.startswith("error: ") and f"{address}/" in line
    assert "Error:" not in line and "ssl:default" not in line
    return line


@pytest.mark.parametrize("mode", ["chat", "auto"])
@pytest.mark.parametrize(
    "command",
    [
        ["run", "r.yaml"],
        ["run", "r.yaml", "stages=[eval_base]", "eval.tasks=tasks.jsonl"],
        ["eval", "tasks.jsonl", "model.engine=openai", "--model", "m", "model.base_url=ADDRESS", "model.attempts=1"],
    ],
)
def test_a_served_model_that_is_not_there(tmp_path: Path, command: list[str], mode: str) -> None:
    with nobody() as address:
        assert NOBODY in last_line(tmp_path, f"http://{address}", *command, mode=mode)


def test_a_repairer_that_is_not_there(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "It is 3."}
    (tmp_path / "log.jsonl").write_text(json.dumps({"messages": [*TASK["messages"], answer], "answer": "2"}) + "\n")
    with nobody() as address:
        model = ["model.engine=openai", "model.path=m", f"model.base_url=http://{address}/v1", "model.attempts=1"]
        assert in_process.rewright(tmp_path, "import", "log.jsonl", "--run", "run", *model).code == 0
        for verb in ("judge", "score"):
            assert in_process.rewright(tmp_path, verb, "run").code == 0
        assert NOBODY in last_line(tmp_path, f"http://{address}", "repair", "run")


@pytest.mark.parametrize(
    ("scheme", "reply", "words"),
    [
        ("http", lambda socket: None, "the server closed the connection without a reply: expected a running HTTP"),
        ("http", lambda socket: socket.sendall(b"SSH-2.0-Open\r\n"), "the reply is not HTTP ("),
        ("https", lambda socket: socket.sendall(b"HTTP/1.1 400 Bad\r\n\r\n"), "no TLS connection ("),
    ],
)
def test_a_server_of_another_kind(
    tmp_path: Path, scheme: str, reply: Callable[[socket.socket], None], words: str
) -> None:
    with answering(reply) as address:
        assert words in last_line(tmp_path, f"{scheme}://{address}", "run", "r.yaml")
