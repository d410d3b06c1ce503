"""The engine against a real server: `transformers serve` with a real (tiny, scripted) model, on loopback."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import version

import pytest

from rewright.core.errors import EngineError
from rewright.core.records import ToolCall
from rewright.engines.base import Request, Sampling
from rewright.engines.openai import OpenAIEngine
from rewright.pipeline.run_directory import Run
from support import in_process
from support.scripted_model import ANSWER, REMARK, THOUGHT, make_scripted_model

LOOKUP = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "The record of a person.",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}


WIDE = {
    "type": "function",
    "function": {
        "name": "lookup",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}, "fields": {"type": "array"}}},
    },
}


newer = pytest.mark.skipif(
    tuple(map(int, version("transformers").split(".")[:2])) < (5, 13),
    reason="transformers serve reads calls and thoughts out of the text from 5.13 on",
)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """(url, model) of a server of our own: it picks a free port and says which one in its log."""
    folder = tmp_path_factory.mktemp("served") / "scripted"
    make_scripted_model(folder)
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()"]
    options = ["serve", str(folder), "--host", "127.0.0.1", "--port", "0", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    log: list[str] = []
    listening, urls = threading.Event(), list[str]()

    def follow() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            log.append(line)
            if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
                urls.append(found[1])
                listening.set()
        listening.set()  # the process has ended

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    try:
        listening.wait(timeout=180)
        assert urls, "transformers serve did not start:\n" + "".join(log)
        yield urls[0], str(folder)
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(timeout=15)


@pytest.fixture
async def engine(server):
    url, model = server
    engine = OpenAIEngine(url, model, api_key_env=None, attempts=2, first_wait_seconds=0.01)
    yield engine
    await engine.close()


def ask(*messages: dict, tools: tuple = (LOOKUP,), **sampling: object) -> Request:
    return Request(messages, tools, Sampling(**sampling), timeout_seconds=30)


@newer
async def test_a_tool_call_its_result_and_the_answer(engine):
    question = {"role": "user", "content": "How old is Ada?"}
    first = await engine.generate(ask(question, seed=3))
    assert first.calls == (
        ToolCall("lookup", {"name": "Ada", "fields": ["age"]}, raw='{"name": "Ada", "fields": ["age"]}'),
    )
    assert (first.text, first.stop) == ("", "end")
    assert first.prompt_tokens > 100
    assert first.completion_tokens == 4
    # This server returns neither: not computed is None, never an empty or a zero value.
    assert first.token_ids is None
    assert first.log_probs is None

    call = first.calls[0]
    turn = {
        "role": "assistant",
        "content": first.text,
        "tool_calls": [{"type": "function", "function": {"name": call.name, "arguments": call.arguments}}],
    }
    result = {"role": "tool", "name": "lookup", "content": '{"age": 36}'}
    second = await engine.generate(ask(question, turn, result, temperature=0.0))
    assert (second.text, second.calls, second.stop) == (ANSWER, None, "end")
    assert second.prompt_tokens > first.prompt_tokens
    # The server refuses fields that it does not know; after the first refusal it was not asked again.
    assert engine.faults == {"http_422": 1}


@newer
async def test_reasoning_is_kept_as_text_in_think_tags(engine):
    generation = await engine.generate(ask({"role": "user", "content": "please think"}, max_tokens=40))
    assert generation.text == f"<think>{THOUGHT.strip()}</think>{ANSWER}"


@newer
def test_this_server_drops_the_text_beside_calls_which_a_run_says_once(server, tmp_path):
    url, model = server
    source = "def lookup(name, fields):\n    return 36\n"
    task = {"messages": [{"role": "user", "content": "How old is Ada? Think aloud."}], "gold": {"answers": ["36"]}}
    rows = [{"id": f"t{number}", "tools": [{"schema": WIDE, "source": source}], **task} for number in range(2)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.yaml").write_text(
        "stages: [synth, judge]\nsandbox: process\nsynth: {n: 1, temperature: 0}\ntasks: t.jsonl\n"
        f"model: {{path: {model}, engine: openai, base_url: '{url}/v1', mode: chat}}\n"
    )
    said = in_process.rewright(tmp_path, "run", "r.yaml", "--run", "run")
    assert said.code == 0, said.errors
    (line,) = [line for line in said.errors.splitlines() if line.startswith("warning: ")]
    assert "drops the text that the model wrote beside its calls" in line
    first = next(iter(Run(tmp_path / "run").trajectories)).turns[0]
    assert first.text.startswith("".join(REMARK).strip())
    assert [verdict.correct for verdict in Run(tmp_path / "run").verdicts] == [True, True]


async def test_stop_reasons(engine):
    question = {"role": "user", "content": "How old is Ada?"}
    assert (await engine.generate(ask(question, tools=(), max_tokens=1))).stop == "length"
    stopped = await engine.generate(ask(question, tools=(), stop=("</answer>",)))
    assert (stopped.text, stopped.stop) == (ANSWER, "stop")


async def test_malformed_arguments_can_be_sent_back(engine):
    function = {"name": "lookup", "arguments": '{"name": '}
    turn = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    result = {"role": "tool", "name": "lookup", "content": "malformed call: Expecting value"}
    generation = await engine.generate(ask({"role": "user", "content": "hello"}, turn, result))
    assert generation.text == ANSWER


async def test_what_the_server_cannot_do_is_an_engine_error(engine, server):
    # A call that is not JSON breaks the server's own parser: it answers 500 and drops the connection, and now and then
    # the connection is gone before the answer is read. Retried either way, then an error that says so.
    with pytest.raises(EngineError, match=r"(HTTP 500|reset by peer|disconnected).*2 attempts"):
        await engine.generate(ask({"role": "user", "content": "broken"}))
    assert engine.faults["http_500"] + engine.faults["connection"] == 2
    url, model = server
    other = OpenAIEngine(url, model + "-other", api_key_env=None)
    with pytest.raises(EngineError, match=r"HTTP 400: Server is pinned to .* \(1 attempt"):
        await other.generate(ask({"role": "user", "content": "hello"}))
    await other.close()
    # Its completions endpoint takes text only: `auto` finds out and stays a message engine.
    auto = OpenAIEngine(url, model, api_key_env=None, mode="auto")
    assert await auto.probe() is False
    assert (await auto.generate(ask({"role": "user", "content": "hello"}, tools=()))).text == ANSWER
    await auto.close()
