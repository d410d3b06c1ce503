"""Loaders on small records, made by hand in the published schemas."""

import json
from pathlib import Path
from typing import Any

import pytest

from rewright.core.errors import InputError
from rewright.core.records import Task
from rewright.judging import judge_answer
from rewright.tasks.loading import load_tasks


def load(tmp_path: Path, name: str, *records: dict[str, Any]) -> list[Task]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return load_tasks(path, name)


SUPPORT = [["Shirley Temple", 0], ["Kiss and Tell", 0], ["Shirley Temple", 1]]


@pytest.mark.parametrize(
    ("name", "record", "task_id", "question", "answers", "judge"),
    [
        (
            "gsm8k",
            {"question": "2 + 2?", "answer": "It is <<2+2=4>>4.\n#### 1,004"},
            "gsm8k-0",
            "2 + 2?",
            ("1,004",),
            "math",
        ),
        (
            "math",
            {"problem": "Half?", "level": "Level 1", "type": "Algebra", "solution": r"So $\boxed{\frac{1}{2}}$."},
            "math-0",
            "Half?",
            (r"\frac{1}{2}",),
            "math",
        ),
        (
            "math",
            {
                "problem": "P",
                "solution": "s",
                "answer": "7",
                "subject": "Geometry",
                "level": 3,
                "unique_id": "t/1.json",
            },
            "math-t/1.json",
            "P",
            ("7",),
            "math",
        ),
        (
            "aime24",
            {"id": 60, "problem": "P", "solution": "s", "answer": "204", "url": "u", "year": "2024"},
            "aime-60",
            "P",
            ("204",),
            "math",
        ),
        (
            "aime24",
            {"ID": "2024-II-4", "Problem": "P", "Solution": "s", "Answer": 33},
            "aime-2024-II-4",
            "P",
            ("33",),
            "math",
        ),
        ("aime25", {"problem_idx": 1, "problem": "P", "answer": 70}, "aime-1", "P", ("70",), "math"),
        ("aime25", {"question": "Q", "answer": "70"}, "aime-0", "Q", ("70",), "math"),
        ("amc23", {"id": 0, "question": "Q", "answer": 27.0, "url": "u"}, "amc23-0", "Q", ("27",), "math"),
        (
            "hotpotqa",
            {"_id": "5a8b", "question": "Who?", "answer": "Chief", "type": "bridge", "supporting_facts": SUPPORT},
            "hotpotqa-5a8b",
            "Who?",
            ("Chief",),
            "qa",
        ),
        (
            "hotpotqa",
            {
                "id": "5a8b",
                "question": "Who?",
                "answer": "yes",
                "level": "hard",
                "supporting_facts": {"title": ["A", "B", "A"], "sent_id": [0, 0, 1]},
            },
            "hotpotqa-5a8b",
            "Who?",
            ("yes",),
            "qa",
        ),
        (
            "2wikimultihopqa",
            {"_id": "8813", "type": "comparison", "question": "Q", "answer": "no", "evidences": [["a", "b", "c"]]},
            "2wikimultihopqa-8813",
            "Q",
            ("no",),
            "qa",
        ),
        (
            "2wikimultihopqa",
            {"id": "dev_0", "question": "Q", "golden_answers": ["A", "B"], "metadata": {}},
            "2wikimultihopqa-dev_0",
            "Q",
            ("A", "B"),
            "qa",
        ),
        (
            "musique",
            {
                "id": "2hop__1_2",
                "paragraphs": [],
                "question": "Q",
                "question_decomposition": [{"id": 1}, {"id": 2}],
                "answer": "Green",
                "answer_aliases": ["Miquette Giraudy", "Green"],
                "answerable": True,
            },
            "musique-2hop__1_2",
            "Q",
            ("Green", "Miquette Giraudy"),
            "qa",
        ),
        ("bamboogle", {"Question": "Q", "Answer": "Abraham Lincoln"}, "bamboogle-0", "Q", ("Abraham Lincoln",), "qa"),
        (
            "hle",
            {"id": "66e8", "question": "Q", "image": "", "answer": "D", "answer_type": "multipleChoice"},
            "hle-66e8",
            "Q",
            ("D",),
            "exact",
        ),
        (
            "hle",
            {"id": "1", "question": "Q", "image": None, "answer": r"$\frac{1}{2}$", "answer_type": "exactMatch"},
            "hle-1",
            "Q",
            (r"$\frac{1}{2}$",),
            "math",
        ),
        (
            "hle",
            {"id": "1", "question": "Q", "image": "", "answer": "Wes Anderson", "answer_type": "exactMatch"},
            "hle-1",
            "Q",
            ("Wes Anderson",),
            "qa",
        ),
    ],
)
def test_questions(
    tmp_path: Path,
    name: str,
    record: dict[str, Any],
    task_id: str,
    question: str,
    answers: tuple[str, ...],
    judge: str,
) -> None:
    (task,) = load(tmp_path, name, record)
    assert task.id == task_id
    assert task.messages == ({"role": "user", "content": question},)
    assert task.gold.answers == answers
    assert task.judge == judge
    assert judge_answer(task.judge, answers[0], answers).outcome == 1


def test_supporting_titles_are_kept_once(tmp_path: Path) -> None:
    (task,) = load(tmp_path, "hotpotqa", {"_id": "x", "question": "Q", "answer": "A", "supporting_facts": SUPPORT})
    assert task.metadata["supporting_titles"] == ["Shirley Temple", "Kiss and Tell"]


def test_questions_with_an_image_are_left_out(tmp_path: Path) -> None:
    text = {"id": "1", "question": "Q", "image": "", "answer": "D", "answer_type": "multipleChoice"}
    assert [task.id for task in load(tmp_path, "hle", {**text, "id": "0", "image": "data:..."}, text)] == ["hle-1"]
    with pytest.raises(InputError, match="contains no task in the format 'hle'"):
        load(tmp_path, "hle", {**text, "image": "data:..."})


@pytest.mark.parametrize(
    ("name", "record", "message"),
    [
        ("gsm8k", {"question": "Q", "answer": "4"}, r"rows\.jsonl:1: 'answer' has no '#### '"),
        ("gsm8k", {"question": "Q"}, r"rows\.jsonl:1: no key 'answer'; it has 'question'"),
        ("math", {"problem": "P", "solution": "4"}, r"'solution' holds no \\boxed\{\}"),
        ("hotpotqa", {"question": "", "answer": "x"}, r"'question' or 'Question' is empty"),
        ("musique", {"question": "Q", "golden_answers": [1]}, r"'golden_answers' is a list, expected a list of texts"),
        ("musique", {"question": "Q"}, r"no answer, expected at least one"),
        ("aime24", {"problem": {"text": 1}, "answer": 1}, r"is an object, expected text"),
    ],
)
def test_a_bad_row_is_one_line(tmp_path: Path, name: str, record: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, name, record)


TOOLHOP: dict[str, Any] = {
    "id": 7,
    "question": "How many letters has the first name of Anna's mother?",
    "answer": "5",
    "sub_task": {"Who is Anna's mother?": "Clara Noel", "How many letters has Clara?": "5"},
    "tools": {
        "Who is Anna's mother?": {
            "name": "mother_of",
            "description": "d",
            "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        },
        "How many letters has Clara?": {
            "name": "letters",
            "description": "d",
            "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
        },
    },
    "functions": [
        "def mother_of(name):\n    return 'Clara Noel'",
        "import re\ndef _clean(w):\n    return w\ndef letters(word):\n    return len(_clean(word))",
    ],
    "domain": "Family",
    "answer_type": "Number",
}


def test_toolhop_pairs_tools_with_their_sources_and_sub_answers(tmp_path: Path) -> None:
    (task,) = load(tmp_path, "toolhop", TOOLHOP)
    assert task.id == "toolhop-7"
    assert [tool.name for tool in task.tools] == ["mother_of", "letters"]
    assert task.tools[1].source == TOOLHOP["functions"][1]
    assert task.tools[0].schema["type"] == "function"
    assert task.gold.outputs == {"mother_of": ["Clara Noel"], "letters": ["5"]}
    assert task.judge == "exact"
    assert task.metadata == {"domain": "Family", "answer_type": "Number"}


def test_toolhop_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'functions' defines no 'letters', which 'tools' names"):
        load(tmp_path, "toolhop", {**TOOLHOP, "functions": TOOLHOP["functions"][:1]})
    with pytest.raises(InputError, match=r"'functions'\[0\] is not valid Python"):
        load(tmp_path, "toolhop", {**TOOLHOP, "functions": ["def x("]})


def test_reasoning_gym_tasks_are_judged_by_their_own_scorer() -> None:
    pytest.importorskip("reasoning_gym")
    from rewright.core.records import Trajectory
    from rewright.judging import judge_trajectory

    tasks = load_tasks("leg_counting:3", "reasoning_gym")
    assert [task.id for task in tasks] == [f"reasoning_gym-leg_counting-0-{n}" for n in range(3)]
    assert tasks == load_tasks("leg_counting:3", "reasoning_gym")

    def outcome(answer: str) -> float:
        return judge_trajectory(
            tasks[0],
            Trajectory(
                id="x", task_id=tasks[0].id, stage="eval", index=0, turns=(), answer=answer, stop_reason="answered"
            ),
        ).outcome

    assert tasks[0].gold.answers is not None
    assert outcome(tasks[0].gold.answers[0]) == 1
    assert outcome("a dozen") < 0.5
    assert outcome("__import__('os').system('true')") < 0.5
