"""A model on several servers: trajectories stay with one, and move when it dies."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from rewright.core.records import Trajectory
from rewright.engines.base import Request, Sampling
from rewright.engines.openai import OpenAIEngine
from rewright.net import servers as servers_module
from rewright.net.endpoint import EndpointError
from rewright.pipeline.run_directory import Run
from support import in_process
from support.chat_server import Body, chat_server
from support.fault_server import FaultServer, answer
from support.in_process import Said
from support.mortal_server import adds, mortal_server
from support.served import served

QUICK: dict[str, Any] = {
    "first_wait_seconds": 0.001, "max_wait_seconds": 0.01, "timeout_seconds": 5.0, "api_key_env": None
}  # fmt: skip
SCHEMA = {"name": "add", "parameters": {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a", "b"]}}
TASKS = 24


def request(session: str = "", text: str = "hello") -> Request:
    return Request(({"role": "user", "content": text},), (), Sampling(), token_ids=(5, 6), session=session)


def arrived(server: FaultServer) -> Counter[str]:
    return Counter(body["messages"][0]["content"] for body in server.requests)


@contextmanager
def run_over(folder: Path, *addresses: str, stages: str = "[synth, judge]", more: str = "") -> Iterator[Said]:
    """`rewright run` with the servers at these addresses."""
    folder.mkdir()
    rows = [
        {
            "id": f"t{number}",
            "messages": [{"role": "user", "content": f"What is {number} + 1?"}],
            "tools": [{"schema": {"type": "function", "function": SCHEMA}, "source": "def add(a, b): return a + b"}],
            "gold": {"answers": [str(number + 1)]},
        }
        for number in range(TASKS)
    ]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one = addresses[0] if len(addresses) == 1 else json.dumps(addresses)
    (folder / "r.yaml").write_text(
        f"stages: {stages}\nsandbox: process\ntasks: tasks.jsonl\n"
        f"model: {{path: m, engine: openai, base_url: {one}, mode: chat, concurrency: 4}}\n"
        f"synth: {{n: 1, concurrency: 8}}\nprices: {{m: {{input: 1, output: 1}}}}\n{more}"
    )
    yield in_process.rewright(folder, "run", "r.yaml", "--run", "run")


def without_times(trajectories: Any) -> list[Any]:
    def plain(one: Trajectory) -> Any:
        row = msgspec.to_builtins(one)
        row.pop("seconds")
        for turn in row["turns"]:
            for result in turn["results"]:
                result.pop("seconds", None)
        return row

    return sorted((plain(one) for one in trajectories), key=lambda row: str(row["id"]))


def test_a_server_that_is_killed_in_a_run_changes_nothing_of_its_results(tmp_path: Path) -> None:
    seen: list[Body] = []
    with ExitStack() as stack:
        first = stack.enter_context(served(lambda: chat_server(adds, seen=seen))) + "/v1"
        with run_over(tmp_path / "one", first) as alone:
            assert alone.code == 0, alone.errors
        asked = len(seen)
        second = stack.enter_context(mortal_server(dies_at=7)) + "/v1"
        with run_over(tmp_path / "two", first, second) as said:
            assert said.code == 0, said.errors
    dropped = [line for line in said.errors.splitlines() if "is dropped" in line]
    assert len(dropped) == 1 and dropped[0].startswith(f"{second} is dropped: ")
    assert dropped[0].endswith(": 1 of 2 servers left, tried again in 5 s")
    assert dropped[0] in (tmp_path / "two/run/libraries.log").read_text()
    one, two = Run(tmp_path / "one/run"), Run(tmp_path / "two/run")
    assert without_times(two.trajectories) == without_times(one.trajectories)
    assert len(list(two.trajectories)) == TASKS and not any(found.failure for found in two.trajectories)
    assert {found.outcome for found in two.verdicts} == {1.0}
    # 48 requests: 6 were answered by the second server, and the lost ones were asked again.
    assert (asked, len(seen) - asked) == (2 * TASKS, 2 * TASKS - 6)
    faults = two.state()["synth"]["faults"]
    assert set(faults) == {"connection"} and 1 <= faults["connection"] <= 8


def test_all_servers_dead_is_the_error_of_one_dead_server(tmp_path: Path) -> None:
    dead = "http://127.0.0.1:9/v1"
    with run_over(tmp_path / "run", dead, "http://127.0.0.1:10/v1", more="") as said:
        pass
    assert said.code == 3 or said.code == 1, said.errors
    assert "failed: POST http://127.0.0.1:" in said.errors.splitlines()[-1]
    assert not list(Run(tmp_path / "run/run").trajectories)


async def test_a_trajectory_stays_and_new_ones_go_to_the_least_busy() -> None:
    async with FaultServer() as first, FaultServer() as second, FaultServer() as third:
        engine = OpenAIEngine([first.url, second.url, third.url], "tiny", **QUICK)
        names = [f"s{number}" for number in range(9)]
        for _ in range(3):
            await asyncio.gather(*(engine.generate(request(name, name)) for name in names))
        assert [len(arrived(server)) for server in (first, second, third)] == [3, 3, 3]
        assert all(set(arrived(server).values()) == {3} for server in (first, second, third))
        for name in arrived(second):
            await engine.release(name)
        await asyncio.gather(*(engine.generate(request(name, name)) for name in ("new", "newer", "newest")))
        assert {"new", "newer", "newest"} <= set(arrived(second))
        await engine.close()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (["server_error"] * 3, "HTTP 500: Internal Server Error"),
        (["wrong_model"], "model 'another-model' answered, expected 'tiny' (check_model=False accepts any)"),
    ],
)
async def test_a_server_that_fails_is_dropped_and_its_trajectories_move(
    script: list[Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with FaultServer(script=script) as bad, FaultServer() as good:
        engine = OpenAIEngine([bad.url, good.url], "tiny", attempts=1, **QUICK)
        replies = await asyncio.gather(*(engine.generate(request(f"s{n}", f"s{n}")) for n in range(6)))
        assert [reply.text for reply in replies] == ["fine"] * 6
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "is dropped" in line]
        assert line == f"{bad.url} is dropped: {words}: 1 of 2 servers left, tried again in 5 s"
        before = len(bad.requests)
        await asyncio.gather(*(engine.generate(request(f"t{n}", f"t{n}")) for n in range(6)))
        assert len(bad.requests) == before
        await engine.close()


async def test_faults_of_a_request_drop_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    """A request that no server accepts, a rate limit, and one lost connection say nothing about the server."""
    async with FaultServer(script=["rate_limit", "reset"]) as first, FaultServer() as second:
        engine = OpenAIEngine([first.url, second.url], "tiny", **QUICK)
        assert (await engine.generate(request("a", "a"))).text == "fine"
        first.status = second.status = {"/chat/completions": (400, {"error": "too long"})}
        with pytest.raises(EndpointError, match="too long"):
            await engine.generate(request("b", "b"))
        assert "is dropped" not in capsys.readouterr().err
        await engine.close()


async def test_a_dropped_server_that_answers_again_is_used_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(servers_module, "FIRST_RETRY_SECONDS", 1e-6)
    alive = False

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": []}, status=200 if alive else 503)

    async def chat(call: web.Request) -> web.Response:
        status = 200 if alive else 503
        choices = [answer(await call.json())]
        return web.json_response({"model": "tiny", "choices": choices}, status=status)

    def application() -> web.Application:
        made = web.Application()
        made.router.add_get("/v1/models", models)
        made.router.add_post("/v1/chat/completions", chat)
        return made

    from rewright.net.server import listening

    async with FaultServer() as good, listening(application()) as url:
        engine = OpenAIEngine([url, good.url], "tiny", **QUICK)
        for number in range(4):
            assert (await engine.generate(request(f"s{number}"))).text == "fine"
        assert "1 of 2 servers left" in capsys.readouterr().err
        alive = True
        said = ""
        async with asyncio.timeout(60):
            while "answers again" not in said:  # a request starts the check, which runs beside it
                await engine.generate(request("s9"))
                said += capsys.readouterr().err
        assert f"{url}/v1 answers again: 2 of 2 servers left" in said
        count = len(good.requests)
        for number in range(20, 30):
            await engine.generate(request(f"s{number}"))
        assert len(good.requests) - count < 10
        await engine.close()


async def test_the_probe_asks_every_server(capsys: pytest.CaptureFixture[str]) -> None:
    none = {"/completions": (404, {"error": "no completions"})}
    async with FaultServer() as ids, FaultServer() as other, FaultServer(status=none) as chat_only:
        for addresses, tokens in (([ids.url, other.url], True), ([ids.url, chat_only.url], False)):
            engine = OpenAIEngine(addresses, "tiny", mode="auto", **QUICK)
            assert await engine.probe() is tokens and engine.faults == {}
            await engine.close()
        assert len(other.requests) == len(chat_only.requests) == 1
        said = capsys.readouterr().err
        assert said == (
            f"warning: {chat_only.url} does not return token ids as other servers do: all are used in mode chat\n"
        )
        # A server that is not there is dropped by the probe, without the waits of all attempts.
        engine = OpenAIEngine(["http://127.0.0.1:9/v1", ids.url], "tiny", mode="auto", **{**QUICK, "attempts": 2})
        assert await engine.probe() is True
        assert engine.faults == {"connection": 1}
        assert "http://127.0.0.1:9/v1 is dropped: " in capsys.readouterr().err
        assert (await engine.generate(request("s"))).token_ids == (7, 2)
        await engine.close()
        engine = OpenAIEngine(["http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"], "tiny", mode="auto", **QUICK)
        with pytest.raises(EndpointError, match=r"POST http://127.0.0.1:10/v1/completions: .* \(5 attempts"):
            await engine.probe()
        await engine.close()


@pytest.mark.parametrize(
    ("addresses", "words"),
    [
        ("[]", "model.base_url: the list is empty: expected at least one address"),
        ("['http://a/v1', 'http://a']", "base_url: http://a/v1 is given twice: expected different servers"),
        ("['http://a/v1', 'b']", "r.yaml:1: model.base_url[1]: base_url 'b': expected http://HOST:PORT/v1"),
        ("['http://a/v1', 3]", "r.yaml:1: model.base_url[1]: expected `str`, got `int`"),
        ("{a: 1}", "r.yaml:1: model.base_url: expected"),
    ],
)
def test_a_mistake_in_the_list_is_one_line(tmp_path: Path, addresses: str, words: str) -> None:
    (tmp_path / "r.yaml").write_text(f"model: {{engine: openai, path: m, base_url: {addresses}}}\nstages: [synth]\n")
    in_process.rewright(tmp_path, "run", "r.yaml", "--run", "run").refused(words)
    assert not (tmp_path / "run").exists()
