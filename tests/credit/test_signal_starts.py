"""Values whose start is unknown: the first reward is missing, and not 0."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewright.credit import CreditTrajectory, CreditTurn, Resources, TurnSignal, advantages, turn_signal
from rewright.credit.settings import TurnCredit
from support.in_process import rewright

OWN = """
import math
from rewright.credit import TurnSignal

VALUES = {"known": [0.5, 0.75], "unknown": [0.5, 0.75], "gap": [math.nan, 0.75]}
STARTS = {"known": 0.25, "unknown": math.nan, "gap": math.nan}

def value(trajectories):
    ids = [one.id for one in trajectories]
    return TurnSignal.of([VALUES[i] for i in ids], kind="value", initial=[STARTS[i] for i in ids])

def without_start(trajectories):
    return TurnSignal.of([VALUES[one.id] for one in trajectories], kind="value")

def from_the_first(trajectories):
    rows = [VALUES[one.id] for one in trajectories]
    return TurnSignal.of(rows, kind="value", initial=[row[0] for row in rows])
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "starts_own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    messages = [{"role": "user", "content": "?"}, *({"role": "assistant", "content": "a"} for _ in range(2))]
    rows = [{"id": name, "group": "q", "messages": messages, "reward": 0.0} for name in ("known", "unknown", "gap")]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def credit(folder: Path, *settings: str) -> dict[str, Any]:
    said = rewright(folder, "credit", "log.jsonl", *settings, "--json")
    assert said.code == 0, said.errors
    return {row["id"]: row for row in map(json.loads, said.output.splitlines())}


def test_a_start_that_is_unknown_is_a_missing_reward(log: Path) -> None:
    found = credit(log, "--signal", "starts_own:value")
    assert {name: row["turn_rewards"] for name, row in found.items()} == {
        "known": [0.25, 0.25],
        "unknown": [None, 0.25],
        "gap": [None, None],
    }
    assert found["unknown"]["missing"] == found["gap"]["missing"]
    assert found["unknown"]["missing"] == "the value of the state before its first turn is unknown"
    assert (found["unknown"]["turn_advantages"], found["known"]["missing"]) == (None, None)
    bridged = credit(log, "--signal", "starts_own:value", "missing=bridge", "--estimator", "fixed_horizon")
    assert bridged["unknown"]["reward"] == 0.25 and bridged["gap"]["turn_advantages"] is None
    assert bridged["known"]["turn_advantages"] == pytest.approx([0.125, 0.0])


def test_a_signal_without_any_start_says_why_it_has_no_number(log: Path) -> None:
    said = rewright(log, "credit", "log.jsonl", "--signal", "starts_own:without_start")
    said.refused("has no number for a turn of any trajectory (the first is 'known': the value of the state before its")
    assert not said.output


def test_the_first_values_may_be_the_starts(log: Path) -> None:
    found = credit(log, "--signal", "starts_own:from_the_first")
    assert (found["known"]["turn_rewards"], found["known"]["missing"]) == ([0.0, 0.25], None)
    assert found["gap"]["turn_rewards"] == [None, None], "there is no first value"


def test_the_score_may_begin_with_the_first_one_as_before(log: Path) -> None:
    rows = [
        CreditTrajectory.of_calls([[]] * 3, scores=scores) for scores in ([9.0, None, 0.1, 0.7], [None, 0.1, 0.3, 0.2])
    ]
    found = turn_signal(rows, "score", start="first")
    assert [row.tolist() for row in found.rewards] == [[0.0, 0.0, 0.7 - 0.1], [0.0, 0.3 - 0.1, 0.2 - 0.3]]
    assert [mask.tolist() for mask in found.missing_rewards] == [[True, False, False], [False] * 3]


def half_known(_: Any) -> TurnSignal:
    return TurnSignal.of([[0.9, 1.0], [0.2, 0.4]], kind="value", initial=[0.0, math.nan])


def test_the_function_refuses_it_and_names_the_turn() -> None:
    found = turn_signal([CreditTrajectory.of_calls([[], []])] * 2, half_known)
    assert found.marked_rewards[0].tolist() == [0.9, 1.0 - 0.9]
    with pytest.raises(ValueError, match=r"turn_rewards\[1\]: .* turn 0 \(the value of the state before its first"):
        advantages(found, [0, 0])
    marks: list[Any] = []
    advantages(
        found, [0, 0], missing="bridge", estimator=lambda group: marks.append(group.missing_nT) or group.rewards_nT
    )
    assert marks[0].tolist() == [[False, False], [True, False]]


def test_it_is_missing_in_a_sum_too() -> None:
    settings = TurnCredit.of({"signal": ["matched", f"{__name__}:half_known"]})
    found = settings.signal_of([CreditTrajectory.of_calls([[], []], [])] * 2)
    assert [mask.tolist() for mask in found.missing] == [[False, False], [True, False]]
    assert found.causes == {1: f"{__name__}:half_known: the value of the state before its first turn is unknown"}


@pytest.mark.parametrize(
    ("initial", "said"),
    [
        ([math.inf], r"initial is \[inf\]: expected finite numbers, or NaN"),
        (["low"], r"initial is \['low'\]: expected numbers"),
    ],
)
def test_a_start_that_is_no_number_is_one_clear_error(initial: list[Any], said: str) -> None:
    one = [CreditTrajectory.of_calls([[], []])]
    with pytest.raises(ValueError, match=said):
        turn_signal(one, lambda _: TurnSignal.of([[0.0, 1.0]], kind="value", initial=initial))


@pytest.mark.parametrize("form", ["prob", "log_prob", "log_ratio"])
def test_an_answer_that_is_impossible_at_the_start_gives_the_first_turn_no_number(form: str) -> None:
    def log_prob(pairs: Any) -> list[Any]:
        return [np.full(len(answer), -0.1 if 42 in context else -np.inf) for context, answer in pairs]

    turns = [
        CreditTurn([], token_ids=[7], suffix_ids=[42]),
        CreditTurn([], token_ids=[8]),
        CreditTurn([], token_ids=[9]),
    ]
    one = CreditTrajectory(turns, prompt_ids=[1], answers=["R"])
    resources = Resources(log_prob=log_prob, tokenize=lambda text: [ord(sign) for sign in text])
    found = turn_signal([one], "likelihood", resources=resources, form=form)
    assert math.isnan(found.marked_rewards[0][0]), "it became likely, by an amount that is unknown"
