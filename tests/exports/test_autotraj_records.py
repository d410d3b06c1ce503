"""Records of AutoTraj and Tool-Star: read into trajectories, written again, and read again as the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rewright.cli import main as cli
from rewright.cli.main import app
from rewright.core.errors import InputError
from rewright.core.records import Gold, Task
from rewright.dialects.format_check import format_problem
from rewright.importers.autotraj import read_trajectories
from rewright.judging import judge_trajectory
from rewright.pipeline.run_directory import Run
from rewright.tasks.loading import load_tasks, save_tasks

CODE = "<think>I compute.</think><code>print(36 * 7)</code><result>252</result>"
GOOD = f"{CODE}<think>Done.</think><answer>It is \\boxed{{252}}.</answer>"
TOOL_STAR = (
    "<think>First the age.</think> <search> age of Kalo </search>\n<result>\n\nKalo is 36.\nBoru is 41.\n\n</result>\n"
    "\n<think>Now.</think>\n<python>\nprint(36)\n</python>\n<result>36</result>\n<think>Yes.</think><answer>\\boxed{36}"
    "</answer>\n"
)
TASKS = [
    Task(id=name, messages=({"role": "user", "content": question},), gold=Gold(answers=(gold,)), judge="math")
    for name, question, gold in (("a", "What is 36 times 7?", "252"), ("b", "How old is\nKalo?", "36"))
]
RECORDS: list[dict[str, Any]] = [
    {"question": "What is 36 times 7? ", "gold_answer": "252",
     "trajectories": [{"react_trajectory": GOOD, "score": 0.9}, {"react_trajectory": CODE}]},
    {"instruction": "Use tags.", "input": "How old is Kalo?", "output": TOOL_STAR},
    {"instruction": "Use tags.\nQuestion: How old is Kalo?", "input": "", "output": "<think>x</think>36"},
    {"question": "How old is Kalo?",
     "trajectory": "<search>Kalo</search><result>made\nup</result><answer>7</answer> ha"},
]  # fmt: skip


def written(path: Path, records: Any) -> Path:
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def test_records_become_trajectories_of_their_tasks(tmp_path: Path) -> None:
    found = list(read_trajectories(written(tmp_path / "records.json", RECORDS), TASKS))
    assert [one.id for one in found] == [f"import/{end}" for end in ("a/0", "a/1", "b/0", "b/1", "b/2")]
    good, cut, star, plain, late = found
    assert [turn.text for turn in good.turns] == [CODE.partition("<result>")[0], GOOD.removeprefix(CODE)]
    assert [result.content for result in good.results] == ["252"]
    assert (good.answer, good.stop_reason) == ("It is \\boxed{252}.", "answered")
    assert judge_trajectory(TASKS[0], good).outcome == 1.0
    assert format_problem(good, "tags") is None
    assert (cut.answer, cut.stop_reason, len(cut.results)) == (None, "no_answer", 1)
    assert [(call.name, call.arguments) for call in star.calls] == [
        ("search", {"query": "age of Kalo"}), ("python", {"code": "print(36)"}),
    ]  # fmt: skip
    assert [result.content for result in star.results] == ["\nKalo is 36.\nBoru is 41.\n", "36"]
    assert judge_trajectory(TASKS[1], star).outcome == 1.0
    assert (plain.answer, plain.calls) == (None, [])
    assert late.answer == "7"
    assert (
        format_problem(late, "tags") == "text follows </answer>; no think block; the answer has no non-empty \\boxed{}"
    )


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"question": "Who?", "output": "<answer>x</answer>"}, "row 0: no task asks 'Who?'"),
        ({"output": "<answer>x</answer>"}, "row 0: no key 'question' or 'input' or 'prompt' or 'instruction'"),
        ({"question": "How old is Kalo?"}, "row 0: no text of a trajectory: expected one under 'output', 'trajectory'"),
        ({"question": "How old is Kalo?", "trajectories": [{"score": 1}]}, "row 0: no text of a trajectory"),
        ({"question": "How old is Kalo?", "output": " "}, "row 0: no text of a trajectory"),
        ("text", "row 0: is a text, expected an object"),
        *(
            ({"question": "How old is Kalo?", "output": text}, f"row 0: {problem}")
            for text, problem in (
                *(
                    (
                        f"<think>a</think><search>Kalo</search>\n<{tag}>36</{tag}><think>b</think><answer>36</answer>",
                        f"behind a call stands <{tag}>: expected what the tool returned, in <result></result>",
                    )
                    for tag in ("information", "interpreter", "observation", "Result", "results")
                ),
                (
                    f"{CODE}<code>print(2)</code>\n2\n<answer>2</answer>",
                    "behind a call stands '2\\n<answer>2</answer>'",
                ),
                ("<code>print(2)</code><think>So 2.</think><answer>2</answer>", "behind a call stands <think>"),
                ("<search>Kalo</search><result>36", "behind a call stands <result>: expected what the tool returned"),
                ("<search>Kalo</search><result id=1>36</result>", "behind a call stands <result>"),
                ("<think>a</think><tool_call>{}</tool_call><answer>36</answer>", "holds the tag <tool_call>: expected"),
                (f"{CODE}<interpreter>print(2)</interpreter>", "holds the tag <interpreter>"),
                ("```python\nprint(36)\n```\n```output\n36\n```", "no tag of the dialect in it: expected <think>"),
            )
        ),
    ],
)
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, record: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        list(read_trajectories(written(tmp_path / "records.json", [record]), TASKS))


@pytest.mark.parametrize(
    "text",
    [
        "<think>An <information> tag? <observation>.</think><answer>36</answer>",
        "<code>print('<output>')</code><result><output></result><answer>36 <tool>36</tool></answer>",
        "<think>a</think><search>Kalo",
        "<think>a</think><search>Kalo</search> \n",
        "<think>a</think><code>1</code>\n<result>1</result>\n<b>Bold</b> words",
    ],
)
def test_tags_that_are_content_and_records_that_end_early_are_read(tmp_path: Path, text: str) -> None:
    (found,) = read_trajectories(
        written(tmp_path / "records.json", [{"question": "How old is Kalo?", "output": text}]), TASKS
    )
    assert found.turns[-1].text == text.rpartition("</result>")[2].removeprefix("\n")


def test_questions_of_the_records_are_tasks(tmp_path: Path) -> None:
    rows = [RECORDS[0], {"question": "Who?", "gold_answer": "\\boxed{Ada Lovelace}"}]
    first, second = load_tasks(written(tmp_path / "records.json", rows), "autotraj")
    assert (first.gold.answers, first.judge) == (("252",), "math")
    assert (second.gold.answers, second.judge) == (("Ada Lovelace",), "qa")


def test_import_build_export_and_import_again(tmp_path: Path) -> None:
    """The whole way at the command line: what comes back is what went in."""
    records = written(tmp_path / "records.json", RECORDS[:2])
    save_tasks(tmp_path / "tasks.jsonl", TASKS)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"dialect: tags\ntasks: {{format: rewright, path: {tmp_path / 'tasks.jsonl'}}}\n"
        "model: {engine: openai, base_url: http://127.0.0.1:9/v1, path: none}\nquality: {all_high: 0.0}\n"
    )

    def command(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
        assert result.exit_code == 0
        return str(result.output)

    run = tmp_path / "run"
    assert "3 trajectories imported" in command(
        "import", records, "--run", run, "--recipe", recipe, "--format", "autotraj"
    )
    for verb in ("judge", "score", "build"):
        command(verb, run)
    command("export", run, tmp_path / "out", "--format", "autotraj")
    rows = [json.loads(line) for line in (tmp_path / "out" / "sft.jsonl").read_text().splitlines()]
    assert [sorted(row) for row in rows] == [["input", "instruction", "output"]] * 2
    assert all("<answer></answer>" in row["instruction"] for row in rows)
    stored = {one.task_id: one for one in Run.open(run).trajectories if one.answer is not None}
    again = {one.task_id: one for one in read_trajectories(tmp_path / "out" / "sft.jsonl", TASKS)}
    assert set(again) == set(stored) == {"a", "b"}
    for task_id, one in again.items():
        assert (one.turns, one.answer) == (stored[task_id].turns, stored[task_id].answer)


def test_records_with_tags_need_the_dialect(tmp_path: Path) -> None:
    save_tasks(tmp_path / "tasks.jsonl", TASKS)
    (tmp_path / "recipe.yaml").write_text(f"tasks: {{format: rewright, path: {tmp_path / 'tasks.jsonl'}}}\n")
    arguments = ["import", "x.json", "--run", str(tmp_path / "run"), "--recipe", str(tmp_path / "recipe.yaml")]
    with pytest.raises(InputError, match="need dialect: tags"):
        CliRunner().invoke(app, [*arguments, "--format", "autotraj"], catch_exceptions=False, standalone_mode=False)
    assert not (tmp_path / "run").exists()


def test_results_in_other_tags_are_not_imported(tmp_path: Path) -> None:
    save_tasks(tmp_path / "tasks.jsonl", TASKS)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"dialect: tags\ntasks: {{format: rewright, path: {tmp_path / 'tasks.jsonl'}}}\n")
    searched = "<think>a</think><search>Kalo</search><information>36</information><answer>36</answer>"
    rows = [*RECORDS[:2], {"question": "How old is Kalo?", "output": searched}]
    records = written(tmp_path / "records.json", rows)
    arguments = ["import", records, "--run", tmp_path / "run", "--recipe", recipe, "--format", "autotraj"]
    with pytest.raises(InputError, match=r"records.json: row 2: behind a call stands <information>: expected"):
        CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False, standalone_mode=False)
    assert not (tmp_path / "run").exists()


def test_a_score_that_measures_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Confidence reads think blocks. With none at all, every candidate gets 1."""
    save_tasks(tmp_path / "tasks.jsonl", TASKS)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"dialect: tags\ntasks: {{format: rewright, path: {tmp_path / 'tasks.jsonl'}}}\n")
    texts = {
        "without": ["<code>print(36 * 7)</code><result>252</result><answer>252</answer>", "<answer>252</answer>"],
        "with": ["<think>Yes.</think><answer>252</answer>", "<answer>252</answer>"],
    }
    said = {}
    for name, outputs in texts.items():
        rows = [{"question": "What is 36 times 7?", "output": text} for text in outputs]
        run, records = str(tmp_path / name), str(written(tmp_path / f"{name}.json", rows))
        for arguments in (
            ["import", records, "--run", run, "--recipe", str(recipe), "--format", "autotraj"],
            ["judge", run],
            ["score", run],
        ):
            monkeypatch.setattr("sys.argv", ["rewright", *arguments])
            with pytest.raises(SystemExit) as end:
                cli.main()
            assert not end.value.code
        said[name] = "note: no candidate has a think block" in capsys.readouterr().err
    assert said == {"without": True, "with": False}
