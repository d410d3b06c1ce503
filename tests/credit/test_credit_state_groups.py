"""GiGPO and HGPO: against loops written from their descriptions, released functions' numbers, and cases by hand.

`RELEASED` was computed with the functions that verl-agent released (`compute_gigpo_outcome_advantage` and
`compute_hgpo_outcome_advantage`), in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rewright.credit import CreditTrajectory, CreditTurn, advantages
from rewright.credit.settings import TurnCredit
from rewright.credit.token_level import token_advantages

Rows = list[list[float]]


def returns_of(rewards: Sequence[float], gamma: float) -> list[float]:
    found: list[float] = []
    following = 0.0
    for reward in reversed(rewards):
        following = reward + gamma * following
        found.insert(0, following)
    return found


def sd_of(values: Sequence[float], lost: int) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - lost))


def slow_episode(rewards: Rows, base: str, norm: str, eps: float) -> list[float]:
    pool = []
    for row in rewards:
        pool += [sum(row)] * (len(row) if base == "steps" else 1)
    if len(pool) > 1 and max(pool) == min(pool):
        return [0.0] * len(rewards)  # not the rounding of a mean, which a division would enlarge
    if len(pool) == 1:
        mean, deviation = 0.0, 1.0
    else:
        mean, deviation = math.fsum(pool) / len(pool), sd_of(pool, 1)
    return [(sum(row) - mean) / (deviation + eps if norm == "mean_std" else 1.0) for row in rewards]


def slow_steps(
    rewards: Rows, keys: list[list[Any]], gamma: float, eps: float, lost: int, **how: Any
) -> list[list[Any]]:
    """D_t compared within equal keys; None where a turn is compared with nothing."""
    found: list[list[Any]] = [[None] * len(row) for row in rewards]
    returns = [returns_of(row, gamma) for row in rewards]
    for row, row_keys in enumerate(keys):
        for turn, key in enumerate(row_keys):
            if key is None:
                continue
            members, others = [], []
            for other, other_keys in enumerate(keys):
                seen = False
                for place, other_key in enumerate(other_keys):
                    if other_key != key or (seen and how["visits"] == "first"):
                        continue
                    seen = True
                    members.append(returns[other][place])
                    if other != row:
                        others.append(returns[other][place])
            baseline = others if how["leave_trajectory_out"] else members
            if len(members) < 2 or not baseline:
                continue
            value = returns[row][turn] - math.fsum(baseline) / len(baseline)
            if how["normalisation"] == "mean_std":
                value /= sd_of(members, lost) + eps
            found[row][turn] = value
    return found


def slow_gigpo(rewards: Rows, keys: list[list[Any]], gamma: float, eps: float, **how: Any) -> Rows:
    episode = slow_episode(rewards, how["episode_baseline"], how["normalisation"], eps)
    steps = slow_steps(rewards, keys, gamma, eps, 1, **how)
    return [[level + how["omega"] * (step or 0.0) for step in row] for level, row in zip(episode, steps, strict=True)]


def slow_hgpo(rewards: Rows, keys: list[list[Any]], gamma: float, eps: float, **how: Any) -> Rows:
    levels: list[tuple[int, list[list[Any]]]] = []
    if how["base_group"]:
        episode = slow_episode(rewards, how["episode_baseline"], how["normalisation"], eps)
        levels.append((0, [[level] * len(row) for level, row in zip(episode, rewards, strict=True)]))
    for count in range(1, how["K"] + 2):
        last = [
            [None if t + 1 < count or None in row[t + 1 - count : t + 1] else tuple(row[t + 1 - count : t + 1])
             for t in range(len(row))]
            for row in keys
        ]  # fmt: skip
        levels.append((count, slow_steps(rewards, last, gamma, eps, 0, **how)))
    found = []
    for row in range(len(rewards)):
        found.append([])
        for turn in range(len(rewards[row])):
            total = weights = 0.0
            for count, level in levels:
                value = level[row][turn]
                if value is not None and not (how["zeros"] == "drop" and abs(value) < 1e-11):
                    total += (count + 1) ** how["alpha"] * value
                    weights += (count + 1) ** how["alpha"]
            found[-1].append(total / (weights + eps) if weights else 0.0)
    return found


def drawn(seed: int) -> tuple[Rows, list[list[Any]]]:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 7, size=draw.integers(1, 6))
    rewards = [draw.normal(size=length).round(3).tolist() for length in lengths]
    keys = [[[*"abc", None][draw.integers(4)] for _ in range(length)] for length in lengths]
    return rewards, keys


SHARED = [
    {"normalisation": norm, "episode_baseline": base, "visits": visits, "leave_trajectory_out": out}
    for norm in ("mean", "mean_std")
    for base, visits in (("steps", "all"), ("trajectories", "first"))
    for out in (False, True)
]


@pytest.mark.parametrize("how", SHARED)
def test_both_are_what_loops_compute(how: dict[str, Any]) -> None:
    for seed in range(25):
        rewards, keys = drawn(seed)
        for estimator, slow, more in (
            ("gigpo", slow_gigpo, {"omega": 0.7}),
            ("hgpo", slow_hgpo, {"K": 2, "alpha": 1.5, "base_group": True, "zeros": "drop"}),
            ("hgpo", slow_hgpo, {"K": 0, "alpha": 1.0, "base_group": False, "zeros": "keep"}),
        ):
            settings = {**how, **more, "state_key": "history"}
            found = advantages(
                rewards,
                [0] * len(rewards),
                estimator=estimator,
                estimator_settings=settings,
                state_keys=keys,
                gamma=0.9,
            )
            expected = slow(rewards, keys, 0.9, 1e-6, **how, **more)
            for row, expected_row in zip(found, expected, strict=True):
                np.testing.assert_allclose(row, expected_row, atol=1e-9, rtol=1e-9)


RELEASED_REWARDS = [[0.0, 0.5, 1.0], [0.25, 0.0], [0.0, -0.5, 0.75, 1.0], [1.0, 0.0, 0.0], [0.5]]
RELEASED_KEYS = [["s", "a", "b"], ["s", "a"], ["s", "s", "a", "b"], ["s", "c", "b"], ["s"]]
RELEASED: list[tuple[str, dict[str, Any], list[float]]] = [
    (
        "gigpo",
        {"omega": 0.5, "normalisation": "mean", "episode_baseline": "steps"},
        [
            0.596201388889,
            0.580555555556,
            0.388888888889,
            -1.158798611111,
            -1.369444444444,
            0.159451388889,
            0.208701388889,
            0.455555555556,
            0.138888888889,
            0.25,
            0.125,
            0.125,
            -0.5,
        ],
    ),
    (
        "gigpo",
        {"omega": 0.5, "normalisation": "mean_std", "episode_baseline": "steps"},
        [
            1.260338553901,
            0.990617560544,
            0.775089600477,
            -2.413056312943,
            -2.287887462849,
            0.324947622709,
            0.440225336094,
            0.63290738761,
            0.276817714456,
            0.853550390604,
            0.499998000008,
            0.499998000008,
            -1.85354639062,
        ],
    ),
    (
        "gigpo",
        {"omega": 0.5, "normalisation": "mean_std", "episode_baseline": "trajectories"},
        [
            1.241176756587,
            0.97145576323,
            0.755927803163,
            -1.83067818806,
            -1.705509337966,
            0.426093809835,
            0.54137152322,
            0.734053574736,
            0.377963901582,
            1.060657171788,
            0.707104781192,
            0.707104781192,
            -1.060657171788,
        ],
    ),
    (
        "hgpo",
        {"base_group": True, "normalisation": "mean", "episode_baseline": "steps"},
        [
            0.406046160948,
            0.384259195216,
            0.3888885,
            -0.683953475719,
            -0.990740575617,
            0.073712938392,
            0.13937958317,
            0.550925834105,
            0.13888875,
            0.208333263889,
            0.124999875,
            0.124999875,
            -0.291666569444,
        ],
    ),
    (
        "hgpo",
        {"base_group": True, "normalisation": "mean_std", "episode_baseline": "steps"},
        [
            1.005452231507,
            0.569126000263,
            0.775088825388,
            -1.644861976362,
            -1.452854042389,
            0.166373330492,
            0.343854857343,
            0.773000974798,
            0.276817437639,
            0.833329722237,
            0.499997500011,
            0.499997500011,
            -1.166661611131,
        ],
    ),
]


@pytest.mark.parametrize(("estimator", "settings", "expected"), RELEASED)
def test_the_numbers_of_the_released_functions(estimator: str, settings: dict[str, Any], expected: list[float]) -> None:
    rows = advantages(
        RELEASED_REWARDS,
        [0, 0, 0, 1, 1],
        estimator=estimator,
        estimator_settings={**settings, "visits": "all", "state_key": "last_observation"},
        state_keys={"last_observation": RELEASED_KEYS},
        gamma=0.9,
    )
    np.testing.assert_allclose(np.concatenate(rows), expected, atol=1e-9)


REWARDS = [[0.0, 0.0, 1.0], [0.0, 0.0], [0.0, 1.0, 0.0, 1.0]]
KEYS = [["s", "a", "b"], ["s", "a"], ["s", "s", "a", "c"]]


def found(estimator: str, rewards: Rows = REWARDS, keys: Any = KEYS, **settings: Any) -> Rows:
    settings = {"state_key": "history"} | settings
    rows = advantages(
        rewards, [0] * len(rewards), estimator=estimator, estimator_settings=settings, state_keys=keys, gamma=0.5
    )
    return [row.tolist() for row in rows]


def test_gigpo_by_hand() -> None:
    # R: 1, 0, 2. D: (1/4, 1/2, 1), (0, 0), (5/8, 5/4, 1/2, 1). s: 1/4, 0, 5/8 (the visit after the first is no member,
    # and is compared all the same); a: 1/2, 0, 1/2; b and c alone.
    mean = 7 / 24
    assert found("gigpo") == [
        pytest.approx([1 / 4 - mean, 1 / 2 - 1 / 3, 0.0]),
        pytest.approx([-1 - mean, -1 - 1 / 3]),
        pytest.approx([1 + 5 / 8 - mean, 1 + 5 / 4 - mean, 1 + 1 / 2 - 1 / 3, 1.0]),
    ]
    # The others alone: s of the first is compared with (0 + 5/8) / 2.
    assert found("gigpo", leave_trajectory_out=True)[0] == pytest.approx([1 / 4 - 5 / 16, 1 / 2 - 1 / 4, 0.0])
    # The release: R over turns is (3 + 0 + 8) / 9, and both visits are members of s.
    assert found("gigpo", visits="all", episode_baseline="steps")[1] == pytest.approx(
        [-11 / 9 - 17 / 32, -11 / 9 - 1 / 3]
    )
    assert found("gigpo", omega=0.0) == [[0.0] * 3, [-1.0] * 2, [1.0] * 4]


def test_hgpo_by_hand() -> None:
    # One state: as the step level above. Two states: (s, a) of the first two, 1/2 and 0, and of the third 1/2.
    one, two = 1 / 2 - 1 / 3, 1 / 2 - 1 / 3
    assert found("hgpo")[0] == pytest.approx([1 / 4 - 7 / 24, (2 * one + 3 * two) / 5, 0.0], abs=1e-6)
    assert found("hgpo", K=0)[2] == pytest.approx([1 / 3, 23 / 24, 1 / 6, 0.0], abs=1e-6)
    base = found("hgpo", K=0, base_group=True)[2]
    assert base == pytest.approx([(1 + 2 / 3) / 3, (1 + 2 * 23 / 24) / 3, (1 + 2 / 6) / 3, 1.0], abs=1e-6)


def test_equal_returns_are_exactly_zero_where_float32_gave_noise() -> None:
    rewards, keys = [[0.1, 0.2, 0.3]] * 5, [["s", "a", "b"]] * 5
    for estimator in ("gigpo", "hgpo"):
        for how in SHARED:
            assert found(estimator, rewards, keys, **how) == [[0.0] * 3] * 5
    nearly = [[value * (1 + 1e-15 * row) for value in (0.1, 0.2, 0.3)] for row in range(5)]
    assert found("gigpo", nearly, keys, normalisation="mean_std") == [[0.0] * 3] * 5


def test_a_group_of_one_has_its_reward_as_in_grpo() -> None:
    assert found("gigpo", [[0.5, 0.5]], [["a", "b"]]) == [[1.0, 1.0]]
    assert found("gigpo", [[0.5, 0.5]], [["a", "b"]], episode_baseline="steps") == [[0.0, 0.0]]
    assert found("gigpo", [[0.5]], [["a"]], episode_baseline="steps") == [[0.5]]
    assert found("hgpo", [[0.5, 0.5]], [["a", "a"]]) == [[0.0, 0.0]]
    assert found("gigpo", [[], []], [[], []]) == [[], []]


def test_unknown_states_have_no_step_level_and_states_of_other_tasks_are_others() -> None:
    rewards = [[1.0], [0.0], [1.0], [0.0]]
    assert found("gigpo", rewards, [["s"], ["s"], [None], [None]]) == [[1.0], [-1.0], [0.5], [-0.5]]
    rows = advantages(rewards, [0, 0, 1, 1], estimator="gigpo", state_keys=[["s"]] * 4, gamma=1.0)
    assert [row.tolist() for row in rows] == [[1.0], [-1.0], [1.0], [-1.0]]
    rows = advantages(rewards, [0, 1, 2, 3], estimator="hgpo", state_keys={"last_observation": [["s"]] * 4}, gamma=1.0)
    assert [row.tolist() for row in rows] == [[0.0]] * 4


def test_masked_turns_stay_in_the_returns_and_are_no_members() -> None:
    rewards, keys = [[0.0, 1.0], [0.0, 0.0], [1.0, 1.0]], [["s", "a"], ["s", "a"], ["s", "a"]]
    rows = advantages(
        rewards,
        [0] * 3,
        estimator="gigpo",
        state_keys=keys,
        gamma=1.0,
        masked=[[False, False], [False, False], [True, False]],
    )
    # R: 1, 0, 2. s: 1 and 0 are left, whose D has the masked turns of others no part in; a: 1, 0, 1.
    assert [row.tolist() for row in rows] == [
        pytest.approx([0.5, 1 / 3]),
        pytest.approx([-1.5, -1 - 2 / 3]),
        pytest.approx([1.0, 1 + 1 / 3]),
    ]


def test_the_shares_of_compared_turns_are_reported() -> None:
    metrics: dict[str, float] = {}
    keys = {"history": [["s", "a"], ["s", None], ["t", "b"]], "action": [["x", "y"], ["z", "y"], ["x", "x"]]}
    advantages([[0.0, 1.0]] * 3, [0, 0, 0], estimator="gigpo", state_keys=keys, metrics=metrics)
    assert metrics == {
        "state_groups/compared": pytest.approx(2 / 6),
        "state_groups/with_choice": pytest.approx(2 / 6),
        "state_groups/unknown": pytest.approx(1 / 6),
    }


def test_the_keys_of_a_trajectory() -> None:
    ada, ben = {"name": "age", "arguments": {"of": "Ada"}}, {"name": "age", "arguments": {"of": "Ben"}}
    question = [{"role": "user", "content": "How old?"}]
    one = CreditTrajectory(
        [CreditTurn([ada], ["36"]), CreditTurn([ada], ["36"]), CreditTurn([], text="36")],
        task_id="q",
        messages=question,
    )
    other = CreditTrajectory(
        [CreditTurn([ben], ["36"]), CreditTurn([dict(ada)]), CreditTurn([], text="36")],
        task_id="q",
        messages=question,
        own_states=["start", "asked", None],
    )
    history, last = one.keys("history"), one.keys("last_observation")
    assert history == one.state_keys
    assert (last[0], last[1]) == (other.keys("last_observation")[0], last[2])
    assert other.keys("last_observation")[1] == last[1] != history[1]
    assert other.keys("last_observation")[2] is None  # its results are unknown
    assert other.keys("own") == [("q", "start"), ("q", "asked"), None]
    assert one.keys("own") == [None] * 3
    assert one.keys("action")[0] == one.keys("action")[1] == other.keys("action")[1] != other.keys("action")[0]
    assert one.keys("action")[2] == other.keys("action")[2]
    with pytest.raises(ValueError, match="the kind of keys is 'state': expected one of history, last_observation"):
        one.keys("state")
    with pytest.raises(ValueError, match="trajectory  has 1 own_states: expected 2"):
        CreditTrajectory([CreditTurn([])] * 2, own_states=["a"]).keys("own")


@pytest.mark.parametrize("estimator", ["gigpo", "hgpo", "gdpo", "outcome_or_calls"])
def test_a_trainer_that_gives_rewards_only_refuses_them(estimator: str) -> None:
    read = "(states of the turns|parts of the trajectory reward|outcomes)"
    said = f"estimator '{estimator}' reads the {read}, which this trainer does not provide: expected another"
    with pytest.raises(ValueError, match=said):
        token_advantages([[0.0, 1.0]], [[1, 1]], ["a"], TurnCredit.of({"estimator": estimator}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {},
            "estimator 'gigpo' failed: ValueError: equal states are compared, and there are no state keys of the kind",
        ),
        ({"state_keys": [["a"]], "estimator_settings": {"state_key": "own"}}, "no state keys of the kind 'own'"),
        ({"state_keys": [["a"]], "estimator_settings": {"omega": -1}}, "omega must not be negative, got -1"),
        ({"state_keys": [["a"]], "estimator_settings": {"visits": "last"}}, "invalid enum value 'last'"),
        ({"state_keys": [["a"]], "masked": [[]]}, r"masked\[0\] has 0 entries: expected 1"),
    ],
)
def test_what_cannot_be_compared(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        advantages([[1.0]], [0], estimator="gigpo", **given)


class Cell:
    """As an element of a torch tensor: equal to itself only, with a method `tolist`."""

    def __init__(self, value):
        self.value = value

    def tolist(self):
        return self.value


def test_state_keys_that_are_tensors_are_compared_by_value_and_nan_is_none_of_them():
    rewards, keys = [[0.0, 1.0], [0.0, 0.0]], [["s", "a"], ["s", "b"]]
    expected = advantages(rewards, [0, 0], estimator="gigpo", state_keys=keys)
    cells = [list(map(Cell, row)) for row in keys]
    for given in (cells, cells.__getitem__):
        assert np.array_equal(advantages(rewards, [0, 0], estimator="gigpo", state_keys=given), expected)
    with pytest.raises(ValueError, match=r"state_keys\[0\] holds nan: expected a hashable key, or None"):
        advantages(rewards, [0, 0], estimator="gigpo", state_keys=[[float("nan"), "a"], ["s", "b"]])
