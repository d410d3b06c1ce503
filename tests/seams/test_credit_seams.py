"""One toy of each kind of part around credit and files: one new file, and a registration or an import path."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

import rewright as rw
from rewright.cli import main as cli
from rewright.core.records import FollowUp, Gold, Task, ToolCall, ToolResult, Trajectory, Turn, Verdict
from rewright.core.registry import register
from rewright.credit import (
    CreditTrajectory,
    CreditTurn,
    TurnSignal,
    advantages,
    signal_names,
    turn_rewards_many,
    turn_signal,
)
from rewright.credit.settings import TurnCredit
from rewright.pipeline.run_directory import Run
from rewright.training.group_credit import score_rollouts
from rewright.training.settings import RLSettings
from seams.toys.toy_signal import new_results
from support.static_page import page_data

Rewright = Callable[..., tuple[int, str, str]]
SIGNAL, ESTIMATOR = "seams.toys.toy_signal:new_results", "seams.toys.toy_estimator:same_state"


def called(name: str, *results: str, **arguments: Any) -> Turn:
    return Turn(text="", calls=(ToolCall(name, arguments),), results=tuple(map(ToolResult, results)))


ANSWER = Turn(text="<answer>77</answer>")
TASK = Task(
    id="q",
    messages=({"role": "user", "content": "How old?"},),
    gold=Gold(answers=("77",), calls=(ToolCall("age", {"of": "Ada"}),)),
)


def trajectory(place: int, *turns: Turn, task: str = "q") -> Trajectory:
    return Trajectory(
        id=f"{task}/{place}", task_id=task, stage="synth", index=place, turns=turns, stop_reason="answered", answer="77"
    )


ROLLOUTS = [
    trajectory(0, called("age", "36", of="Ada"), called("age", "36", of="Ada"), ANSWER),
    trajectory(1, called("age", "none", of="Zoe"), ANSWER),
]


@pytest.fixture
def rewright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rewright:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["rewright", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


def stored_run(folder: Path, **recipe: Any) -> Path:
    """A run whose candidates have been made and judged."""
    folder.mkdir()
    files = {
        "tasks.jsonl": [TASK],
        "trajectories.jsonl": ROLLOUTS,
        "verdicts.jsonl": [Verdict(trajectory_id=one.id, outcome=float(one.index == 0), reason="") for one in ROLLOUTS],
    }
    for name, rows in files.items():
        (folder / name).write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"stages": ["synth", "judge"], **recipe}))
    (folder / "state.json").write_text(json.dumps({"synth": {"done": True, "seconds": 1.0}}))
    return folder


def credit_of(rewright: Rewright, *arguments: str) -> dict[str, dict[str, Any]]:
    code, out, said = rewright("credit", *arguments, "--json")
    assert code == 0, said
    return {row["id"]: row for row in map(json.loads, out.splitlines())}


# Signals.


def test_a_signal_of_one_s_own_pays_the_turns_of_a_run(rewright: Rewright, tmp_path: Path) -> None:
    stored_run(tmp_path / "run", rl={"trajectory_reward": "matchtir"})
    found = credit_of(rewright, "run", "--signal", SIGNAL)
    assert [row["turn_rewards"] for row in found.values()] == [[1.0, 0.0, 1.0], [1.0, 0.0]]
    assert [row["reward"] for row in found.values()] == [2.0, 1.0]
    assert credit_of(rewright, "run", "--signal", "outcome")["q/0"]["turn_rewards"] == [0.0, 0.0, 1.0]
    assert credit_of(rewright, "run", "--signal", "matched") == credit_of(rewright, "run")


def test_a_signal_that_matches_no_calls_needs_no_gold_calls_in_a_run(rewright: Rewright, tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run", rl={"trajectory_reward": "matchtir"})
    (run / "tasks.jsonl").write_bytes(msgspec.json.encode(msgspec.structs.replace(TASK, gold=Gold())) + b"\n")
    for more in ((), ("--estimator", "gigpo")):
        found = credit_of(rewright, "run", "--signal", "outcome", *more)
        assert [row["turn_rewards"] for row in found.values()] == [[0.0, 0.0, 1.0], [0.0, 0.0]]
    assert [one.turn_rewards.tolist() for one in rw.credit(run, signal="outcome")] == [[0.0, 0.0, 1.0], [0.0, 0.0]]
    code, _, said = rewright("credit", "run", "--signal", f"[{SIGNAL}, matched]")
    assert (code, "none of its 1 rows has gold calls" in said) == (2, True)


def test_a_stored_recipe_names_a_signal_and_an_estimator(rewright: Rewright, tmp_path: Path) -> None:
    stored_run(
        tmp_path / "run",
        rl={"trajectory_reward": "matchtir", "credit": {"signal": SIGNAL, "estimator": ESTIMATOR, "gamma": 1.0}},
    )
    code, _, said = rewright("credit", "run", "--json")
    assert code == 2
    assert f"rl.credit.estimator: {ESTIMATOR}, rl.credit.signal: {SIGNAL}" in said
    code, _, said = rewright("credit", "run", "--signal", "matched")
    assert (code, "rl.credit.signal" in said, "rl.credit.estimator" in said) == (2, False, True)
    found = credit_of(rewright, "run", "--trusted", "seams")
    # Both begin in one state, with the returns 2 and 1; after that nothing is equal.
    assert [row["turn_advantages"] for row in found.values()] == [[0.5, 0.0, 0.0], [-0.5, 0.0]]


def test_a_recipe_sets_the_settings_of_a_signal_and_of_an_estimator(rewright: Rewright, tmp_path: Path) -> None:
    signal = {"name": SIGNAL, "reward": 2.0, "ignored": ["none"]}
    estimator = {"name": ESTIMATOR, "normalised": True}
    credit = {"signal": signal, "estimator": estimator, "gamma": 1.0}
    stored_run(tmp_path / "run", rl={"trajectory_reward": "matchtir", "credit": credit})
    code, _, said = rewright("credit", "run", "--json")
    assert (code, f"rl.credit.estimator: {ESTIMATOR}, rl.credit.signal: {SIGNAL}" in said) == (2, True), said
    found = credit_of(rewright, "run", "--trusted", "seams")
    assert [row["turn_rewards"] for row in found.values()] == [[2.0, 0.0, 1.0], [0.0, 0.0]]
    half = 2**-0.5  # two returns, 3 and 0, of one state
    assert [row["turn_advantages"][0] for row in found.values()] == pytest.approx([half, -half], abs=1e-6)
    rl = RLSettings(credit=TurnCredit.of(credit), trajectory_reward="matchtir")
    verdicts = [Verdict(trajectory_id=one.id, outcome=float(one.index == 0), reason="") for one in ROLLOUTS]
    scored = score_rollouts([TASK] * 2, ROLLOUTS, verdicts, rl, dialect="hermes")
    assert scored.turn_rewards == [row["turn_rewards"] for row in found.values()]
    assert scored.advantages == [row["turn_advantages"] for row in found.values()]


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (("--signal", f"{{name: {SIGNAL}, reward: 2}}"), [2.0, 0.0, 1.0]),
        (("--signal", SIGNAL, "signal.reward=3"), [3.0, 0.0, 1.0]),
        (("--signal", SIGNAL), [1.0, 0.0, 1.0]),
        (("--signal", "{name: matched, unmatched: -0.25}"), [1.0, -0.25, 1.0]),
        (("signal.name=matched", "signal.unmatched=-0.25"), [1.0, -0.25, 1.0]),
        (("unmatched=-0.25",), [1.0, -0.25, 1.0]),
        (("signal=outcome",), [0.0, 0.0, 1.0]),
        (("signal={name: outcome}",), [0.0, 0.0, 1.0]),
    ],
)
def test_every_spelling_of_a_signal_at_the_command_line(
    rewright: Rewright, tmp_path: Path, arguments: tuple[str, ...], first: list[float]
) -> None:
    stored_run(tmp_path / "run", rl={"trajectory_reward": "matchtir", "credit": {"signal": "outcome"}})
    given = arguments if any("signal" in one for one in arguments) else ("signal=matched", *arguments)
    assert credit_of(rewright, "run", *given)["q/0"]["turn_rewards"] == first


def test_the_page_shows_a_run_whose_signal_is_not_trusted(rewright: Rewright, tmp_path: Path) -> None:
    stored_run(tmp_path / "run", rl={"credit": {"signal": SIGNAL}})
    code, _, said = rewright("view", "run", "--static", "page.html")
    assert (code, "shown is the credit of the signal matched" in said) == (0, True)
    assert "The signal is not the recipe's" in page_data(tmp_path / "page.html")["runs"][0]["head"]["words"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"signal": "match"},
            "rl.credit: unknown signal 'match': did you mean 'matched'? expected one of ",
        ),
        ({"signal": "seams.toys.toy_signal:none"}, "rl.credit.signal: signal 'seams.toys.toy_signal:none': module"),
        (
            {"signal": "rewright.credit.signals:matched"},
            "rl.credit.signal: signal is 'rewright.credit.signals:matched'",
        ),
        ({"signal": "outcome", "assignment": "greedy"}, "rl.credit.assignment has no effect: rl.credit.signal is outc"),
        (
            {"signal": {"name": SIGNAL, "rewrd": 1}},
            "rl.credit.signal.rewrd must be a setting of seams.toys.toy_signal:new_results: did you mean reward?",
        ),
        ({"signal": {"name": SIGNAL, "reward": 0}}, "rl.credit.signal.reward must be positive, got 0"),
        (
            {"signal": {"name": SIGNAL, "ignored": [1]}},
            "rl.credit.signal.ignored[0] must be valid: expected `str`, got `int`",
        ),
        (
            {"signal": {"name": "outcome", "x": 1}},
            "r.yaml:5: rl.credit.signal.x: must be a setting of outcome: expected",
        ),
        ({"signal": {"reward": 1}}, "r.yaml:3: rl.credit.signal: must have the key name, got {'reward': 1}"),
        ({"signal": {"name": 5}}, "rl.credit.signal: must have the key name, got {'name': 5}"),
        ({"signal": {"name": "matchd"}}, "unknown signal 'matchd': did you mean 'matched'?"),
        ({"signal": {"name": "matched", "gamma": 1}}, "r.yaml:4: rl.credit.signal.gamma: must be a setting of matched"),
        (
            {"signal": {"name": "matched", "unmatched": "a"}},
            "rl.credit.signal.unmatched: must be valid: expected `float`",
        ),
        (
            {"signal": {"name": "matched", "assignment": "ot"}, "assignment": "greedy"},
            "rl.credit.assignment has no effect: rl.credit.signal.assignment is ot",
        ),
        (
            {"signal": {"name": "matched", "assignment": "ot", "unmatched": -1}},
            "rl.credit.signal.unmatched has no effect: rl.credit.signal.assignment is ot",
        ),
        (
            {"signal": {"name": "outcome"}, "assignment": "greedy"},
            "rl.credit.assignment has no effect: rl.credit.signal",
        ),
        (
            {"estimator": {"name": "grpo"}, "fusion": "sum"},
            "rl.credit.fusion has no effect: rl.credit.estimator is grpo",
        ),
        (
            {"estimator": {"name": "matchtir", "gamma": 1}},
            "rl.credit.estimator.gamma: must be beside estimator, not in",
        ),
        (
            {"estimator": {"name": ESTIMATOR, "normalised": "yes"}},
            "rl.credit.estimator.normalised must be valid: expected `bool`, got `str`",
        ),
    ],
)
def test_a_signal_that_there_is_not(rewright: Rewright, tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"rl": {"credit": settings}}))
    code, _, complaint = rewright("run", "r.yaml", "--dry-run")
    assert (code, said in complaint) == (2, True), complaint


def test_rl_computes_through_the_signal() -> None:
    verdicts = [Verdict(trajectory_id=one.id, outcome=float(one.index == 0), reason="") for one in ROLLOUTS]
    paid = {}
    for name in ("matched", "outcome", SIGNAL):
        settings = RLSettings(credit=TurnCredit(signal=name), trajectory_reward="matchtir", call_weight=0.5)
        paid[name] = score_rollouts([TASK] * 2, ROLLOUTS, verdicts, settings, dialect="hermes").turn_rewards
    assert paid == {
        "matched": [[0.5, 0.0, 1.0], [1 / 3, 0.0]],
        "outcome": [[0.0, 0.0, 1.0], [0.0, 0.0]],
        SIGNAL: [[0.5, 0.0, 1.0], [0.5, 0.0]],
    }


def test_matched_is_what_turn_rewards_computes_to_the_last_bit() -> None:
    draw = np.random.default_rng(0)

    def calls(count: int) -> list[dict[str, Any]]:
        return [
            {"name": f"f{draw.integers(2)}", "arguments": {key: int(draw.integers(3)) for key in "abc"}}
            for _ in range(count)
        ]

    turns = [[calls(draw.integers(3)) for _ in range(draw.integers(6))] for _ in range(40)]
    golds = [calls(draw.integers(5)) for _ in turns]
    outcomes = [None, *draw.random(39).tolist()]
    whole = [CreditTrajectory.of_calls(*parts) for parts in zip(turns, golds, strict=True)]
    for assignment in ("optimal", "greedy", "ot"):
        for aggregate in ("mean", "sum"):
            settings: Any = {"assignment": assignment, "aggregate": aggregate, "unmatched": -0.1}
            expected = turn_rewards_many(turns, golds, outcomes=outcomes, **settings)
            for details in (False, True):
                found = turn_signal(whole, "matched", outcomes=outcomes, details=details, **settings)
                assert all(map(np.array_equal, found.values, expected))
                assert (found.kind, found.details is not None) == ("reward", details)


def test_a_signal_by_name_by_path_and_as_a_function_with_settings() -> None:
    register("signal", "toy_new_results", new_results)
    assert {"matched", "outcome", "toy_new_results"} <= set(signal_names())
    whole = [CreditTrajectory.of(one, TASK) for one in ROLLOUTS]
    for signal in ("toy_new_results", SIGNAL, new_results):
        found = turn_signal(whole, signal, reward=2.0)
        assert [row.tolist() for row in found.values] == [[2.0, 0.0, 0.0], [2.0, 0.0]]
        assert found.provenance["settings"] == {"reward": 2.0}


def test_what_could_not_be_computed_is_no_number() -> None:
    """Of another project's log the results are not known."""
    found = turn_signal([CreditTrajectory.of_calls([[{"name": "f", "arguments": {}}], []])], new_results)
    assert [row.tolist() for row in found.missing] == [[True, False]]
    with pytest.raises(ValueError, match=r"turn_rewards\[0\]: the signal could not be computed for turn 0"):
        advantages(found, [0])
    seen = []
    advantages(found, [0], missing="bridge", estimator=lambda group: seen.append(group.missing_nT) or group.rewards_nT)
    assert seen[0].tolist() == [[True, False]]
    with pytest.raises(ValueError, match="nan"):
        advantages([[math.nan]], [0])
    lists: Any = TurnSignal([[1.0, math.nan]], [[False, True]])
    assert turn_signal([CreditTrajectory.of_calls([[], []])], lambda _: lists).values[0].tolist() == [1.0, 0.0]


def test_the_estimator_takes_differences_of_a_value_and_passes_an_advantage_through() -> None:
    whole = [CreditTrajectory.of_calls([[], [], []])]
    value = turn_signal(whole, lambda _: TurnSignal.of([[0.5, math.nan, 0.75]], kind="value", initial=np.array([0.25])))
    assert [row.tolist() for row in value.rewards] == [[0.25, 0.0, 0.25]]
    advantage = turn_signal(whole * 2, lambda _: TurnSignal.of([[1.0, -1.0, 0.0]] * 2, kind="advantage"))
    assert [row.tolist() for row in advantages(advantage, [0, 0], estimator="grpo")] == [[1.0, -1.0, 0.0]] * 2
    found = advantages(advantage, [0, 0], estimator="leave_one_out", trajectory_rewards=[1.0, 0.0])
    assert [row.tolist() for row in found] == [[2.0, 0.0, 1.0], [0.0, -2.0, -1.0]]
    with pytest.raises(ValueError, match="gives no rewards \\(advantage\\): outcomes cannot be added"):
        turn_signal(whole, lambda _: TurnSignal.of([[1.0, -1.0, 0.0]], kind="advantage"), outcomes=[1.0])


@pytest.mark.parametrize(
    ("signal", "said"),
    [
        (lambda _: [[1.0]], r"values\[0\] has shape \(1,\): expected \(2,\)"),
        (lambda _: [], "has 0 values: expected 1"),
        (lambda _: [[1.0, math.inf]], "expected finite numbers"),
        (lambda _: TurnSignal([[1.0, 2.0]], [[False]]), r"missing\[0\] has shape \(1,\): expected \(2,\)"),
        (lambda _: TurnSignal([[1.0, math.nan]], [[True, False]]), "expected finite numbers, and missing set where"),
        (lambda _: TurnSignal.of([[1.0, 2.0]], kind="value", initial=np.zeros(2)), r"initial has shape \(2,\)"),
        (lambda _: 1 / 0, "failed: ZeroDivisionError: division by zero"),
        (lambda _: [["a", "b"]], r"values\[0\] is \['a', 'b'\]: expected numbers"),
        (lambda _: TurnSignal.of([[1.0, 2.0]], kind="worth"), "has the kind 'worth': expected one of reward, value"),
        ("matche", "unknown signal 'matche': did you mean 'matched'"),
        ("outcome", "unexpected keyword argument 'settings'"),
    ],
)
def test_a_signal_that_gives_something_else_is_one_clear_error(signal: Any, said: str) -> None:
    settings = {"settings": 1} if signal == "outcome" else {}
    with pytest.raises(ValueError, match=said):
        turn_signal([CreditTrajectory.of_calls([[], []])], signal, **settings)


def test_a_signal_sees_the_tokens_and_the_scores_of_a_trajectory() -> None:
    turns = (
        Turn(text="a", token_ids=(3, 4), suffix_ids=(5,), calls=(ToolCall("f", {}),), results=(ToolResult("r"),)),
        Turn(text="b", token_ids=(6,), opening="<think>"),
    )
    record = Trajectory(
        id="t", task_id="q", stage="rl", index=0, turns=turns, stop_reason="answered", prompt_ids=(1, 2)
    )
    one = CreditTrajectory.of(record, TASK, outcome=0.5, scores=[0.1, None, 0.9])
    assert (one.token_ids, one.spans, one.mask) == (record.token_ids, record.spans, record.mask)
    assert [one.prefix_ids(turn) for turn in range(3)] == [[1, 2], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]]
    assert [one.score(turn) for turn in (-1, 0, 1)] == [0.1, None, 0.9]
    assert [turn.text for turn in one.turns] == ["a", "<think>b"]
    assert (one.task_id, one.outcome, one.answers, one.golds) == ("q", 0.5, ("77",), TASK.gold.calls)
    unknown = CreditTrajectory.of_calls([[]])
    assert (unknown.token_ids, unknown.spans, unknown.mask, unknown.score(0)) == (None, None, None, None)
    for wrong in (lambda: one.score(2), lambda: one.prefix_ids(3), lambda: one.state_key(2)):
        with pytest.raises(IndexError):
            wrong()


def test_equal_states_have_equal_keys_within_a_task() -> None:
    def keys(*turns: Turn, task: Task = TASK) -> list[str | None]:
        return CreditTrajectory.of(trajectory(0, *turns, task=task.id), task).state_keys

    first = keys(called("f", "1", a=5, b=[1, {"c": 2}]), ANSWER)
    assert keys(called("F", "1", b=[1.0, {"c": 2.0}], a=5.0), ANSWER) == first
    assert len(set(first)) == 2
    others = [
        keys(called("f", "2", a=5, b=[1, {"c": 2}]), ANSWER),
        keys(called("f", "1", a="5", b=[1, {"c": 2}]), ANSWER),
        keys(called("g", "1", a=5, b=[1, {"c": 2}]), ANSWER),
        keys(
            msgspec.structs.replace(called("f", "1", a=5, b=[1, {"c": 2}]), calls=(ToolCall("f", {}, error="x"),)),
            ANSWER,
        ),
    ]
    assert {row[0] for row in others} == {first[0]}
    assert len({first[1], *(row[1] for row in others)}) == 5
    said = FollowUp(messages=({"role": "user", "content": "And now?"},))
    assert keys(Turn(text="x", follow_up=said), ANSWER)[1] != keys(Turn(text="x"), ANSWER)[1]
    elsewhere = msgspec.structs.replace(TASK, id="p")
    assert keys(ANSWER, task=elsewhere) != keys(ANSWER)
    unknown = CreditTrajectory([CreditTurn([{"name": "f", "arguments": {}}]), CreditTurn([])], task_id="q")
    assert (unknown.state_key(0) is None, unknown.state_key(1)) == (False, None)
    assert CreditTrajectory.of_calls([[]]).state_keys == [None]


def test_an_estimator_sees_states_and_tokens_only_where_they_are_given() -> None:
    seen: list[Any] = []

    def look(group: Any) -> Any:
        seen.append((group.keys_nT, group.tokens_nT))
        return group.rewards_nT

    advantages([[1.0, 0.0], [1.0]], [0, 0], estimator=look)
    advantages(
        [[1.0, 0.0], [1.0]], [0, 0], estimator=look, state_keys=[["a", ("b", 1)], [None]], token_counts=[[3, 4], [5]]
    )
    assert seen[0] == (None, None)
    assert seen[1][0].tolist() == [["a", ("b", 1)], [None, None]]
    assert seen[1][1].tolist() == [[3, 4], [5, 0]]
    for wrong, said in (
        ({"state_keys": [["a"], [None]]}, r"state_keys\[0\] has 1 entries: expected 2"),
        ({"state_keys": [["a", []], [None]]}, r"state_keys\[0\] holds \[\]: expected a hashable key"),
        ({"token_counts": [[3, 4]]}, "1 token_counts, but 2 trajectories"),
        ({"token_counts": [[3, -4], [5]]}, r"token_counts\[0\] holds -4: expected a number of tokens"),
        ({"missing": "drop"}, "missing is 'drop': expected 'raise' or 'bridge'"),
    ):
        with pytest.raises(ValueError, match=said):
            advantages([[1.0, 0.0], [1.0]], [0, 0], **wrong)


def test_a_name_of_ours_is_taken_before_anything_was_asked_for() -> None:
    program = (
        "from rewright.credit import advantages, register_estimator\n"
        "try:\n    register_estimator('grpo')(lambda group: group.rewards_nT)\n"
        "except ValueError as problem:\n    print(problem)\n"
        "import sys; print([name for name in ('torch', 'msgspec', 'typer') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "estimator 'grpo' is registered already: choose another name\n[]\n"


# Exporters and importers.


def built_run(folder: Path) -> Path:
    stored_run(folder)
    state = {name: {"done": True, "seconds": 1.0} for name in ("synth", "build")}
    (folder / "state.json").write_text(json.dumps(state))
    row = {"messages": [*TASK.messages, {"role": "assistant", "content": "77"}], "tools": []}
    (folder / "sft.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "preferences.jsonl").write_text("")
    return folder


def test_an_exporter_of_one_s_own_writes_the_sets_of_a_run(rewright: Rewright, tmp_path: Path) -> None:
    built_run(tmp_path / "run")
    for name in ("toy", "seams.toys.toy_exporter:export"):
        register("exporter", "toy", "seams.toys.toy_exporter:export")  # the second time, it changes nothing
        code, out, said = rewright("export", "run", name.partition(":")[0], "--format", name)
        assert (code, out.splitlines()[0].endswith("questions.txt: 1 rows")) == (0, True), said
        assert (tmp_path / name.partition(":")[0] / "questions.txt").read_text() == "How old?\n"
    assert rewright("export", "run", "trl")[0] == 0
    assert (tmp_path / "trl/sft.jsonl").exists()
    _, helped, _ = rewright("export", "--help")
    assert all(name in helped for name in ("autotraj", "llama-factory", "ms-swift", "openai", "toy", "trl", "verl"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "run", "out", "--format", "openia"], "unknown exporter 'openia': did you mean 'openai'? expected"),
        (
            ["export", "run", "out", "--format", "json:load_no"],
            "--format: exporter 'json:load_no': module 'json' has no",
        ),
        (["export", "run", "out", "--format", "json:__doc__"], "exporter 'json:__doc__' is a str: expected a function"),
        (["import", "f", "--run", "new", "--recipe", "r.yaml", "--format", "autotrai"], "did you mean 'autotraj'?"),
        (["credit", "f", "--format", "atfi"], "--format: unknown importer 'atfi': did you mean 'atif'?"),
        (
            ["credit", "run", "--format", "chat-logs"],
            "run: is a folder without logs: expected traces.jsonl (verifiers)",
        ),
    ],
)
def test_a_format_that_there_is_not(rewright: Rewright, tmp_path: Path, arguments: list[str], said: str) -> None:
    built_run(tmp_path / "run")
    (tmp_path / "r.yaml").write_text("tasks: {path: run/tasks.jsonl}\n")
    (tmp_path / "f").write_text("")
    code, _, complaint = rewright(*arguments)
    assert (code, said in complaint) == (2, True), complaint
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "new").exists()


def test_an_importer_of_one_s_own_starts_a_run_and_is_credited(rewright: Rewright, tmp_path: Path) -> None:
    register("importer", "toy", "seams.toys.toy_importer:IMPORTER")
    (tmp_path / "tasks.jsonl").write_bytes(msgspec.json.encode(TASK) + b"\n")
    (tmp_path / "r.yaml").write_text("tasks: {path: tasks.jsonl}\nstages: [synth, judge]\n")
    (tmp_path / "log.tsv").write_text("q\tage(Ada)\t36\tage(Ada)\t36\t77\nq\tage(Zoe)\tnone\t77\n")
    for name in ("toy", "seams.toys.toy_importer:IMPORTER", "seams.toys.toy_importer:trajectories"):
        run = name.replace(":", "-")
        code, out, said = rewright("import", "log.tsv", "--run", run, "--recipe", "r.yaml", "--format", name)
        assert (code, out) == (0, f"2 trajectories imported: go on with rewright judge {run}\n"), said
        rows = [json.loads(line) for line in (tmp_path / run / "trajectories.jsonl").open()]
        assert [row["turns"][0]["calls"][0]["arguments"] for row in rows] == [{"of": "Ada"}, {"of": "Zoe"}]
    matched = credit_of(rewright, "log.tsv", "--format", "toy", "--gold", "tasks.jsonl")
    assert [row["turn_rewards"] for row in matched.values()] == [[1.0, 0.0, 0.0], [pytest.approx(2 / 3), 0.0]]
    _, _, said = rewright("credit", "log.tsv", "--format", "toy", "--signal", SIGNAL)
    assert "gold calls" not in said and "their calls earn 0" not in said, said
    assert f"no trajectory has an outcome: turns are rewarded for the signal {SIGNAL} only" in said
    new = credit_of(rewright, "log.tsv", "--format", "toy", "--signal", SIGNAL)
    assert [row["turn_rewards"] for row in new.values()] == [[1.0, 0.0, 0.0], [1.0, 0.0]]


def test_a_signal_sees_the_results_and_the_states_of_chat_logs(rewright: Rewright, tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "age", "arguments": '{"of": "Ada"}'}}
    turn = [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "36"}]
    end = {"role": "assistant", "content": "77"}
    rows = [
        {"id": name, "messages": [*TASK.messages, *turns, end], "reward": reward}
        for name, turns, reward in (("a", turn * 2, 1.0), ("b", turn, 0.0))
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--signal", SIGNAL, "--estimator", ESTIMATOR, "gamma=1")
    for more in ((), ("--format", "chat-logs")):
        found = credit_of(rewright, "log.jsonl", *options, *more)
        assert [row["turn_rewards"] for row in found.values()] == [[1.0, 0.0, 1.0], [1.0, 0.0]]
        # Both begin in one state, and are in one after their first turn: returns 2, 1, 1 and 1, 0.
        assert [row["turn_advantages"] for row in found.values()] == [[0.5, 0.5, 0.0], [-0.5, -0.5]]


# Trackers.


@pytest.mark.needs_torch
def test_a_tracker_of_one_s_own_is_given_the_rows_of_a_stage(rewright: Rewright, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    register("tracker", "toy", "seams.toys.toy_tracker:Counts")
    recipe = {
        "stages": ["sft"],
        "model": {"path": "pico"},
        "sft": {"source": "demonstrations", "demonstrations": 4, "batch_size": 2, "epochs": 1, "report_to": ["toy"]},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert rewright("run", "r.yaml", "--run", "run")[0] == 0
    steps = (tmp_path / "run/metrics.jsonl").read_text().count("\n")
    assert (tmp_path / "run/counts.txt").read_text() == f"sft {steps}\n"
    code, _, said = rewright("run", "r.yaml", "--run", "other", "sft.report_to=[seams.toys.toy_tracker:Broken]")
    assert (code, "sft.report_to: tracker 'seams.toys.toy_tracker:Broken': module" in said) == (2, True)
    code, _, said = rewright("run", "r.yaml", "--run", "other", "sft.report_to=[toys]")
    assert (code, "sft.report_to is 'toys': expected one of" in said, ", toy, " in said) == (2, True, True)
    assert not (tmp_path / "other").exists()


def test_a_tracker_that_fails_is_a_warning_and_the_numbers_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.open(stored_run(tmp_path / "run", sft={"report_to": ["seams.toys.toy_tracker:Counts"]}))
    run.set_metrics("sft", [{"loss": 1.0}])
    (tmp_path / "run/counts.txt").unlink()
    (tmp_path / "run/counts.txt").mkdir()
    run.set_metrics("sft", [{"loss": 0.5}])
    assert "warning: sft.report_to: tracker 'seams.toys.toy_tracker:Counts' failed: IsADirectoryError" in (
        capsys.readouterr().err
    )
    assert [row["loss"] for row in run.metrics()] == [0.5]


def test_a_stored_recipe_s_tracker_runs_once_it_is_named(rewright: Rewright, tmp_path: Path) -> None:
    stored_run(tmp_path / "run", sft={"report_to": ["seams.toys.toy_tracker:Counts"]})
    code, _, said = rewright("judge", "run")
    assert (code, "names code (sft.report_to: seams.toys.toy_tracker:Counts)" in said) == (2, True), said
