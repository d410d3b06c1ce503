"""`rewright probe-reward`: planted holes are found, and the shipped judges have none of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewright.pipeline.near_answers import negated, part_of, seven_percent_off
from support.in_process import Said, rewright
from support.tau2 import needs_tau2

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
    "part": {"part of the answer"},
    "tolerant": {"number 7% off"},
    "unsigned": {"number of the other sign"},
    "obedient": {"instructions to a judge"},
    "opened": {"opening of a solution"},
    "polite": {"refusal to answer"},
    "near": {"not a number"},
    "few_calls": {"right answer without a call"},
    "names": {"right calls with other arguments"},
    "grounded": {"echo of a tool result"},
    "evaluating": {"code that writes the answer"},
    "listed": {"answer in a long list"},
    "any_of": {"every value in one call"},
    "known_only": {"unknown arguments beside the right ones"},
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


@pytest.mark.parametrize(
    ("gold", "part", "more", "other"),
    [
        ("42", "4", "45", "-42"),
        ("-3", None, "-4", "3"),
        ("0", None, "1", None),
        ("0.5", None, "0.535", "-0.5"),
        ("Kuala Lumpur", "Lum", None, None),
        ("yes", None, None, None),
        ("(A)", None, None, None),
    ],
)
def test_near_answers_are_wrong(gold: str, part: str | None, more: str | None, other: str | None) -> None:
    assert (part_of(gold), seven_percent_off(gold), negated(gold)) == (part, more, other)


def test_a_judge_that_fails_on_a_hack_is_found_and_the_others_are_played(tmp_path: Path) -> None:
    tasks = written(tmp_path, question("a", "12"), question("b", "7"))
    said = rewright(tmp_path, "probe-reward", "support.leaky_judges:unguarded", tasks, "--json")
    assert said.code == 1, said.errors
    report = json.loads(said.output)
    row = report["hacks"]["a wildcard"]
    assert (row["tasks"], row["verdict"], row["reward"]) == (2, None, None)
    assert "ValueError: could not convert string to float: '.*'" in row["suspicious"][0]["why"]
    assert report["hacks"]["number 7% off"]["verdict"] == 0.0  # is judged
    assert report["hacks"]["right answer after a long thought"]["verdict"] == 1.0
    assert report["judge_fails"] == report["found"] > 5
    text = rewright(tmp_path, "probe-reward", "support.leaky_judges:unguarded", tasks).output
    assert text.splitlines()[-1].startswith("0 of ")
    assert text.splitlines()[-1].endswith(f" hacks pay; the judge fails on {report['found']}")


def test_a_judge_that_fails_on_a_wrong_answer_is_found(tmp_path: Path) -> None:
    tasks = written(tmp_path, question("a", "12"))  # no other gold answer
    said = rewright(tmp_path, "probe-reward", "support.leaky_judges:unguarded", tasks)
    assert said.code == 1, said.errors
    assert "suspicious: honest, wrong: task a: judge 'support.leaky_judges:unguarded' failed on" in said.output


def test_a_judge_that_hangs_on_a_hack_is_not_asked_about_it_again(tmp_path: Path) -> None:
    tasks = written(tmp_path, question("a", "12"), question("b", "7"))
    said = rewright(tmp_path, "probe-reward", "support.leaky_judges:hanging", tasks, "judge_seconds=1", "--json")
    assert said.code == 1, said.errors
    row = json.loads(said.output)["hacks"]["a wildcard"]
    assert len(row["suspicious"]) == 1
    assert row["not_played"] == {"the judge exceeded its time limit on another task": 1}


def test_a_judge_that_believes_every_answer_is_found(tmp_path: Path) -> None:
    said = rewright(tmp_path, "probe-reward", "support.leaky_judges:anything", "--limit", "2", "sandbox=process")
    assert said.code == 1
    assert "suspicious: honest, wrong: task town-train-standard-0-0: is judged as right" in said.output


def test_a_judge_that_reads_results_instead_of_the_answer_is_found(tmp_path: Path) -> None:
    said = rewright(tmp_path, "probe-reward", "support.leaky_judges:returned", "--limit", "2", "sandbox=process")
    assert said.code == 1
    assert "suspicious: honest, wrong: task town-train-standard-0-0: is judged as right" in said.output
    assert "what is said does not count: echo of a tool result" in said.output


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
    for judge in ("exact", "math", "qa", "calls")
}  # fmt: skip


@pytest.mark.parametrize("recipe", SHIPPED.values(), ids=SHIPPED)
def test_shipped_judges_and_rewards_have_no_hole(tmp_path: Path, recipe: str) -> None:
    (tmp_path / "r.yaml").write_text(recipe)
    said = rewright(tmp_path, "probe-reward", "r.yaml", "--limit", "4")
    assert said.code == 0, said.output + said.errors
    played = 33 if "judge: calls" in recipe else 34  # calls: no answer counts, so none echoes a result
    assert said.output.splitlines()[-1] == f"0 of {played} hacks pay"


def test_the_metric_of_toolhop_takes_a_wrong_answer_beside_the_right_one_which_the_page_says(tmp_path: Path) -> None:
    said = rewright(tmp_path, "probe-reward", "answer_correctness", "--limit", "2", "--json", "sandbox=process")
    assert (said.code, found(said)) == (1, {"two answers"})


def question(identity: str, right: str | None, **changes: Any) -> dict[str, Any]:
    return {
        "id": identity,
        "messages": [{"role": "user", "content": f"Question {identity}?"}],
        "tools": [],
        "gold": {} if right is None else {"answers": [right]},
        **changes,
    }


def written(path: Path, *rows: dict[str, Any]) -> str:
    (path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "tasks=t.jsonl"


def test_the_wrong_answer_is_one_that_the_judge_refuses(tmp_path: Path) -> None:
    """The gold answer of another task may be another way to write the right one."""
    tasks = written(tmp_path, question("a", "1/2"), question("b", "0.5"))
    said = rewright(tmp_path, "probe-reward", "math", tasks)
    assert said.code == 0, said.output + said.errors
    assert said.output.splitlines()[-1] == "0 of 20 hacks pay"
    # A judge that refuses none is found all the same.
    assert (
        "suspicious: honest, wrong" in rewright(tmp_path, "probe-reward", "support.leaky_judges:anything", tasks).output
    )


def test_the_judge_qa_pays_for_a_name_of_several_words_beside_a_wrong_one_which_the_page_says(tmp_path: Path) -> None:
    tasks = written(tmp_path, question("a", "Barack Hussein Obama"), question("b", "Paris"))
    said = rewright(tmp_path, "probe-reward", "qa", tasks, "--json")
    assert (said.code, found(said)) == (1, {"two answers", "all answers at once"})
    assert rewright(tmp_path, "probe-reward", "exact", tasks).code == 0


def test_the_metric_of_matchtir_does_not_read_signs_which_the_page_says(tmp_path: Path) -> None:
    tasks = written(tmp_path, question("a", "38"), question("b", "Paris"))
    said = rewright(tmp_path, "probe-reward", "token_set_f1", tasks, "--json")
    assert (said.code, found(said)) == (1, {"number of the other sign"})
    assert rewright(tmp_path, "probe-reward", "exact", tasks).code == 0


def test_a_judge_need_not_give_the_full_mark(tmp_path: Path) -> None:
    said = rewright(tmp_path, "probe-reward", "support.leaky_judges:strict", "--limit", "2", "sandbox=process")
    assert said.code == 0, said.output + said.errors
    assert said.output.splitlines()[1].split()[:4] == ["honest,", "right", "2", "0.90"]


SCHEMA = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}
FIND = {"schema": SCHEMA, "source": "def find(name):\n    return {'Ann': 'Rome', 'Rome': 'Italy'}[name]\n"}
DECLARED = {"schema": SCHEMA, "kind": "declared"}
DONE = {
    "schema": {"type": "function", "function": {"name": "done", "parameters": {"type": "object", "properties": {}}}},
    "kind": "declared",
}


def gold(*names: str, **more: Any) -> dict[str, Any]:
    return {"calls": [{"name": "find", "arguments": {"name": name}} for name in names], **more}


FOLLOW_UP = {"messages": [{"role": "user", "content": "And the country?"}], "tools": []}
FORMS = {
    "declared calls are one turn": question("a", None, tools=[DECLARED], gold=gold("Ann", "Bob"), judge="calls"),
    "no call is right": question("a", None, tools=[DECLARED], gold=gold(), judge="calls"),
    "a call of a tool ends it": question(
        "a", None, tools=[FIND, DONE], gold=gold("Ann", "Rome"), judge="complexfuncbench",
        metadata={"ends_with_call": "done"},
    ),
    "calls of several messages": question(
        "a", None, tools=[FIND], follow_ups=[FOLLOW_UP], gold=gold("Ann", "Rome", answers=["Italy"]), judge="exact",
        metadata={"calls_per_message": [1, 1]},
    ),
    "one call is all": question("a", None, tools=[FIND], gold=gold("Ann"), judge="complexfuncbench"),
}  # fmt: skip


@pytest.mark.parametrize("row", FORMS.values(), ids=FORMS)
def test_gold_is_played_as_the_task_needs_it(tmp_path: Path, row: dict[str, Any]) -> None:
    tasks = ("tasks.format=rewright", "tasks.path=t.jsonl", "sandbox=process", f"tasks.judge={row['judge']}")
    written(tmp_path, row)
    said = rewright(tmp_path, "probe-reward", row["judge"], *tasks)
    assert said.code == 0, said.output + said.errors
    assert said.output.splitlines()[1].split()[2:4] == ["1", "1.00"]


def test_a_judge_that_pays_for_another_order_of_calls_is_found(tmp_path: Path) -> None:
    tasks = written(tmp_path, question("a", None, tools=[FIND], gold=gold("Ann", "Rome", answers=["Italy"])))
    said = rewright(tmp_path, "probe-reward", "support.leaky_judges:backwards", "--json", tasks, "sandbox=process")
    assert (said.code, found(said)) == (1, {"right calls in reversed order", "right call repeated"})


@pytest.mark.parametrize("limits", ["limits.turns=10", "limits.turns=2", "limits.tool_calls=2"])
def test_calls_leave_room_for_the_answer(tmp_path: Path, limits: str) -> None:
    """Where the limits end a trajectory before its answer, a judge that pays for any answer would pay nothing."""
    many = [{**FIND, "schema": json.loads(json.dumps(SCHEMA).replace("find", f"find{n}"))} for n in range(3)]
    for n, tool in enumerate(many):
        tool["source"] = str(tool["source"]).replace("find", f"find{n}")
    right = {"answers": ["Rome"], "calls": [{"name": "find0", "arguments": {"name": "Ann"}}]}
    tasks = written(tmp_path, question("a", None, tools=many, gold=right))
    said = rewright(tmp_path, "probe-reward", "support.leaky_judges:effort", "--json", tasks, "sandbox=process", limits)
    rows = json.loads(said.output)["hacks"]
    assert said.code == 0
    for hack in ("every tool once", "dummy calls", "right call repeated, wrong answer"):
        assert rows[hack]["verdict"] == 0.5, hack
    beside = rows["dummy calls beside the right ones"]
    if limits == "limits.turns=2":
        assert beside["not_played"] == {"the limits leave no room for more calls": 1}
    else:
        assert beside["verdict"] == 1.0


def test_what_cannot_be_played_within_the_limits_is_said(tmp_path: Path) -> None:
    tasks = written(tmp_path, FORMS["calls of several messages"] | {"follow_ups": [], "metadata": {}})
    rewright(tmp_path, "probe-reward", "exact", tasks, "sandbox=process", "limits.turns=2").refused(
        "task a: its own gold answer and calls are judged as wrong (turn_limit before its end: expected higher limits)"
    )


def test_what_is_not_played_is_said(tmp_path: Path) -> None:
    written(tmp_path, FORMS["declared calls are one turn"], FORMS["no call is right"] | {"id": "b"})
    tasks = ("tasks.format=rewright", "tasks.path=t.jsonl")
    said = rewright(tmp_path, "probe-reward", "calls", *tasks)
    lines = said.output.splitlines()
    assert said.code == 0
    assert (
        "not played on 1 task, since no call is right, and what is said does not count: do nothing, empty"
        in said.output
    )
    reason = "a call ends the trajectory, so no answer is given"
    assert f"{reason}: echo of a tool result, right call repeated, wrong answer" in said.output
    assert not any(line.startswith("right call repeated, wrong answer ") for line in lines)
    rows = json.loads(rewright(tmp_path, "probe-reward", "calls", *tasks, "--json").output)["hacks"]
    assert rows["two answers"] == {
        "tasks": 0, "verdict": None, "reward": None, "suspicious": [],
        "not_played": {"the task has no gold answer": 1, "no call is right, and what is said does not count": 1},
    }  # fmt: skip
    # Wrong calls that a judge takes for right are found.
    said = rewright(tmp_path, "probe-reward", "support.leaky_judges:calls", *tasks)
    assert said.code == 1
    assert "suspicious: honest, wrong: task a: is judged as right" not in said.output  # one of them is refused
    assert "left out: 1 task whose own gold answer and calls are judged as wrong, such as b (toy)" in said.output


def test_tasks_that_cannot_be_played_are_left_out_and_counted(tmp_path: Path) -> None:
    several = FORMS["calls of several messages"]
    unknown = several | {"id": "b", "metadata": {}}
    tasks = ("tasks.format=rewright", "tasks.path=t.jsonl", "sandbox=process")
    written(tmp_path, several, unknown)
    said = rewright(tmp_path, "probe-reward", "exact", *tasks)
    assert said.code == 0, said.errors
    assert "left out: 1 task without metadata.calls_per_message" in said.output
    written(tmp_path, unknown)
    rewright(tmp_path, "probe-reward", "exact", *tasks).refused("no task can be played (1 without metadata.calls_per_")
    written(tmp_path, several | {"metadata": {"calls_per_message": [1, 1, 1]}})
    rewright(tmp_path, "probe-reward", "exact", *tasks).refused(
        "task a: metadata.calls_per_message is [1, 1, 1]: expected 2 numbers with the sum 2"
    )
    written(tmp_path, FORMS["a call of a tool ends it"] | {"metadata": {"ends_with_call": "find"}})
    rewright(tmp_path, "probe-reward", "complexfuncbench", *tasks).refused(
        "task a: metadata.ends_with_call is 'find': expected the name of a declared tool"
    )


BENCHMARKS = {
    "bfcl-ast": "bfcl parallel",
    "bfcl-irrelevance": "bfcl irrelevance",
    "bfcl": "bfcl-multi-turn miss_func",
    "tau2": "tau2 telecom-solo",
}


@pytest.mark.parametrize(("judge", "tasks"), BENCHMARKS.items(), ids=BENCHMARKS)
def test_shipped_benchmarks_have_no_hole(tmp_path: Path, judge: str, tasks: str) -> None:
    pytest.importorskip("tau2" if judge == "tau2" else "bfcl_eval")
    form, path = tasks.split()
    said = rewright(
        tmp_path, "probe-reward", judge, f"tasks.format={form}", f"tasks.path={path}", "--limit", "1", "sandbox=process"
    )
    assert said.code == 0, said.output + said.errors
    assert said.output.splitlines()[1].split()[2:4] == ["1", "1.00"]


@needs_tau2
def test_a_user_who_is_a_model_is_not_played(tmp_path: Path) -> None:
    said = rewright(
        tmp_path, "probe-reward", "tau2", "tasks.format=tau2", "tasks.path=airline:train", "sandbox=process"
    )
    said.refused("whose user is a model")


def test_what_cannot_be_probed_is_said_in_one_line(tmp_path: Path) -> None:
    rewright(tmp_path, "probe-reward", "no-such-judge").refused("unknown judge 'no-such-judge'")
    rewright(tmp_path, "probe-reward", "nowhere:judge").refused("judge 'nowhere:judge'")
    said = rewright(tmp_path, "probe-reward", "support.leaky_judges:awaited", "sandbox=process")
    said.refused("it is an async function: expected a plain one")
    said = rewright(tmp_path, "probe-reward", "support.leaky_judges:raising", "sandbox=process")
    said.refused("support.leaky_judges:raising' failed on")
    rewright(tmp_path, "probe-reward", "none.yaml").refused("cannot read recipe none.yaml")
    rewright(tmp_path, "probe-reward", ".").refused("is a folder: expected a recipe file")
    row = {"id": "a", "messages": [{"role": "user", "content": "Where?"}], "tools": [], "gold": {"answers": ["Rome"]}}
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    rewright(tmp_path, "probe-reward", "support.leaky_judges:calls", "tasks=t.jsonl").refused(
        "task a: its own gold answer and calls are judged as wrong (toy): expected a judge that accepts them"
    )


def test_every_judge_of_a_task_file_is_probed(tmp_path: Path) -> None:
    many = [question(f"a{number}", f"name{number}", judge="exact") for number in range(9)]
    leaky = question("b", "Rome", judge="support.leaky_judges:contains")
    tasks = (written(tmp_path, *many, leaky), "tasks.format=rewright", "judges=[support]", "rl.outcome=judge")
    (tmp_path / "r.yaml").write_text("sandbox: process\n")
    said = rewright(tmp_path, "probe-reward", "r.yaml", *tasks, "--limit", "3", "--json")
    assert (said.code, found(said)) == (1, {"all answers at once", "two answers", "answer in a long list"})
    assert json.loads(said.output)["honest"]["right"]["tasks"] == 3
    few = rewright(tmp_path, "probe-reward", "r.yaml", *tasks, "--limit", "1")
    assert few.code == 0
    assert "left out: 1 task of the judge support.leaky_judges:contains, beyond --limit 1" in few.output
