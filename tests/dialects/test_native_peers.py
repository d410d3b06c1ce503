"""Calls in the formats of model families, read by the package `renderers` (of prime-rl) too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewright.core.records import ToolCall
from rewright.dialects import get_dialect
from rewright.dialects.base import read_turn
from rewright.dialects.native import NativeDialect
from rewright.dialects.typed import schemas_of_values
from support.peers import needs_peers, run
from support.small_tokenizers import chat_tokenizer

VALUES: tuple[Any, ...] = (
    'say "hi"', "it's", "a\nb", "{}", '{"a": 1}', "5", "true", "null", "ünï 😀", "a\\b", ": ,;", 3, -4, 1.5, 0.0,
    True, False, [], {}, [1, "x", [None, True]], {"k": {"z": "q"}},
)  # fmt: skip
MARKS = {
    "qwen-xml": ("<tool_call>", "</tool_call>", "<think>", "</think>"),
    "glm": ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<think>",
            "</think>", "<|endoftext|>", "<|user|>", "<|observation|>"),
    "deepseek-v3": ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>",
                    "<｜tool▁sep｜>"),
    "llama": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "harmony": ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>", "<|constrain|>"),
}  # fmt: skip
BEFORE = {
    "qwen-xml": "<think>\nhm\n</think>\n\nSure.",
    "glm": "<think>hm</think>\nSure.",
    "deepseek-v3": "Sure.",
    "llama": "",
    "harmony": "<|channel|>analysis<|message|>hm<|end|><|start|>assistant",
}


def dialect_of(name: str) -> NativeDialect:
    dialect = get_dialect(name)
    assert isinstance(dialect, NativeDialect)
    return dialect


def cases(name: str) -> list[list[ToolCall]]:
    """Turns of one call for every value, and of several."""
    turns = [[ToolCall("f", {"a": value, "b": "x"})] for value in VALUES]
    several = [ToolCall("f", {"a": "x"}), ToolCall("g", {}), ToolCall("h", {"list": [1]})]
    return [*turns, [ToolCall("f", {})], *([] if name in ("llama", "harmony") else [several])]


RENDERERS = """
import json, sys
from transformers import PreTrainedTokenizerFast
from renderers import parsing
name, folder, rows = sys.argv[1], sys.argv[2], json.load(open(sys.argv[3]))
tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
one = tokenizer.convert_tokens_to_ids
tags = dict(think_id=one("<think>"), think_end_id=one("</think>"), tool_call_id=one("<tool_call>"),
            tool_call_end_id=one("</tool_call>"))
def read(ids, tools):
    if name == "qwen-xml":
        return parsing.parse_qwen35(tokenizer, ids, stop_ids=set(), tools=tools, **tags)
    if name == "glm":
        return parsing.parse_glm(tokenizer, ids, stop_ids=set(), tools=tools, arg_key_id=one("<arg_key>"),
            arg_key_end_id=one("</arg_key>"), arg_value_id=one("<arg_value>"), arg_value_end_id=one("</arg_value>"),
            **tags)
    if name == "deepseek-v3":
        return parsing.parse_deepseek_v3(tokenizer, ids, stop_ids=set(),
            tool_calls_begin_id=one("<｜tool▁calls▁begin｜>"), tool_calls_end_id=one("<｜tool▁calls▁end｜>"),
            tool_call_begin_id=one("<｜tool▁call▁begin｜>"), tool_call_end_id=one("<｜tool▁call▁end｜>"),
            tool_sep_id=one("<｜tool▁sep｜>"))
    if name == "llama":
        return parsing.parse_llama_3(tokenizer, ids, stop_ids=set())
    return parsing.parse_gpt_oss(tokenizer, ids, return_id=one("<|return|>"), call_id=one("<|call|>"),
        start_id=one("<|start|>"), end_id=one("<|end|>"), channel_id=one("<|channel|>"),
        message_id=one("<|message|>"), constrain_id=one("<|constrain|>"))
found = []
for row in rows:
    calls = read(tokenizer.encode(row["text"], add_special_tokens=False), row["tools"]).tool_calls
    found.append([[call.name, call.arguments, str(call.status)] for call in calls])
print(json.dumps(found))
"""


@needs_peers
@pytest.mark.parametrize("name", sorted(MARKS))
def test_the_package_renderers_reads_equal_calls(name: str, tmp_path: Path) -> None:
    dialect = dialect_of(name)
    turns, rows = cases(name), []
    for some in turns:
        tools = [{"type": "function", "function": {**one, "description": ""}} for one in schemas_of_values(some)]
        text = dialect.write(BEFORE[name], some)
        assert [(one.name, one.arguments) for one in read_turn(dialect, text, "end", tools).calls] == [
            (one.name, one.arguments) for one in some
        ]
        whole = f"<|start|>assistant{text}<|call|>" if name == "harmony" else text
        rows.append({"text": whole, "tools": tools})
    chat_tokenizer("", added=MARKS[name]).save_pretrained(tmp_path / "model")
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    second = json.loads(run(RENDERERS, name, tmp_path / "model", tmp_path / "rows.json"))
    for some, found in zip(turns, second, strict=True):
        assert [(one[0], one[1]) for one in found] == [(one.name, one.arguments) for one in some]
        assert all(one[2] == "ok" for one in found)
