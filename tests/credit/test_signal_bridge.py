"""`missing: bridge`: a trajectory with a missing number keeps its outcome, whatever turn the number is missing for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewright.credit import CreditTrajectory, TurnSignal, advantages
from rewright.credit.settings import TurnCredit
from support.in_process import rewright

SCORES: list[list[float | None]] = [[0.0, 0.5, None], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]
OUTCOMES = [1.0, 1.0, 0.0, 0.0]


def log(folder: Path, scores: list[list[float | None]]) -> None:
    """Attempts at one task, of two turns each."""
    messages = [{"role": "user", "content": "?"}, *({"role": "assistant", "content": "a"} for _ in range(2))]
    rows = [
        {"id": f"r{index}", "group": "q", "messages": messages, "scores": row, "reward": reward}
        for index, (row, reward) in enumerate(zip(scores, OUTCOMES, strict=True))
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def credit(folder: Path, *settings: str) -> list[dict[str, Any]]:
    said = rewright(folder, "credit", "log.jsonl", *settings, "missing=bridge", "--json")
    assert said.code == 0, said.errors
    return [json.loads(line) for line in said.output.splitlines()]


@pytest.mark.parametrize("estimator", ["grpo", "matchtir", "fixed_horizon", "igpo", "delta", "gigpo"])
def test_the_outcome_counts_where_the_last_turn_has_no_score(tmp_path: Path, estimator: str) -> None:
    log(tmp_path, SCORES)
    found = credit(tmp_path, "--signal", "score", "--estimator", estimator)
    assert found[0]["turn_rewards"] == [0.5, None], "the number is shown as missing"
    assert [row["reward"] for row in found] == [1.5, 1.5, 0.5, 0.5]
    by_row = [row["turn_advantages"] for row in found]
    assert by_row[0] == by_row[1], "both are right, and the missing score is that of no change"
    assert by_row[2] == by_row[3] and min(by_row[0]) > 0 > max(by_row[2])


def test_grpo_is_that_of_the_rewards(tmp_path: Path) -> None:
    log(tmp_path, SCORES)
    found = credit(tmp_path, "--signal", "score", "--estimator", "grpo")
    assert [row["turn_advantages"][0] for row in found] == pytest.approx([0.866, 0.866, -0.866, -0.866], abs=1e-3)


def test_equal_rollouts_have_no_advantage_where_turn_rewards_decay_with_success() -> None:
    settings = TurnCredit.of(
        {"signal": "score", "missing": "bridge", "estimator": {"name": "outcome_or_calls", "decay": "success"}}
    )
    two = [CreditTrajectory.of_calls([[], []], scores=row, outcome=0.5) for row in SCORES[:2]]
    rewards = settings.with_outcomes(settings.rewards_of(two), [0.5, 0.5])
    for outcomes in ([0.5, 0.5], None):  # given, or those of the trajectories
        found = settings.advantages(rewards, [0, 0], outcomes, trajectories=two)
        assert [row.tolist() for row in found] == [[0.0, 0.0], [0.0, 0.0]]


def seen(group: Any) -> Any:
    """The rewards, and 10 for a turn that is marked as missing."""
    return group.rewards_nT + 10.0 * group.missing_nT


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [(1.0, [[0.5, 11.0], [10.0, 1.5], [0.0, 0.0]]), (None, [[0.5, 10.0], [10.0, 0.5], [0.0, 0.0]])],
)
def test_the_turn_stays_marked_and_a_trajectory_without_a_number_is_left_out(
    outcome: float | None, expected: list[list[float]]
) -> None:
    settings = TurnCredit.of({"signal": "score", "missing": "bridge", "estimator": f"{__name__}:seen"})
    scores: list[list[float | None]] = [[0.0, 0.5, None], [0.0, None, 0.5], [0.0, None, None]]
    three = [CreditTrajectory.of_calls([[], []], scores=row) for row in scores]
    rewards = settings.with_outcomes(settings.rewards_of(three), [outcome] * 3)
    found = settings.advantages(rewards, [0] * 3, None if outcome is None else [outcome] * 3)
    assert [row.tolist() for row in found] == expected


def test_in_a_trajectory_join_the_outcome_is_no_turn_reward() -> None:
    settings = TurnCredit.of(
        {"signal": "score", "missing": "bridge", "estimator": f"{__name__}:seen", "join": "trajectory"}
    )
    one = [CreditTrajectory.of_calls([[], []], scores=SCORES[0])]
    found = settings.advantages(settings.with_outcomes(settings.rewards_of(one), [1.0]), [0], [1.0])
    assert found[0].tolist() == [0.5, 10.0]


def test_the_known_part_of_a_missing_sum_counts_nowhere() -> None:
    """By `advantages`, which is given the signal, as by the settings of trainers."""
    call = {"name": "add", "arguments": {}}
    settings = TurnCredit.of({"signal": ["matched", "score"], "missing": "bridge", "estimator": "leave_one_out"})
    two = [
        CreditTrajectory.of_calls([[call], []], [call], scores=[0.0, None, 1.0]),
        CreditTrajectory.of_calls([[], []], [call], scores=[0.0, 0.5, 1.0]),
    ]
    signal = settings.signal_of(two)
    assert signal.values[0].tolist() == [0.0, 1.0], "the call has 1, and the score none"
    by_function = advantages(signal, [0, 0], estimator="leave_one_out", missing="bridge")
    by_settings = settings.advantages(signal.marked_rewards, [0, 0], [0.0, 0.0])
    assert [row.tolist() for row in by_function] == [row.tolist() for row in by_settings]


def told(trajectories: Any) -> TurnSignal:
    """An advantage of 1 for every turn, unknown for the first one."""
    rows = [[np.nan] + [1.0] * (len(one.turns) - 1) for one in trajectories]
    return TurnSignal.of(rows, kind="advantage")


def test_a_sum_of_rewards_and_advantages_is_missing_as_a_whole() -> None:
    settings = TurnCredit.of({"signal": ["score", f"{__name__}:told"], "missing": "bridge"})
    found = settings.signal_of([CreditTrajectory.of_calls([[], []], scores=[0.0, 0.5, None])])
    assert [mask.tolist() for mask in found.missing] == [[True, True]]
    assert found.advantages is not None and found.advantages[0].tolist() == [0.0, 0.0]
    assert found.values[0].tolist() == [0.0, 0.0]
