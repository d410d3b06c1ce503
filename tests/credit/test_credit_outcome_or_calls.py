"""The estimator that takes the outcome where a group has both results, and the turn rewards where it has none."""

import json

import msgspec
import numpy as np
import pytest

from rewright.core.records import Gold, Task, ToolCall, Trajectory, Turn, Verdict
from rewright.credit import advantages
from rewright.credit.settings import TurnCredit
from rewright.credit.trajectories import CreditTrajectory
from support.in_process import rewright

CALLS = [[1.0, 0.5, 0.0], [0.0, 0.0], [0.5, 1.0, 0.25, 0.0], [0.0]]
GROUP = [7, 7, 7, 7]
MATCHTIR = {"gamma": 0.9, "singleton_turn": "zero"}


def found(outcomes, *, joined=False, calls=CALLS, **settings):
    rewards = [np.array(row) for row in calls]
    if joined:
        for row, outcome in zip(rewards, outcomes, strict=True):
            row[-1] += outcome
    return advantages(
        rewards, GROUP, estimator="outcome_or_calls", estimator_settings=settings, outcomes=outcomes, joined=joined,
        **MATCHTIR,
    )  # fmt: skip


def assert_equal_rows(first, second):
    for left, right in zip(first, second, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-12)


@pytest.mark.parametrize("joined", [False, True])
def test_a_group_with_both_results_has_grpo_of_the_outcome(joined):
    outcomes = [1.0, 0.0, 0.0, 1.0]
    z = (np.array(outcomes) - 0.5) / (np.std(outcomes, ddof=1) + 1e-6)
    assert_equal_rows(found(outcomes, joined=joined), [np.full(len(row), z[i]) for i, row in enumerate(CALLS)])


@pytest.mark.parametrize("decay", ["contrast", "success"])
def test_a_group_without_a_right_rollout_has_the_turn_rewards(decay):
    expected = advantages(CALLS, GROUP, estimator="matchtir", **MATCHTIR)
    assert_equal_rows(found([0.0] * 4, decay=decay), expected)
    half = advantages(
        CALLS, GROUP, estimator="outcome_or_calls", estimator_settings={"calls": 0.5}, outcomes=[0.0] * 4, joined=False,
        **MATCHTIR,
    )  # fmt: skip
    assert_equal_rows(half, [0.5 * row for row in expected])


def test_the_turn_level_alone_raises_no_wrong_ending():
    """By hand: the last turns have no reward. The first rollout's calls are the best, and its wrong ending is not."""
    rewards = [[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0]]
    rows = advantages(
        rewards, [7] * 3, estimator="outcome_or_calls", estimator_settings={"level": "turn"}, outcomes=[0.0] * 3,
        joined=False, gamma=0.5, singleton_turn="zero", eps=0.0,
    )  # fmt: skip
    both = advantages(
        rewards, [7] * 3, estimator="outcome_or_calls", outcomes=[0.0] * 3, joined=False, gamma=0.5,
        singleton_turn="zero", eps=0.0,
    )  # fmt: skip
    # Returns: [1.5, 1, 0], [0.5, 1, 0], [0, 0]. Of the second turns the mean is 2/3, the standard deviation 1/sqrt(3).
    second = (np.array([1.0, 1.0, 0.0]) - 2 / 3) * np.sqrt(3.0)
    np.testing.assert_allclose([row[1] for row in rows], second)
    np.testing.assert_allclose([row[2] for row in rows[:2]], 0.0)
    assert both[0][2] > 0.4
    first = np.array([1.5, 0.5, 0.0]) - 2 / 3
    np.testing.assert_allclose([row[0] for row in rows], first / np.std(first, ddof=1))


def test_a_group_in_which_all_are_right_has_none():
    assert_equal_rows(found([1.0] * 4, joined=True), [np.zeros(len(row)) for row in CALLS])
    assert_equal_rows(found([1.0] * 4, decay="success"), [np.zeros(len(row)) for row in CALLS])


@pytest.mark.parametrize("joined", [False, True])
def test_decay_by_success_adds_both_levels(joined):
    outcomes = [1.0, 0.0, 0.0, 0.0]
    outcome = advantages([np.zeros(len(row)) for row in CALLS], GROUP, estimator="grpo", trajectory_rewards=outcomes)
    calls = advantages(CALLS, GROUP, estimator="matchtir", **MATCHTIR)
    expected = [left + 0.75 * right for left, right in zip(outcome, calls, strict=True)]
    assert_equal_rows(found(outcomes, joined=joined, decay="success"), expected)


@pytest.mark.parametrize(
    ("right", "settings", "weight"),
    [(0, {}, 1.0), (1, {}, 0.5), (2, {}, 0.0), (3, {}, 0.0), (4, {}, 0.0), (1, {"calls": 0.5}, 0.25)],
)
def test_decay_by_batch_credits_calls_while_most_groups_fail(right, settings, weight):
    """Four groups of four, of which `right` have a right rollout; all groups have the same calls."""
    outcomes = [float(place == 0 and group < right) for group in range(4) for place in range(4)]
    labels = [group for group in range(4) for _ in range(4)]
    rows = advantages(
        CALLS * 4, labels, estimator="outcome_or_calls", estimator_settings={"decay": "batch", **settings},
        outcomes=outcomes, joined=False, **MATCHTIR,
    )  # fmt: skip
    calls = advantages(CALLS, GROUP, estimator="matchtir", **MATCHTIR)
    zeros = [np.zeros(len(row)) for row in CALLS]
    both = advantages(zeros, GROUP, estimator="grpo", trajectory_rewards=[1.0, 0.0, 0.0, 0.0])
    for group in range(4):
        outcome = both if group < right else zeros
        expected = [left + weight * added for left, added in zip(outcome, calls, strict=True)]
        assert_equal_rows(rows[4 * group : 4 * group + 4], expected)


def _call(name):
    return {"type": "function", "function": {"name": name, "arguments": "{}"}}


def test_a_stored_run_is_one_batch(tmp_path):
    """Half of the groups have a right rollout: with `batch` calls count 2 * 1/2 - 1 = 0 in the other half, too.

    Without it a run of this size is read group by group.
    """
    right, wrong = ToolCall("age", {}), ToolCall("size", {})
    records = {"tasks": [], "trajectories": [], "verdicts": []}
    for group in range(200):
        question = {"role": "user", "content": f"question {group}"}
        records["tasks"].append(Task(id=f"t{group}", messages=(question,), gold=Gold(calls=(right,))))
        for index, call in enumerate((wrong, right)):
            one = f"t{group}/{index}"
            records["trajectories"].append(
                Trajectory(
                    id=one, task_id=f"t{group}", stage="synth", index=index, turns=(Turn("", calls=(call,)),),
                    stop_reason="called",
                )
            )  # fmt: skip
            outcome = float(group < 100 and index == 1)
            records["verdicts"].append(Verdict(trajectory_id=one, outcome=outcome, reason=""))
    for name, rows in records.items():
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text("rl: {credit: {estimator: outcome_or_calls}}")
    computed = {}
    for decay in ("contrast", "batch"):
        said = rewright(
            tmp_path, "credit", ".", "--estimator", "outcome_or_calls", f"estimator.decay={decay}", "--json"
        )
        assert said.code == 0, said.errors
        computed[decay] = [json.loads(line)["turn_advantages"] for line in said.output.splitlines()]
    assert computed["contrast"][:200] == computed["batch"][:200]
    assert all(map(any, computed["contrast"][200:]))
    assert not any(map(any, computed["batch"][200:]))


def test_an_unknown_outcome_is_an_error():
    with pytest.raises(ValueError, match="the outcome of a rollout is unknown"):
        found([1.0, None, 0.0, 0.0])
    with pytest.raises(ValueError, match="the outcome of a rollout is unknown"):
        advantages(CALLS, GROUP, estimator="outcome_or_calls")
    with pytest.raises(ValueError, match=r"outcomes has shape \(1,\): expected \(4,\)"):
        found([1.0])


@pytest.mark.parametrize("join", ["last_turn", "trajectory"])
def test_the_settings_of_trainers_pass_the_outcomes_on(join):
    credit = TurnCredit.of({"estimator": {"name": "outcome_or_calls", "decay": "success"}, "join": join, **MATCHTIR})
    outcomes = [1.0, 0.0, 0.0, 0.0]
    rewards = credit.with_outcomes([np.array(row) for row in CALLS], outcomes)
    expected = found(outcomes, decay="success")
    assert_equal_rows(credit.advantages(rewards, GROUP, outcomes), expected)
    trajectories = [
        CreditTrajectory.of_calls([[]] * len(row), outcome=outcome)
        for row, outcome in zip(CALLS, outcomes, strict=True)
    ]
    assert_equal_rows(
        credit.advantages(rewards, GROUP, trajectory_rewards=[0.0] * 4, trajectories=trajectories), expected
    )


def test_rewards_with_the_outcome_in_them_alone_are_refused():
    credit = TurnCredit.of({"estimator": "outcome_or_calls"})
    joined = [np.array(row) for row in ([0.2, 1.3], [0.9, 0.9], [0.1, 0.1])]
    with pytest.raises(
        ValueError, match="estimator 'outcome_or_calls' reads the outcomes, which this trainer does not"
    ):
        credit.advantages(joined, [0] * 3)
    assert_equal_rows(
        np.round(credit.advantages(joined, [0] * 3, [1.0, 0.0, 0.0]), 2), [[1.15, 1.15], [-0.58, -0.58], [-0.58, -0.58]]
    )


@pytest.mark.parametrize("decay", ["contrast", "success"])
@pytest.mark.parametrize("outcomes", [[2.0] * 4, [2.0, 0.0, 0.0, 0.0], [-1.0] * 4, [1.0, -1.0, 1.0, 1.0]])
def test_an_outcome_that_is_no_share_of_success_is_an_error(decay, outcomes):
    wrong = next(outcome for outcome in outcomes if not 0 <= outcome <= 1)
    with pytest.raises(ValueError, match=rf"outcome of a rollout is {wrong:g}: expected 0 \(wrong\) to 1 \(right\)"):
        found(outcomes, decay=decay)


@pytest.mark.parametrize("decay", ["contrast", "success"])
def test_the_rounding_of_a_trainer_is_no_error(decay):
    almost = float(np.nextafter(np.float32(1), np.float32(2)))
    for row in found([almost] * 4, decay=decay):
        assert np.abs(row).max() == 0.0


def test_a_reward_that_wrong_rollouts_get_too_is_not_success():
    constant = float(np.float32(0.1))  # as TRL computes it
    assert_equal_rows(found([constant] * 4), [np.zeros(len(row)) for row in CALLS])
    expected = advantages(CALLS, GROUP, estimator="matchtir", **MATCHTIR)
    assert_equal_rows(found([constant] * 4, right_above=0.1), expected)
    mixed = [constant, 1.0, constant, constant]
    assert_equal_rows(found(mixed, right_above=0.1), found(mixed))
    for wrong in (-0.1, 1.5, "high"):
        with pytest.raises(ValueError, match=r"estimator\.right_above"):
            TurnCredit.of({"estimator": {"name": "outcome_or_calls", "right_above": wrong}})
    with pytest.raises(ValueError, match=r"estimator\.decay .* expected one of contrast, success, batch"):
        TurnCredit.of({"estimator": {"name": "outcome_or_calls", "decay": "bach"}})
    with pytest.raises(ValueError, match=r"estimator\.right_above must not be given with decay: success"):
        TurnCredit.of({"estimator": {"name": "outcome_or_calls", "decay": "success", "right_above": 0.1}})


def test_the_command_line_says_what_outcomes_are_expected(tmp_path):
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": [_call("age")]}]
    rows = [{"group": "q", "messages": messages, "gold_calls": [], "reward": reward} for reward in (2.0, 2.0)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = rewright(tmp_path, "credit", "log.jsonl", "--estimator", "outcome_or_calls", "estimator.decay=success")
    said.refused("the outcome of a rollout is 2: expected 0 (wrong) to 1 (right)")
    assert not said.output
