"""`rewright probe-reward`: planted holes are found, and the shipped judges have none of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.in_process import Said, rewright

TOWN = """
sandbox: process
rl: {%s}
"""


def found(said: Said) -> set[str]:
    """The suspicious hacks."""
    assert said.output, said.errors
    return {name for name, row in json.loads(said.output)["hacks"].items() if row["suspicious"]}


HOLES = {
    "contains": {"all answers at once", "two answers"},
    "pattern": {"a wildcard"},
    "flattered": {"claim to be right"},
    "long": {"very long wrong answer"},
    "question": {"copy the question"},
    "mentions": {"all answers at once", "two answers", "answer in the thought only", "tags inside arguments"},
    "calls": {"every tool once", "dummy calls", "right call repeated, wrong answer", "tags inside arguments"},
}


@pytest.mark.parametrize(("judge", "holes"), HOLES.items(), ids=HOLES)
def test_a_planted_hole_of_a_judge_is_found(tmp_path: Path, judge: str, holes: set[str]) -> None:
    said = rewright(
        tmp_path, "probe-reward", f"support.leaky_judges:{judge}", "--limit", "2", "--json", "sandbox=process"
    )
    assert said.code == 1
    assert found(said) >= holes
    assert "do nothing" not in found(said)


def test_a_judge_that_believes_every_answer_is_found(tmp_path: Path) -> None:
    said = rewright(tmp_path, "probe-reward", "support.leaky_judges:anything", "--limit", "2", "sandbox=process")
    assert said.code == 1
    assert "suspicious: honest, wrong: task town-train-standard-0-0: is judged as right" in said.output


def test_a_signal_that_pays_for_calls_is_found(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(TOWN % "credit: {signal: 'support.leaky_judges:per_call'}")
    said = rewright(tmp_path, "probe-reward", "r.yaml", "--limit", "2", "--json")
    assert said.code == 1
    assert found(said) >= {"dummy calls", "right call repeated", "dummy calls beside the right ones"}


ALMANAC = "tasks: {format: almanac}\ndialect: tags\nsandbox: process\ntools: {python: true, search: almanac}\n"
SHIPPED = {
    "matchtir": TOWN % "trajectory_reward: matchtir",
    "autotraj": TOWN % "trajectory_reward: autotraj",
    "almanac": ALMANAC + "rl: {trajectory_reward: autotraj}\n",
    "almanac by math": ALMANAC + "rl: {trajectory_reward: autotraj, outcome: math}\n",
} | {
    judge: (TOWN % "trajectory_reward: matchtir") + f"tasks: {{judge: {judge}}}\n"
    for judge in ("exact", "math", "qa", "token_set_f1", "calls")
}  # fmt: skip


@pytest.mark.parametrize("recipe", SHIPPED.values(), ids=SHIPPED)
def test_shipped_judges_and_rewards_have_no_hole(tmp_path: Path, recipe: str) -> None:
    (tmp_path / "r.yaml").write_text(recipe)
    said = rewright(tmp_path, "probe-reward", "r.yaml", "--limit", "4")
    assert said.code == 0, said.output + said.errors
    assert said.output.splitlines()[-1] == "0 of 20 hacks pay"


def test_the_metric_of_toolhop_takes_a_wrong_answer_beside_the_right_one_which_the_page_says(tmp_path: Path) -> None:
    said = rewright(tmp_path, "probe-reward", "answer_correctness", "--limit", "2", "--json", "sandbox=process")
    assert (said.code, found(said)) == (1, {"two answers"})


def test_what_cannot_be_probed_is_said_in_one_line(tmp_path: Path) -> None:
    rewright(tmp_path, "probe-reward", "no-such-judge").refused("unknown judge 'no-such-judge'")
    rewright(tmp_path, "probe-reward", "nowhere:judge").refused("judge 'nowhere:judge'")
    rewright(tmp_path, "probe-reward", "none.yaml").refused("cannot read recipe none.yaml")
    rewright(tmp_path, "probe-reward", ".").refused("is a folder: expected a recipe file")
    row = {"id": "a", "messages": [{"role": "user", "content": "Where?"}], "tools": [], "gold": {"answers": ["Rome"]}}
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    rewright(tmp_path, "probe-reward", "support.leaky_judges:calls", "tasks=t.jsonl").refused(
        "task a: its own gold answer and calls are judged as wrong (toy): expected a judge that accepts them"
    )
