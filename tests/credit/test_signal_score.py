"""Signal `score` and estimator `turn_credit`: prime-rl's formula, written down again here, and our corrections."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rewright.core.records import Gold, Task, ToolCall, ToolResult, Trajectory, Turn
from rewright.credit import CreditTrajectory, CreditTurn, advantages, turn_signal
from rewright.credit.settings import TurnCredit
from rewright.judging.scores import turn_scores


def scored(scores: list[float | None], **known: Any) -> CreditTrajectory:
    """A trajectory with the scores before its first turn and after each."""
    return CreditTrajectory.of_calls([[]] * (len(scores) - 1), scores=scores, id="one", **known)


def prime_rl(
    groups: list[list[tuple[float, list[float | None], list[int]]]], gamma: float, beta: float
) -> list[list[list[float]]]:
    """Turn advantages by prime-rl's `turn_credit`, from its description, with loops over plain numbers.

    A rollout is (reward R, a number or None after each turn, tokens of each turn).
    """
    results = []
    for group in groups:
        levels, shares = [], []
        for reward, phi, _ in group:
            last: float | None = None
            deltas = []
            for value in phi:
                if value is None:
                    deltas.append(0.0)
                    continue
                deltas.append(0.0 if last is None else value - last)
                last = value
            credit = [0.0] * len(phi)
            for t, delta in enumerate(deltas):
                weights = [gamma ** (t - s) for s in range(t + 1)]
                for s in range(t + 1):
                    credit[s] += delta * weights[s] / sum(weights)
            levels.append(reward + sum(deltas))
            shares.append(credit)
        mean = sum(levels) / len(levels)
        rows = []
        for (_, _, tokens), level, credit in zip(group, levels, shares, strict=True):
            centre = sum(n * c for n, c in zip(tokens, credit, strict=True)) / sum(tokens)
            rows.append([level - mean + beta * (c - centre) for c in credit])
        results.append(rows)
    return results


@pytest.mark.parametrize(("gamma", "beta"), [(0.9, 1.0), (0.0, 0.5), (1.0, 2.0), (0.35, 0.0)])
def test_the_parity_settings_are_prime_rl_s_formula(gamma: float, beta: float) -> None:
    draw = np.random.default_rng(3)
    groups = [
        [
            (
                float(draw.integers(2)),
                [None if draw.random() < 0.2 else float(draw.normal()) for _ in range(draw.integers(1, 7))],
                [],
            )
            for _ in range(draw.integers(1, 6))
        ]
        for _ in range(20)
    ]
    groups = [[(r, phi, [int(draw.integers(1, 50)) for _ in phi]) for r, phi, _ in group] for group in groups]
    members = [(label, *one) for label, group in enumerate(groups) for one in group]
    credit = TurnCredit.of(
        {
            "signal": {"name": "score", "start": "first", "smear": gamma, "unscored": "unchanged"},
            "estimator": {"name": "turn_credit", "beta": beta, "centre": "token"},
            "join": "trajectory",
        }
    )
    signal = credit.signal_of([scored([None, *phi]) for _, _, phi, _ in members])
    assert not any(mask.any() for mask in signal.missing)
    found = advantages(
        signal,
        [label for label, *_ in members],
        estimator="turn_credit",
        estimator_settings={"beta": beta, "centre": "token"},
        trajectory_rewards=[r + row.sum() for (_, r, _, _), row in zip(members, signal.rewards, strict=True)],
        token_counts=[tokens for *_, tokens in members],
    )
    expected = [row for group in prime_rl(groups, gamma, beta) for row in group]
    for row, own in zip(found, expected, strict=True):
        np.testing.assert_allclose(row, own, rtol=0, atol=1e-9)
    outcomes = [reward for _, reward, _, _ in members]
    as_trainers = credit.advantages(
        signal.rewards,
        [label for label, *_ in members],
        outcomes,
        trajectories=[
            CreditTrajectory([CreditTurn([], token_ids=[0] * count) for count in tokens]) for *_, tokens in members
        ],
    )
    assert all(map(np.array_equal, as_trainers, found))


def test_the_first_turn_earns_what_it_adds() -> None:
    (value,) = turn_signal([scored([0.25, 1.0, 0.5])], "score").rewards
    assert value.tolist() == [0.75, -0.5]
    (first,) = turn_signal([scored([0.25, 1.0, 0.5])], "score", start="first").rewards
    assert first.tolist() == [0.0, -0.5]
    (assumed,) = turn_signal([scored([None, 1.0, 0.5])], "score", start=0.5).rewards
    assert assumed.tolist() == [0.5, -0.5]


def test_smearing_keeps_the_sum_and_best_so_far_pays_progress_once() -> None:
    rise = [0.0, 0.5, 0.25, 0.5, 1.0]
    for smear in (0.0, 0.3, 1.0):
        (row,) = turn_signal([scored(rise)], "score", smear=smear).rewards
        assert row.sum() == pytest.approx(1.0)
    (even,) = turn_signal([scored([0.0, 0.0, 1.0])], "score", smear=1.0).rewards
    assert even.tolist() == [0.5, 0.5]
    (best,) = turn_signal([scored(rise)], "score", delta="best_so_far").rewards
    assert best.tolist() == [0.5, 0.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("scores", "settings", "missing", "cause"),
    [
        ([0.0, None, 1.0], {}, [True, False], "turn 1 has no score"),
        ([0.0, None, 1.0], {"delta": "best_so_far"}, [True, False], "turn 1 has no score"),
        ([None, 0.5, 1.0], {}, [True, False], "it has no score before its first turn"),
        ([None, 0.5, 1.0], {"start": "first"}, [False, False], ""),
        ([0.0, None, 1.0], {"unscored": "unchanged"}, [False, False], ""),
        ([None, None, None], {}, [True, True], "it has no scores"),
        ([0.0, 0.5, None], {"smear": 0.5}, [True, True], "turn 2 has no score"),
    ],
)
def test_a_turn_without_a_score_is_missing_and_says_why(
    scores: list[float | None], settings: dict[str, Any], missing: list[bool], cause: str
) -> None:
    found = turn_signal([scored(scores)], "score", **settings)
    assert found.missing[0].tolist() == missing
    assert found.causes.get(0, "").startswith(cause) and bool(found.causes) == any(missing)


@pytest.mark.parametrize("settings", [{}, {"delta": "best_so_far"}, {"unscored": "unchanged"}])
def test_the_second_turn_earns_what_it_adds_though_the_score_before_the_first_is_unknown(
    settings: dict[str, Any],
) -> None:
    rows = [scored([None, 0.5, 0.7, 0.9]), scored([0.0, 0.5, 0.7, 0.9]), scored([None, None, 0.7, 0.9])]
    found = turn_signal(rows, "score", **settings).marked_rewards
    np.testing.assert_allclose(found[0], [np.nan, 0.2, 0.2])
    np.testing.assert_allclose(found[1], [0.5, 0.2, 0.2])
    np.testing.assert_allclose(found[2], [np.nan, np.nan, 0.2])  # of turn 2 it is not known what was before


def test_what_is_no_score() -> None:
    with pytest.raises(ValueError, match="score 1 is nan: expected a finite number"):
        turn_signal([scored([0.0, math.nan])], "score")
    with pytest.raises(ValueError, match="has 2 scores: expected 3"):
        turn_signal([CreditTrajectory.of_calls([[], []], scores=[0.0, 1.0])], "score")
    with pytest.raises(ValueError, match=r"signal\.smear must be at most 1"):
        TurnCredit.of({"signal": {"name": "score", "smear": 2}})
    with pytest.raises(ValueError, match="numbers of tokens of the turns are unknown"):
        advantages([[1.0]], [0], estimator="turn_credit", estimator_settings={"centre": "token"})


def test_expected_outputs_of_tools_are_scored_by_the_rule_of_ftrl() -> None:
    def asked(name: str, told: str) -> Turn:
        return Turn(text="", calls=(ToolCall(name, {}),), results=(ToolResult(told),))

    turns = (asked("city", "It is ROME, 2,100 years"), asked("age", "no"), asked("other", "no"), asked("age", "36"))
    task = Task(
        id="t", messages=(), gold=Gold(outputs={"city": ["rome", "2100, years"], "age": ["36"], "other": ["7"]})
    )
    one = Trajectory(id="t/0", task_id="t", stage="synth", index=0, turns=turns, stop_reason="answered")
    assert turn_scores(task, one) == [0.0, 0.5, 0.5, 0.5, 0.75]
    assert turn_scores(Task(id="t", messages=(), gold=Gold(answers=("1",))), one) is None
