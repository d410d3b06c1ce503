"""Logs in every form: `rewright import` makes a run of them on which judge, score, repair, credit and build work."""

from __future__ import annotations

import copy
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rewright.cli import main as cli
from rewright.core.errors import InputError
from rewright.core.records import Gold, Task, Trajectory
from rewright.dialects import get_dialect
from rewright.importers.attempts import read_attempts
from rewright.importers.chat_logs import with_outcome
from rewright.importers.log_files import read_conversations
from rewright.pipeline.run_directory import Run
from rewright.reports.stored_credit import read_stored
from rewright.tasks.loading import save_tasks
from support.served import served

Rewright = Callable[..., tuple[int, str, list[str]]]
QUESTION = {"role": "user", "content": "How warm is Paris?"}
CALL = {"name": "get_weather", "arguments": {"city": "Paris"}}
TEXT = json.dumps(CALL)
ANSWER = {"role": "assistant", "content": "21"}
OPENAI = [
    QUESTION,
    {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": CALL}]},
    {"role": "tool", "tool_call_id": "1", "content": "21"},
    ANSWER,
]
TAGGED = f"<think>I look.</think>\n<tool_call>\n{TEXT}\n</tool_call>"
SEARCHED = "<think>a</think><search>warm Paris</search>\n\n<{0}>\n21\n</{0}>\n\n<think>b</think>\n<answer> 21 </answer>"


@pytest.fixture
def rewright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rewright:
    """Run a command in an empty directory: exit code, standard output, lines of standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["rewright", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err.splitlines()

    return run


def write(name: str, *rows: Any) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def imported(rewright: Rewright, file: str, *options: object) -> tuple[list[Task], list[Trajectory]]:
    code, _, errors = rewright("import", file, "--run", "run", *options)
    assert code == 0, errors
    run = Run.open(Path("run"))
    return list(run.tasks), list(run.trajectories)


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


def test_rows_of_a_file_that_are_messages_are_one_conversation(rewright: Rewright) -> None:
    Path("chat.json").write_text(json.dumps(OPENAI))
    for file in (write("chat.jsonl", *OPENAI), "chat.json"):
        code, output, _ = rewright("credit", file, "--gold", _gold(), "--json")
        assert (code, json.loads(output)["turn_rewards"]) == (0, [1.0, 0.0])


def _gold() -> str:
    Path("gold.json").write_text(json.dumps([CALL]))
    return "gold.json"


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


def test_prefixes_of_names_are_said_and_removed(rewright: Rewright) -> None:
    call = {"id": "1", "type": "function", "function": {**CALL, "name": "functions.get_weather"}}
    file = write("logs.jsonl", {"messages": [QUESTION, {**OPENAI[1], "tool_calls": [call]}, *OPENAI[2:]]})
    code, output, warnings = rewright("credit", file, "--gold", _gold(), "--json")
    assert (code, json.loads(output)["turn_rewards"]) == (0, [0.0, 0.0])
    assert any("gold calls to 'get_weather'; --strip-prefix functions. makes them equal" in line for line in warnings)
    code, output, warnings = rewright("credit", file, "--gold", _gold(), "--json", "--strip-prefix", "functions.")
    assert (code, json.loads(output)["turn_rewards"]) == (0, [1.0, 0.0])
    assert not any("no call has the name" in line for line in warnings)
    (task,), (one,) = imported(rewright, file, "--strip-prefix", "functions.")
    assert (task.tools[0].name, one.calls[0].name) == ("get_weather", "get_weather")


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([{"messages": OPENAI}, {"text": "hi"}], [], "logs.jsonl:2: not a log that is known: it has the keys 'text'"),
        ([{"messages": OPENAI}, {"messages": OPENAI[:1]}], [], "logs.jsonl:2: no message is an assistant's"),
        ([{"messages": OPENAI}, "chat"], [], "logs.jsonl:2: is a text, expected an object"),
        ([{"prompt": [QUESTION], "completion": OPENAI[2:]}], [], "logs.jsonl:1: message 1 is a tool's, before"),
        ([{"messages": [*OPENAI[:3], OPENAI[2], ANSWER]}], [], "has 1 calls and 1 results: expected one result for"),
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


def test_known_tasks_are_found_by_id_or_question_and_others_are_made(rewright: Rewright) -> None:
    spec = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
    source = "def get_weather(city):\n    return '21'"
    known = [
        Task(id="paris", messages=(QUESTION,), gold=Gold(answers=("21",)), tools=()),
        Task(id="rome", messages=({"role": "user", "content": "And Rome?"},), gold=Gold(answers=("22",))),
    ]
    save_tasks(Path("tasks.jsonl"), known)
    tasks = [json.loads(line) for line in Path("tasks.jsonl").read_text().splitlines()]
    tasks[0]["tools"] = [{"schema": spec}]
    tasks[1]["tools"] = [{"schema": spec, "source": source}]
    write("tasks.jsonl", *tasks)
    other = [{"role": "user", "content": "And Oslo?"}, *OPENAI[1:]]
    rows = [{"messages": OPENAI}, {"task_id": "rome", "messages": OPENAI}, {"messages": other, "answer": 21}]
    code, _, notes = rewright("import", write("logs.jsonl", *rows), "--run", "run", "tasks=tasks.jsonl")
    assert code == 0
    assert "note: tasks made from the log: 1 (known tasks: 2); their tools replay the log's results" in notes
    assert any("neither source nor target, and replay the log's results: 1" in note for note in notes)
    run = Run.open(Path("run"))
    first, second, made = run.tasks
    assert [task.tools[0].kind for task in (first, second, made)] == ["recorded", "function", "recorded"]
    assert second.tools[0].source == source
    assert [one.task_id for one in run.trajectories] == ["paris", "rome", made.id]
    assert made.gold.answers == ("21",)
    assert rewright("judge", "run")[0] == 0
    assert [verdict.outcome for verdict in Run.open(Path("run")).verdicts] == [1.0, 0.0, 1.0]


def test_gold_of_another_file_and_outcomes_of_the_log_judge(rewright: Rewright) -> None:
    rows = [{"id": name, "task_id": "q", "messages": [*OPENAI[:3], {**ANSWER, "content": text}], "reward": reward}
            for name, text, reward in (("a", "21 degrees", 1), ("b", "20", -1))]  # fmt: skip
    tasks, _ = imported(rewright, write("logs.jsonl", *rows))
    assert (tasks[0].judge, tasks[0].metadata["right_answers"]) == ("logged", ["21 degrees"])
    assert rewright("judge", "run")[0] == 0
    assert [verdict.outcome for verdict in Run.open(Path("run")).verdicts] == [1.0, 0.0]
    gold = write("gold.jsonl", {"question": QUESTION["content"], "answer": "20", "gold_calls": [CALL]})
    code, _, _ = rewright("import", "logs.jsonl", "--run", "second", "--gold", gold)
    (task,) = Run.open(Path("second")).tasks
    assert (code, task.gold.answers, [call.name for call in task.gold.calls or ()]) == (0, ("20",), ["get_weather"])
    code, _, notes = rewright("import", write("bare.jsonl", {"messages": OPENAI}), "--run", "third")
    assert code == 0
    assert any(
        "no gold answer and no outcome for 1 of 1 tasks, so that rewright judge cannot" in note for note in notes
    )
    code, _, lines = rewright("judge", "third")
    assert (code, "needs gold.answers, and the task has none" in lines[-1]) == (2, True)


def _repairer() -> web.Application:
    """An OpenAI-compatible server that looks up what it is asked about, and answers with what it was told."""

    async def reply(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})
        body = await request.json()
        told = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        asked = next(message["content"] for message in body["messages"] if message["role"] == "user")
        city = "Oslo" if asked.startswith("And Rome?") else "Paris"
        call = json.dumps({"name": "get_weather", "arguments": {"city": city}})
        said = f"<think>So it is.</think><answer>{'22' if city == 'Oslo' else told[0]}</answer>" if told else ""
        message = {"role": "assistant", "content": said or f"<think>I look.</think>\n<tool_call>\n{call}\n</tool_call>"}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return web.json_response({"id": "1", "model": "m", "choices": [choice], "usage": usage})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", reply)
    return app


def test_logs_are_judged_repaired_credited_built_and_viewed(rewright: Rewright) -> None:
    """A repair that repeats recorded calls is accepted; one that needs another call says so."""
    wrong = {**ANSWER, "content": "It is 20."}
    rome = [{"role": "user", "content": "And Rome?"}, *OPENAI[1:3], wrong]
    rows = [
        {"messages": [*OPENAI[:3], wrong], "answer": "21", "gold_calls": [CALL]},
        {"messages": rome, "answer": "22"},
        {"messages": OPENAI, "answer": "21"},
    ]
    with served(_repairer) as url:
        changes = [
            "dialect=hermes",
            "model.engine=openai",
            f"model.base_url={url}/v1",
            "model.path=m",
            "model.mode=chat",
        ]
        changes += ["repair.attempts=1", "quality.all_high=0", "repair.wrong_answer_threshold=0"]
        assert rewright("import", write("logs.jsonl", *rows), *changes, "--run", "run")[0] == 0
        for verb in ("judge", "score", "repair", "build"):
            assert rewright(verb, "run")[0] == 0
    run = Run.open(Path("run"))
    first, second = run.repairs
    assert first.accepted, first.reason
    repaired = next(one for one in run.trajectories if one.id == first.repaired_id)
    assert [result.content for result in repaired.results] == ["21"]
    assert (second.accepted, second.reason) == (
        False,
        'needs a call that cannot be run and of which the log has no result: get_weather {"city": "Oslo"}',
    )
    lost = next(one for one in run.trajectories if one.id == second.repaired_id)
    assert 'recorded: get_weather {"city": "Paris"}' in lost.results[0].content
    code, output, _ = rewright("credit", "run", "--json")
    assert code == 0
    assert [json.loads(line)["outcome"] for line in output.splitlines()][:3] == [0.0, 1.0, 0.0]
    assert (rewright("view", "run")[0], rewright("export", "run", "out")[0]) == (0, 0)


def test_attempts_at_one_task_and_ids_that_are_used_twice(rewright: Rewright) -> None:
    """Rows with one id get ids of their own; the same last words after another history are another task."""
    history = [
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "content": "22"},
        {"role": "user", "content": "And?"},
    ]
    rows = [
        {"id": "a", "messages": OPENAI},
        {"id": "a", "messages": OPENAI},
        {"id": "b", "prompt": history, "completion": OPENAI[1:]},
        {"id": "c", "prompt": history[-1:], "completion": OPENAI[1:]},
    ]
    tasks, found = imported(rewright, write("logs.jsonl", *rows))
    assert [one.id for one in found] == ["a", "a/1", "b", "c"]
    assert [one.index for one in found] == [0, 1, 0, 0]
    assert len(tasks) == 3
    assert [message["role"] for message in tasks[1].messages] == ["user", "assistant", "user"]


def test_several_user_messages_are_follow_ups(rewright: Rewright) -> None:
    rows = [{"messages": [*OPENAI, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes, 21."}]}]
    (task,), (one,) = imported(rewright, write("logs.jsonl", *rows))
    assert [dict(message) for part in task.follow_ups for message in part.messages] == [
        {"role": "user", "content": "Sure?"}
    ]
    assert [turn.follow_up is not None for turn in one.turns] == [False, True, False]
    assert one.answer == "Yes, 21."


def test_results_find_their_calls_by_id_name_and_order(rewright: Rewright) -> None:
    calls = [
        {"id": str(key), "type": "function", "function": {"name": name, "arguments": "{}"}}
        for key, name in enumerate(("a", "b", "b"))
    ]
    results = [
        {"role": "tool", "tool_call_id": "2", "content": "third"},
        {"role": "tool", "name": "b", "content": "second"},
        {"role": "tool", "content": "first"},
    ]
    rows = [{"messages": [QUESTION, {"role": "assistant", "tool_calls": calls}, *results, ANSWER]}]
    _, (one,) = imported(rewright, write("logs.jsonl", *rows))
    assert [result.content for result in one.results] == ["first", "second", "third"]
    _, (one,) = imported_again(rewright, [{"messages": [*rows[0]["messages"][:3], ANSWER]}])
    assert [(result.content, result.error) for result in one.results] == [
        ("", "other: the log has no result of this call"),
        ("", "other: the log has no result of this call"),
        ("third", None),
    ]


def imported_again(rewright: Rewright, rows: list[Any]) -> tuple[list[Task], list[Trajectory]]:
    assert rewright("import", write("more.jsonl", *rows), "--run", "second")[0] == 0
    run = Run.open(Path("second"))
    return list(run.tasks), list(run.trajectories)


def test_calls_that_the_model_wrote_wrongly_are_malformed_calls(rewright: Rewright) -> None:
    broken = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": '}}
    rows = [{"messages": [QUESTION, {"role": "assistant", "content": None, "tool_calls": [broken]}, OPENAI[2], ANSWER]}]
    (task,), (one,) = imported(rewright, write("logs.jsonl", *rows))
    assert (one.calls[0].name, one.calls[0].arguments) == ("get_weather", {})
    assert str(one.calls[0].error).startswith("malformed call: ")
    assert task.tools == ()


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
