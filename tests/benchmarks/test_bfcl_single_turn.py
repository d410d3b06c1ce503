"""BFCL's single-turn categories: the real data, and the package's own checker on gold calls and on changed ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rewright.benchmarks import find_benchmark
from rewright.benchmarks.bfcl.entries import AST, IRRELEVANCE, possible_answers
from rewright.benchmarks.bfcl.protocol import AST as PROTOCOL
from rewright.benchmarks.bfcl.single_turn import GOLD_REFUSED
from rewright.benchmarks.bfcl.split import SPLITS, long_rows
from rewright.benchmarks.scoring.bounds import nothing, played, shares
from rewright.core.errors import InputError
from rewright.core.records import Task, ToolCall, Trajectory, Turn
from rewright.credit import match
from rewright.engines.loading import cache_folder
from rewright.judging import judge_trajectory, reason_without_gold
from rewright.tasks.loading import load_tasks
from rewright.tasks.schemas import schema_problems
from support.chat_server import chat_server, says
from support.in_process import rewright
from support.served import served


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    return {task.metadata["entry"]: task for task in load_tasks("single_turn", "bfcl")}


def judged(task: Task, *calls: ToolCall, more: tuple[Turn, ...] = ()) -> tuple[float, str]:
    turns = (Turn("", calls=calls), *more)
    one = Trajectory(id="t", task_id=task.id, stage="eval", index=0, turns=turns, stop_reason="called")
    verdict = judge_trajectory(task, one)
    return verdict.outcome, verdict.reason


def gold(task: Task) -> tuple[ToolCall, ...]:
    assert task.gold.calls
    return task.gold.calls


def changed(call: ToolCall, **arguments: Any) -> ToolCall:
    return msgspec.structs.replace(call, arguments={**call.arguments, **arguments})


def test_the_checker_accepts_the_gold_calls_as_the_benchmark_states(tasks: dict[str, Task]) -> None:
    rows = Counter(task.metadata["category"] for task in tasks.values())
    assert rows == {
        "simple_python": 400, "multiple": 200, "parallel": 200, "parallel_multiple": 200, "simple_java": 100,
        "simple_javascript": 50, "live_simple": 258, "live_multiple": 1053, "live_parallel": 16,
        "live_parallel_multiple": 24, "irrelevance": 240, "live_irrelevance": 884, "live_relevance": 16,
    }  # fmt: skip
    with_gold = [task for task in tasks.values() if task.judge == "bfcl-ast"]
    assert len(with_gold) == 2501
    refused = {task.metadata["entry"] for task in with_gold if not judge_trajectory(task, played(task)).correct}
    assert refused == GOLD_REFUSED == {name for name, task in tasks.items() if task.metadata.get("gold_refused")}
    lost = Counter(tasks[name].metadata["category"] for name in refused)
    assert lost == {"simple_python": 1, "parallel_multiple": 1, "live_simple": 2, "live_multiple": 5, "simple_java": 3}
    assert {name: 1 - lost[name] / rows[name] for name in AST} == pytest.approx(PROTOCOL.ceiling)
    # The gold calls are also the best calls for turn credit.
    for task in with_gold[::50]:
        assert match(gold(task), gold(task)).similarity_PG.max(axis=1).min() == 1.0


def test_doing_nothing_scores_the_floor(tasks: dict[str, Task]) -> None:
    found = shares(tasks.values(), nothing)
    whole = find_benchmark("bfcl", "--benchmark").floor
    assert {name: found[name] for name in (*AST, *IRRELEVANCE)} == {
        name: share for name, share in whole.items() if not name.startswith(("multi_turn", "memory"))
    }
    irrelevance = [task for task in tasks.values() if task.metadata["category"] in IRRELEVANCE]
    assert shares(irrelevance, played) == {"all": 1.0, **find_benchmark("bfcl-irrelevance", "--benchmark").ceiling}


def test_schemas_are_json_schemas_and_names_are_valid(tasks: dict[str, Task]) -> None:
    tools = [tool for task in tasks.values() for tool in task.tools]
    assert not {problem for tool in tools[::10] for problem in schema_problems(tool.schema)}
    assert all(tool.name.replace("_", "").replace("-", "").isalnum() and len(tool.name) <= 64 for tool in tools)
    assert all(len({tool.name for tool in task.tools}) == len(task.tools) for task in tasks.values())
    java = tasks["simple_java_22"].tools[0].schema["function"]
    kinds = {value["type"] for value in java["parameters"]["properties"].values()}
    assert (kinds, java["description"].endswith("in Java 8 SDK syntax.")) == ({"string"}, True)
    number = next(tool for tool in tools if '"format":"float"' in msgspec.json.encode(tool.schema).decode())
    assert '"type":"float"' not in msgspec.json.encode(number.schema).decode()


def test_schemas_are_the_packages_own(tasks: dict[str, Task]) -> None:
    """Those that its handler sends to a model with function calling; in multi-turn, the parameters.

    (Which of its handlers put the response into the description differs.)
    """
    script = Path(__file__).parents[1] / "support" / "bfcl_schemas.py"
    multi_turn = ("multi_turn_base", "multi_turn_long_context")
    done = subprocess.run(
        [sys.executable, script, *AST, *IRRELEVANCE, *multi_turn], capture_output=True, text=True, check=True
    )
    later = load_tasks("base,long_context", "bfcl-multi-turn")
    ours = tasks | {task.metadata["entry"]: task for task in later}
    theirs = json.loads(done.stdout)
    assert theirs.keys() == ours.keys()
    for name, schemas in theirs.items():
        expected = {schema["function"]["name"]: schema for schema in schemas}
        found = {tool.name: tool.schema for tool in ours[name].tools}
        if name in tasks:
            assert found == expected, name
        else:
            assert {key: schema["function"]["parameters"] for key, schema in found.items()} == {
                key: schema["function"]["parameters"] for key, schema in expected.items()
            }, name


def test_names_with_dots_are_mapped_and_mapped_back(tasks: dict[str, Task]) -> None:
    task = tasks["simple_python_1"]
    (call,) = gold(task)
    assert (call.name, task.metadata["renamed_tools"]) == ("math_factorial", {"math_factorial": "math.factorial"})
    assert judged(task, call)[0] == 1.0
    assert judged(task, msgspec.structs.replace(call, name="math.factorial"))[0] == 1.0  # the package's own name
    outcome, reason = judged(task, msgspec.structs.replace(call, name="factorial"))
    assert (outcome, "wrong_func_name" in reason) == (0.0, True)


def test_the_checker_decides_about_changed_calls(tasks: dict[str, Task]) -> None:
    task = tasks["simple_python_0"]
    (call,) = gold(task)
    assert call.arguments == {"base": 10, "height": 5, "unit": "units"} or call.arguments == {"base": 10, "height": 5}
    assert judged(task, changed(call, unit="UNITS"))[0] == 1.0
    assert judged(task, changed(call, base=11)) == (
        0.0, "value_error:others: Invalid value for parameter 'base': 11. Expected one of [10].",
    )  # fmt: skip
    assert judged(task, changed(call, base="10"))[1].startswith("type_error:simple")
    assert judged(task, changed(call, colour="red"))[1].startswith("simple_function_checker:unexpected_param")
    assert judged(task, call, call)[1].startswith("simple_function_checker:wrong_count")
    assert judged(task)[1] == "no call"
    broken = ToolCall("", {}, raw="{", error="not JSON")
    assert judged(task, call, broken) == (0.0, "a call is malformed: not JSON")
    # One reply counts: what comes after an unreadable one does not.
    assert judged(task, broken, more=(Turn("", calls=(call,)),))[0] == 0.0
    parallel = tasks["parallel_0"]
    assert len(gold(parallel)) == 2
    assert judged(parallel, *reversed(gold(parallel)))[0] == 1.0
    assert "cannot_find_match" in judged(parallel, gold(parallel)[0], gold(parallel)[0])[1]


def test_a_repairer_is_shown_which_parameter_is_wrong_but_no_gold_value_or_name(tasks: dict[str, Task]) -> None:
    """The official checker quotes both."""
    task, multiple, parallel = tasks["simple_python_0"], tasks["multiple_0"], tasks["parallel_0"]
    (call,), (right,) = gold(task), gold(multiple)
    other = next(tool.name for tool in multiple.tools if tool.name != right.name)
    made: list[tuple[Task, list[ToolCall], str]] = [
        (task, [changed(call, base=11)], "value_error:others, parameter 'base'"),
        (task, [changed(call, base="10")], "type_error:simple, parameter 'base'"),
        (task, [changed(call, colour="red")], "simple_function_checker:unexpected_param, parameter 'colour'"),
        (task, [call, call], "simple_function_checker:wrong_count"),
        (task, [], "no call"),
        (task, [ToolCall("", {}, raw="{", error="not JSON")], "a call is malformed: not JSON"),
        (multiple, [ToolCall(other, right.arguments)], "simple_function_checker:wrong_func_name"),
    ]
    for asked, calls, shown in made:
        assert reason_without_gold(asked, judged(asked, *calls)[1]) == shown
    first, second = gold(parallel)
    hint = reason_without_gold(parallel, judged(parallel, first, first)[1])
    assert hint is not None and hint.startswith("parallel_function_checker_no_order:cannot_find_match, parameter '")
    assert not any(str(value) in hint for value in second.arguments.values())


def test_java_arguments_are_source_text(tasks: dict[str, Task]) -> None:
    task = tasks["simple_java_25"]
    (call,) = gold(task)
    long = next(key for key, value in call.arguments.items() if value == "42L")
    assert judged(task, changed(call, **{long: "42"}))[0] == 0.0  # no long in Java
    assert judged(task, changed(call, **{long: 42}))[1].startswith("type_error:java")
    script = tasks["simple_javascript_3"]
    assert judged(script, *gold(script))[0] == 1.0


def test_values_that_break_the_checker_are_wrong(tasks: dict[str, Task]) -> None:
    task = next(task for task in tasks.values() if any(isinstance(value, dict) for value in gold_values(task)))
    (call, *_) = gold(task)
    key = next(key for key, value in call.arguments.items() if isinstance(value, dict))
    for odd in ({"a": {"b": [None]}}, [1], None, {"": {}}, 1e999):
        assert judged(task, changed(call, **{key: odd}))[0] == 0.0


def gold_values(task: Task) -> list[Any]:
    return [value for call in task.gold.calls or () for value in call.arguments.values()]


def test_irrelevance_is_whether_a_call_can_be_read(tasks: dict[str, Task]) -> None:
    task, relevant = tasks["irrelevance_0"], tasks["live_relevance_0-0-0"]
    call, broken = ToolCall(task.tools[0].name, {}), ToolCall("", {}, raw="{", error="not JSON")
    assert judged(task) == (1.0, "no call that can be read")
    assert judged(task, broken)[0] == 1.0
    assert judged(task, call) == (0.0, f"calls {call.name}")
    assert (judged(relevant)[0], judged(relevant, broken)[0]) == (0.0, 0.0)
    for mixed in ((broken, call), (call, broken)):  # the package's decode_ast raises for the whole reply
        assert judged(task, *mixed) == (1.0, "no call that can be read: not JSON")
        assert judged(relevant, *mixed)[0] == 0.0
    assert judged(relevant, ToolCall("anything", {}))[0] == 1.0


def test_selections_and_mistakes_of_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = load_tasks("live_parallel, multi_turn_base,irrelevance", "bfcl", 6)
    categories = [task.metadata["category"] for task in mixed]
    assert categories == ["live_parallel", "multi_turn_base", "irrelevance"] * 2
    assert len(load_tasks("live_parallel,live", "bfcl")) == 1351  # each task once
    with pytest.raises(InputError, match="bfcl has no category 'simple': did you mean simple_java"):
        load_tasks("simple", "bfcl")
    possible_answers.cache_clear()
    monkeypatch.setitem(sys.modules, "bfcl_eval", None)
    with pytest.raises(InputError, match=r"pip install --no-deps bfcl-eval==2026\.3\.23 mpmath"):
        load_tasks("simple_java", "bfcl")


def function_names(task: Task) -> set[str]:
    renamed = task.metadata.get("renamed_tools", {})
    return {renamed.get(tool.name, tool.name) for tool in task.tools}


def test_no_function_is_on_both_sides_of_the_split(tasks: dict[str, Task]) -> None:
    parts = {name: load_tasks(name, "bfcl") for name in SPLITS}
    assert {name: len(part) for name, part in parts.items()} == {
        "python:train": 1033, "python:test": 807, "irrelevance:train": 301, "irrelevance:test": 405,
    }  # fmt: skip
    assert Counter(task.metadata["category"] for task in parts["python:test"]) == {
        "simple_python": 250, "multiple": 124, "parallel": 110, "parallel_multiple": 101, "live_simple": 82,
        "live_multiple": 124, "live_parallel": 12, "live_parallel_multiple": 4,
    }  # fmt: skip
    seen = {
        side: {
            name
            for kind in ("python", "irrelevance")
            for task in parts[f"{kind}:{side}"]
            for name in function_names(task)
        }
        for side in ("train", "test")
    }
    assert seen["train"] and not seen["train"] & seen["test"]
    assert all(task == tasks[task.metadata["entry"]] for part in parts.values() for task in part[::20])
    assert len(load_tasks("python:train,python:test", "bfcl")) == 1840


def test_the_rows_of_the_split_have_at_most_1024_tokens() -> None:
    tokenizer = cache_folder() / "smollm2-135m-instruct" / "tokenizer.json"
    if not tokenizer.exists():
        pytest.skip(f"no SmolLM2 at {tokenizer}: rewright eval … --model smollm2 fetches it")
    script = Path(__file__).parents[2] / "scripts" / "bfcl_long_rows.py"
    done = subprocess.run([sys.executable, script, tokenizer], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == long_rows()


@pytest.fixture(scope="module")
def scripted(tasks: dict[str, Task]) -> Iterator[str]:
    """A server that answers every question with its gold calls."""
    by_question = {task.messages[-1]["content"]: task for task in tasks.values()}

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        made = played(by_question[body["messages"][-1]["content"]]).calls
        calls = [
            {
                "id": f"c{number}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for number, call in enumerate(made)
        ]
        return {"content": None, "tool_calls": calls} if calls else says("I cannot help with that.")

    with served(lambda: chat_server(reply)) as url:
        yield f"{url}/v1"


def test_the_command_plays_gold_calls_through_an_engine(scripted: str, tmp_path: Path) -> None:
    arguments = ["model.engine=openai", f"model.base_url={scripted}", "dialect=chat", "--model", "gold"]
    # simple_python_200, the only refused one among 21 rows of simple_python, is not among the first two.
    done = rewright(tmp_path, "eval", "--benchmark", "bfcl", *arguments, "eval.tasks.path=single_turn", "--limit", "26")
    assert done.code == 0, done.errors
    lines = done.output.splitlines()
    assert "  simple_java: 100.0% [34.2, 100.0] of 2; floor 0.0%, ceiling 97.0%" in lines
    assert "  irrelevance: 100.0% [34.2, 100.0] of 2; floor 100.0%, ceiling 100.0%" in lines
    assert any(line.startswith("  irrelevance (10% of overall): 100.0% [5") for line in lines), done.output
    assert any(line.startswith("  non-live (10% of overall): 100.0% [") for line in lines)
    assert not any("overall v4" in line for line in lines)  # without the multi-turn categories
    assert any(
        line.startswith("  note: web_search (20% of overall), memory_vector and memory_rec_sum") for line in lines
    )
    (row,) = [json.loads(line) for line in (tmp_path / "runs" / "bfcl" / "metrics.jsonl").read_text().splitlines()]
    assert (row["success"], row["floor"]["live (10% of overall)"], row["ceiling"]["simple_java"]) == (1.0, 0.0, 0.97)
    again = rewright(tmp_path, "eval", "--benchmark", "bfcl-ast", *arguments, "--limit", "3", "eval.n=2")
    assert (again.code, "pass^2 100.0%" in again.output) == (0, True), again.errors
