"""`rewright eval --suite`: every member is a run, and the table of the paper stands beside the published rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rewright.benchmarks import find_benchmark
from rewright.benchmarks.scoring.suites import SUITES
from rewright.core.registry import known
from support.chat_server import Body, chat_server, said_by_user, says
from support.in_process import Said, rewright
from support.served import served

ANSWERS = {"Who is the aunt of Ann?": "Bea", "What is 2 + 2?": "4", "Who wrote it?": "Tolstoy", "Choose.": "B"}
TOOL = {
    "name": "city_finder",
    "description": "d",
    "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
}

SYSTEMS = ("vanilla", "GRPO", "FTRL-M", "ToolRL-M", "MatchTIR (OT)", "MatchTIR (KM)")
AVERAGES = {
    "Qwen3-4B": ("27.78", "31.32", "33.82", "31.82", "34.45", "36.07"),
    "Qwen3-8B": ("33.99", "34.92", "36.61", "35.36", "38.54", "39.92"),
}
MATCHTIR = {
    f"{model}, {system}": value
    for model, values in AVERAGES.items()
    for system, value in zip(SYSTEMS, values, strict=True)
}
"""Every value of the paper (arXiv 2601.10712) that is at hand."""


@pytest.fixture
def seen() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def server(seen: list[dict[str, Any]]) -> Iterator[str]:
    """Knows the answers, and makes no call."""
    with served(lambda: chat_server(lambda body: says(ANSWERS.get(said_by_user(body), "No idea.")), seen=seen)) as url:
        yield f"{url}/v1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sources = {"city_finder": "def city_finder(name):\n    return 'Rome'"}
    ftrl = {
        "messages": [{"role": "user", "content": "Where does Ann live?"}],
        "tools": [{"type": "function", "function": TOOL}],
        "codes": sources,
        "unsolved_set": {"city_finder": ["Rome"]},
        "answer": "Rome",
        "split": "test",
    }
    toolhop = {
        "id": "0",
        "question": "Who is the aunt of Ann?",
        "answer": "Bea",
        "sub_task": {},
        "tools": {"Who?": TOOL},
        "functions": list(sources.values()),
    }
    maths = {"question": "What is 2 + 2?", "problem": "What is 2 + 2?", "answer": "4"}
    words = {"question": "Who wrote it?", "answer": "Tolstoy"}
    files = {
        "ftrl": ftrl, "toolhop": toolhop, "maths": maths, "gsm8k": {**maths, "answer": "2 + 2 = 4\n#### 4"},
        "words": words, "hle": {"question": "Choose.", "answer": "B", "answer_type": "multipleChoice", "image": ""},
        "braces": {"question": "What is 2 + 2?", "answer": "{5}"},
    }  # fmt: skip
    for name, row in files.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path


AUTOTRAJ_FILES = {
    "aime24": "maths.jsonl", "aime25": "maths.jsonl", "amc23": "maths.jsonl", "gsm8k": "gsm8k.jsonl",
    "math": "autotraj:braces.jsonl", "hotpotqa": "words.jsonl", "2wikimultihopqa": "words.jsonl",
    "musique": "words.jsonl", "hle": "hle.jsonl",
}  # fmt: skip
"""Files for every member of the suite: one without would be looked for on the Hub."""


def suite(folder: Path, server: str, name: str, *arguments: str) -> Said:
    engine = ["model.engine=openai", f"model.base_url={server}", "dialect=chat", "sandbox=process"]
    return rewright(folder, "eval", "--suite", name, "--model", "knows", *engine, *arguments)


def test_matchtir_averages_and_resumes(folder: Path, server: str, seen: list[dict[str, Any]]) -> None:
    arguments = ["--limit", "4", "--data", "ftrl=ftrl.jsonl", "--data", "toolhop=toolhop.jsonl"]
    done = suite(folder, server, "matchtir", *arguments)
    assert done.code == 0, done.errors
    rows = {line[:24].strip(): line[24:].split() for line in done.output.splitlines()}
    assert rows["knows"] == ["0.0", "0.0", "100.0", "33.3"]
    assert rows["floor"] == ["0.0", "0.0", "0.0", "-"]
    assert rows["ceiling"] == ["-", "100.0", "100.0", "-"]
    assert {name: rows[name] for name in MATCHTIR} == {name: ["-", "-", "-", value] for name, value in MATCHTIR.items()}
    assert "published: arXiv 2601.10712" in done.output
    stored = json.loads((folder / "runs" / "matchtir" / "suite.json").read_text())
    assert stored["average"]["value"] == pytest.approx(1 / 3)
    assert 0 < stored["average"]["low"] < 1 / 3 < stored["average"]["high"] < 1
    assert stored["columns"]["toolhop"]["run"] == "runs/matchtir/toolhop"
    asked = len(seen)
    again = suite(folder, server, "matchtir", *arguments, "--resume", "--json")
    assert (again.code, len(seen)) == (0, asked), again.errors  # nothing is asked twice
    shown = json.loads(again.output.splitlines()[-1])
    assert (shown["average"], len(shown["runs"])) == (stored["average"], 3)


def test_every_dash_has_a_reason_and_what_a_limit_ended_is_shown(folder: Path) -> None:
    """Three tasks are of three of BFCL's four categories, so that its total is missing, and with it the mean."""
    bodies: list[dict[str, Any]] = []

    def reply(body: Body) -> dict[str, Any]:
        return says("It is", finish_reason="length") if "Ann" in said_by_user(body) else says("No idea.")

    with served(lambda: chat_server(reply, seen=bodies)) as url:
        arguments = ["--limit", "3", "--data", "ftrl=ftrl.jsonl", "--data", "toolhop=toolhop.jsonl"]
        done = suite(folder, f"{url}/v1", "matchtir", *arguments)
    assert done.code == 0, done.errors
    why = "no task of multi_turn_long_context was evaluated, and its total needs all 4 categories"
    assert f"missing: bfcl-multi-turn: {why.replace('multi_turn_', '')}\n" in done.output
    assert "missing: average: it needs all columns, and bfcl-multi-turn has no value\n" in done.output
    rows = {line[:24].strip(): line[24:].split() for line in done.output.splitlines()}
    assert rows["ended at a limit"] == ["100.0", "0.0", "100.0", "-"]
    assert done.output.count("\n  100.0% (1 of 1) ended at a limit (token_limit 1)\n") == 2
    assert {body["max_tokens"] for body in bodies if "Ann" in said_by_user(body)} == {23000}
    stored = json.loads((folder / "runs" / "matchtir" / "suite.json").read_text())
    assert stored["columns"]["bfcl-multi-turn"]["missing"] and stored["columns"]["ftrl"]["limited"] == 1.0


def test_every_benchmark_states_its_limits() -> None:
    for name in known("benchmark"):
        keys = {setting.partition("=")[0] for setting in find_benchmark(name, "--benchmark").settings}
        assert keys >= {"limits.turns", "limits.turn_tokens", "limits.trajectory_tokens"}, name


def test_a_suite_that_stopped_at_its_second_member_resumes(folder: Path, server: str, seen: list[Body]) -> None:
    """The ones after it have not begun."""
    files = [*(f"--data={name}={file}" for name, file in AUTOTRAJ_FILES.items()), "--run", "here"]
    suite(folder, server, "autotraj", *files, "--resume").refused("here/aime24 contains no run to continue")

    def reply(body: Body) -> dict[str, Any]:
        if len(seen) == 2:
            raise web.HTTPNotFound(text="no such model")
        return says(ANSWERS[said_by_user(body)])

    with served(lambda: chat_server(reply, seen=seen)) as url:
        engine = ["model.engine=openai", f"model.base_url={url}/v1", "model.attempts=1", "dialect=chat"]
        stopped = rewright(folder, "eval", "--suite", "autotraj", "--model", "knows", *engine, *files)
        assert (stopped.code, len(seen)) == (1, 2), stopped.errors
        assert not (folder / "here" / "hle").exists()
        done = rewright(folder, "eval", "--suite", "autotraj", "--model", "knows", *engine, *files, "--resume")
    assert done.code == 0, done.errors
    assert len(seen) == 2 + len(AUTOTRAJ_FILES) - 1  # the first one is not asked again
    assert json.loads((folder / "here" / "suite.json").read_text())["columns"]["hle"]["value"] == 1.0


def test_a_suite_resumes_with_the_files_of_its_runs(folder: Path, server: str, seen: list[Body]) -> None:
    """What is done keeps its column, though its file is not named again, or is not there any more."""
    arguments = ["--limit", "4", "--data", "toolhop=toolhop.jsonl"]
    assert suite(folder, server, "matchtir", *arguments, "--data", "ftrl=ftrl.jsonl").code == 0
    stored, asked = (folder / "runs" / "matchtir" / "suite.json").read_text(), len(seen)
    (folder / "ftrl.jsonl").unlink()
    again = suite(folder, server, "matchtir", "--limit", "4", "--resume")
    assert (again.code, len(seen)) == (0, asked), again.errors
    assert "left out" not in again.errors
    assert (folder / "runs" / "matchtir" / "suite.json").read_text() == stored
    other = suite(folder, server, "matchtir", "--limit", "4", "--resume", "--data", "ftrl=toolhop.jsonl")
    other.refused('eval.tasks.path is "ftrl.jsonl" there, and "toolhop.jsonl" was given')


@pytest.mark.parametrize("name", ["a: b", "a #b", "1.0", "null", "\N{GRINNING FACE}"])
def test_names_of_files_and_models_are_texts_whatever_they_mean_in_yaml(
    folder: Path, server: str, seen: list[Body], name: str
) -> None:
    (folder / f"{name}.jsonl").write_bytes((folder / "maths.jsonl").read_bytes())
    engine = ["model.engine=openai", f"model.base_url={server}", "dialect=chat", "--model", name]
    files = [f"--data={key}={path}" for key, path in (AUTOTRAJ_FILES | {"aime24": f"{name}.jsonl"}).items()]
    for again in ([], ["--resume"]):
        done = rewright(folder, "eval", "--suite", "autotraj", "--run", "here", *engine, *files, *again)
        assert done.code == 0, done.errors
    assert json.loads((folder / "here" / "suite.json").read_text())["columns"]["aime24"]["value"] == 1.0
    done = rewright(folder, "eval", f"{name}.jsonl", *engine, "eval.tasks.format=math")
    assert done.code == 0, done.errors
    assert {body["model"] for body in seen} == {name}


def test_several_benchmarks_that_stopped_before_the_last_resume(folder: Path, server: str) -> None:
    engine = ["model.engine=openai", f"model.base_url={server}", "dialect=chat", "eval.tasks.path=maths.jsonl"]
    one = ["eval", "--model", "knows", *engine, "--benchmark", "aime24"]
    rewright(folder, *one, "--benchmark", "aime25", "--resume").refused("contains no run to continue")
    assert rewright(folder, *one).code == 0
    done = rewright(folder, *one, "--benchmark", "aime25", "--resume")
    assert done.code == 0, done.errors
    assert sorted(path.parent.name for path in folder.glob("runs/*/recipe.yaml")) == ["aime24", "aime25"]


def test_a_benchmark_without_its_file_is_named_and_left_out(folder: Path, server: str) -> None:
    done = suite(folder, server, "matchtir", "--limit", "1", "--data", "toolhop=toolhop.jsonl", "--run", "here")
    assert done.code == 0, done.errors
    why = "ftrl is left out: its file is not here: expected --data ftrl=PATH; get it from the repository bytedance/FTRL"
    assert why in done.errors
    assert "missing: ftrl: its file is not here" in done.output
    assert (folder / "here" / "toolhop" / "metrics.jsonl").exists()
    stored = json.loads((folder / "here" / "suite.json").read_text())
    assert (stored["average"], stored["columns"]["toolhop"]["value"]) == (None, 1.0)
    assert stored["columns"]["ftrl"]["missing"].startswith("its file is not here")


def test_autotraj_has_a_column_for_every_set(folder: Path, server: str, seen: list[Body]) -> None:
    done = suite(folder, server, "autotraj", *(f"--data={name}={file}" for name, file in AUTOTRAJ_FILES.items()))
    assert done.code == 0, done.errors
    rows = {line[:16].strip(): line[16:].split() for line in done.output.splitlines()}
    assert rows["knows"] == ["100.0"] * 3 + ["0.0"] + ["100.0"] * 5
    assert rows["AutoTraj, 7B"] == ["23.33", "-", "47.50", "69.10", *["-"] * 5]
    assert rows["floor"] == ["0.0"] * 9 and rows["ceiling"] == ["100.0"] * 9
    assert done.output.count("  exact_match: 1.000 [0.207, 1.000] of 1\n  f1: 1.000") == 4
    assert "ended at a limit" not in done.output
    assert {body["max_tokens"] for body in seen} == {1024}  # AutoTraj's limits
    assert "tool_calls: 3" in (folder / "runs" / "autotraj" / "hle" / "recipe.yaml").read_text()


def test_a_benchmark_alone_has_its_own_limits(folder: Path, server: str, seen: list[Body]) -> None:
    engine = ["model.engine=openai", f"model.base_url={server}", "dialect=chat", "eval.tasks.path=maths.jsonl"]
    done = rewright(folder, "eval", "--benchmark", "aime24", "--model", "knows", *engine, "--run", "here")
    assert done.code == 0, done.errors
    assert {body["max_tokens"] for body in seen} == {16384}
    assert "tool_calls: 3" not in (folder / "here" / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--suite", "matchtr"], "--suite: unknown suite 'matchtr': expected one of autotraj, matchtir"),
        (["--suite", "matchtir", "--benchmark", "bfcl"], "--suite matchtir and bfcl: expected one of them"),
        (["--suite", "matchtir", "--data", "ftrl"], "--data is 'ftrl': expected BENCHMARK=PATH, with one of ftrl"),
        (["--suite", "matchtir", "--data", "math=a"], "--data is 'math=a': expected BENCHMARK=PATH, with one of ftrl"),
        (["--suite", "matchtir", "--data=ftrl=a", "--data=ftrl=b"], "--data ftrl is given twice"),
        (["--suite", "matchtir", "--data=ftrl=no.parquet", "--data=toolhop=toolhop.jsonl"], "no.parquet"),
        (["--suite", "matchtir", "eval.tasks.path=a"], "would be of all benchmarks of --suite matchtir: expected"),
        (["--suite", "autotraj", "eval.tasks=a.jsonl"], "eval.tasks=a.jsonl would be of all benchmarks of --suite"),
        (["--benchmark", "ftrl"], "get the file of ftrl from the repository bytedance/FTRL on GitHub, 200 rows"),
        (["--suite", "matchtir", "--data=ftrl=toolhop.jsonl", "--data=toolhop=toolhop.jsonl"], "toolhop.jsonl:1: "),
        (["--benchmark", "ftrl", "--data", "ftrl=a"], "--data ftrl=a is for --suite: expected eval.tasks.path=PATH"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_write_nothing(folder: Path, arguments: list[str], said: str) -> None:
    rewright(folder, "eval", *arguments, "--model", "pico").refused(said)
    assert not (folder / "runs").exists()


def test_every_member_is_a_benchmark_that_says_where_its_files_are() -> None:
    for one in SUITES.values():
        columns = {member.benchmark for member in one.members}
        for member in one.members:
            benchmark = find_benchmark(member.benchmark, "--suite")
            assert benchmark.data or member.benchmark == "bfcl-multi-turn"
        for row in one.published:
            assert set(row.values) <= columns | ({"average"} if one.averaged else set())


def test_the_usual_place_on_the_hub_is_a_text_in_an_override(tmp_path: Path) -> None:
    """YAML reads `hf:` as a key without a value."""
    done = rewright(tmp_path, "eval", "--benchmark", "toolhop", "eval.tasks.path=no:", "--model", "pico")
    done.refused("no:")
    assert "got a section" not in done.errors
