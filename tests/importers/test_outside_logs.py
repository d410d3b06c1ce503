"""Logs that other libraries have written, each with the same conversation: credited and imported as the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rewright.cli.main import app
from rewright.core.records import Task, Trajectory
from rewright.pipeline.run_directory import Run
from support import peers

HERE = Path(__file__).parent
CALLS = [("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"})]
RESULTS = ["21 degrees", "no such city"]
FILES = (
    "openai_messages.jsonl", "openai_request.jsonl", "responses.jsonl", "responses_items.json", "anthropic.jsonl",
    "anthropic_request.jsonl", "langchain_dump.jsonl", "langchain_dict.jsonl", "langchain_dumpd.jsonl",
    "langchain_blocks.jsonl", "atif_1.7.json", "atif_1.7.jsonl", "atif_1.8.json", "atif_1.8.jsonl", "verifiers_run",
    "verifiers_run/traces.jsonl",
)  # fmt: skip

pytestmark = peers.needs_peers


def rewright(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def imported(file: Path, run: Path, *options: str) -> tuple[list[Task], list[Trajectory]]:
    rewright("import", file, "--run", run, *options)
    opened = Run.open(run)
    return list(opened.tasks), list(opened.trajectories)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What openai, anthropic, langchain-core, atif and verifiers write."""
    written = tmp_path_factory.mktemp("written")
    peers.run((HERE / "write_logs.py").read_text(encoding="utf-8"), written)
    (written / "gold.json").write_text(json.dumps([{"name": name, "arguments": given} for name, given in CALLS]))
    return written


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_library_is_credited(folder: Path, name: str) -> None:
    output = rewright("credit", folder / name, "--gold", folder / "gold.json", "--outcome", "none", "--json")
    (row,) = map(json.loads, output.splitlines())
    assert [(call["name"], call["arguments"]) for call in row["calls"]] == CALLS
    assert row["turn_rewards"] == [1.0, 0.0]


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_library_is_imported(folder: Path, tmp_path: Path, name: str) -> None:
    (task,), (one,) = imported(folder / name, tmp_path / "run")
    system = [] if name == "responses_items.json" else [{"role": "system", "content": "Be brief."}]
    assert list(task.messages) == [*system, {"role": "user", "content": "How warm are Paris and Rome?"}]
    (tool,) = task.tools
    assert (tool.name, tool.kind, tool.schema["function"]["parameters"]["required"]) == (
        "get_weather",
        "recorded",
        ["city"],
    )
    assert [len(turn.calls) for turn in one.turns] == [2, 0]
    assert [(call.name, call.arguments, call.error) for call in one.calls] == [(*call, None) for call in CALLS]
    assert [result.content for result in one.results] == RESULTS
    says_error = name.startswith(("anthropic", "langchain"))
    assert [result.error is not None for result in one.results] == [False, says_error]
    assert (one.answer, one.stop_reason) == ("21 and unknown", "answered")
    thinks = name.startswith(("responses", "anthropic", "atif", "verifiers"))
    assert one.turns[0].text.startswith("<think>\nTwo cities.\n</think>\n\nI look.") == thinks


@pytest.mark.parametrize("name", ["atif_1.8.jsonl", "verifiers_run"])
def test_token_ids_are_kept(folder: Path, tmp_path: Path, name: str) -> None:
    (task,), (one,) = imported(folder / name, tmp_path / "run")
    assert one.token_ids == [1, 2, 3, 4, 5, 6, 7, 8]
    assert one.mask == [0, 0, 0, 1, 1, 0, 0, 1]
    assert [turn.log_probs for turn in one.turns] == [(-0.5, -0.25), (-1.0,)]
    assert (task.id, one.id, one.provenance.model) == ("weather", "one", "m")


def test_outcomes_and_answers_of_the_formats(folder: Path, tmp_path: Path) -> None:
    """ATIF's extra, verifiers' weighted rewards (here 0.5) and its task's answer, a column beside a logged request."""
    found = {name: imported(folder / name, tmp_path / name)[0][0] for name in ("atif_1.8.json", "verifiers_run")}
    assert found["atif_1.8.json"].judge == "logged"
    assert found["atif_1.8.json"].metadata == {"outcomes": {"one": 1.0}, "right_answers": ["21 and unknown"]}
    assert found["verifiers_run"].gold.answers == ("21 and unknown",)
    assert found["verifiers_run"].metadata["outcomes"] == {"one": 0.5}
    run = tmp_path / "atif_1.8.json"
    rewright("judge", run)
    (verdict,) = Run.open(run).verdicts
    assert (verdict.outcome, verdict.reason) == (1.0, "the log's outcome is 1")


WRITE_EVAL = """
import sys
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageUser, ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, system_message, use_tools
from inspect_ai.tool import ToolError, tool

@tool
def get_weather():
    async def execute(city: str):
        \"\"\"The weather.

        Args:
            city: The city.
        \"\"\"
        if city == "Rome":
            raise ToolError("no such city")
        return "21 degrees" + "." * 150
    return execute

def outputs(answer):
    for city in ("Paris", "Rome"):
        yield ModelOutput.for_tool_call("mockllm/model", "get_weather", {"city": city}, content="I look.")
    yield ModelOutput.from_content("mockllm/model", answer)

for format in ("eval", "json"):
    said = [*outputs("It is 21."), *outputs("It is 20."), *outputs("It is 21."), *outputs("It is 21.")]
    for one in said:
        one.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    samples = [
        Sample(id="paris", input="How warm is Paris? " + "." * 150, target="21"),
        Sample(id=2, input=[ChatMessageUser(content="And Rome?")], target=["21", "22"]),
    ]
    task = Task(
        dataset=samples, solver=[system_message("Be brief."), use_tools(get_weather()), generate()], scorer=includes()
    )
    model = get_model("mockllm/model", custom_outputs=said)
    (log,) = eval(task, model=model, log_dir=sys.argv[1], log_format=format, display="none", max_samples=1, epochs=2)
    assert log.status == "success", log.error
"""


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two logs of inspect_ai, one of them an `.eval` file: 2 samples, 2 epochs, tools, a scorer."""
    written = tmp_path_factory.mktemp("evaluations")
    peers.run(WRITE_EVAL, written)
    return written


@pytest.mark.parametrize("suffix", ["eval", "json"])
def test_a_log_of_inspect_is_credited_and_imported(evaluations: Path, tmp_path: Path, suffix: str) -> None:
    (file,) = evaluations.glob(f"*.{suffix}")
    gold = tmp_path / "gold.jsonl"
    gold.write_text(
        "".join(
            json.dumps({"id": key, "calls": [{"name": "get_weather", "arguments": {"city": "Paris"}}]}) + "\n"
            for key in ("paris", "2")
        )
    )
    rows = [json.loads(line) for line in rewright("credit", file, "--gold", gold, "--json").splitlines()]
    assert sorted(row["group"] for row in rows) == ["2", "2", "paris", "paris"]
    assert sorted(row["outcome"] for row in rows) == [0.0, 1.0, 1.0, 1.0]
    assert all(row["turn_rewards"][:2] == [1.0, 0.0] for row in rows)
    tasks, found = imported(file, tmp_path / "run")
    by_id: dict[str, Any] = {task.id: task for task in tasks}
    assert {key: task.gold.answers for key, task in by_id.items()} == {"paris": ("21",), "2": ("21", "22")}
    assert by_id["paris"].messages[-1]["content"] == "How warm is Paris? " + "." * 150
    assert by_id["paris"].tools[0].schema["function"]["parameters"]["properties"]["city"]["description"] == "The city."
    for one in found:
        assert [(call.name, call.arguments) for call in one.calls] == CALLS
        assert [result.content for result in one.results] == ["21 degrees" + "." * 150, "no such city"]
        assert [bool(result.error) for result in one.results] == [False, True]
    rewright("judge", tmp_path / "run")
    assert sorted(verdict.outcome for verdict in Run.open(tmp_path / "run").verdicts) == [0.0, 1.0, 1.0, 1.0]


def test_an_eval_file_that_is_broken_or_empty_is_one_line(evaluations: Path, tmp_path: Path) -> None:
    (file,) = evaluations.glob("*.eval")
    data = file.read_bytes()
    start = data.index(b"samples/")
    for content, said in (
        (b"no archive", "not a log of inspect_ai: File is not a zip file: expected a zip archive"),
        (data[: start + 200] + b"\0" * 40 + data[start + 240 :], "cannot be decompressed"),
    ):
        broken = tmp_path / "broken.eval"
        broken.write_bytes(content)
        for verb in ("credit", "import"):
            options = ["--run", str(tmp_path / "run")] if verb == "import" else []
            result = CliRunner().invoke(app, [verb, str(broken), *options])
            assert type(result.exception).__name__ == "InputError"
            assert said in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_an_eval_file_says_what_it_needs(evaluations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither Python (3.14) nor pyarrow reads Zstandard."""
    if sys.version_info >= (3, 14):
        pytest.skip("zipfile reads Zstandard")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (file,) = evaluations.glob("*.eval")
    problem = CliRunner().invoke(app, ["credit", str(file)]).exception
    assert str(problem).startswith(f"{file}: is compressed with Zstandard, which needs pyarrow: pip install 'rewright")
