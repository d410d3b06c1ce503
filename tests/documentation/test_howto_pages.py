"""The how-to and start pages: every command is one, and what runs without a GPU runs and prints what the page shows."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer

from rewright.cli.main import app
from rewright.credit.settings import TurnCredit
from rewright.recipe.loader import load_recipe
from support.chat_server import calls, chat_server, results_of, said_by_user, says
from support.in_process import Said, rewright
from support.page_blocks import blocks, commands, json_values, lines, placed
from support.served import served

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FILES = [DOCS / "index.md", DOCS / "results.md", *sorted(DOCS.glob("*/*.md"))]
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text("utf-8") for path in FILES}
COMMANDS = [name for name in PAGES if commands(PAGES[name]) and not name.startswith("benchmarks/")]
VERBS: Any = typer.main.get_command(app)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
OTHERS = {"cd", "curl", "export", "git"}
RECIPE_VERBS = {"run", "eval", "import", "quickstart", "plan"}


def recipe_of(page: str, words: list[str], tmp_path: Path) -> Path | None:
    """The recipe that a command reads: one of the repository, or the first one on the page."""
    named = next((word for word in words if word.endswith(".yaml")), None)
    if named is None or (ROOT / named).exists():
        return None if named is None else ROOT / named
    (tmp_path / "recipe.yaml").write_text(next(iter(blocks(PAGES[page], "yaml")), "tasks: tasks.jsonl\n"), "utf-8")
    return tmp_path / "recipe.yaml"


def check(page: str, words: list[str], tmp_path: Path) -> None:
    """The program, its options, the keys of the recipe and the files of the repository that a command names exist."""
    program = Path(words[0]).name
    if program == "rewright":
        verb = words[1]
        VERBS.commands[verb].make_context(verb, list(words[2:]))
        changes = [word for word in words[2:] if re.match(r"[a-z_]+(\.[\w.]+)?=", word)]
        if verb in RECIPE_VERBS:
            path = None if verb in ("eval", "import") else recipe_of(page, words, tmp_path)
            load_recipe(path, changes or ["seed=0"])
    elif program == "pip":
        extras = {
            extra for word in words for found in re.findall(r"rewright\[(.*)\]", word) for extra in found.split(",")
        }
        assert extras <= set(EXTRAS)
    elif program == "make":
        assert set(words[1:]) <= TARGETS
    elif program == "python" and words[1] == "-m":
        if words[2].startswith("rewright"):
            assert (ROOT / "src" / words[2].replace(".", "/")).with_suffix(".py").exists()
        keys = {
            word[len("+algorithm.rewright.") :].partition("=")[0] for word in words if "algorithm.rewright." in word
        }
        assert keys <= set(TurnCredit.__struct_fields__)
    elif program in ("python", "jupyter", "bash"):
        assert (ROOT / words[1]).exists()
    else:
        assert program in OTHERS, words


@pytest.mark.parametrize("page", COMMANDS)
def test_commands_name_what_exists(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for words in commands(PAGES[page]):
        check(page, words, tmp_path)


@pytest.mark.parametrize("name", [name for name in PAGES if blocks(PAGES[name], "yaml")])
def test_recipes_of_the_pages_are_valid(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for block in blocks(PAGES[name], "yaml"):
        (tmp_path / "recipe.yaml").write_text(block, "utf-8")
        load_recipe(tmp_path / "recipe.yaml")


def run(folder: Path, page: str, address: str = "", *, only: range | None = None) -> list[Said]:
    """Run the commands of a page that are Rewright's, in their order; `view` writes a file and ends."""
    values = {"http://localhost:8000/v1": f"{address}/v1", "NAME": "m"}
    done = []
    found = commands(PAGES[page])
    for words in found if only is None else [found[number] for number in only]:
        if words[0] == "cd":
            folder = folder / words[1]
        if words[0] != "rewright":
            continue
        done.append(
            rewright(folder, *placed(words[1:], values), *(["--static", "page.html"] if words[1] == "view" else []))
        )
        assert done[-1].code == 0, (words, done[-1])
    return done


def shown(page: str) -> list[str]:
    return blocks(PAGES[page], "text")


def reply(body: dict[str, Any]) -> dict[str, Any]:
    """Looks up what the question is about, then says it."""
    if results := results_of(body):
        return says(f"<answer>{results[-1].split()[0]}</answer>")
    question = said_by_user(body)
    if city := re.search(r"How warm is (\w+)\?", question):
        return calls("get_weather", city=city[1])
    person = re.search(r"(?:of|is) (\w+)\W*$", question)
    return calls("get_age", person=person[1] if person else "Tuna")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with served(lambda: chat_server(reply)) as address:
        yield address


def test_logs_are_credited_as_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "howto/credit_logs.md"
    logs, gold = blocks(PAGES[page], "json")
    lines(tmp_path / "logs.jsonl", json_values(logs))
    (tmp_path / "gold.json").write_text(gold, "utf-8")
    table, _picture = run(tmp_path, page)
    assert table.output == shown(page)[0]
    drawn = (tmp_path / "why.svg").read_text("utf-8")
    assert drawn == (DOCS / "images" / "credit_weather.svg").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    (source,) = blocks(PAGES[page], "python")
    assert printed(source) == [line[2:] for line in source.splitlines() if line.startswith("# ")]


def printed(source: str) -> list[str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(source, "page", "exec"), {"__name__": "page"})
    return said.getvalue().splitlines()


def test_the_picture_of_credit_is_what_the_product_draws(tmp_path: Path) -> None:
    words = ["credit", "examples/credit_logs.jsonl", "--trajectory", "flight/1", "--picture"]
    assert rewright(ROOT, *words, str(tmp_path / "credit.svg")).code == 0
    assert (tmp_path / "credit.svg").read_text("utf-8") == (DOCS / "images" / "credit.svg").read_text("utf-8")


def test_failures_are_repaired_as_the_page_shows(tmp_path: Path, server: str) -> None:
    page = "howto/repair.md"
    lines(tmp_path / "logs.jsonl", json_values(blocks(PAGES[page], "json")[0]))
    done = run(tmp_path, page, server)
    assert shown(page)[0] in done[1].output
    assert {"sft.jsonl", "dataset_info.json"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_own_tools_run_as_the_page_shows(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "howto/own_tools.md"
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    done = run(tmp_path, page, server, only=range(5))
    form = re.sub(r"\d+", r"\\d+", shown(page)[0].strip())
    assert re.search(form, done[2].output), done[2].output
    assert "candidates 20, " in done[2].output


def test_the_task_and_the_tool_of_the_page_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "howto/own_tools.md"
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    (tmp_path / "page_tools.py").write_text(blocks(PAGES[page], "python")[0], "utf-8")
    (task,) = json_values(blocks(PAGES[page], "json")[0].replace("my_tools:", "page_tools:"))
    lines(tmp_path / "tasks.jsonl", [task])
    said = rewright(tmp_path, "validate", "tasks.jsonl", "--trusted", "page_tools")
    assert said.code == 0, said.output


def test_models_are_evaluated_and_compared_as_the_page_shows(tmp_path: Path, server: str) -> None:
    page = "howto/evaluate.md"
    task = {
        "messages": [{"role": "user", "content": "How warm is Paris?"}],
        "gold": {"answers": ["21"]},
        "judge": "math",
    }
    source = "def get_weather(city):\n    return '21 degrees'\n"
    schema = {"type": "function", "function": {"name": "get_weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}  # fmt: skip
    gold = {"answers": ["21"], "calls": [{"name": "get_weather", "arguments": {"city": "Paris"}}]}
    task |= {"gold": gold, "tools": [{"schema": schema, "source": source}]}
    lines(tmp_path / "tasks.jsonl", [task | {"id": "one"}, task | {"id": "two"}])
    done = run(tmp_path, page, server, only=range(3))
    for line in shown(page)[0].splitlines():
        assert line.split() == found_like(line, done[0].output), done[0].output
    assert done[2].output == shown(page)[1]


def found_like(line: str, output: str) -> list[str]:
    """The line of an output that begins like this one, as far as this one goes: the last column is the time."""
    words = line.split()
    return next(one.split()[: len(words)] for one in output.splitlines() if one.startswith(words[0]))


@pytest.mark.needs_torch
def test_a_plan_needs_no_gpu() -> None:
    words = next(words for words in commands(PAGES["howto/gpus.md"]) if words[1:2] == ["plan"])
    recipe = str(ROOT / "recipes" / "matchtir.yaml")
    said = rewright(ROOT, *[recipe if word == "recipe.yaml" else word for word in words[1:]])
    assert said.code == 0, said
    assert "GPU" in said.output


@pytest.mark.needs_torch
def test_the_trl_script_of_the_page_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    import transformers

    if tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 13):
        pytest.skip("transformers before 5.13 do not read a response_template")
    (source,) = blocks(PAGES["howto/trl.md"], "python")
    assert len(re.findall(r"  # [12]: ", source)) == 2
    pico = files("rewright") / "engines" / "models" / "pico"
    for here, there in (
        ('"Qwen/Qwen3-0.6B"', repr(str(pico))),
        ("max_completion_length=512", "max_completion_length=48, use_cpu=True, report_to='none', save_strategy='no'"),
        ("num_generations=4", "num_generations=2, per_device_train_batch_size=2"),
        ("max_steps=100", "max_steps=1, disable_tqdm=True, bf16=False"),
    ):
        assert here in source
        source = source.replace(here, there)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(source, "docs/howto/trl.md", "exec"), names)
    logged = {key for row in names["trainer"].state.log_history for key in row}
    promised = set(re.findall(r"`(turn_credit/\w+)`", PAGES["howto/trl.md"]))
    assert promised and promised <= logged


CONCEPTS = [
    pytest.param(source, id=f"{name} {number}")
    for name in sorted(PAGES)
    if name.startswith("concepts/")
    for number, source in enumerate(blocks(PAGES[name], "python"))
]


@pytest.mark.parametrize("source", CONCEPTS)
def test_examples_of_the_concepts_print_what_the_page_says(source: str) -> None:
    ast.parse(source)
    assert printed(source) == [line[2:] for line in source.splitlines() if line.startswith("# ")]
