"""Any bytes and any JSON: read, or refused with the documented error. Never another exception, never NaN, never slow.

`make fuzz` goes on from here with a coverage-guided fuzzer; what it finds becomes a test here.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewright.core.records import ToolCall, ToolResult, Trajectory, Turn
from rewright.core.storage import encode_line
from rewright.credit import turn_rewards
from rewright.credit.messages import turns_of_messages
from rewright.dialects import get_dialect
from rewright.rendering.transcript import transcript
from rewright.repair.quality import score_group
from support.targets import FILES, TEXTS, VALUES

KEYS = [
    "name", "arguments", "parameters", "function", "id", "task_id", "messages", "role", "content", "tool_calls",
    "prompt", "completion", "turns", "gold", "gold_calls", "calls", "answers", "outputs", "reward", "outcome", "tools",
    "schema",
    "question", "answer", "choices", "message", "logprobs", "token_logprobs", "token_ids", "finish_reason", "usage",
    "function_call", "stop_reason", "stage", "index", "version", "text", "type", "error", "model", "metadata",
]  # fmt: skip
WORDS = [
    "find",
    "assistant",
    "user",
    "tool",
    "stop",
    "{}",
    '{"a": 1}',
    "[",
    "NaN",
    "5",
    "",
    "synth",
    "no_answer",
    "\ud800",
]
NUMBERS = [0, 1, -1, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 10**400, 2**63, 0.5, True, False, None]
ATOMS = st.sampled_from(WORDS) | st.sampled_from(NUMBERS) | st.text(max_size=6) | st.integers() | st.floats()
JSON: st.SearchStrategy[Any] = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=25,
)
PIECES = st.sampled_from(
    ["<tool_call>", "</tool_call>", "<think>", "</think>", "<answer>", "</answer>", "<search>", "</search>", "<code>",
     "</code>", "<python>", "</python>", "<result>", "</result>", "\\boxed{", "}", "{", "\\",
     '{"name": "f", "arguments": {',
     '"', "[", "null", "1e999", "\\ud800", "\n", " ", "maybe", "5", ",", "."]
)  # fmt: skip
TEXT = st.lists(PIECES | st.text(max_size=6), max_size=30).map("".join)


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.mark.parametrize("target", TEXTS)
@settings(max_examples=100, deadline=None)
@given(text=TEXT)
def test_any_text_of_a_model(target: str, text: str) -> None:
    TEXTS[target](text)


@pytest.mark.parametrize("target", VALUES)
@settings(max_examples=100, deadline=None)
@given(value=JSON)
def test_any_value_of_a_server_or_a_log(target: str, value: Any) -> None:
    VALUES[target](value)


@pytest.mark.parametrize("target", FILES)
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200) | st.lists(JSON, max_size=3).map(lines))
def test_any_file(target: str, data: bytes) -> None:
    FILES[target](data)


MEGABYTE = 1_000_000
LONG = [
    "[" * MEGABYTE,
    '{"a":' * (MEGABYTE // 5),
    "<tool_call>" * 100_000,
    '<tool_call>{"name": "f", "arguments": {"a": "b' * 20_000,
    "<code>1</code>" * 70_000,
    "<think>" * 140_000,
    "\\boxed{" * 140_000,
    "{" * MEGABYTE,
    '"' * MEGABYTE,
    "\\" * MEGABYTE,
    " " * MEGABYTE,
    "9" * MEGABYTE,
    "maybe " * 160_000,
    "a,b." * 250_000,
]


@pytest.mark.parametrize("text", LONG, ids=lambda text: text[:12])
def test_a_megabyte_of_anything(text: str) -> None:
    """Whatever takes more than linear time here does not end."""
    for target in TEXTS.values():
        target(text)
    VALUES["arguments"](text)
    for target in (FILES["tasks"], FILES["logs"], FILES["records"]):
        target(text.encode())


@pytest.mark.parametrize("depth", [90, 110, 300, *range(900, 1000, 6), 5000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}")])
def test_what_is_read_can_be_stored_written_and_scored(depth: int, opening: str, closing: str) -> None:
    """However near the limit of recursion its nesting is."""
    arguments = '{"a": ' + opening * depth + "1" + closing * depth + "}"
    for body in (arguments, json.dumps(arguments)):
        text = f'<tool_call>{{"name": "f", "arguments": {body}}}</tool_call>'
        calls = get_dialect("hermes").parse(text).calls
        assert (calls[0].error is None) == (depth < 100)
        turn = Turn(text=text, calls=calls, results=(ToolResult("r"),))
        trajectory = Trajectory(
            id="x", task_id="a", stage="s", index=0, turns=(turn,), stop_reason="answered", answer="1"
        )
        assert msgspec.json.decode(encode_line(trajectory), type=Trajectory) == trajectory
        json.dumps(get_dialect("hermes").assistant_message(text, calls))
        transcript(trajectory)
        score_group([trajectory], [True])
    call = ToolCall("f", {"a": json.loads(opening * depth + "1" + closing * depth)} if depth < 900 else {}, raw=text)
    turn = Turn(text=text, calls=(call, call), results=(ToolResult("r"),))
    score_group([msgspec.structs.replace(trajectory, turns=(turn,))], [True])


def test_a_hundred_thousand_calls() -> None:
    call = {"name": "f", "arguments": {"a": 1}}
    spoken = {"role": "assistant", "content": "", "tool_calls": [{"function": call}] * 100_000}
    (turn,) = turns_of_messages([spoken])
    assert len(turn) == 100_000
    assert turn_rewards([turn], [call] * 3).shape == (1,)
    FILES["logs"](lines([{"messages": [spoken], "gold_calls": [call]}]))
