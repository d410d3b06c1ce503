"""docs/tasks.md quotes the files of `rewright init`, names every field, and its mistakes are answered as it says."""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from rewright.core.records import Gold, Task, ToolSpec
from rewright.recipe.loader import load_recipe
from rewright.tasks.from_recipe import mixture_order
from support.in_process import rewright

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text("utf-8")
STARTER = files("rewright.recipe") / "starter_files"
FIRST = json.loads((STARTER / "tasks.jsonl").read_text("utf-8").splitlines()[0])
Change = Callable[[dict[str, Any]], None]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def rows(heading: str) -> dict[str, str]:
    """First and last cell of every row of the first table under a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [re.split(r"(?<!\\)\|", line.strip("|")) for line in section.splitlines() if line.startswith("|")]
    return {row[0].strip(): row[-1].strip() for row in cells[2:]}


def test_the_page_quotes_the_files_that_init_writes() -> None:
    assert json.loads(blocks("json")[0]) == FIRST
    assert (STARTER / "my_tools.py").read_text("utf-8") in blocks("python")
    assert (STARTER / "recipe.yaml").read_text("utf-8") in blocks("yaml")


def test_the_commands_on_the_page_are_those_that_init_prints(tmp_path: Path) -> None:
    commands = [line.partition("#")[0].strip() for line in blocks("bash")[0].splitlines()]
    assert commands[0] == "rewright init my && cd my"
    printed = rewright(tmp_path, "init", "my").output.partition("next:\n")[2].splitlines()
    assert ["cd my", *commands[1:]] == [line.strip() for line in printed]


@pytest.mark.parametrize(("heading", "kind"), [("Fields", Task), ("Tools", ToolSpec), ("Gold calls and answers", Gold)])
def test_every_field_stands_on_the_page(heading: str, kind: Any) -> None:
    assert {name.strip("`") for name in rows(heading)} == set(kind.__struct_fields__)


@pytest.mark.parametrize("block", blocks("json")[1:])
def test_every_task_on_the_page_is_one(tmp_path: Path, block: str) -> None:
    (tmp_path / "tasks.jsonl").write_text(json.dumps(json.loads(block)) + "\n")
    said = rewright(tmp_path, "validate", "tasks.jsonl")
    assert said.code == 0, said.output


@pytest.mark.parametrize("recipe", blocks("yaml"))
def test_every_recipe_on_the_page_is_valid(tmp_path: Path, recipe: str) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe)
    load_recipe(tmp_path / "recipe.yaml")


def test_the_numbers_of_the_mixture_on_the_page_are_right() -> None:
    order = [source for source, _ in mixture_order([300, 50, 200], [3, 1, 1])]
    assert [order.count(source) for source in range(3)] == [150, 50, 50]
    assert "Of 300, 50 and 200 tasks with the weights 3, 1 and 1 these are 150, 50\n  and 50." in PAGE


def at(*path: Any, to: Any) -> Change:
    def change(task: dict[str, Any]) -> None:
        place: Any = task
        for key in path[:-1]:
            place = place[key]
        if to is None:
            del place[path[-1]]
        else:
            place[path[-1]] = to

    return change


AGE = FIRST["tools"][1]["schema"]


def unchanged(task: dict[str, Any]) -> None:
    """The mistake is not in the task."""


MISTAKES: dict[str, Change] = {
    "a misspelled field": at("jugde", to="math"),
    "an answer that is not in a list": at("gold", "answers", to="36"),
    "a number as answer": at("gold", "answers", to=[36]),
    "arguments as text": at("gold", "calls", 0, "arguments", to='{"person": "Tuna"}'),
    "no gold answer": at("gold", to=None),
    "a gold call to another name": at("gold", "calls", 0, "name", to="get_agee"),
    "a gold call with another argument": at("gold", "calls", 0, "arguments", to={"name": "Tuna"}),
    'a schema without `"type": "function"` around it': at("tools", 0, "schema", to=AGE["function"]),
    "a tool without a schema": at("tools", 0, "schema", to=None),
    "a dot in place of the colon": at("tools", 0, "target", to="my_tools.get_manager"),
    "a function that is not there": at("tools", 1, "target", to="my_tools:get_agee"),
    "a module that is not trusted": unchanged,
    "source that defines another name": at(
        "tools", 1, to={"schema": AGE, "source": "def age(person):\n    return 36\n"}
    ),
    "source with other parameters": at("tools", 1, to={"schema": AGE, "source": "def get_age(name):\n    return 36\n"}),
    "an output that no gold call produces": at("gold", "outputs", to={"get_age": ["99"]}),
    "one id twice": unchanged,
    "roles of another format": at("messages", 0, "role", to="human"),
    "a prompt that is not a list": at("messages", to="What is the age of Tuna?"),
    "an unknown judge": at("judge", to="exactt"),
}


def test_every_mistake_of_the_page_is_tried() -> None:
    assert list(rows("Common mistakes")) == list(MISTAKES)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_answered_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    rewright(tmp_path, "init")
    task = copy.deepcopy(FIRST)
    MISTAKES[mistake](task)
    times = 2 if mistake == "one id twice" else 1
    (tmp_path / "tasks.jsonl").write_text((json.dumps(task) + "\n") * times)
    trusted = [] if mistake == "a module that is not trusted" else ["--trusted", "my_tools"]
    said = rewright(tmp_path, "validate", "tasks.jsonl", *trusted)
    message = rows("Common mistakes")[mistake].strip("`").strip().replace("\\|", "|")
    assert said.code == 1
    assert any(line.startswith("error: row ") and message in line for line in said.output.splitlines()), said.output
