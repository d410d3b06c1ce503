"""AutoTraj's question files: every gold stands in braces, and decides which judge compares the answers."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rewright.cli.main import app
from rewright.judging import judge_answer
from rewright.tasks.loading import load_tasks

FOLDER = (
    Path(os.environ.get("REWRIGHT_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    / "autotraj_questions"
)


def written(path: Path, golds: list[str], **keys: str) -> Path:
    key = keys.get("key", "answer")
    path.write_text(json.dumps([{"question": f"Question {number}?", key: gold} for number, gold in enumerate(golds)]))
    return path


@pytest.mark.parametrize(
    ("written_gold", "gold", "judge"),
    [
        ("{18}", "18", "math"),
        ("{{18}}", "18", "math"),
        (r"\boxed{18}", "18", "math"),
        ("18", "18", "math"),
        (r"{\dfrac{1}{9}}", r"\dfrac{1}{9}", "math"),
        (r"{\{1,2\}}", r"\{1,2\}", "math"),
        (r"\frac{1}{2}", r"\frac{1}{2}", "math"),
        ("{4a-2}", "4a-2", "math"),
        ("{(3, 5)}", "(3, 5)", "math"),
        ("{10{,}000}", "10{,}000", "math"),
        ("{C}", "C", "math"),
        ("{1.95 m}", "1.95 m", "qa"),
        ("{yes}", "yes", "qa"),
        ("{Washington D.C.}", "Washington D.C.", "qa"),
        ("{1939–1945}", "1939–1945", "qa"),
        ("{2007-11-07}", "2007-11-07", "qa"),
        ("{October 22, 1930}", "October 22, 1930", "qa"),
        ("{F-16}", "F-16", "qa"),
    ],
)
def test_the_braces_are_taken_off_and_the_judge_fits(tmp_path: Path, written_gold: str, gold: str, judge: str) -> None:
    [task] = load_tasks(written(tmp_path / "questions.json", [written_gold]), "autotraj")
    assert (task.gold.answers, task.judge) == ((gold,), judge)


def test_one_point_eight_is_not_eighteen(tmp_path: Path) -> None:
    [task] = load_tasks(written(tmp_path / "questions.json", ["{18}"]), "autotraj")
    golds = task.gold.answers or ()
    assert [judge_answer(task.judge, answer, golds).outcome for answer in ("18", "$18", "1.8", "180", "-18")] == [
        1, 1, 0, 0, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["hotpotqa", "2wikimultihopqa", "musique", "math", "amc23"])
def test_other_formats_take_the_braces_off_too(tmp_path: Path, name: str) -> None:
    keys = {"question": "Who?", "problem": "Who?", "answer": "{18}"}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([keys]))
    assert load_tasks(path, name)[0].gold.answers == ("18",)


@pytest.mark.parametrize(
    ("name", "judges"),
    [
        ("gsm8k_qa_pairs_test", {"math"}),
        ("math_qa_pairs_test", {"math"}),
        ("aime24_qa_pairs", {"math"}),
        ("amc23_qa_pairs_test", {"math"}),
        ("hotpotqa_qa_pairs_test", {"math", "qa"}),
        ("2wiki_qa_pairs_test", {"math", "qa"}),
        ("musique_qa_pairs_test", {"math", "qa"}),
    ],
)
def test_the_published_files_are_judged_as_what_they_are(name: str, judges: set[str]) -> None:
    path = FOLDER / f"{name}.json"
    if not path.exists():
        pytest.skip(f"no {path}")
    tasks = load_tasks(path, "autotraj")
    assert set(Counter(task.judge for task in tasks)) <= judges
    for task in tasks:
        [gold] = task.gold.answers or ()
        assert gold[0] != "{"
        assert judge_answer(task.judge, gold, [gold]).outcome == 1
        if gold.isdigit() and len(gold) > 1:
            assert judge_answer(task.judge, f"{gold[0]}.{gold[1:]}", [gold]).outcome == 0, gold


def test_validate_warns_of_a_gold_that_is_not_read_in_full(tmp_path: Path) -> None:
    path = written(tmp_path / "questions.json", ["{18}", r"{\frac{1}{2}}", r"{\frac{1}{2}"])
    result = CliRunner().invoke(app, ["validate", str(path), "--format", "autotraj"])
    assert result.exit_code == 0
    assert result.output.count("only equals itself: only a part of it could be parsed") == 1
    assert "row 2" in result.output
