"""The FTRL loader on parquet files made by hand in the published schema."""

import json
from pathlib import Path
from typing import Any

import pytest

from rewright.core.errors import InputError
from rewright.tasks.loading import load_tasks

pyarrow = pytest.importorskip("pyarrow")

TOOL = {
    "type": "function",
    "function": {
        "name": "city_finder",
        "description": "d",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}


def row(**changes: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "Where does Ann live?"}],
        "tools": json.dumps([TOOL]),
        "codes": json.dumps({"city_finder": "def city_finder(name):\n    return {'city': 'Rome'}"}),
        "unsolved_set": json.dumps({"city_finder": ["Rome"]}),
        "solve_rate": 0.0,
        "data_source": "self/single_hop",
        "split": "test",
        "answer": "Rome",
        **changes,
    }


def write(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    from pyarrow.parquet import write_table

    path = tmp_path / "ftrl.parquet"
    write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


def test_a_row_becomes_a_task(tmp_path: Path) -> None:
    (task,) = load_tasks(write(tmp_path, row()), "ftrl")
    assert task.id == "ftrl-test-0"
    assert task.messages == ({"role": "user", "content": "Where does Ann live?"},)
    assert [tool.name for tool in task.tools] == ["city_finder"]
    assert "def city_finder" in (task.tools[0].source or "")
    assert task.gold.answers == ("Rome",)
    assert task.gold.outputs == {"city_finder": ["Rome"]}
    assert task.gold.calls is None
    assert (task.source, task.split, task.metadata) == ("ftrl", "test", {"data_source": "self/single_hop"})


def test_the_training_split_has_gold_calls(tmp_path: Path) -> None:
    truth = json.dumps([{"name": "city_finder", "parameters": {"name": "Ann"}}])
    (task,) = load_tasks(write(tmp_path, row(ground_truth=truth, split="train")), "ftrl")
    assert task.gold.calls is not None
    assert [(call.name, call.arguments) for call in task.gold.calls] == [("city_finder", {"name": "Ann"})]
    assert task.id == "ftrl-train-0"


@pytest.mark.parametrize(
    ("answer", "judge"),
    [
        ("4,478", "exact"),
        ("48,000.", "exact"),
        ("2007-11-7", "exact"),
        ("a, b, c", "exact"),
        ("Yes", "exact"),
        ("Brazil, China", "qa"),
        ("$2 million", "qa"),
        ("Paul Kagame", "qa"),
    ],
)
def test_the_judge_fits_the_answer(tmp_path: Path, answer: str, judge: str) -> None:
    (task,) = load_tasks(write(tmp_path, row(answer=answer)), "ftrl")
    assert task.judge == judge


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tools": "[{"}, r"ftrl\.parquet: row 1: 'tools' is not JSON"),
        ({"tools": "{}"}, r"row 1: 'tools' is an object, expected a list"),
        ({"tools": '[{"type": "function"}]'}, r"'tools'\[0\] is not a function schema"),
        ({"codes": "{}"}, r"'codes' has no source for the tool 'city_finder'"),
        ({"unsolved_set": '{"city_finder": "Rome"}'}, r"'unsolved_set'\['city_finder'\] is not a list"),
        ({"unsolved_set": '{"other": ["Rome"]}'}, r"gold outputs are expected of the unknown tool 'other'"),
        ({"unsolved_set": None}, r"row 1: no key 'unsolved_set'"),
        ({"messages": []}, r"'messages' is empty"),
        ({"answer": ""}, r"'answer' is empty"),
        ({"ground_truth": '[{"name": "city_finder"}]'}, r"'ground_truth'\[0\] is not a call"),
        ({"ground_truth": '[{"name": "city_finder", "parameters": {}}]'}, r"row 1: gold call 0 .*required property"),
        ({"codes": "[" * 100_000}, r"'codes' is nested too deeply"),
    ],
)
def test_a_bad_row_is_named_by_its_number(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path, row(ground_truth=None), row(**{"ground_truth": None, **changes}))
    with pytest.raises(InputError, match=message) as caught:
        load_tasks(path, "ftrl")
    assert "\n" not in str(caught.value)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    bad = row()
    del bad["codes"], bad["answer"]
    with pytest.raises(InputError, match=r"no column 'codes', 'answer'; it has 'messages', 'tools'"):
        load_tasks(write(tmp_path, bad), "ftrl")
