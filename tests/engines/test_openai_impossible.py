"""Replies that cannot be: more than was asked for, counts that count nothing. An error of the engine, never stored."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from rewright.cli import main as cli
from rewright.engines.base import Generation, Request, Sampling
from rewright.engines.openai import OpenAIEngine
from rewright.net.endpoint import EndpointError
from rewright.pipeline.run_directory import Run
from support.fault_server import FaultServer
from support.static_page import page_data

TOKENS = 8
FINE: dict[str, Any] = {"prompt_tokens": 3, "completion_tokens": 2}


def said(content: Any = "fine", **message: Any) -> dict[str, Any]:
    return {"finish_reason": "stop", "message": {"content": content, **message}}


def called(arguments: Any, times: int = 1) -> dict[str, Any]:
    return said(None, tool_calls=[{"function": {"name": "f", "arguments": arguments}}] * times)


def written(count: int, log_probs: list[Any] | None = None, ids: list[Any] | None = None) -> dict[str, Any]:
    numbers = [-0.5] * count if log_probs is None else log_probs
    return {
        "finish_reason": "stop", "text": "fine", "token_ids": [7] * count if ids is None else ids,
        "logprobs": {"tokens": ["x"] * len(numbers), "token_logprobs": numbers},
    }  # fmt: skip


async def asked(choice: dict[str, Any], **options: Any) -> Generation:
    async with FaultServer(reply=lambda _: choice) as server:
        engine = OpenAIEngine(server.url, server.model, api_key_env=None, first_wait_seconds=0.001, **options)
        request = Request(({"role": "user", "content": "hi"},), (), Sampling(max_tokens=TOKENS), token_ids=(1, 2))
        try:
            return await engine.generate(request)
        finally:
            await engine.close()


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (said("x" * 10_000), "10000 characters for 8 requested tokens"),
        (said("", reasoning_content="x" * 10_000), "characters for 8 requested tokens"),
        (called("x" * 10_000), "10001 characters for 8 requested tokens"),
        (called({"a": "x" * 10_000}), "characters for 8 requested tokens"),
        (called("", 2000), "2000 calls for 8 requested tokens"),
        ({**said(), "stop_reason": "x" * 10_000}, "characters for 8 requested tokens"),
        ({**said(), "usage": {**FINE, "prompt_tokens": 10**30}}, "usage.prompt_tokens is 1"),
        ({**said(), "usage": {**FINE, "prompt_tokens": 10**9}}, "usage.prompt_tokens is 1000000000, expected a whole"),
        ({**said(), "usage": {**FINE, "prompt_tokens": -1}}, "usage.prompt_tokens is -1, expected a whole number"),
        ({**said(), "usage": {**FINE, "completion_tokens": 2000}}, "usage.completion_tokens is 2000"),
        ({**said(), "usage": {**FINE, "completion_tokens": True}}, "usage.completion_tokens is True"),
        ({**said(), "usage": {**FINE, "completion_tokens": 2.5}}, "usage.completion_tokens is 2.5"),
        ({**said(), "usage": {**FINE, "completion_tokens": "2"}}, "usage.completion_tokens is '2'"),
        ({**said(), "usage": [3, 2]}, "usage is a JSON list, expected an object"),
        ({**said(), "token_ids": [7] * 2000}, "2000 token ids for 8 requested tokens"),
        ({**said(), "logprobs": {"content": [{"logprob": -1.0}] * 2000}}, "2000 log-probs for 8 requested tokens"),
        (
            {**said(), "token_ids": [7, 8], "logprobs": {"content": [{"logprob": -1.0}]}},
            "1 log-probs for 2 token ids",
        ),
    ],
)
async def test_a_chat_reply_that_cannot_be(choice: dict[str, Any], words: str) -> None:
    with pytest.raises(EndpointError) as caught:
        await asked(choice)
    assert (caught.value.cause, caught.value.attempts) == ("impossible", 1)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("choice", "cause", "words"),
    [
        (written(10), "impossible", "10 token ids for 8 requested tokens"),
        ({**written(2), "text": "x" * 10_000}, "impossible", "10000 characters for 8 requested tokens"),
        ({**written(2), "usage": {**FINE, "completion_tokens": -2}}, "impossible", "usage.completion_tokens is -2"),
        (written(2, ids=[7, 10**18]), "tokens", "no token ids"),
        (written(2, log_probs=[-0.5, 3.0]), "tokens", "no log-probs for 2 tokens"),
        (written(2, log_probs=[-0.5] * 3), "tokens", "3 log-probs for 2 tokens"),
    ],
)
async def test_a_completion_that_cannot_be(choice: dict[str, Any], cause: str, words: str) -> None:
    with pytest.raises(EndpointError) as caught:
        await asked(choice, mode="completions")
    assert (caught.value.cause, caught.value.attempts) == (cause, 1)
    assert words in str(caught.value)


async def test_a_body_that_no_reply_can_have_is_not_read_to_its_end() -> None:
    with pytest.raises(EndpointError, match="the reply is larger than 16842752 bytes") as caught:
        await asked(said("x" * 20_000_000))
    assert (caught.value.cause, caught.value.attempts) == ("body", 1)


async def test_what_servers_really_do_is_taken() -> None:
    spaces = await asked({**said(" " * 128 * TOKENS), "usage": {**FINE, "completion_tokens": TOKENS}})
    assert (len(spaces.text), spaces.completion_tokens) == (128 * TOKENS, TOKENS)
    assert (await asked({**said(), "usage": {**FINE, "completion_tokens": 3 * TOKENS}})).completion_tokens == 24
    assert (await asked({**said(), "usage": None})).prompt_tokens is None
    silent = await asked({**said(), "usage": {"prompt_tokens": 0, "completion_tokens": 0}})
    assert (silent.prompt_tokens, silent.completion_tokens) == (None, None)  # not counted, and so not free
    assert len((await asked(written(TOKENS + 1), mode="completions")).token_ids or ()) == TOKENS + 1
    assert (await asked(said("x" * 10_000), extra_body={"max_tokens": 10_000})).text == "x" * 10_000
    assert (await asked(said("x" * 10_000), extra_body={"max_tokens": None})).text == "x" * 10_000


async def test_a_run_tells_what_broke_from_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tasks = [
        {"id": name, "messages": [{"role": "user", "content": name}], "gold": {"answers": ["7"]}}
        for name in ("right", "wrong", "priced", "endless")
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        match body["messages"][-1]["content"]:
            case "right":
                return said("<answer>7</answer>")
            case "wrong":
                return said("<answer>8</answer>")
            case "priced":
                return {**said("<answer>7</answer>"), "usage": {**FINE, "prompt_tokens": 10**30}}
        return said("x" * 10**6)

    async with FaultServer(reply=reply) as server:
        model = {"path": "tiny", "engine": "openai", "base_url": server.url, "mode": "chat", "attempts": 1}
        section = {"path": "t.jsonl", "format": "rewright"}
        recipe = {
            "stages": ["eval_base", "synth", "judge", "score"], "model": model, "tasks": section, "synth": {"n": 1},
            "eval": {"tasks": section}, "prices": {"tiny": {"input": 1.0, "output": 1.0}},
        }  # fmt: skip
        (tmp_path / "r.yaml").write_text(json.dumps(recipe))
        await asyncio.to_thread(cli.app, ["run", "r.yaml", "--json"], standalone_mode=False)
    captured = capsys.readouterr()
    printed = captured.err
    assert "wrong 1, broken 2, " in printed
    assert "infrastructure failures (not counted as wrong): engine (impossible) 2" in printed
    assert "2 of 4 had an infrastructure failure (engine (impossible) 2) and count as not solved" in printed
    found = json.loads(captured.out)
    assert (found["counts"]["candidates"], found["counts"]["wrong"], found["counts"]["broken"]) == (4, 1, 2)
    assert found["costs"]["synth"]["prompt_tokens"] == 2 * FINE["prompt_tokens"]
    run = Run.open(Path("runs/run"))
    broken = {one.task_id: one.failure for one in run.trajectories if one.failure is not None}
    assert {name: (one.kind, one.cause) for name, one in broken.items()} == dict.fromkeys(
        ("priced", "endless"), ("engine", "impossible")
    )
    assert all(not one.turns for one in run.trajectories if one.failure is not None)
    assert cli.app(["view", "runs/run", "--static", "page.html"], standalone_mode=False) is None
    (page,) = page_data(Path("page.html"))["runs"]
    assert page["summary"]["report"]["broke"] == {"engine (impossible)": 2}
    assert [row["selection"] for row in page["rows"] if row["stage"] == "synth"].count("broken") == 2
