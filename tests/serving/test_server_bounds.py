"""What one request may cost the servers of `rewright serve-search` and `rewright serve-reward`, and how they stop."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from rewright.net.batching import BusyError
from rewright.net.server import listening
from rewright.serving.reward import reward_application
from rewright.serving.search import search_application
from rewright.tools.retriever import LocalSearcher, RefusedQuery
from rewright.tools.search_index import Document, SearchHit, SearchIndex, build_index

WORDS = [f"w{number}" for number in range(40)]
LONGEST = " ".join(WORDS * 40)[:4096]  # every word of it is in every document
SECONDS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 000 documents in which the longest batch of the longest queries takes minutes."""
    out = tmp_path_factory.mktemp("search") / "index"
    text = " ".join(WORDS)
    build_index((Document(str(number), f"{text} only{number}") for number in range(20_000)), out)
    return out


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str], Callable[[], str]]]:
    """`rewright serve-search`, as a person starts it: its address, its process, what it has told so far."""
    errors = folder.parent / "errors"
    command = [
        sys.executable,
        "-c",
        "from rewright.cli.main import main; main()",
        "serve-search",
        str(folder),
        "--port",
        "0",
    ]
    with errors.open("w") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), errors.read_text()
        try:
            yield url, process, errors.read_text
        finally:
            process.kill()


def stopped(process: subprocess.Popen[str]) -> int:
    os.kill(process.pid, signal.SIGTERM)
    return process.wait(SECONDS)


def most_memory(process: subprocess.Popen[str]) -> int:
    """Megabytes that the process has held at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


async def told(session: aiohttp.ClientSession, path: str, body: Any, **headers: str) -> tuple[int, str]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with session.post(path, data=data, headers=headers) as reply:
        found = await reply.json()
        return reply.status, found["detail"] if reply.status != 200 else ""


TOO_MUCH = {
    "query has 4097 characters: expected at most 4096": ("/search", {"query": "x" * 4097}),
    "query has 5000000 characters: expected at most 4096": ("/search", {"query": "mill " * 1_000_000}),
    "query has 4100 characters": ("/batch_search", {"query": ["ok", "é" * 4100]}),
    "query has 1001 queries: expected at most 1000": ("/batch_search", {"query": ["ok"] * 1001, "top_n": 1}),
    "top_n is 1001: expected 1 to 1000": ("/search", {"query": "ok", "top_n": 1001}),
    "ask for 20020 documents: expected at most 20000": ("/batch_search", {"query": ["ok"] * 770, "top_n": 26}),
}


async def test_a_running_server_bounds_requests_unpacks_within_bounds_and_stops(folder: Path) -> None:
    with serving(folder) as (url, process, errors):
        async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(SECONDS)) as session:
            for words, (path, body) in TOO_MUCH.items():
                status, detail = await told(session, path, body)
                assert (status, words in detail) == (400, True), detail
            assert await told(session, "/search", {"query": "x" * 4096}) == (200, "")
            assert await told(session, "/batch_search", {"query": ["ok"] * 1000, "top_n": 20}) == (200, "")
            before = most_memory(process)
            assert await told(session, "/search", bomb(), **{"Content-Encoding": "gzip"}) == (
                413,
                "the body is too large: expected at most 16777216 bytes",
            )
            plain = json.dumps({"query": ["x" * 4000] * 5000}).encode()
            assert (await told(session, "/batch_search", plain))[0] == 413
            assert most_memory(process) - before < 120
            good = json.dumps({"query": "w1"}).encode()
            for coding, data in (("gzip", gzip.compress(good)), ("deflate", zlib.compress(good)), ("identity", good)):
                assert await told(session, "/search", data, **{"Content-Encoding": coding}) == (200, "")
            for data in (b"not packed", gzip.compress(good)[:-9], gzip.compress(good)[:3]):
                status, detail = await told(session, "/search", data, **{"Content-Encoding": "gzip"})
                assert (status, "cannot be decompressed" in detail) == (400, True)
            status, detail = await told(session, "/search", good, **{"Content-Encoding": "br"})
            assert (status, detail) == (415, "the body's content coding is 'br': expected gzip, deflate or none")
            broken_chunks(url)
            async with session.get("/search") as reply:
                assert (reply.status, reply.headers["Allow"]) == (405, "POST")
            async with session.get("/health") as reply:
                assert reply.status == 200
            running = asyncio.create_task(told(session, "/batch_search", {"query": [LONGEST] * 1000, "top_n": 1}))
            async with session.get("/health"):  # by then the search above has come
                pass
            assert await asyncio.to_thread(stopped, process) == 0
            outcome = (await asyncio.gather(running, return_exceptions=True))[0]
            assert outcome == (503, "the server is stopping") or isinstance(outcome, aiohttp.ClientError)
        assert "Traceback" not in errors()


@cache
def bomb() -> bytes:
    """300 MB of zeros, packed."""
    pack = zlib.compressobj(1, wbits=31)
    return b"".join([*(pack.compress(bytes(1 << 20)) for _ in range(300)), pack.flush()])


def broken_chunks(url: str) -> None:
    """A body whose chunks have no sizes, and one that ends in the middle."""
    host, port = url.removeprefix("http://").split(":")
    head = b"POST /search HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    for data in (b"\r\nZZ\r\n{}\r\n0\r\n\r\n", b"\r\n5\r\n{", b"Content-Encoding: gzip\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"):
        with socket.create_connection((host, int(port)), SECONDS) as connection:
            connection.sendall(head + data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass


class Counted(SearchIndex):
    """Counts the queries that it has searched; `begun` is set by the first. It is opened as any index is."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.searched = 0
        self.begun = threading.Event()

    def search(self, query: str, top_k: int = 1, **options: Any) -> list[SearchHit]:
        self.begun.set()
        found = super().search(query, top_k, **options)
        self.searched += 1
        return found


async def test_a_search_ends_when_its_caller_has_gone(folder: Path) -> None:
    index = Counted.open(folder)
    async with listening(search_application(index)) as url, aiohttp.ClientSession(url) as session:
        asked = asyncio.create_task(session.post("/batch_search", json={"query": [LONGEST] * 60, "top_n": 1}))
        await asyncio.to_thread(index.begun.wait)
        asked.cancel()
    await asyncio.get_running_loop().shutdown_default_executor()  # as at the end of a program: waits for threads
    assert index.searched < 60


async def test_a_search_that_takes_too_long_is_told_to_come_back(folder: Path) -> None:
    index = Counted.open(folder)
    body = {"query": [LONGEST] * 60, "top_n": 1}
    async with (
        listening(search_application(index, seconds=0.01)) as url,
        aiohttp.ClientSession(url) as session,
        session.post("/batch_search", json=body) as reply,
    ):
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert "not done after 0.01 s" in (await reply.json())["detail"]
    await asyncio.get_running_loop().shutdown_default_executor()
    assert index.searched < 60


async def test_a_server_that_stops_ends_the_searches_that_run(folder: Path) -> None:
    index = Counted.open(folder)
    async with aiohttp.ClientSession() as session:
        async with listening(search_application(index)) as url:
            body = {"query": [LONGEST] * 60, "top_n": 1}
            asked = asyncio.create_task(session.post(f"{url}/batch_search", json=body))
            await asyncio.to_thread(index.begun.wait)
        reply = await asked
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert await reply.json() == {"detail": "the server is stopping"}
    await asyncio.get_running_loop().shutdown_default_executor()
    assert index.searched < 60


async def test_an_index_in_process_has_the_same_bound(folder: Path) -> None:
    searcher = LocalSearcher(SearchIndex.open(folder))
    with pytest.raises(RefusedQuery, match="query has 4097 characters: expected at most 4096"):
        await searcher.search("x" * 4097, 1)
    # Long queries are scored part by part: each document has each word as often as the others.
    assert [one.document.id for one in await searcher.search(LONGEST[:4000] + " only7", 1)] == ["7"]


class Scorer:
    """Scores by length, after it is let go."""

    vocabulary_size, limit = 10, 100

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.rounds: list[int] = []

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        self.begun.set()
        self.go.wait()
        self.rounds.append(len(sequences))
        return [float(len(sequence)) for sequence in sequences]


class Words:
    """A renderer of words, as far as the server asks it."""

    fingerprint = "words"

    class dialect:  # noqa: N801
        name = "hermes"

    def encode_text(self, text: str) -> list[int]:
        return [1] * len(text.split())


TOO_LONG: dict[str, Any] = {
    "1025 trajectories: expected at most 1024": {"token_ids": [[1]] * 1025},
    "1025 trajectories: expected at most 1024 ": {"texts": ["a"] * 1025},
    "4194305 tokens: expected at most 4194304": {"token_ids": [1] * 4_194_305},
    "bytes as JSON: expected at most 4194304": {"texts": "a " * 2_200_000},
    "messages and tools have": {"messages": [{"role": "user", "content": "a " * 2_200_000}]},
}


async def test_a_reward_server_bounds_requests_and_ends_between_rounds() -> None:
    scorer = Scorer()
    app = reward_application(scorer, Words(), "words")  # type: ignore[arg-type]
    async with listening(app) as url, aiohttp.ClientSession(url) as session:
        for words, body in TOO_LONG.items():
            status, detail = await told(session, "/score", body)
            assert (status, words.strip() in detail) == (400, True), detail
        assert (await told(session, "/score", bomb(), **{"Content-Encoding": "gzip"}))[0] == 413
        async with session.get("/score") as reply:
            assert (reply.status, reply.headers["Allow"]) == (405, "POST")
        # Two rounds' worth of tokens: the second is not begun once the caller has gone.
        long = asyncio.create_task(session.post("/score", json={"token_ids": [[1] * 60_000] * 3}))
        await asyncio.to_thread(scorer.begun.wait)
        long.cancel()
        async with session.get("/health") as reply:
            assert reply.status == 200
        other = asyncio.create_task(session.post("/score", json={"token_ids": [[1, 1]]}))
        scorer.go.set()
        assert (await (await other).json())["scores"] == [2.0]
    assert scorer.rounds == [1, 1]


async def test_a_busy_reward_server_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(self: Any, sequences: Any) -> list[float]:
        raise BusyError("7 requests are waiting")

    monkeypatch.setattr("rewright.net.batching.Batcher.score", busy)
    app = reward_application(Scorer(), Words(), "words")  # type: ignore[arg-type]
    async with (
        listening(app) as url,
        aiohttp.ClientSession(url) as session,
        session.post("/score", json={"token_ids": [1]}) as reply,
    ):
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert await reply.json() == {"detail": "7 requests are waiting"}
