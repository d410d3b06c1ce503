"""A served model that calls tools natively and answers in prose, from the candidates to the exported sets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rewright.core.records import Trajectory
from rewright.dialects.format_check import format_problem
from rewright.pipeline.run_directory import Run
from support import in_process
from support.chat_server import Body, calls, chat_server, results_of, said_by_user, says
from support.in_process import Said
from support.served import served
from support.static_page import page_data

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
SOURCE = "def add(a, b):\n    return a + b\n"
RECIPE = """\
stages: {stages}
sandbox: process
synth: {{n: 1}}
limits: {{turn_tokens: 100}}
model: {{path: m, engine: openai, base_url: '{url}/v1', mode: chat}}
tasks: tasks.jsonl
eval: {{tasks: {{format: rewright, path: tasks.jsonl}}}}
"""


def write(
    folder: Path, url: str, count: int = 6, *, stages: str = "[synth, judge]", more: str = "", **keys: Any
) -> None:
    rows = [
        {
            "id": f"t{number}",
            "messages": [{"role": "user", "content": f"What is {number} + {number + 1}?"}],
            "tools": [{"schema": ADD, "source": SOURCE}],
            "gold": {"answers": [str(2 * number + 1)]},
            "judge": ("exact", "qa", "math")[number % 3],
            **keys,
        }
        for number in range(10, 10 + count)
    ]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "r.yaml").write_text(RECIPE.format(stages=stages, url=url) + more)


def terms(body: Body) -> tuple[int, int]:
    found = re.search(r"(\d+) \+ (\d+)", said_by_user(body))
    assert found is not None
    return int(found[1]), int(found[2])


def adds(body: Body) -> dict[str, Any]:
    """Calls the tool, then answers in prose. Every third answer is wrong, but right when it is repaired."""
    a, b = terms(body)
    if not results_of(body):
        return calls("add", "I will add them.", a=a, b=b)
    total = int(results_of(body)[-1])
    if a % 3 == 0 and "Attempt:" not in said_by_user(body):
        return says(f"The answer is {total + 1}.")
    return says(
        f"The sum of {a} and {b} is **{total}**. Let me know if you have 2 more questions!", reasoning_content="So."
    )


Rewright = Callable[..., Said]


def tells(rewright: Rewright, folder: Path, reply: Callable[[Body], dict[str, Any]], **keys: Any) -> list[str]:
    """The warnings of a run over tasks that are answered by `reply`."""
    with served(lambda: chat_server(reply)) as url:
        write(folder, url, **keys)
        said = rewright("run", "r.yaml", "--run", "run")
    assert said.code == 0, said.errors
    return [line for line in said.errors.splitlines() if line.startswith("warning: ")]


def judged_by(folder: Path, extractor: str) -> None:
    """Judge a run again with the extractor in its recipe."""
    recipe = folder / "run" / "recipe.yaml"
    recipe.write_text(re.sub(r"(?m)^extractor:.*", f"extractor: {extractor}", recipe.read_text()))
    said = in_process.rewright(folder, "judge", "run")
    assert said.code == 0, said.errors


@pytest.fixture
def here(tmp_path: Path) -> Rewright:
    return partial(in_process.rewright, tmp_path)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Body], Said]]:
    """A run through all stages before training. (folder, requests, what was printed)."""
    folder = tmp_path_factory.mktemp("walk")
    seen: list[Body] = []
    with served(lambda: chat_server(adds, seen=seen)) as url:
        write(folder, url, stages="[eval_base, synth, judge, score, repair, build]")
        said = in_process.rewright(folder, "run", "r.yaml", "--run", "run")
    assert said.code == 0, said.errors
    yield folder, seen, said


def test_a_chat_model_is_judged_repaired_and_built(walked: tuple[Path, list[Body], Said]) -> None:
    folder, seen, said = walked
    run = Run(folder / "run")
    assert run.recipe().dialect == "chat"
    outcomes = {
        verdict.trajectory_id.split("/")[1]: verdict for verdict in run.verdicts if "synth" in verdict.trajectory_id
    }
    assert {key: verdict.outcome for key, verdict in outcomes.items()} == {
        f"t{number}": float(number % 3 != 0) for number in range(10, 16)
    }
    assert outcomes["t10"].answer == "21"  # not the 2 of the last sentence
    assert [repair.accepted for repair in run.repairs] == [True, True]
    trajectories = {one.id: one for one in run.trajectories}
    assert {format_problem(one, "chat") for one in trajectories.values()} == {None}
    assert {quality.extra["format"] for quality in run.qualities} == {1.0}
    (evaluated,) = [row for row in run.metrics() if row["stage"] == "eval_base"]
    assert evaluated["success"] == pytest.approx(4 / 6)
    # Nothing is added to the prompt, and the repairer reads each text once.
    assert seen[0]["messages"] == [{"role": "user", "content": said_by_user(seen[0])}]
    asked = next(said_by_user(body) for body in seen if "Attempt:" in said_by_user(body))
    assert asked.count("The answer is 26.") == 1
    assert not [line for line in said.errors.splitlines() if line.startswith("warning")]


def test_its_sets_and_pages_hold_the_conversation(walked: tuple[Path, list[Body], Said]) -> None:
    folder, _, _ = walked
    lines = (folder / "run" / "sft.jsonl").read_text().splitlines()
    rows = {row["task_id"]: row for row in map(json.loads, lines)}
    assert len(rows) == 6
    user, called, result, answer = rows["t10"]["messages"]
    assert user == {"role": "user", "content": "What is 10 + 11?"}
    assert called["content"] == "I will add them."
    assert called["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 10, "b": 11}}
    assert result == {"role": "tool", "name": "add", "content": "21"}
    assert answer["content"].startswith("<think>So.</think>The sum of 10 and 11 is **21**.")
    for name in ("openai", "trl", "ms-swift", "llama-factory"):
        said = in_process.rewright(folder, "export", "run", f"out-{name}", "--format", name)
        assert said.code == 0, said.errors
        assert "sft.jsonl: 6 rows" in said.output
    assert in_process.rewright(folder, "view", "run", "--static", "page.html").code == 0
    shown = page_data(folder / "page.html")["runs"][0]["trajectories"].values()
    assert "I will add them." in {turn["said"] for one in shown for turn in one["turns"]}
    assert not any("arguments" in turn["said"] for one in shown for turn in one["turns"])


def test_another_extractor_judges_a_run_again(walked: tuple[Path, list[Body], Said]) -> None:
    folder, _, _ = walked
    judged_by(folder, "text")
    verdict = next(iter(Run(folder / "run").verdicts))
    assert str(verdict.answer).startswith("The sum of 10 and 11 is **21**")


@pytest.mark.parametrize(
    ("last", "cause"),
    [
        (says(""), "their last message is empty; likely the server's parsers or the chat template drop its text"),
        (says(None), "their last message is empty"),
        (says(None, reasoning_content="21, I think."), "their last message holds only reasoning"),
        (says(None, refusal="I can't help with 21."), "the server marks their last message as a refusal"),
        (says([{"type": "refusal", "refusal": "No 21."}]), "the server marks their last message as a refusal"),  # type: ignore[arg-type]
    ],
)
def test_a_chat_model_that_ends_without_an_answer(
    here: Rewright, tmp_path: Path, last: dict[str, Any], cause: str
) -> None:
    def reply(body: Body) -> dict[str, Any]:
        return dict(last) if results_of(body) else calls("add", a=1, b=1)

    (line,) = tells(here, tmp_path, reply, count=2)
    assert line.startswith("warning: candidates: 2 of 2 trajectories end without an answer (no_answer): ")
    assert cause in line
    assert {(one.stop_reason, one.answer) for one in Run(tmp_path / "run").trajectories} == {("no_answer", None)}


def test_prose_under_another_dialect_names_the_dialect_chat(here: Rewright, tmp_path: Path) -> None:
    lines = tells(here, tmp_path, adds, count=12, more="dialect: hermes\n")
    assert len(lines) == 1
    assert (
        "8 of the first 8 trajectories end without an answer (no_answer): their last message has no <answer>"
        in lines[0]
    )
    assert "dialect chat reads" in lines[0]


def test_malformed_calls_are_said_while_the_run_goes_on(here: Rewright, tmp_path: Path) -> None:
    def reply(body: Body) -> dict[str, Any]:
        if results_of(body):
            return says("The answer is 21.")
        function = {"name": "add", "arguments": "{a: 1"}
        return says(None, tool_calls=[{"id": "c", "type": "function", "function": function}])

    (line,) = tells(here, tmp_path, reply, count=9)
    assert "8 of 8 calls of the first 8 trajectories are malformed: 'malformed call: arguments are not JSON" in line
    order = in_process.rewright(tmp_path, "run", "r.yaml", "--run", "run", "--resume").errors
    assert "warning" not in order  # nothing was made, so nothing is said


def test_calls_of_tools_that_are_not_offered(here: Rewright, tmp_path: Path) -> None:
    def reply(body: Body) -> dict[str, Any]:
        return says("The answer is 21.") if results_of(body) else calls("functions.add", a=1, b=1)

    (line,) = tells(here, tmp_path, reply, count=2)
    assert line.startswith(
        "warning: candidates: 2 of 2 calls of 2 trajectories name no tool that is offered: 'functions.add'; likely the "
        "model or the server writes names in another form, such as with a prefix"
    )


def test_tools_of_which_every_call_fails(here: Rewright, tmp_path: Path) -> None:
    def reply(body: Body) -> dict[str, Any]:
        return says("The answer is 21.") if results_of(body) else calls("add", a=1, b=1)

    broken = [{"schema": ADD, "source": "def add(a, b):\n    raise KeyError('API_KEY')\n"}]
    (line,) = tells(here, tmp_path, reply, count=2, tools=broken)
    assert line.startswith("warning: candidates: all 2 calls of 2 trajectories fail: \"exception: KeyError: 'API_KEY'")
    assert line.endswith("likely something that the tools need is missing")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("The answer is 21.", "likely the server or the model's chat template does not show the tools to the model"),
        ("<function=add><parameter=a>1</parameter></function>", "replies contain calls as plain text (<function=)"),
        ('[TOOL_CALLS][{"name": "add", "arguments": {}}]', "replies contain calls as plain text ([TOOL_CALLS])"),
    ],
)
def test_tools_that_are_never_called(here: Rewright, tmp_path: Path, text: str, cause: str) -> None:
    (line,) = tells(here, tmp_path, lambda body: says(text), count=3)
    assert line.startswith("warning: candidates: none of 3 trajectories calls a tool, though tools are offered: ")
    assert cause in line


def test_replies_that_a_limit_cuts_off(here: Rewright, tmp_path: Path) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 100}

    def reply(body: Body) -> dict[str, Any]:
        if not results_of(body):
            return calls("add", a=1, b=1)
        return says("The answer is 21, bec", finish_reason="length", usage=usage)

    (line,) = tells(here, tmp_path, reply, count=2)
    assert line == "warning: candidates: 2 of 2 trajectories are cut off by a limit: limits.turn_tokens is 100"
    assert {(one.stop_reason, one.answer) for one in Run(tmp_path / "run").trajectories} == {("token_limit", None)}


def test_an_evaluation_says_the_same(here: Rewright, tmp_path: Path) -> None:
    (line,) = tells(here, tmp_path, lambda body: says("Hello."), count=9, stages="[eval_base]")
    assert line.startswith("warning: evaluation of base: none of the first 8 trajectories calls a tool")


def test_an_evaluation_on_the_default_tasks_is_said_if_the_recipe_has_others(here: Rewright, tmp_path: Path) -> None:
    def refuses(body: Body) -> dict[str, Any]:
        raise web.HTTPUnauthorized  # the questions themselves are not needed

    with served(lambda: chat_server(refuses)) as url:
        write(tmp_path, url, stages="[eval_base]")
        recipe = tmp_path / "r.yaml"
        recipe.write_text("".join(line for line in recipe.open() if not line.startswith("eval:")))
        said = here("run", "r.yaml", "--run", "run")
    warnings = [line for line in said.errors.splitlines() if "eval.tasks is not set" in line]
    assert warnings == [
        "warning: evaluation of base: eval.tasks is not set, so that the held-out tasks are 400 questions of the "
        "embedded world town, with its tools: expected eval.tasks in the recipe"
    ]


def test_tasks_without_tools_need_no_call(here: Rewright, tmp_path: Path) -> None:
    assert tells(here, tmp_path, lambda body: says("It is 21."), count=9, tools=[]) == []


def test_a_call_that_the_server_left_in_the_text_is_read(here: Rewright, tmp_path: Path) -> None:
    def reply(body: Body) -> dict[str, Any]:
        a, b = terms(body)
        text = f'I will add.\n<tool_call>\n{{"name": "add", "arguments": {{"a": {a}, "b": {b}}}}}\n</tool_call>'
        return says(f"It is {results_of(body)[-1]}.") if results_of(body) else says(text)

    assert tells(here, tmp_path, reply, count=2) == []
    assert [verdict.correct for verdict in Run(tmp_path / "run").verdicts] == [True, True]


def test_the_task_and_the_recipe_name_the_extractor(here: Rewright, tmp_path: Path) -> None:
    def reply(body: Body) -> dict[str, Any]:
        total = sum(terms(body))
        return says(json.dumps({"answer": 0, "total": total})) if results_of(body) else calls("add", a=1, b=1)

    tells(here, tmp_path, reply, count=2, extractor="json.total")
    assert [verdict.outcome for verdict in Run(tmp_path / "run").verdicts] == [1.0, 1.0]
    judged_by(tmp_path, "json")
    assert [verdict.outcome for verdict in Run(tmp_path / "run").verdicts] == [0.0, 0.0]
    here("run", "r.yaml", "--run", "other", "extractor=jsn").refused("extractor: unknown extractor 'jsn'")
    write(tmp_path, "http://127.0.0.1:9", extractor="last_numbers")
    here("run", "r.yaml", "--run", "third").refused("unknown extractor 'last_numbers': did you mean 'last_number'")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("model", "dialect"),
    [
        ("{path: m, engine: openai, base_url: 'http://127.0.0.1:9'}", "chat"),
        ("{path: m, engine: openai, base_url: 'http://127.0.0.1:9', mode: chat}", "chat"),
        ("{path: m, engine: openai, base_url: 'http://127.0.0.1:9', mode: completions}", "hermes"),
        ("pico", "hermes"),
    ],
)
def test_the_default_dialect_is_that_of_the_engine(tmp_path: Path, model: str, dialect: str) -> None:
    from rewright.recipe.loader import load_recipe

    (tmp_path / "r.yaml").write_text(f"model: {model}\n")
    assert load_recipe(tmp_path / "r.yaml").dialect == dialect
    assert load_recipe(tmp_path / "r.yaml", ["dialect=tags"]).dialect == "tags"


def test_stored_trajectories_say_the_same_in_a_record(walked: tuple[Path, list[Body], Said]) -> None:
    """The stored text holds the call, so that the dialect reads the same from it."""
    from rewright.dialects import get_dialect

    first: Trajectory = next(iter(Run(walked[0] / "run").trajectories))
    parsed = get_dialect("chat").parse(first.turns[0].text)
    assert [(call.name, call.arguments) for call in parsed.calls] == [("add", {"a": 10, "b": 11})]
    assert parsed.answer is None
    assert get_dialect("chat").parse(first.turns[1].text).answer == first.answer
