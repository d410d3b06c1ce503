"""`rewright init`: what it writes runs as the printed commands say, and nothing is overwritten."""

from __future__ import annotations

import inspect
import json
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from rewright.core.storage import read_jsonl
from rewright.recipe.loader import load_recipe
from support.in_process import Said, rewright
from support.served import served

FILES = ["my_tools.py", "recipe.yaml", "tasks.jsonl"]
JSON_TYPES = {"str": "string", "float": "number"}


@pytest.fixture(scope="module", autouse=True)
def _path() -> Iterator[None]:
    """The command line appends the current folder to the path of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        yield


def printed_commands(folder: Path, output: str) -> list[tuple[list[str], Said]]:
    """Run the commands under `next:` one after the other, each in the folder that `cd` leads to."""
    done = []
    for line in output.partition("next:\n")[2].splitlines():
        verb, *arguments = shlex.split(line)
        if verb == "cd":
            folder = folder / arguments[0]
        else:
            assert verb == "rewright"
            more = ["--static", "page.html"] if arguments[0] == "view" else []  # it would serve until Ctrl-C
            done.append((arguments, rewright(folder, *arguments, *more)))
    return done


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[list[str], Said]]]:
    """A project in a folder whose name needs quotes, and what the printed commands did in it."""
    folder = tmp_path_factory.mktemp("init")
    said = rewright(folder, "init", "my project")
    assert said.code == 0, said.errors
    return folder / "my project", printed_commands(folder, said.output)


@pytest.mark.needs_torch
def test_the_printed_commands_work_as_printed(first: tuple[Path, list[tuple[list[str], Said]]]) -> None:
    folder, done = first
    assert [arguments[0] for arguments, _ in done] == ["validate", "run", "view"]
    assert [said.code for _, said in done] == [0, 0, 0], done
    assert "5 rows, 15 tool functions" in done[0][1].output
    assert "0 errors, 0 warnings" in done[0][1].output
    assert "candidates 20, " in done[1][1].output
    assert (folder / "page.html").exists()


@pytest.mark.needs_torch
def test_the_model_calls_the_functions_of_the_written_module(
    first: tuple[Path, list[tuple[list[str], Said]]],
) -> None:
    rows = (folder_row for _, folder_row in read_jsonl(first[0] / "runs/first/trajectories.jsonl", dict[str, Any]))
    results = [(call["name"], result) for row in rows for turn in row["turns"]
               for call, result in zip(turn["calls"], turn["results"], strict=True)]  # fmt: skip
    returned = {(name, result["content"]) for name, result in results if result["error"] is None}
    assert ("get_age", "36") in returned
    assert ("get_manager", "Tuna") in returned


def test_the_schemas_of_the_tasks_are_those_of_the_functions(tmp_path: Path) -> None:
    assert rewright(tmp_path, "init").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    module = runpy.run_path(str(tmp_path / "my_tools.py"))
    tasks = [json.loads(line) for line in (tmp_path / "tasks.jsonl").read_text().splitlines()]
    assert len(tasks) == 5
    for tool in (tool for task in tasks for tool in task["tools"]):
        schema = tool["schema"]["function"]
        function = module[schema["name"]]
        parameters = inspect.signature(function).parameters.values()
        types = {one.name: {"type": JSON_TYPES[one.annotation.__name__]} for one in parameters}
        assert schema["description"] == inspect.getdoc(function)
        assert schema["parameters"] == {"type": "object", "properties": types, "required": list(types)}
        assert tool["target"] == f"my_tools:{schema['name']}"


def test_a_project_in_the_current_folder_needs_no_cd(tmp_path: Path) -> None:
    assert "  cd " not in rewright(tmp_path, "init", ".").output
    assert "  cd ./-x\n" in rewright(tmp_path, "init", "--", "-x").output


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_exists_is_kept_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / name).write_text("mine")
    rewright(tmp_path, "init", "my").refused(f"my/{name} is there already: expected a folder without it")
    assert [path.name for path in (tmp_path / "my").iterdir()] == [name]
    assert (tmp_path / "my" / name).read_text() == "mine"


def test_a_dangling_link_counts_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    rewright(tmp_path, "init").refused("recipe.yaml is there already")
    assert not (tmp_path / "elsewhere.yaml").exists()


def test_a_file_in_the_place_of_the_folder_is_a_mistake_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "my").write_text("")
    rewright(tmp_path, "init", "my").refused("my: cannot be written: File exists")
    rewright(tmp_path, "init", "my/project").refused("my/project: cannot be written: Not a directory")


def section(folder: Path) -> Any:
    load_recipe(folder / "recipe.yaml")
    return yaml.safe_load((folder / "recipe.yaml").read_text())["model"]


@pytest.mark.parametrize(
    ("model", "address", "name"),
    [
        ("http://localhost:8000/v1/Qwen/Qwen3-8B", "http://localhost:8000/v1", "Qwen/Qwen3-8B"),
        ("http://localhost:8000/v1/openai/gpt-oss-20b", "http://localhost:8000/v1", "openai/gpt-oss-20b"),
        ("https://router.example/api/v1/a: b", "https://router.example/api/v1", "a: b"),
        ("https://one.example/v1beta/openai/gemini", "https://one.example/v1beta/openai", "gemini"),
    ],
)
def test_a_served_model_is_an_address_and_a_name(tmp_path: Path, model: str, address: str, name: str) -> None:
    assert rewright(tmp_path, "init", "--model", model).code == 0
    assert section(tmp_path) == {"path": name, "engine": "openai", "base_url": address}


def test_a_local_folder_is_found_from_the_folder_of_the_recipe_too(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert rewright(tmp_path, "init", "my", "--model", "models/mine").code == 0
    assert section(tmp_path / "my") == {"path": str(tmp_path / "models" / "mine")}
    assert rewright(tmp_path, "init", "hub", "--model", "Qwen/Qwen3-0.6B").code == 0
    assert section(tmp_path / "hub") == {"path": "Qwen/Qwen3-0.6B"}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("http://localhost:8000/v1", "expected the address up to /v1 and then the name of the model"),
        ("http://localhost:8000/v1/", "expected the address up to /v1 and then the name of the model"),
        ("localhost:8000/v1/m://x", "expected the address up to /v1"),
        ("http://localhost:99999/v1/m", "--model: base_url 'http://localhost:99999/v1' is not a URL: Port"),
        ("pico-tags", "expected pico, or a model that writes the hermes dialect"),
        ("", "--model= is empty"),
    ],
)
def test_a_model_that_is_not_understood_writes_nothing(tmp_path: Path, model: str, words: str) -> None:
    rewright(tmp_path, "init", "my", f"--model={model}").refused(words)
    assert list(tmp_path.iterdir()) == []


def chat_server() -> web.Application:
    """A chat server that makes the gold calls of each question with native tool calls, then answers."""
    from importlib.resources import files

    lines = (files("rewright.recipe") / "starter_files" / "tasks.jsonl").read_text("utf-8").splitlines()
    golds = {task["messages"][1]["content"]: task["gold"] for task in map(json.loads, lines)}

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        assert [tool["function"]["name"] for tool in body["tools"]] == ["get_manager", "get_age", "add"]
        gold = next(golds[one["content"]] for one in body["messages"] if one.get("content") in golds)
        made = sum(one["role"] == "tool" for one in body["messages"])
        message: dict[str, Any] = {"role": "assistant", "content": f"<answer>{gold['answers'][0]}</answer>"}
        if made < len(gold["calls"]):
            call = gold["calls"][made]
            function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
            message = {"role": "assistant", "content": None,
                       "tool_calls": [{"id": f"c{made}", "type": "function", "function": function}]}  # fmt: skip
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return web.json_response({"object": "chat.completion", "model": body["model"], "choices": [choice]})

    application = web.Application()
    application.router.add_post("/v1/chat/completions", complete)
    return application


def test_the_recipe_for_a_served_model_runs_as_printed(tmp_path: Path) -> None:
    with served(chat_server) as address:
        said = rewright(tmp_path, "init", "my", "--model", f"{address}/v1/any/model")
        done = printed_commands(tmp_path, said.output)
    assert [said.code for _, said in done] == [0, 0, 0], done
    assert "candidates 20, kept 20, low 0, wrong 0" in done[1][1].output
