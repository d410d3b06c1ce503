"""Published function-calling sets as tasks: rows written by hand in the published shapes, with the sets' oddities."""

import json
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from rewright.core.errors import InputError
from rewright.core.records import ToolCall, Trajectory, Turn
from rewright.judging import judge_trajectory
from rewright.tasks.loading import load_tasks
from support.in_process import rewright
from support.served import served

WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"type": "string", "default": "C"}},
        "required": ["city"],
    },
}
CALL = {"name": "get_weather", "arguments": {"city": "Rome"}}
HERMES_SYSTEM = "You are a function calling AI model. <tools>[]</tools> Use <tool_call> tags."


def write(folder: Path, *rows) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sharegpt(*parts):
    return [{"from": speaker, "value": value} for speaker, value in parts]


def toolace(tools, *parts):
    system = (
        "You are an expert in composing functions. You are given a question and a set of possible functions. \n"
        "Based on the question, you will need to make one or more function/tool calls to achieve the purpose. \n"
        "If none of the function can be used, point it out. If the given question lacks the parameters required by the "
        "function,also point it out. \nYou should only return the function call in tools call sections.\n"
        f"Here is a list of functions in JSON format that you can invoke:\n{json.dumps(tools)}. \n"
        "Should you decide to return the function call(s). \nPut it in the format of [func1(params_name=params_value, "
        "params_name2=params_value2...), func2(params)]\n\nNO other text MUST be included. \n"
    )
    return {"system": system, "conversations": sharegpt(*parts)}


def xlam(tools, answers, **more):
    return {"id": 7, "query": "Weather?", "tools": json.dumps(tools), "answers": json.dumps(answers), **more}


def glaive(chat, system=None):
    intro = "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n"
    return {"system": system or intro + json.dumps(WEATHER, indent=4), "chat": chat}


SINGLE = {
    "xlam": xlam([WEATHER], [CALL]),
    "hermes-fc": {
        "id": "h1",
        "conversations": sharegpt(
            ("system", HERMES_SYSTEM),
            ("human", "Weather?"),
            ("gpt", "<tool_call>\n{'name': 'get_weather', 'arguments': {'city': 'Rome'}}\n</tool_call>"),
        ),
        "tools": json.dumps([{"type": "function", "function": WEATHER}]),
        "category": "c",
        "subcategory": "s",
        "task": "t",
    },
    "toolace": toolace([WEATHER], ("user", "Weather?"), ("assistant", '[get_weather(city="Rome")]')),
    "toolmind": {
        "conversations": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "<think>so</think>", "tool_calls": [{"function": CALL}]},
        ],
        "tools": [{"type": "function", "function": WEATHER}],
    },
    "glaive": glaive(
        "USER: Weather?\n\n\nASSISTANT: <functioncall> "
        '{"name": "get_weather", "arguments": \'{"city": "Rome"}\'} <|endoftext|>'
    ),
    "when2call": {
        "uuid": "w1",
        "question": "Weather?",
        "correct_answer": "tool_call",
        "answers": {"direct": "Sunny.", "tool_call": json.dumps(CALL)},
        "tools": [json.dumps(WEATHER)],
        "orig_tools": [json.dumps(WEATHER)],
        "target_tool": json.dumps(WEATHER),
        "held_out_param": None,
    },
    "apigen-mt": {
        "conversations": sharegpt(("human", "Weather?"), ("function_call", json.dumps(CALL))),
        "system": "Policy.",
        "tools": json.dumps([WEATHER]),
    },
}
DIALOGUES = {
    "hermes-fc": {
        **SINGLE["hermes-fc"],
        "conversations": [
            *SINGLE["hermes-fc"]["conversations"],
            *sharegpt(
                ("tool", "<tool_response>\n{'name': 'get_weather', 'content': {'sky': 'blue'}}\n</tool_response>"),
                ("gpt", "Blue."),
                ("human", "Thanks"),
                ("gpt", "Welcome."),
            ),
        ],
    },
    "toolace": toolace(
        [WEATHER],
        ("user", "Weather?"),
        ("assistant", '[get_weather(city="Rome")]'),
        ("tool", json.dumps([{"name": "get_weather", "results": {"sky": "blue"}}])),
        ("assistant", "Blue."),
        ("user", "Thanks"),
        ("assistant", "Welcome."),
    ),
    "toolmind": {
        **SINGLE["toolmind"],
        "conversations": [
            *SINGLE["toolmind"]["conversations"],
            {"role": "tool", "content": '{"sky": "blue"}'},
            {"role": "assistant", "content": "Blue."},
            {"role": "user", "content": "Thanks"},
            {"role": "assistant", "content": "Welcome."},
        ],
    },
    "glaive": glaive(
        SINGLE["glaive"]["chat"] + '\n\n\nFUNCTION RESPONSE: {"sky": "blue"}\n\n\nASSISTANT: Blue. <|endoftext|>'
        "\n\n\nUSER: Thanks\n\n\nASSISTANT: Welcome. <|endoftext|>"
    ),
    "apigen-mt": {
        **SINGLE["apigen-mt"],
        "conversations": [
            *SINGLE["apigen-mt"]["conversations"],
            *sharegpt(("observation", '{"sky": "blue"}'), ("gpt", "Blue."), ("human", "Thanks"), ("gpt", "Welcome.")),
        ],
    },
}
LICENCES = {
    "xlam": "cc-by-4.0",
    "toolace": "apache-2.0",
    "hermes-fc": "apache-2.0",
    "apigen-mt": "cc-by-nc-4.0",
    "when2call": "cc-by-4.0",
    "toolmind": "apache-2.0",
    "glaive": "apache-2.0",
}


@pytest.mark.parametrize("name", sorted(SINGLE))
def test_a_row_becomes_a_task_with_declared_tools_gold_calls_and_licence(tmp_path, name):
    (task,) = load_tasks(write(tmp_path, SINGLE[name]), name)
    assert task.messages[-1] == {"role": "user", "content": "Weather?"}
    assert [(tool.name, tool.kind) for tool in task.tools] == [("get_weather", "declared")]
    assert task.tools[0].schema["function"]["parameters"]["required"] == ["city"]
    assert task.gold.calls == (ToolCall("get_weather", {"city": "Rome"}),)
    assert task.judge == "calls"
    provenance = task.metadata["provenance"]
    assert (provenance["row"], provenance["licence"]) == (0, LICENCES[name])
    assert not any("<tools>" in message["content"] or "composing" in message["content"] for message in task.messages)


@pytest.mark.parametrize("name", sorted(DIALOGUES))
def test_a_dialogue_becomes_follow_ups_and_recorded_results(tmp_path, name):
    (task,) = load_tasks(write(tmp_path, DIALOGUES[name]), name)
    assert [message["role"] for message in task.messages][-1] == "user"
    assert [part.messages[0]["content"] for part in task.follow_ups] == ["Thanks"]
    (tool,) = task.tools
    assert tool.kind == "recorded"
    (recorded,) = tool.data["results"]
    assert recorded["arguments"] == {"city": "Rome"}
    assert json.loads(recorded["results"][0]["content"]) == {"sky": "blue"}
    assert task.gold.calls == (ToolCall("get_weather", {"city": "Rome"}),)


def test_a_conversation_that_ends_with_calls_has_its_history_as_the_prompt(tmp_path):
    row = json.loads(json.dumps(DIALOGUES["toolmind"]))
    row["conversations"].append({"role": "user", "content": "And Oslo?"})
    call = {"function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    row["conversations"].append({"role": "assistant", "content": "", "tool_calls": [call]})
    (task,) = load_tasks(write(tmp_path, row), "toolmind")
    roles = [message["role"] for message in task.messages]
    assert roles == ["user", "assistant", "tool", "assistant", "user", "assistant", "user"]
    assert task.messages[1]["tool_calls"][0]["function"] == CALL
    assert task.gold.calls == (ToolCall("get_weather", {"city": "Oslo"}),)
    assert task.tools[0].kind == "declared"


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("xlam", xlam([WEATHER], [])),
        ("when2call", {**SINGLE["when2call"], "correct_answer": "request_for_info"}),
        ("when2call", {**SINGLE["when2call"], "correct_answer": "cannot_answer", "tools": []}),
        (
            "when2call",
            {
                "tools": [json.dumps(WEATHER)],
                "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "Which city?"}],
            },
        ),
        (
            "when2call",
            {
                "tools": [json.dumps(WEATHER)],
                "messages": [{"role": "user", "content": "Q"}],
                "chosen_response": {"role": "assistant", "content": "Which city?"},
                "rejected_response": {"role": "assistant", "content": f"<TOOLCALL>[{json.dumps(CALL)}]</TOOLCALL>"},
            },
        ),
        ("glaive", glaive("USER: Joke?\n\n\nASSISTANT: No. <|endoftext|>")),
        ("toolace", toolace([WEATHER], ("user", "Q"), ("assistant", "[Note] Which city?"))),
    ],
)
def test_rows_without_a_call_are_right_without_a_call(tmp_path, name, row):
    (task,) = load_tasks(write(tmp_path, row), name)
    assert task.gold.calls == ()
    assert judge_trajectory(task, said(task)).outcome == 1.0
    assert judge_trajectory(task, said(task, ToolCall("get_weather", {"city": "Rome"}))).outcome == 0.0


def said(task, *calls):
    return Trajectory(id="t", task_id=task.id, stage="s", index=0, turns=(Turn("", calls=calls),), stop_reason="called")


def test_the_judge_compares_all_calls_in_any_order_and_knows_defaults(tmp_path):
    gold = [CALL, {"name": "get_weather", "arguments": {"city": "Oslo", "unit": "C"}}]
    (task,) = load_tasks(write(tmp_path, xlam([WEATHER], gold)), "xlam")
    rome, oslo = ToolCall("get_weather", {"city": "Rome"}), ToolCall("get_weather", {"city": "Oslo"})
    assert judge_trajectory(task, said(task, oslo, rome)).outcome == 1.0
    for wrong in ([rome], [rome, oslo, oslo], [rome, ToolCall("get_weather", {"city": "oslo"})], []):
        assert judge_trajectory(task, said(task, *wrong)).outcome == 0.0
    verdict = judge_trajectory(task, said(task, rome, ToolCall("get_weather", {"city": "oslo"})))
    assert verdict.metrics["calls_recall"] == verdict.metrics["calls_precision"] == 0.5
    assert 0.5 < verdict.metrics["calls_similarity"] < 1.0


def test_types_of_python_become_json_schema(tmp_path):
    parameters = {
        "type": {"description": "A parameter that is named type.", "type": "str", "default": "game"},
        "count": {"type": "int, optional", "description": "c"},
        "ratios": {"type": "List[float]"},
        "pair": {"type": "Tuple[float, float]"},
        "mixed": {"type": "Union[int, str]"},
        "options": {"type": "Dict[str, Any], optional"},
        "fold": {"type": "Callable[[float], float]", "description": "A function."},
        "anything": {"type": "Optional[str]", "default": None},
    }
    answer = {
        "name": "f",
        "arguments": {"ratios": [1, 2.5], "pair": [1, 2], "mixed": "x", "fold": "lambda", "type": "beta"},
    }
    (task,) = load_tasks(
        write(tmp_path, xlam([{"name": "f", "description": "", "parameters": parameters}], [answer])), "xlam"
    )
    schema = task.tools[0].schema["function"]["parameters"]
    properties = schema["properties"]
    assert schema["required"] == ["ratios", "pair", "mixed", "fold"]
    assert properties["type"]["default"] == "game"
    assert properties["count"]["type"] == "integer"
    assert properties["ratios"] == {"type": "array", "items": {"type": "number"}}
    assert properties["mixed"] == {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert properties["options"]["type"] == "object"
    assert "type" not in properties["fold"]
    assert "Callable" in properties["fold"]["description"]


def test_names_with_spaces_are_renamed_and_calls_in_brackets_are_read(tmp_path, capsys):
    tools = [
        {
            "name": "Market Trends API",
            "description": "d",
            "parameters": {
                "type": "dict",
                "properties": {
                    "kinds": {"type": "list", "items": {"type": "str"}, "required": True},
                    "near": {"type": "dict", "properties": {"lat": {"type": "float"}}},
                    "on": {"type": "bool"},
                    "say": {"type": "string"},
                },
                "required": None,
            },
            "required": None,
        },
        {"name": "market.trends", "description": "d", "parameters": {"type": "dict", "properties": {}}},
    ]
    text = (
        """[Market Trends API(kinds=["a, b", 'c)'], near={'lat': 1.5}, on=true, say='it\\'s (x=1)'), market.trends()]"""
    )
    (task,) = load_tasks(write(tmp_path, toolace(tools, ("user", "Q"), ("assistant", text))), "toolace")
    assert [tool.name for tool in task.tools] == ["Market_Trends_API", "market_trends"]
    assert task.gold.calls == (
        ToolCall("Market_Trends_API", {"kinds": ["a, b", "c)"], "near": {"lat": 1.5}, "on": True, "say": "it's (x=1)"}),
        ToolCall("market_trends", {}),
    )
    assert task.tools[0].schema["function"]["parameters"]["required"] == ["kinds"]
    assert task.metadata["renamed_tools"]["Market_Trends_API"] == "Market Trends API"
    assert "tools whose names servers refuse" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("xlam", xlam([WEATHER], [{"name": "other", "arguments": {}}]), "not offered"),
        ("xlam", xlam([WEATHER], [{"name": "get_weather", "arguments": {"town": "Rome"}}]), "contradicts the schema"),
        ("xlam", xlam([WEATHER], [{"name": "get_weather", "arguments": [1]}]), "cannot be read"),
        ("toolace", toolace([WEATHER], ("user", "Q"), ("assistant", "[get_weather(city=Rome)]")), "cannot be read"),
        ("glaive", glaive("USER: Q\n\n\nASSISTANT: <functioncall> {broken"), "cannot be read"),
        ("glaive", glaive("USER: Q\n\n\nASSISTANT: Hi", "SYSTEM: no access to external functions."), "no tools"),
        ("glaive", glaive("USER: Q\n\n\nFUNCTION RESPONSE: {}\n\n\nASSISTANT: Hi"), "follows no call"),
        ("hermes-fc", {**SINGLE["hermes-fc"], "tools": json.dumps([{"description": "nameless"}])}, "no valid schema"),
    ],
)
def test_odd_rows_are_left_out_and_counted(tmp_path, capsys, name, row, reason):
    good = {**SINGLE[name], "id": "good"}
    (task,) = load_tasks(write(tmp_path, row, good), name)
    assert task.metadata["provenance"]["row"] == 1
    said = capsys.readouterr().err
    assert "1 of 2 rows left out" in said
    assert reason in said
    with pytest.raises(InputError, match=reason):
        load_tasks(write(tmp_path, row), name)


@pytest.mark.parametrize("name", sorted(SINGLE))
def test_a_row_of_another_shape_is_refused_with_its_number_and_what_was_expected(tmp_path, name):
    for other in ({"prompt": "p", "completion": "c"}, SINGLE["glaive" if name != "glaive" else "xlam"]):
        with pytest.raises(InputError, match=r"rows.jsonl:2: .*(no key|expected)"):
            load_tasks(write(tmp_path, {**SINGLE[name], "id": "first"}, other), name)


def says(reply):
    async def chat(request: web.Request) -> web.Response:
        message = {"role": "assistant", **reply(await request.json())}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return web.json_response({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]})

    application = web.Application()
    application.router.add_post("/v1/chat/completions", chat)
    return application


def run(folder: Path, name: str, row, reply, stages="[synth, judge]") -> tuple:
    write(folder, row)
    with served(lambda: says(reply)) as url:
        (folder / "r.yaml").write_text(
            f"dialect: hermes\nstages: {stages}\nsynth: {{n: 1}}\nsandbox: process\n"
            f"model: {{path: m, engine: openai, base_url: '{url}/v1', mode: chat, log_probs: 'off'}}\n"
            f"tasks: {{format: {name}, path: rows.jsonl}}\n"
        )
        done = rewright(folder, "run", "r.yaml", "--run", "out")
    assert done.code == 0, done.errors
    (trajectory,) = (folder / "out/trajectories.jsonl").read_text().splitlines()
    (verdict,) = (folder / "out/verdicts.jsonl").read_text().splitlines()
    return json.loads(trajectory), json.loads(verdict), done


def in_tags(call):
    return {"content": f"<tool_call>{json.dumps(call)}</tool_call>"}


def test_a_run_ends_with_the_calls_of_declared_tools(tmp_path):
    trajectory, verdict, _ = run(tmp_path, "xlam", xlam([WEATHER], [CALL, CALL]), lambda body: in_tags(CALL))
    assert trajectory["stop_reason"] == "called"
    assert len(trajectory["turns"]) == 1
    assert verdict["outcome"] == 0.0
    assert verdict["metrics"]["calls_recall"] == 0.5
    done = rewright(tmp_path, "credit", "out", "--json")
    (row,) = [json.loads(line) for line in done.output.splitlines()]
    assert row["turn_rewards"] == [1.0]


def test_a_stored_run_s_function_that_compares_runs_only_if_it_is_trusted(tmp_path, monkeypatch):
    run(tmp_path, "xlam", xlam([WEATHER], [CALL]), lambda body: in_tags(CALL))
    marker = tmp_path / "imported"
    (tmp_path / "comparing.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\ndef never(value, gold):\n    return False\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = tmp_path / "out/recipe.yaml"
    data = yaml.safe_load(recipe.read_text())
    data["rl"]["credit"]["compare"] = {"arguments": {"get_weather": {"city": "comparing:never"}}}
    recipe.write_text(yaml.safe_dump(data))
    rewright(tmp_path, "credit", "out").refused("--trusted comparing")
    done = rewright(tmp_path, "view", "out", "--static", "page.html")
    assert done.code == 0, done.errors
    assert "values compared as JSON" in done.errors
    assert not marker.exists()
    done = rewright(tmp_path, "credit", "out", "--json", "--trusted", "comparing")
    assert json.loads(done.output.splitlines()[0])["turn_rewards"] == [pytest.approx(1 + 2 / 3)]  # the outcome is 1
    assert marker.exists()


def test_a_run_with_recorded_results_goes_on_to_the_next_message(tmp_path):
    def reply(body):
        last = body["messages"][-1]
        if last["role"] == "user" and "Weather?" in last["content"]:
            return in_tags(CALL)
        return {"content": f"<answer>{last['content']}</answer>"}

    trajectory, verdict, _ = run(tmp_path, "toolace", DIALOGUES["toolace"], reply)
    assert [len(turn["calls"]) for turn in trajectory["turns"]] == [1, 0, 0]
    assert json.loads(trajectory["turns"][0]["results"][0]["content"]) == {"sky": "blue"}
    assert trajectory["answer"] == "Thanks"
    assert verdict["outcome"] == 1.0


def test_a_licence_that_is_not_commercial_is_said_by_validate_and_before_training(tmp_path, monkeypatch):
    write(tmp_path, SINGLE["apigen-mt"], xlam([WEATHER], [CALL]))
    done = rewright(tmp_path, "validate", "rows.jsonl", "--format", "apigen-mt", "--limit", "1")
    assert done.code == 0, done.output
    assert "forbids commercial use: 1 of Salesforce/APIGen-MT-5k (cc-by-nc-4.0)" in done.output
    _, _, done = run(tmp_path, "apigen-mt", SINGLE["apigen-mt"], lambda body: in_tags(CALL))
    assert "commercial" not in done.errors  # nothing is trained
    stage = "Stage(name='no_training', run=lambda context: {}, after='judge', trains='policy')"
    (tmp_path / "stage_of_the_test.py").write_text(f"from rewright.pipeline.registry import Stage\nSTAGE = {stage}\n")
    monkeypatch.syspath_prepend(tmp_path)
    second = tmp_path / "second"
    second.mkdir()
    stages = "[synth, judge, 'stage_of_the_test:STAGE']"
    _, _, done = run(second, "apigen-mt", SINGLE["apigen-mt"], lambda body: in_tags(CALL), stages)
    assert done.errors.count("forbids commercial use") == 1


def test_validate_shows_every_row_that_is_left_out(tmp_path):
    odd = xlam([WEATHER], [{"name": "other", "arguments": {}}])
    write(tmp_path, odd, xlam([WEATHER], [CALL]))
    done = rewright(tmp_path, "validate", "rows.jsonl", "--format", "xlam", "--json")
    assert done.code == 0
    assert "rows.jsonl:1: left out: a gold call names a tool that is not offered" in done.errors
    assert json.loads(done.output)["findings"] == {"left-out": 1}


def test_nulls_of_tables_are_absent_keys(tmp_path):
    row = json.loads(json.dumps(SINGLE["toolmind"]))
    row["tools"][0]["function"]["parameters"]["properties"]["other"] = None
    row["tools"][0]["function"]["strict"] = None
    row["conversations"][1]["tool_calls"][0]["function"]["arguments"] |= {"unit": None, "other": None}
    row["conversations"][0]["tool_calls"] = None
    (task,) = load_tasks(write(tmp_path, row), "toolmind")
    assert task.gold.calls == (ToolCall("get_weather", {"city": "Rome"}),)
    assert list(task.tools[0].schema["function"]["parameters"]["properties"]) == ["city", "unit"]


def test_parquet_files_are_read(tmp_path):
    table = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(table.Table.from_pylist([SINGLE["toolmind"], DIALOGUES["toolmind"]]), path)
    first, second = load_tasks(path, "toolmind")
    assert (first.tools[0].kind, second.tools[0].kind) == ("declared", "recorded")
