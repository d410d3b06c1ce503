"""What is sent and how replies are read: the shapes of vLLM, SGLang, llama.cpp, transformers and hosted providers."""

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewright.core.errors import EngineError, InputError
from rewright.core.records import ToolCall
from rewright.engines.base import Request, Sampling
from rewright.engines.model_names import same_model
from rewright.engines.openai import OpenAIEngine
from rewright.engines.replies import read_chat, read_completion
from rewright.engines.reply_parts import CHAT, COMPLETION
from rewright.engines.wire import Conversations, chat_body, messages_to_wire, read_arguments
from rewright.net.bodies import error_detail
from rewright.net.endpoint import Fault
from rewright.net.urls import normalize_base_url
from support.fault_server import FaultServer

LOOKUP = {"type": "function", "function": {"name": "lookup", "arguments": {"name": "Ada"}}}
AGE = {"type": "function", "function": {"name": "age", "arguments": {"of": "Ada"}}}

PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "36"}]


def reply(message: dict | None = None, *, finish: object = "stop", usage: dict | None = None, **choice: object) -> dict:
    choice = {"index": 0, "finish_reason": finish, **choice}
    if message is not None:
        choice["message"] = message
    usage = {"prompt_tokens": 5, "completion_tokens": 2} if usage is None else usage
    return {"model": "tiny", "choices": [choice], "usage": usage}


def chat(message: dict, **options: object) -> object:
    stop = options.pop("stop", ())
    return in_both_forms(CHAT, reply(message, **options), partial(read_chat, model="tiny", stop=stop))


def completion(**options: object) -> object:
    stop = options.pop("stop", ())
    read = partial(read_completion, model="tiny", prompt=(1, 2), stop=stop)
    return in_both_forms(COMPLETION, reply(**options), read)


def in_both_forms(decoder: msgspec.json.Decoder, value: object, read: Callable[[object], object]) -> object:
    """What `read` makes of a reply, which is the same if the reply is decoded to the typed structs."""

    def ending(given: object) -> object:
        try:
            return read(given)
        except Fault as fault:
            return (fault.cause, str(fault), fault.retry)

    try:
        typed = decoder.decode(msgspec.json.encode(value))
    except msgspec.ValidationError:  # not the usual form
        return read(value)
    assert ending(typed) == ending(value)
    return read(typed)


# --- messages ---------------------------------------------------------------------------------------------------------


def test_calls_get_json_arguments_and_ids_and_results_carry_the_same_ids():
    messages = [
        {"role": "user", "content": "How old is Ada?"},
        {"role": "assistant", "content": "", "tool_calls": [LOOKUP, AGE]},
        {"role": "tool", "name": "lookup", "content": "found"},
        {"role": "tool", "name": "age", "content": "36"},
        {"role": "assistant", "content": "once more", "tool_calls": [LOOKUP]},
        {"role": "tool", "name": "lookup", "content": "found again"},
    ]
    wire = messages_to_wire(messages)
    assert wire[1]["tool_calls"][0] == {
        "id": "call00000", "type": "function", "function": {"name": "lookup", "arguments": '{"name": "Ada"}'},
    }  # fmt: skip
    assert [message.get("tool_call_id") for message in wire] == [
        None,
        None,
        "call00000",
        "call00001",
        None,
        "call00002",
    ]


def test_a_result_without_a_call_follows_as_a_user_message():
    # A malformed call stands in the turn's text and not among its tool_calls, but it has a result.
    messages = [
        {"role": "assistant", "content": "<tool_call>{bad</tool_call>", "tool_calls": [AGE]},
        {"role": "tool", "name": "unknown", "content": "malformed call"},
        {"role": "tool", "name": "age", "content": "36"},
    ]
    wire = messages_to_wire(messages)
    assert wire[1:] == [
        {"role": "tool", "name": "age", "tool_call_id": "call00000", "content": "36"},
        {"role": "user", "content": "<tool_response>\nmalformed call\n</tool_response>"},
    ]
    only_malformed = [{"role": "assistant", "content": "{bad"}, {"role": "tool", "name": "unknown", "content": "no"}]
    assert messages_to_wire(only_malformed)[1]["role"] == "user"


@pytest.mark.parametrize("arguments", ['{"name": ', "[1]", "NaN", '"\\ud800"', "[" * 100_000])
def test_malformed_arguments_are_sent_as_a_json_object(arguments):
    call = {"type": "function", "function": {"name": "lookup", "arguments": arguments}}
    [message] = messages_to_wire([{"role": "assistant", "content": "", "tool_calls": [call]}])
    sent = json.loads(message["tool_calls"][0]["function"]["arguments"])
    assert sent == {"malformed_arguments": arguments}


def test_messages_are_not_changed_in_place():
    messages = [{"role": "assistant", "content": None, "tool_calls": [LOOKUP]}]
    before = json.dumps(messages)
    assert messages_to_wire(messages)[0]["content"] is None
    assert json.dumps(messages) == before


def test_the_body_names_every_sampling_value_that_a_server_would_else_choose():
    request = Request(({"role": "user", "content": "hi"},), (), Sampling(stop=("</search>",), seed=4, max_tokens=9))
    body = chat_body(request, "tiny")
    assert body == {
        "model": "tiny", "messages": [{"role": "user", "content": "hi"}],
        "temperature": 1.0, "top_p": 1.0, "max_tokens": 9, "stop": ["</search>"], "seed": 4,
    }  # fmt: skip


def test_a_turn_that_is_appended_is_sent_as_if_everything_were_written_anew():
    """Calls without ids, a result that has none, several results, a follow-up, other tools from a turn on."""

    def said(*names: str) -> dict:
        calls = [{"type": "function", "function": {"name": name, "arguments": {"ä": [1, 2.5, None]}}} for name in names]
        return {"role": "assistant", "content": "so", **({"tool_calls": calls} if calls else {})}

    def result(name: str) -> dict:
        return {"role": "tool", "name": name, "content": f"of {name}"}

    tool = {"type": "function", "function": {"name": "a", "parameters": {}}}
    parts = [
        [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
        [said("a", "b"), result("b"), result("a")],
        [said("a"), result("a"), result("unknown")],
        [result("a")],  # more results of the same turn
        [said(), {"role": "user", "content": "and?"}],
        [said("c"), result("c")],
    ]
    conversations, messages = Conversations(), ()
    for number, part in enumerate(parts):
        messages = (*messages, *part)
        tools = (tool,) * (1 + number // 4)
        request = Request(messages, tools, Sampling(), session="one")
        bodies = [chat_body(request, "tiny", kept) for kept in (conversations, None)]
        assert msgspec.json.encode(bodies[0]) == msgspec.json.encode(bodies[1])
    other = Request(({"role": "user", "content": "else"}, *messages[2:]), (), Sampling(), session="one")
    bodies = [chat_body(other, "tiny", kept) for kept in (conversations, None)]
    assert msgspec.json.encode(bodies[0]) == msgspec.json.encode(bodies[1])


# --- calls ------------------------------------------------------------------------------------------------------------


def test_calls_are_read_and_malformed_ones_kept_with_their_error():
    def call(arguments: object, name: object = "f") -> dict:
        return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}

    given_calls = [
        call('{"a": 1}'),
        call({"a": 1}),
        call(""),
        call(None),
        call('{"a": '),
        call('"Ada"'),
        call("{}", None),
    ]
    calls = chat({"content": None, "tool_calls": given_calls}, finish="tool_calls").calls
    assert calls[:4] == (
        ToolCall("f", {"a": 1}, '{"a": 1}'),
        ToolCall("f", {"a": 1}, '{"a": 1}'),
        ToolCall("f", {}, ""),
        ToolCall("f", {}, "{}"),
    )
    assert (calls[4].raw, calls[4].arguments) == ('{"a": ', {})
    assert calls[4].error.startswith("malformed call: arguments are not JSON")
    assert calls[5] == ToolCall("f", {}, '"Ada"', "malformed call: arguments must be a JSON object, not str")
    assert calls[6] == ToolCall("", {}, "{}", "malformed call: the call has no name")


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_arguments_of_any_kind_are_read_without_raising_and_can_be_stored(value):
    arguments, error = read_arguments(value)
    assert error is None or arguments == {}
    msgspec.json.encode(ToolCall("f", arguments, "", error))


@pytest.mark.parametrize(
    "text", ['{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', f'{{"a": {"9" * 5000}}}', "[" * 10**6]
)
def test_arguments_that_could_not_be_stored_are_an_error(text):
    arguments, error = read_arguments(text)
    assert (arguments, error is None) == ({}, False)


# --- replies ----------------------------------------------------------------------------------------------------------


def test_no_calls_is_none_so_that_the_text_is_read_for_calls():
    assert chat({"content": "<tool_call>{}</tool_call>"}).calls is None
    assert chat({"content": "x", "tool_calls": []}).calls is None


@pytest.mark.parametrize(
    ("message", "finish", "text"),
    [
        ({"content": "36", "reasoning_content": "hm"}, "stop", "<think>hm</think>36"),
        ({"content": "36", "reasoning": "hm"}, "stop", "<think>hm</think>36"),
        ({"content": None, "reasoning": "hm"}, "length", "<think>hm"),
        ({"content": None, "reasoning": "hm"}, "stop", "<think>hm</think>"),
        ({"content": "36", "reasoning_content": None}, "stop", "36"),
        ({"content": None, "refusal": "I won't"}, "stop", "I won't"),
        ({"content": PARTS}, "stop", "<think>hm</think>36"),
    ],
)
def test_reasoning_is_kept_in_think_tags(message, finish, text):
    assert chat(message, finish=finish).text == text


@pytest.mark.parametrize(
    ("finish", "extra", "stop", "expected"),
    [
        ("stop", {}, (), ("a b", "end")),
        ("tool_calls", {}, (), ("a b", "end")),
        ("eos_token", {}, (), ("a b", "end")),
        ("length", {}, (), ("a b", "length")),
        ("stop", {"stop_reason": 2}, ("c",), ("a b", "end")),  # vLLM: a stop token
        ("stop", {"stop_reason": "c"}, ("c",), ("a bc", "stop")),  # vLLM: a stop string, cut off
        ("stop", {"matched_stop": "c"}, ("c",), ("a bc", "stop")),  # SGLang
        ("stop", {"stop_reason": "b"}, ("b",), ("a b", "stop")),  # left in
        ("stop", {}, ("b",), ("a b", "stop")),  # left in, not reported
        ("stop_sequence", {}, ("c",), ("a b", "stop")),
    ],
)
def test_how_a_generation_ended(finish, extra, stop, expected):
    generation = chat({"content": "a b"}, finish=finish, stop=stop, **extra)
    assert (generation.text, generation.stop) == expected


def test_a_thought_that_a_stop_string_interrupted_is_not_closed():
    message = {"content": None, "reasoning": "a <search>b"}
    generation = chat(message, finish="stop", stop_reason="</search>", stop=("</search>",))
    assert (generation.text, generation.stop) == ("<think>a <search>b</search>", "stop")


@pytest.mark.parametrize(
    ("bad", "cause", "retry"),
    [
        ([], "reply", True),
        ({}, "reply", True),
        ({"choices": []}, "reply", True),
        ({"choices": ["x"]}, "reply", True),
        ({"choices": [{"finish_reason": "stop"}]}, "reply", True),
        ({"error": {"message": "overloaded", "code": 529}}, "reply", True),
        ({"error": {"message": "too long", "code": 400}}, "reply", False),
        ({"error": "broken"}, "reply", True),
        ({"model": "big", **reply({"content": "x"}), "model": "big"}, "model", True),  # noqa: F601
        (reply({"content": "x"}, finish=None), "reply", True),
        (reply({"content": "x"}, finish="abort"), "reply", True),
        (reply({"content": "x"}, finish="novel"), "reply", False),
        (reply({"content": ""}, finish="content_filter"), "filtered", False),
        (reply({"content": 7}), "reply", True),
        (reply({"content": ""}, usage={"completion_tokens": 0}), "reply", True),
        (reply({"content": "x", "tool_calls": {}} | {"tool_calls": {"a": 1}}), "reply", True),
    ],
)
def test_a_reply_that_is_no_generation_is_a_fault_and_never_an_empty_text(bad, cause, retry):
    with pytest.raises(Fault) as caught:
        read_chat(bad, model="tiny")
    assert (caught.value.cause, caught.value.retry) == (cause, retry)


def test_usage_that_is_missing_is_none_and_not_zero():
    generation = chat({"content": "x"}, usage={"prompt_tokens": None})
    assert (generation.prompt_tokens, generation.completion_tokens) == (None, None)


def test_token_ids_and_log_probs_in_the_forms_of_the_servers():
    vllm = completion(
        text="hi", token_ids=[7, 2], logprobs={"tokens": ["hi", "<end>"], "token_logprobs": [-0.5, -0.25]}
    )
    assert (vllm.token_ids, vllm.log_probs, vllm.completion_tokens) == ((7, 2), (-0.5, -0.25), 2)
    llama_cpp = completion(text="hi", logprobs={"content": [{"id": 7, "token": "hi", "logprob": -0.5}]})
    assert (llama_cpp.token_ids, llama_cpp.log_probs) == ((7,), (-0.5,))
    named = completion(text="hi", logprobs={"tokens": ["token_id:7", "token_id:2"], "token_logprobs": [-0.5, 0]})
    assert (named.token_ids, named.log_probs) == ((7, 2), (-0.5, 0.0))
    of_chat = chat({"content": "hi"}, token_ids=[7, 2], logprobs={"content": [{"logprob": -0.5}, {"logprob": -0.25}]})
    assert (of_chat.token_ids, of_chat.log_probs) == ((7, 2), (-0.5, -0.25))


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"logprobs": {"tokens": ["hi"], "token_logprobs": [-0.5]}}, "no token ids"),
        ({"token_ids": [7, 2]}, "no log-probs for 2 tokens"),
        ({"token_ids": [7, 2], "logprobs": {"token_logprobs": [-0.5]}}, "1 log-probs for 2 tokens"),
        ({"token_ids": [7, 2], "logprobs": {"token_logprobs": [-0.5, None]}}, "no log-probs for 2 tokens"),
        ({"token_ids": [7, 2], "prompt_token_ids": [1, 3]}, "differ from the 2 sent"),
        ({"token_ids": []}, "generated no token"),
    ],
)
def test_a_token_engine_takes_no_reply_whose_tokens_are_missing_or_do_not_match(choice, words):
    with pytest.raises(Fault, match=words):
        completion(text="hi", **choice)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["message", "text", "finish_reason", "logprobs", "token_ids", "stop_reason", "prompt_token_ids"]
        ),
        json_values
        | st.sampled_from(
            ["stop", "length", {"content": "x"}, {"tool_calls": [1]}, {"tokens": 1, "token_logprobs": 2}]
        ),
    ),
    json_values,
)
def test_replies_of_any_shape_are_a_generation_or_a_fault(choice, usage):
    for decoder, read in (
        (CHAT, partial(read_chat, model="tiny", stop=("a",))),
        (COMPLETION, partial(read_completion, model="tiny", prompt=(1,), stop=("a",))),
    ):
        with suppress(Fault):
            in_both_forms(decoder, {"choices": [choice], "usage": usage}, read)


def test_the_usual_replies_are_decoded_to_typed_structs():
    call = {"id": "c", "type": "function", "function": {"name": "age", "arguments": '{"of": "Ada"}'}}
    usual = [
        {"role": "assistant", "content": "x", "refusal": None, "annotations": None, "audio": None},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"},
    ]
    for message in usual:
        CHAT.decode(msgspec.json.encode(reply(message, stop_reason=None, token_ids=None, logprobs=None)))
    tokens = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5}], "text_offset": [0]}
    COMPLETION.decode(msgspec.json.encode(reply(text="a", token_ids=[3], prompt_token_ids=[1], logprobs=tokens)))


@pytest.mark.parametrize(
    ("asked", "answered", "same"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4", "gpt-4o", False),
        ("Qwen/Qwen3-8B", "qwen3-8b", True),
        ("Qwen3-8B", "/models/Qwen3-8B", True),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B@main", True),
        ("a/model", "b/model", False),
        ("llama3", "llama3:latest", True),
        ("mistral-large-latest", "mistral-large-2411", True),
        ("Qwen3-8B", "Qwen3-14B", False),
    ],
)
def test_which_names_are_the_same_model(asked, answered, same):
    assert same_model(asked, answered) is same


# --- the engine's own choices -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meaning", "temperature", "top_p", "kept"),
    [
        ("raw", 1.0, 1.0, True),
        ("raw", 1.0, 0.9, True),
        ("raw", 0.7, 1.0, False),
        ("raw", 0.0, 1.0, False),
        ("processed", 0.7, 1.0, True),
        ("processed", 0.7, 0.9, False),
        ("off", 1.0, 1.0, False),
    ],
)
@pytest.mark.parametrize("mode", ["chat", "completions"])
async def test_log_probs_are_kept_only_where_they_are_those_of_the_sampling_temperature(
    mode, meaning, temperature, top_p, kept
):
    async with FaultServer() as server:
        engine = OpenAIEngine(server.url, server.model, mode=mode, log_probs=meaning, api_key_env=None)
        generation = await engine.generate(
            Request((), (), Sampling(temperature=temperature, top_p=top_p), token_ids=(1, 2))
        )
        await engine.close()
    assert generation.token_ids == (7, 2)
    assert generation.log_probs == ((-0.5, -0.25) if kept else None)


async def test_extra_body_wins_and_none_takes_a_field_out():
    async with FaultServer() as server:
        extra = {"top_k": 20, "min_p": None, "chat_template_kwargs": {"enable_thinking": False}}
        engine = OpenAIEngine(server.url, server.model, extra_body=extra, api_key_env=None)
        await engine.generate(Request(({"role": "user", "content": "hi"},), (), Sampling()))
        await engine.close()
    [sent] = server.requests
    assert (sent["top_k"], sent["chat_template_kwargs"]) == (20, {"enable_thinking": False})
    assert "min_p" not in sent


async def test_max_completion_tokens_is_used_where_the_server_asks_for_it():
    class Picky(FaultServer):
        async def _handle(self, request):
            if "max_tokens" in await request.json():
                self.status = {
                    "/chat/completions": (400, {"error": {"message": "Use 'max_completion_tokens' instead."}})
                }
            else:
                self.status = {}
            return await super()._handle(request)

    async with Picky() as server:
        engine = OpenAIEngine(server.url, server.model, api_key_env=None)
        await engine.generate(Request(({"role": "user", "content": "hi"},), (), Sampling(max_tokens=9)))
        await engine.close()
    assert server.requests[-1]["max_completion_tokens"] == 9
    assert "max_tokens" not in server.requests[-1]


async def test_check_model_false_accepts_any_name():
    async with FaultServer(script=["wrong_model"]) as server:
        engine = OpenAIEngine(server.url, server.model, check_model=False, api_key_env=None)
        assert (await engine.generate(Request((), (), Sampling()))).text == "fine"
        await engine.close()


async def test_completions_without_token_ids_is_an_engine_error():
    engine = OpenAIEngine("http://127.0.0.1:9", "tiny", mode="completions", api_key_env=None)
    with pytest.raises(EngineError, match="needs the token ids"):
        await engine.generate(Request((), (), Sampling()))
    await engine.close()


async def test_messages_of_another_shape_are_an_engine_error():
    engine = OpenAIEngine("http://127.0.0.1:9", "tiny", api_key_env=None)
    for message in ({"role": "assistant", "tool_calls": 7}, {"role": "assistant", "tool_calls": [7]}):
        with pytest.raises(EngineError, match="the messages cannot be encoded in a request"):
            await engine.generate(Request((message,), (), Sampling()))
    await engine.close()


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("https://host/api/v1/", "https://host/api/v1"),
        (" https://host/openai ", "https://host/openai"),
    ],
)
def test_base_url(given_url, url):
    assert normalize_base_url(given_url) == url


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base_url": "localhost:8000"}, "expected http://HOST:PORT/v1"),
        ({"base_url": "http://host:port/v1"}, "is not a URL"),
        ({"base_url": "http://host/v1/chat/completions"}, "expected the part before /chat/completions"),
        ({"base_url": "http://host/v1?key=1"}, "expected no '?'"),
        ({"model": ""}, "model is empty"),
        ({"mode": "stream"}, "expected chat, completions or auto"),
        ({"log_probs": "yes"}, "expected raw, processed or off"),
        ({"concurrency": 0}, "concurrency is 0: expected at least 1"),
        ({"attempts": 0}, "attempts is 0: expected at least 1"),
        ({"timeout_seconds": 0}, "timeout_seconds is 0: expected a number above 0"),
        ({"api_key": "sk-1\nsk-2"}, "contains an invalid character"),
    ],
)
def test_a_mistake_in_the_options_is_one_clear_line(options, words):
    with pytest.raises(InputError, match=words.replace("?", "[?]").replace("(", "[(]")) as caught:
        OpenAIEngine(**{"base_url": "http://127.0.0.1:9", "model": "tiny", **options})
    assert "\n" not in str(caught.value)


def test_error_bodies_of_the_servers_are_read():
    assert error_detail(b'{"error": {"message": "no", "code": 404}}') == "no"
    assert error_detail(b'{"error": "no"}') == "no"
    assert error_detail(b'{"detail": "no"}') == "no"
    assert error_detail(b'{"detail": [{"msg": "no"}]}') == '{"detail": [{"msg": "no"}]}'
    assert error_detail(b"Internal Server Error") == "Internal Server Error"
    assert error_detail(b"") == ""


def test_the_engine_is_imported_without_torch_and_without_aiohttp():
    import subprocess
    import sys

    code = "import sys, rewright.engines.openai; print(sorted({'torch', 'aiohttp', 'tenacity'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert shown.stdout.strip() == "[]"
