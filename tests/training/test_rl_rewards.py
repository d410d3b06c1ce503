"""What a batch of RL rollouts earns (docs/rl.md)."""

from __future__ import annotations

import msgspec

from rewright.core.records import Failure, Gold, Task, ToolCall, ToolResult, Trajectory, Turn, Verdict
from rewright.credit.settings import TurnCredit
from rewright.training.group_credit import score_rollouts
from rewright.training.settings import RLSettings

ADA = ToolCall("age", {"of": "Ada"})
TASK = Task(id="t", messages=({"role": "user", "content": "How old is Ada?"},), gold=Gold(("36",), (ADA,)))


BEN = ToolCall("age", {"of": "Ben"})
BROKEN = ToolCall("", {}, "<tool_call>{age", "malformed call: no JSON")


def tried(calls: list[tuple[ToolCall, ...]], answer: str | None) -> Trajectory:
    turns = tuple(Turn(text="", calls=own, results=tuple(ToolResult("36") for _ in own)) for own in calls)
    return Trajectory(
        id=f"r{answer}", task_id="t", stage="rl", index=0, turns=turns, answer=answer,
        stop_reason="no_answer" if answer is None else "answered",
    )  # fmt: skip


def rollout(index: int) -> Trajectory:
    turns = (
        Turn(text="", calls=(ADA,), results=(ToolResult("36"),)),
        Turn(text="<think>Done.</think><answer>36</answer>"),
    )
    return Trajectory(
        id=f"r{index}", task_id="t", stage="rl", index=index, turns=turns, stop_reason="answered", answer="36"
    )


def test_the_outcome_is_in_the_last_turn_or_in_the_trajectory_reward_only() -> None:
    rollouts = [rollout(0), rollout(1)]
    verdicts = [Verdict(trajectory_id=one.id, outcome=1.0 - one.index, reason="") for one in rollouts]
    expected = {"last_turn": [[1.0, 1.0], [1.0, 0.0]], "trajectory": [[1.0, 0.0], [1.0, 0.0]]}
    for join, turn_rewards in expected.items():
        credit = msgspec.convert({"join": join, "singleton_turn": "zero"}, TurnCredit)
        found = score_rollouts([TASK] * 2, rollouts, verdicts, RLSettings(credit=credit), dialect="hermes")
        assert found.turn_rewards == turn_rewards
        assert found.trajectory_rewards == [2.0, 1.0]
        right, wrong = found.advantages
        assert right[1] > wrong[1], "the last turn of the right one is better off either way"


def test_the_trajectory_reward_is_the_specification_s() -> None:
    """MatchTIR section 5: the sum of the turn rewards. AutoTraj section 8: format, outcome, reward model."""
    task = msgspec.structs.replace(TASK, gold=Gold(("36",), (ADA, BEN)))
    rollouts = [
        tried([(ADA,), (BROKEN,), (BEN,), ()], "36"),
        tried([(ADA,), (BEN,), ()], None),
        tried([(ADA,), ()], "36"),
    ]
    verdicts = [Verdict(trajectory_id=one.id, outcome=float(one.answer == "36"), reason="") for one in rollouts]
    rewards = {}
    for name in ("matchtir", "autotraj", "matchtir+autotraj"):
        settings = msgspec.convert({"trajectory_reward": name}, RLSettings)
        found = score_rollouts([task] * 3, rollouts, verdicts, settings, dialect="hermes", scores=[5.0, 5.0, 2.0])
        rewards[name] = found.trajectory_rewards
        paid = [[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0]]
        none = [[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0]]
        assert found.turn_rewards == (none if name == "autotraj" else paid)
    assert rewards == {
        "matchtir": [3.0, 2.0, 2.0],
        "autotraj": [-1.0, -1.0, 1.4],
        "matchtir+autotraj": [1.0, 1.0, 2.4],
    }


def test_a_broken_rollout_is_in_no_group() -> None:
    right, wrong = rollout(0), rollout(1)
    broken = msgspec.structs.replace(rollout(2), failure=Failure("engine", "gone"))
    verdicts = [Verdict(trajectory_id=one.id, outcome=float(one is right), reason="") for one in (right, wrong, broken)]
    for name in ("matchtir", "autotraj", "matchtir+autotraj"):
        settings = msgspec.convert({"trajectory_reward": name}, RLSettings)
        pair = score_rollouts([TASK] * 2, [right, wrong], verdicts[:2], settings, dialect="hermes")
        found = score_rollouts([TASK] * 3, [right, wrong, broken], verdicts, settings, dialect="hermes")
        assert found.advantages == [*pair.advantages, [0.0, 0.0]]
        assert found.trajectory_rewards == [*pair.trajectory_rewards, None]
