"""The summary of an evaluation: what stands in the table, with intervals over tasks, and None for what nobody knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewright.core.records import Failure, ToolCall, Trajectory, Turn, Verdict
from rewright.core.statistics import proportion_interval
from rewright.pipeline.stages.evaluate import summarise
from support.chat_server import Body, chat_server, said_by_user, says
from support.in_process import rewright
from support.served import served


def trajectory(task: int, index: int = 0, **turn: Any) -> Trajectory:
    turns = (Turn(**{"text": "", "token_ids": (1, 2, 3), "calls": (ToolCall("f", {}),), **turn}),)
    return Trajectory(
        id=f"{task}/{index}", task_id=str(task), stage="eval", index=index, turns=turns, stop_reason="answered"
    )


def verdict(one: Trajectory, outcome: float, **metrics: float) -> Verdict:
    return Verdict(trajectory_id=one.id, outcome=outcome, reason="", metrics=metrics)


def summary(outcomes: list[list[float]], **turn: Any) -> dict[str, Any]:
    """One list of outcomes for each task."""
    pairs = [
        (made := trajectory(task, index, **turn), verdict(made, outcome, solve_f1=outcome))
        for task, group in enumerate(outcomes)
        for index, outcome in enumerate(group)
    ]
    return summarise([one for one, _ in pairs], [one for _, one in pairs], seconds=1.0)


def test_one_trajectory_per_task_is_wilsons_interval() -> None:
    row = summary([[1.0]] * 30 + [[0.0]] * 10)
    expected = proportion_interval(30, 40)
    assert (row["tasks"], row["trajectories"]) == (40, 40)
    assert (row["success"], row["low"], row["high"]) == pytest.approx(expected)
    assert (row["solve_f1"], row["solve_f1_low"], row["solve_f1_high"]) == pytest.approx(expected)


def test_repeating_a_task_is_no_evidence_about_others() -> None:
    """A policy that always or never solves a task: eight samples of each say what one does."""
    once, often = summary([[1.0]] * 30 + [[0.0]] * 10), summary([[1.0] * 8] * 30 + [[0.0] * 8] * 10)
    assert (often["tasks"], often["trajectories"]) == (40, 320)
    for key in ("success", "low", "high", "solve_f1", "solve_f1_low", "solve_f1_high"):
        assert often[key] == pytest.approx(once[key])


def test_samples_that_differ_within_a_task_are_evidence() -> None:
    """Every task is solved three times in four: the tasks do not differ, so all trajectories count."""
    row = summary([[1.0, 1.0, 1.0, 0.0]] * 40)
    expected = proportion_interval(120, 160)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))


def test_tasks_of_a_cluster_are_no_evidence_about_others() -> None:
    """Ten conversations in four variants that are always solved alike."""
    made = [trajectory(task) for task in range(40)]
    verdicts = [verdict(one, float(number < 24), solve_f1=float(number < 24)) for number, one in enumerate(made)]
    names = {str(task): f"c{task // 4}" for task in range(40)}
    half = {str(task): "a" if task % 2 else "b" for task in range(40)}
    row = summarise(made, verdicts, seconds=1.0, categories=half, clusters=names)
    expected = proportion_interval(6, 10)
    for found, prefix in ((row, ""), (row, "solve_f1_"), (row["categories"]["a"], "")):
        assert (found[f"{prefix}low"], found[f"{prefix}high"]) == pytest.approx(expected[1:], abs=0.03)
    alone = summarise(made[:4], [verdict(one, float(number < 2)) for number, one in enumerate(made[:4])], seconds=1.0,
                      clusters=names)  # fmt: skip
    assert (alone["low"], alone["high"]) == pytest.approx(proportion_interval(0.5, 1)[1:])


def test_groups_may_be_numbered_from_0(tmp_path: Path) -> None:
    """Categories and clusters that are numbers are those of texts, 0 included."""
    for name, kind in (("numbers", int), ("texts", str)):
        tasks = [
            {
                "id": f"t{number}",
                "messages": [{"role": "user", "content": f"{number}?"}],
                "gold": {"answers": ["3"]},
                "metadata": {"category": kind(number % 2), "cluster": kind(number // 4)},
            }
            for number in range(8)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    right = {"numbers": "0123", "texts": "0123", "other": "0"}

    def reply(body: Body) -> dict[str, Any]:
        return says("3" if said_by_user(body)[0] in right[body["model"]] else "4")

    with served(lambda: chat_server(reply)) as url:
        for name in right:
            file = "texts.jsonl" if name == "other" else f"{name}.jsonl"
            asked = ["model.engine=openai", f"model.base_url={url}/v1", "dialect=chat", "--model", name]
            made = rewright(tmp_path, "eval", file, *asked, "--run", name)
            assert made.code == 0, made.errors
    numbers, texts = (
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0]) for name in ("numbers", "texts")
    )
    assert list(numbers["categories"]) == ["0", "1"]
    assert numbers["categories"] == texts["categories"]
    assert (numbers["low"], numbers["high"]) == (texts["low"], texts["high"])
    compared = [rewright(tmp_path, "compare", name, "other", "--json") for name in ("numbers", "texts")]
    assert [one.code for one in compared] == [0, 0], compared
    first, second = (json.loads(one.output)["stages"][0]["difference"] for one in compared)
    assert first == second
    assert first["value"] < 0


def test_equal_cluster_numbers_of_two_sources_are_two_clusters(tmp_path: Path) -> None:
    """A name is one cluster in all sources: categories of a benchmark have variants of the same tasks."""

    def interval(name: str, cluster: str) -> list[float]:
        for source in ("a", "b"):
            tasks = [
                {
                    "id": f"{source}{number}",
                    "messages": [{"role": "user", "content": f"{source}{number}?"}],
                    "gold": {"answers": ["3"]},
                    "metadata": {"cluster": number // 4 if cluster == "number" else f"{cluster}{number // 4}"},
                }
                for number in range(8)
            ]
            (tmp_path / f"{source}.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
        sources = "[{path: a.jsonl, name: a}, {path: b.jsonl, name: b}]"
        text = f"stages: [eval_base]\ndialect: chat\neval: {{tasks: {sources}}}\n"
        (tmp_path / "r.yaml").write_text(f"{text}model: {{path: m, engine: openai, base_url: '{url}/v1'}}\n")
        made = rewright(tmp_path, "run", "r.yaml", "--run", name)
        assert made.code == 0, made.errors
        row = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
        return [row["success"], row["low"], row["high"]]

    def reply(body: Body) -> dict[str, Any]:
        return says("3" if said_by_user(body)[:2] in {"a0", "a1", "a2", "a3"} else "4")

    with served(lambda: chat_server(reply)) as url:
        numbers, names = interval("numbers", "number"), interval("names", "variant")
    assert numbers[0] == names[0] == 0.25
    assert numbers[2] < names[2]  # four clusters are more evidence than two


def test_intervals_stay_between_0_and_1() -> None:
    for outcomes in ([[1.0]] * 3, [[0.0]] * 3, [[1.0], [1.0], [0.0]], [[1.0, 1.0]], [[0.0, 1.0], [1.0]]):
        row = summary(outcomes)
        for name in ("", "solve_f1_"):
            value = row["success" if not name else "solve_f1"]
            assert 0.0 <= row[f"{name}low"] <= value <= row[f"{name}high"] <= 1.0
    row = summary([[1.0]] * 3)
    assert row["low"] == row["solve_f1_low"] == pytest.approx(proportion_interval(3, 3).low)


def test_nothing_evaluated_is_not_nothing_solved() -> None:
    row = summarise([], [], seconds=0.0)
    assert (row["tasks"], row["success"], row["low"], row["high"]) == (0, 0.0, 0.0, 1.0)
    assert "solve_f1" not in row


def test_tokens_are_those_that_the_engine_counts_or_unknown() -> None:
    assert summary([[1.0], [0.0]])["tokens"] == 3
    assert summary([[1.0], [0.0]], token_ids=None, completion_tokens=7)["tokens"] == 7
    assert summary([[1.0], [0.0]], token_ids=None)["tokens"] is None
    assert summary([[1.0], [0.0]], token_ids=())["tokens"] == 0


def test_calls_failures_and_stop_reasons_are_counted() -> None:
    good = trajectory(1, calls=(ToolCall("f", {}), ToolCall("", {}, error="malformed call: x")))
    broken = Trajectory(
        id="b", task_id="2", stage="eval", index=0, turns=(), stop_reason="error", failure=Failure("engine", "gone")
    )
    row = summarise([good, broken], [verdict(good, 1.0), verdict(broken, 0.0)], seconds=2.345)
    assert (row["calls"], row["malformed_calls"], row["failures"]) == (1.0, 0.5, 1)
    assert (row["stops"], row["success"], row["seconds"]) == ({"answered": 1, "error": 1}, 0.5, 2.35)


def test_categories_have_their_own_success_and_the_same_weight() -> None:
    made = [trajectory(task, index) for task in range(3) for index in range(2)]
    verdicts = [verdict(one, float(one.task_id != "2")) for one in made]
    row = summarise(made, verdicts, seconds=0.0, categories={"0": "a", "1": "a", "2": "b"})
    assert {name: (one["success"], one["trajectories"]) for name, one in row["categories"].items()} == {
        "a": (1.0, 4), "b": (0.0, 2),
    }  # fmt: skip
    assert row["category_mean"] == 0.5
    assert row["categories"]["a"]["low"] == pytest.approx(proportion_interval(2, 2).low)
