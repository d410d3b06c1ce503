"""Logs in every form are the same attempt; a row that is broken or unknown is one line."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from rewright.core.errors import InputError
from rewright.dialects import get_dialect
from rewright.importers.attempts import read_attempts
from rewright.importers.chat_logs import with_outcome
from rewright.importers.log_files import read_conversations
from rewright.pipeline.run_directory import Run
from rewright.reports.stored_credit import read_stored
from support.logs import (
    ANSWER,
    CALL,
    OPENAI,
    QUESTION,
    SEARCHED,
    TAGGED,
    TEXT,
    Rewright,
    gold_file,
    imported,
    write,
)

FORMS: list[tuple[str, Any]] = [
    ("openai", {"messages": OPENAI}),
    (
        "one JSON text",
        {"messages": [QUESTION, {**OPENAI[1], "tool_calls": json.dumps(OPENAI[1]["tool_calls"])}, *OPENAI[2:]]},
    ),
    (
        "a list of JSON texts (verifiers 0.1)",
        {"prompt": [QUESTION],
         "completion": [{**OPENAI[1], "tool_calls": [json.dumps(OPENAI[1]["tool_calls"][0])]}, *OPENAI[2:]]},
    ),
    ("a list", OPENAI),
    ("all messages as JSON text", {"messages": json.dumps(OPENAI)}),
    (
        "roles beside calls of LangChain",
        {"messages": [
            QUESTION,
            {"role": "assistant", "content": "", "tool_calls": [{"name": "get_weather", "args": {"city": "Paris"}}]},
            OPENAI[2],
            ANSWER,
        ]},
    ),
    (
        "roles named as LangChain's types",
        {"messages": [{**QUESTION, "role": "human"}, {**OPENAI[1], "role": "ai"}, OPENAI[2], {**ANSWER, "role": "ai"}]},
    ),
    (
        "ms-swift",
        {"messages": [
            QUESTION, {"role": "tool_call", "content": TEXT}, {"role": "tool_response", "content": "21"}, ANSWER,
        ]},
    ),
    (
        "sharegpt",
        {"conversations": [
            {"from": "human", "value": QUESTION["content"]},
            {"from": "function_call", "value": TEXT},
            {"from": "observation", "value": "21"},
            {"from": "gpt", "value": "21"},
        ]},
    ),
    (
        "role model (Gemma)",
        {"messages": [QUESTION, {**OPENAI[1], "role": "model"}, OPENAI[2], {"role": "model", "content": "21"}]},
    ),
    (
        "parts (Gemini)",
        {"contents": [
            {"role": "user", "parts": [{"text": QUESTION["content"]}]},
            {"role": "model", "parts": [{"functionCall": {"name": "get_weather", "args": {"city": "Paris"}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "get_weather", "response": {"result": "21"}}}]},
            {"role": "model", "parts": [{"text": "21"}]},
        ]},
    ),
    (
        "hermes in content",
        {"messages": [
            QUESTION,
            {"role": "assistant", "content": TAGGED},
            {"role": "user", "content": "<tool_response>\n21\n</tool_response>"},
            ANSWER,
        ]},
    ),
    (
        "hermes as ChatML",
        {"prompt": f"<|im_start|>user\n{QUESTION['content']}<|im_end|>\n<|im_start|>assistant\n",
         "completion": f"{TAGGED}<|im_end|>\n<|im_start|>user\n<tool_response>\n21\n</tool_response><|im_end|>\n"
                       "<|im_start|>assistant\n21<|im_end|>"},
    ),
    (
        "hermes without control tokens",
        {"prompt": QUESTION["content"],
         "completion": f"{TAGGED}\nuser\n<tool_response>\n21\n</tool_response>\nassistant\n21"},
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", [row for _, row in FORMS], ids=[name for name, _ in FORMS])
def test_every_form_is_the_same_attempt(rewright: Rewright, row: Any) -> None:
    file = write("logs.jsonl", row)
    (task,), (one,) = imported(rewright, file)
    assert [dict(message) for message in task.messages] == [QUESTION]
    assert [(tool.name, tool.kind) for tool in task.tools] == [("get_weather", "recorded")]
    assert [(call.name, call.arguments) for call in one.calls] == [("get_weather", {"city": "Paris"})]
    assert [result.content for result in one.results] == ["21"]
    assert (one.answer, len(one.turns)) == ("21", 2)
    write("gold.jsonl", {"id": one.task_id, "gold_calls": [CALL]}, {"prompt": [QUESTION], "gold_calls": [CALL]})
    code, output, _ = rewright("credit", file, "--gold", "gold.jsonl", "--json")
    assert (code, json.loads(output)["turn_rewards"]) == (0, [1.0, 0.0])


@pytest.mark.parametrize("tag", ["result", "information"])
@pytest.mark.parametrize("as_messages", [True, False])
def test_texts_with_tags_are_attempts_in_the_dialect_tags(rewright: Rewright, tag: str, as_messages: bool) -> None:
    text = SEARCHED.format(tag)
    row: dict[str, Any] = {"question": QUESTION["content"], "output": text}
    if as_messages:
        row = {"messages": [QUESTION, {"role": "assistant", "content": text}]}
    file = write("logs.jsonl", {**row, "golden_answers": ["21", "twenty-one"]})
    (task,), (one,) = imported(rewright, file)
    assert Run.open(Path("run")).recipe().dialect == "tags"
    assert (task.gold.answers, task.judge) == (("21", "twenty-one"), "math")
    assert [(call.name, call.arguments) for call in one.calls] == [("search", {"query": "warm Paris"})]
    assert [result.content for result in one.results] == ["21"]
    assert (one.answer, one.turns[0].stop) == ("21", "stop")
    assert rewright("judge", "run")[0] == 0
    assert [verdict.outcome for verdict in Run.open(Path("run")).verdicts] == [1.0]
    code, _, (line,) = rewright("import", file, "--run", "other", "dialect=hermes")
    assert (code, "dialect is 'hermes': records with tags need dialect: tags" in line) == (2, True)


def test_a_greeting_of_the_assistant_before_the_question_is_no_turn(rewright: Rewright) -> None:
    greeting = {"role": "assistant", "content": "Hello, how can I help?"}
    (task,), (one,) = imported(rewright, write("logs.jsonl", {"messages": [greeting, *OPENAI]}))
    assert [dict(message) for message in task.messages] == [greeting, QUESTION]
    assert ([call.name for call in one.calls], one.answer, len(one.turns)) == (["get_weather"], "21", 2)
    started = [{"role": "system", "content": "How warm is Paris?"}, *OPENAI[1:3], QUESTION, ANSWER]
    code, _, (line,) = rewright("import", write("own.jsonl", {"messages": started}), "--run", "other")
    assert (code, "no message of a user before the first turn" in line) == (2, True)  # its calls are not dropped


@pytest.mark.parametrize(
    ("observation", "results"),
    [
        ({"degrees": 21}, ['{"degrees": 21}']),
        ('["21", {"degrees": 3}]', ["21", '{"degrees": 3}']),
        (["21", 3], ["21", "3"]),
        ('["21"]', ['["21"]']),
    ],
)
def test_an_observation_may_be_a_value_or_a_list_with_a_result_per_call(
    rewright: Rewright, observation: Any, results: list[str]
) -> None:
    talk = [("human", "How warm are they?"), ("function_call", json.dumps([CALL, {**CALL, "arguments": {}}]))]
    row = [{"from": speaker, "value": value} for speaker, value in [*talk, ("observation", observation), ("gpt", "21")]]
    code, _, errors = rewright("import", write("logs.jsonl", {"conversations": row}), "--run", "run")
    assert code == 0, errors
    (one,) = Run.open(Path("run")).trajectories
    assert [result.content for result in one.results] == results


def test_rows_of_a_file_that_are_messages_are_one_conversation(rewright: Rewright) -> None:
    Path("chat.json").write_text(json.dumps(OPENAI))
    for file in (write("chat.jsonl", *OPENAI), "chat.json"):
        code, output, _ = rewright("credit", file, "--gold", gold_file(), "--json")
        assert (code, json.loads(output)["turn_rewards"]) == (0, [1.0, 0.0])


def test_tables_of_datasets_are_read_with_their_nulls(rewright: Rewright) -> None:
    datasets = pytest.importorskip("datasets")
    add = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
    }
    rows = [{"messages": OPENAI}, {"messages": [{"role": "user", "content": "1 + 1?"}, add, OPENAI[2], ANSWER]}]
    datasets.Dataset.from_list(rows).to_parquet("table.parquet")
    tasks, found = imported(rewright, "table.parquet")
    assert [[call.arguments for call in one.calls] for one in found] == [[{"city": "Paris"}], [{"a": 1}]]
    assert tasks[1].tools[0].schema["function"]["parameters"] == {
        "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
    }  # fmt: skip


def test_schemas_come_from_the_file_in_any_form(rewright: Rewright) -> None:
    flat = {"name": "get_weather", "description": "The weather.", "parameters": {"type": "object", "properties": {}}}
    wanted = {"type": "function", "function": flat}
    tools = f"# Tools\n\nYou may call one.\n<tools>\n{json.dumps(wanted)}\n</tools>\n\n<tool_call>\n</tool_call>"
    system = f"Be brief.\n\n{tools}"
    rows = [
        {"tools": [wanted]},
        {"tools": json.dumps([wanted])},
        {"tools": [{"name": "get_weather", "description": "The weather.", "input_schema": flat["parameters"]}]},
        {"tools": [{"functionDeclarations": [flat]}]},
        {"messages": [{"role": "system", "content": system}, *OPENAI]},
    ]
    file = write("logs.jsonl", *({"messages": OPENAI, "task_id": str(key), **row} for key, row in enumerate(rows)))
    tasks, _ = imported(rewright, file)
    assert [task.tools[0].schema for task in tasks] == [wanted] * 5
    assert tasks[4].messages[0]["content"] == "Be brief."
    code, _, (line,) = rewright("import", write("bad.jsonl", {"messages": OPENAI, "tools": [{"a": 1}]}), "--run", "new")
    assert (code, "bad.jsonl:1: tools[0] is {'a': 1}: expected an object with the name of a function" in line) == (
        2,
        True,
    )


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([{"messages": OPENAI}, {"text": "hi"}], [], "logs.jsonl:2: not a log that is known: it has the keys 'text'"),
        ([{"messages": OPENAI}, {"messages": OPENAI[:1]}], [], "logs.jsonl:2: no message is an assistant's"),
        ([{"messages": OPENAI}, "chat"], [], "logs.jsonl:2: is a text, expected an object"),
        ([{"prompt": [QUESTION], "completion": OPENAI[2:]}], [], "logs.jsonl:1: message 1 is a tool's, before"),
        ([{"messages": [*OPENAI[:3], OPENAI[2], ANSWER]}], [], "is a second result of the call '1': expected one"),
        ([{"messages": OPENAI[1:]}], [], "logs.jsonl:1: no message of a user before the first turn"),
        ([{"messages": OPENAI}], ["--format", "atif"], "logs.jsonl:1: is not of the format atif: expected a"),
        ([{"messages": OPENAI}], ["--format", "anthropic"], "logs.jsonl:1: message 2 is an object with 'role'"),
        ([{"messages": OPENAI}], ["--answer", "gold"], "logs.jsonl:1: no column 'gold' of the gold answer"),
        ([{"schema_version": "ATIF-v9.9", "steps": []}], [], "logs.jsonl:1: schema_version is 'ATIF-v9.9': expected"),
        ([{"traces": [{"nodes": [{"parent": 4, "message": ANSWER}]}]}], [], "nodes[0].parent is 4: expected"),
        ([{"eval": {}, "plan": {}, "version": 2}], [], "logs.jsonl:1: a log of inspect_ai without samples"),
        ([{"question": "a", "output": "<search>b</search><result>c</result><answer>d</answer>", "messages": OPENAI}],
         [], "logs.jsonl:1: is ambiguous: it could be messages in 'messages' or autotraj: choose the format"),
        ([{"input": [QUESTION, {"type": "web_search_call"}], "output": [{"type": "message", **ANSWER}]}],
         [], "logs.jsonl:1: item 1 has the type 'web_search_call': expected message, reasoning, function_call"),
    ],
)  # fmt: skip
def test_a_log_that_is_not_understood_is_one_line(
    rewright: Rewright, rows: list[Any], options: list[str], said: str
) -> None:
    code, output, (line,) = rewright("import", write("logs.jsonl", *rows), "--run", "run", *options)
    assert (code, output) == (2, "")
    assert said in line
    assert not Path("run").exists()


def test_an_unknown_row_is_answered_with_the_list_of_formats(rewright: Rewright) -> None:
    code, _, (line,) = rewright("credit", write("logs.jsonl", {"steps": [], "notes": ""}))
    assert code == 2
    for name in (
        "anthropic",
        "atif",
        "inspect",
        "langchain",
        "ms-swift",
        "openai",
        "search-r1",
        "sharegpt",
        "verifiers",
    ):
        assert name in line
    assert "it has the keys 'steps', 'notes' (it looks like a trajectory without schema_version)" in line


JUNK = (
    None,
    0,
    -1.5,
    True,
    "",
    "x",
    [],
    {},
    [1],
    ["x"],
    [None],
    {"a": 1},
    {"role": 3},
    [[]],
    "<tool_call>",
    "{",
    "[1]",
)


def _places(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [before, *(place for key, inner in items for place in _places(inner, (*before, key)))]


def test_no_broken_row_is_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any value of any form replaced by something else: the row is read, or the error is one line."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(15)
    tags = [{"question": "a", "output": SEARCHED.format(tag)} for tag in ("result", "information")]
    atif = {"schema_version": "ATIF-v1.8", "agent": {"model_name": "m"}, "steps": [
        {"source": "user", "message": "a"},
        {"source": "agent", "message": "b",
         "metrics": {"prompt_token_ids": [1], "completion_token_ids": [2], "logprobs": [0]},
         "tool_calls": [{"tool_call_id": "1", "function_name": "f", "arguments": {}}],
         "observation": {"results": [{"source_call_id": "1", "content": "c"}]}},
    ]}  # fmt: skip
    trace = {"id": "1", "task": {"data": {"id": "a", "answer": "b"}}, "rewards": {"r": {"score": 1.0, "weight": 0.5}},
             "nodes": [
                 {"message": QUESTION},
                 {"parent": 0, "sampled": True, "message": OPENAI[1], "token_ids": [1], "mask": [True]},
             ]}  # fmt: skip
    sample = {"id": 1, "epoch": 1, "input": "a", "target": "b", "messages": OPENAI, "scores": {"s": {"value": "C"}}}
    rows = [*(row for _, row in FORMS), *tags, atif, {"traces": [trace]}, sample]
    for _ in range(300):
        row = copy.deepcopy(draw.choice(rows))
        place = draw.choice([one for one in _places(row) if one])
        inner = row
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = copy.deepcopy(draw.choice(JUNK))
        file = Path(write("logs.jsonl", row))
        try:
            list(read_stored(file, outcome="none"))
            found = list(read_conversations(file))
            dialect = next((one.dialect for one in found if one.dialect), "hermes")
            read_attempts(with_outcome(file, found, None, ask=False), [], get_dialect(dialect))
        except InputError as problem:
            assert "\n" not in str(problem)
