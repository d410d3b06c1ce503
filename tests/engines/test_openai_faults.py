"""What the engine does when the server fails: every request ends, and says how."""

import asyncio
import collections
import logging

import pytest

from rewright.core.errors import EngineError
from rewright.engines.base import Generation, Request, Sampling
from rewright.engines.openai import OpenAIEngine
from rewright.net.backoff import backoff_seconds, retry_after_seconds
from rewright.net.endpoint import EndpointError, Fault
from support.fault_server import FAULTS, FaultServer

QUICK = {"first_wait_seconds": 0.001, "max_wait_seconds": 0.01, "timeout_seconds": 1.0, "api_key_env": None}


def chat(text: str = "hello", **sampling: object) -> Request:
    return Request(({"role": "user", "content": text},), (), Sampling(**sampling))


@pytest.mark.parametrize("mode", ["chat", "completions"])
async def test_at_30_percent_faults_every_request_ends_with_a_generation_or_an_engine_error(mode, capsys):
    probabilities = dict.fromkeys(FAULTS, 0.3 / len(FAULTS))
    async with FaultServer(probabilities=probabilities, seed=7) as server:
        limits = {**QUICK, "timeout_seconds": 2.0}  # far above what a good reply takes, even on a busy machine
        engine = OpenAIEngine(server.url, server.model, mode=mode, concurrency=16, attempts=3, **limits)
        request = Request(({"role": "user", "content": "hello"},), (), Sampling(), token_ids=(5, 6))
        ends = await asyncio.gather(*[engine.generate(request) for _ in range(300)], return_exceptions=True)
        await engine.close()
    kinds = collections.Counter(type(end).__name__ for end in ends)
    with capsys.disabled():
        print(f"\n{mode}: {dict(kinds)}; {server.summary()}; engine saw {dict(engine.faults)}")
    assert set(kinds) == {"Generation", "EndpointError"}
    assert all(end.text == "fine" and end.completion_tokens == 2 for end in ends if isinstance(end, Generation))
    assert all(isinstance(end, EngineError) and "\n" not in str(end) for end in ends if isinstance(end, Exception))
    # Nothing is retried for ever, and a fault is neither lost nor counted twice.
    assert len(server.requests) <= 3 * 300
    assert sum(engine.faults.values()) == sum(server.counts[fault] for fault in FAULTS)
    assert server.most_under_way <= 16


@pytest.mark.parametrize("fault", FAULTS)
async def test_one_fault_is_made_good_by_the_next_attempt(fault):
    async with FaultServer(script=[fault]) as server:
        engine = OpenAIEngine(server.url, server.model, **QUICK)
        assert (await engine.generate(chat())).text == "fine"
        await engine.close()
    assert server.counts == {fault: 1, "ok": 1}
    assert sum(engine.faults.values()) == 1


@pytest.mark.parametrize(
    ("fault", "cause", "words"),
    [
        ("rate_limit", "status", "HTTP 429: slow down"),
        ("server_error", "status", "HTTP 500: Internal Server Error"),
        ("reset", "connection", "reset by peer"),
        ("hang", "timeout", "no answer within 1 s"),
        ("slow", "timeout", "no answer within 1 s"),
        ("cut", "body", "the reply was truncated"),
        ("wrong_json", "json", "the reply is not JSON"),
        ("wrong_shape", "reply", "expected an object"),
        ("empty_choices", "reply", "the reply has no choices"),
        ("wrong_model", "model", "model 'another-model' answered, expected 'tiny'"),
        ("error_in_body", "reply", "the reply is an error: the provider failed"),
        ("aborted", "reply", "finish_reason 'abort'"),
    ],
)
async def test_a_lasting_fault_is_one_clear_line_with_url_cause_and_attempts(fault, cause, words):
    async with FaultServer(script=[fault] * 2) as server:
        engine = OpenAIEngine(server.url, server.model, attempts=2, **QUICK)
        with pytest.raises(EngineError) as caught:
            await engine.generate(chat())
        await engine.close()
    error = caught.value
    assert isinstance(error, EndpointError)
    assert (error.cause, error.attempts) == (cause, 2)
    assert str(error).startswith(f"POST {server.url}/chat/completions: ")
    assert words in str(error)
    assert "2 attempts" in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_refusals_are_not_retried(status):
    fixed = {"/chat/completions": (status, {"error": {"message": "no such thing"}})}
    async with FaultServer(status=fixed) as server:
        engine = OpenAIEngine(server.url, server.model, **QUICK)
        with pytest.raises(EndpointError, match=f"HTTP {status}: no such thing") as caught:
            await engine.generate(chat())
        await engine.close()
    assert (caught.value.status, caught.value.attempts, len(server.requests)) == (status, 1, 1)


async def test_a_request_ends_at_its_deadline_whatever_the_attempts_allow():
    async with FaultServer(script=["server_error"] + ["hang"] * 9) as server:
        engine = OpenAIEngine(server.url, server.model, attempts=10, **{**QUICK, "timeout_seconds": 60})
        with pytest.raises(EndpointError, match="deadline") as caught:
            await engine.generate(Request((), (), Sampling(), timeout_seconds=3.0))
        await engine.close()
    assert caught.value.cause == "deadline"
    assert "before that: HTTP 500" in str(caught.value)
    assert len(server.requests) == 2


async def test_a_wait_that_would_end_after_the_deadline_is_not_begun():
    async with FaultServer(script=["rate_limit"], retry_after="3600") as server:
        engine = OpenAIEngine(server.url, server.model, **{**QUICK, "max_wait_seconds": 3600.0})
        with pytest.raises(EndpointError, match=r"HTTP 429.*no time for another attempt before the deadline"):
            await engine.generate(Request((), (), Sampling(), timeout_seconds=30.0))
        await engine.close()
    assert len(server.requests) == 1


async def test_the_deadline_counts_the_time_spent_waiting_for_a_free_connection():
    async with FaultServer(script=["hang"]) as server:
        engine = OpenAIEngine(server.url, server.model, concurrency=1, **{**QUICK, "timeout_seconds": 60})
        first = asyncio.create_task(engine.generate(chat()))
        await server.received.wait()
        with pytest.raises(EndpointError, match="deadline"):
            await engine.generate(Request((), (), Sampling(), timeout_seconds=0.05))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await engine.generate(chat())).text == "fine"  # the cancelled request gave its place back
        await engine.close()


async def test_an_unreachable_server_is_an_error_after_retries():
    async with FaultServer() as server:
        url = server.url
    engine = OpenAIEngine(url, "tiny", attempts=3, **QUICK)
    with pytest.raises(EndpointError, match=r"cannot connect \(Connection refused\).*3 attempts") as caught:
        await engine.generate(chat())
    await engine.close()
    assert caught.value.cause == "connection"
    assert engine.faults == {"connection": 3}


async def test_closing_ends_requests_under_way_and_refuses_later_ones():
    async with FaultServer(script=["hang"]) as server:
        engine = OpenAIEngine(server.url, server.model, **{**QUICK, "timeout_seconds": 60})
        under_way = asyncio.create_task(engine.generate(chat()))
        await server.received.wait()
        await engine.close()
        with pytest.raises(EngineError):
            await under_way
        with pytest.raises(EngineError, match="closed"):
            await engine.generate(chat())
    assert len(server.requests) == 1


def test_an_engine_in_a_second_event_loop_says_so():
    engine = OpenAIEngine("http://127.0.0.1:9", "tiny", attempts=1, **QUICK)

    async def once(*, last: bool) -> str:
        with pytest.raises(EngineError) as caught:
            await engine.generate(chat())
        if last:
            await engine.close()
        return str(caught.value)

    assert "connect" in asyncio.run(once(last=False))
    assert "another event loop" in asyncio.run(once(last=True))


async def test_fields_that_a_server_refuses_are_left_out_from_then_on(caplog):
    refused = {"return_token_ids", "top_k", "min_p", "repetition_penalty"}
    async with FaultServer(refuses=refused) as server:
        engine = OpenAIEngine(server.url, server.model, **QUICK)
        with caplog.at_level(logging.WARNING):
            ends = await asyncio.gather(*[engine.generate(chat()) for _ in range(8)])
        await engine.generate(chat())
        await engine.close()
    assert [end.text for end in ends] == ["fine"] * 8
    assert ends[0].token_ids is None
    assert not refused & set(server.requests[-1])
    assert server.requests[-1]["logprobs"] is True
    assert [record.message.partition("rejects ")[2] for record in caplog.records if "rejects" in record.message] == [
        "min_p, repetition_penalty, return_token_ids, top_k: no longer sent"
    ]


async def test_token_ids_that_a_token_engine_needs_are_never_given_up():
    async with FaultServer(refuses={"return_token_ids"}) as server:
        engine = OpenAIEngine(server.url, server.model, mode="completions", **QUICK)
        with pytest.raises(EngineError, match="return_token_ids"):
            await engine.generate(Request((), (), Sampling(), token_ids=(1, 2)))
        await engine.close()


async def test_auto_is_completions_where_the_server_returns_token_ids_else_chat():
    async with FaultServer() as server:
        engine = OpenAIEngine(server.url, server.model, mode="auto", **QUICK)
        assert engine.tokens is False
        assert await engine.probe() is True
        assert (await engine.generate(Request((), (), Sampling(), token_ids=(1, 2)))).token_ids == (7, 2)
        await engine.close()
    not_found = {"/completions": (404, {"detail": "Not Found"})}
    for other in (FaultServer(refuses={"return_token_ids"}), FaultServer(status=not_found)):
        async with other as server:
            engine = OpenAIEngine(server.url, server.model, mode="auto", **QUICK)
            assert await engine.probe() is False
            assert (await engine.generate(chat())).text == "fine"
            await engine.close()
    async with FaultServer(status={"/completions": (401, {"error": "who are you?"})}) as server:
        engine = OpenAIEngine(server.url, server.model, mode="auto", **QUICK)
        with pytest.raises(EngineError, match="who are you"):
            await engine.probe()
        await engine.close()


async def test_the_key_goes_into_the_header_and_nowhere_else(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-secret-123")
    fixed = {"/chat/completions": (401, {"error": {"message": "Incorrect API key provided: sk-secret-123"}})}
    async with FaultServer(status=fixed) as server:
        url = server.url.replace("http://", "http://user:password@")
        engine = OpenAIEngine(url, "tiny", **{**QUICK, "api_key_env": "SOME_KEY"})
        with pytest.raises(EngineError) as unsendable:
            await engine.generate(Request(({"role": "assistant", "tool_calls": 7},), (), Sampling()))
        with pytest.raises(EngineError) as caught:
            await engine.generate(chat())
        await engine.close()
    assert "password" not in str(unsendable.value)
    assert "secret" not in str(caught.value) + caught.value.detail + repr(engine)
    assert "password" not in str(caught.value)


async def test_an_explicit_key_is_sent_and_none_where_there_is_none(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    async with FaultServer() as server:
        for options in ({"api_key": "given"}, {}, {"api_key_env": None}):
            engine = OpenAIEngine(server.url, server.model, **options)
            await engine.generate(chat())
            await engine.close()
    assert [headers.get("Authorization") for headers in server.headers] == [
        "Bearer given",
        "Bearer from-the-environment",
        None,
    ]


async def test_text_that_cannot_be_sent_is_an_engine_error():
    async with FaultServer() as server:
        engine = OpenAIEngine(server.url, server.model, **QUICK)
        with pytest.raises(EngineError, match="cannot be written as JSON"):
            await engine.generate(chat("half a character: \ud800"))
        await engine.close()
    assert not server.requests


def test_waits_double_up_to_the_cap_and_honour_retry_after():
    def wait(attempt: int, after: float | None = None, draw: float = 0.0) -> float:
        return backoff_seconds(attempt, after, first=1.0, max_wait=8.0, draw=draw)

    assert [wait(attempt) for attempt in (1, 2, 3, 4, 5, 5000)] == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert [wait(attempt, draw=1.0) for attempt in (1, 2, 5)] == [1.0, 2.0, 8.0]
    assert wait(1, after=3.0) == 3.0
    assert wait(1, after=3.0, draw=0.5) == 3.5
    assert wait(1, after=3600.0) == 8.0
    assert wait(4, after=0.0) == 4.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.25"}, 0.25),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "1500", "Retry-After": "2"}, 1.5),
    ],
)
def test_retry_after_is_read_in_every_form(headers, seconds):
    assert retry_after_seconds(headers) == seconds


def test_a_fault_is_counted_under_its_status():
    assert Fault("status", "", retry=True, status=429).label == "http_429"
