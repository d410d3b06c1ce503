"""reasoning-gym's sets: all become the same tasks everywhere, and their own scorers judge what was stored."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rewright.benchmarks.reasoning_gym.entries import decoded, encoded, make_entries
from rewright.benchmarks.reasoning_gym.tasks import generate, task_of
from rewright.core.errors import InputError
from rewright.core.records import Task, Trajectory
from rewright.judging import judge_trajectory
from rewright.tasks.loading import load_tasks, save_tasks


def outcome(task: Task, answer: str) -> float:
    one = Trajectory(id="x", task_id=task.id, stage="eval", index=0, turns=(), answer=answer, stop_reason="answered")
    return judge_trajectory(task, one).outcome


def test_entries_come_back_from_json_as_they_were() -> None:
    entry = {
        "grid": ((1, 2), (3, 4)),
        "colours": {0: 1, "0": 2, (1, 2): None},
        "names": {"b", "a"},
        "list": [True, 1.5, "text", [None], {"key": (1,)}],
        "large": 2**80,
        "infinite": -math.inf,
        "__gym__": "no mark of ours",
    }
    stored = json.loads(json.dumps(encoded(entry)))
    assert decoded(stored) == entry
    assert [type(one) for one in decoded(stored)["list"]] == [bool, float, str, list, dict]
    assert encoded([np.int64(3), np.float64(0.5), np.str_("a")]) == [3, 0.5, "a"]
    assert math.isnan(decoded(encoded(math.nan)))
    plain = {"rows": [[1, 2], ["a", None]]}
    assert encoded(plain) == decoded(plain) == plain


@pytest.fixture
def gym() -> None:
    pytest.importorskip("reasoning_gym")


def sets() -> list[str]:
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError:
        return ["leg_counting"]
    return sorted(DATASETS)


@pytest.mark.parametrize("name", sets())
def test_the_gold_answer_of_every_set_is_right_after_a_file(gym: None, name: str, tmp_path: Path) -> None:
    made = [task_of(f"{name}-{number}", **one) for number, one in enumerate(make_entries(name, 2, 0, {}))]
    save_tasks(tmp_path / "tasks.jsonl", made)
    tasks = load_tasks(tmp_path / "tasks.jsonl")
    assert tasks == made
    for task in tasks:
        assert task.judge == "reasoning_gym"
        if task.gold.answers is not None:
            assert outcome(task, task.gold.answers[0]) == 1
        elif task.metadata["dataset"] == "graph_color":
            colours = decoded(task.metadata["entry"])["metadata"]["possible_answer"]
            assert outcome(task, json.dumps(colours)) == 1


def test_all_sets_are_known(gym: None) -> None:
    assert len(sets()) == 106


@pytest.mark.parametrize("name", ["list_functions", "ransom_note"])
def test_the_same_tasks_in_every_process(gym: None, name: str) -> None:
    """These draw from Python's shared random numbers, or from the order of a set of texts."""
    program = (
        "from rewright.tasks.loading import load_tasks; "
        f"print([task.messages for task in load_tasks('{name}:3:7', 'reasoning_gym')])"
    )
    environments = [{**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2")]
    command = [sys.executable, "-c", program]
    first, second = (subprocess.run(command, env=env, capture_output=True, check=True) for env in environments)
    assert first.stdout == second.stdout
    assert load_tasks(f"{name}:3:7", "reasoning_gym") == load_tasks(f"{name}:3", "reasoning_gym", seed=7)
    assert load_tasks(f"{name}:3", "reasoning_gym", seed=7) != load_tasks(f"{name}:3", "reasoning_gym")


def test_sets_with_settings_and_mixtures_are_judged_by_the_right_scorer(gym: None) -> None:
    for task in generate("decimal_arithmetic", 3, min_num_decimal_places=2, max_num_decimal_places=2):
        assert task.metadata["settings"] == {"min_num_decimal_places": 2, "max_num_decimal_places": 2}
        assert outcome(task, str((task.gold.answers or ("",))[0])) == 1
    mixed = load_tasks("leg_counting, arc_agi:6:3", "reasoning_gym")
    assert {task.metadata["dataset"] for task in mixed} == {"leg_counting", "arc_agi"}
    assert [outcome(task, str((task.gold.answers or ("",))[0])) for task in mixed] == [1] * 6


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("leg_countin", r"set 'leg_countin': there is no such set as 'leg_countin'; did you mean 'leg_counting'\?"),
        ("leg_counting,figlet", "there is no such set as 'figlet'"),
        ("leg_counting,leg_counting:2", "Duplicate dataset names"),
        ("leg_counting:0", "the number of tasks is 0, expected at least 1"),
        ("leg_counting:x", "expected <set>, <set>:<number of tasks>"),
        ("leg_counting:1:2:3", "expected <set>, <set>:<number of tasks>"),
    ],
)
def test_mistakes_are_named(gym: None, path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_tasks(path, "reasoning_gym")


def test_validation_takes_sets_without_a_gold_answer(gym: None) -> None:
    from rewright.tasks.validation import validate_file

    assert validate_file("graph_color:2", "reasoning_gym").findings == ()
