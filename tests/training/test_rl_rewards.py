"""What a batch of RL rollouts earns (docs/rl.md)."""

from __future__ import annotations

import msgspec

from rewright.plugins.settings import TurnCredit
from rewright.recipe import RLSettings
from rewright.records import Gold, Task, ToolCall, ToolResult, Trajectory, Turn, Verdict
from rewright.training.rl import score_rollouts

ADA = ToolCall("age", {"of": "Ada"})
TASK = Task(id="t", messages=({"role": "user", "content": "How old is Ada?"},), gold=Gold(("36",), (ADA,)))


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
        credit = msgspec.convert({"join": join, "lonely_turn": "zero"}, TurnCredit)
        found = score_rollouts([TASK] * 2, rollouts, verdicts, RLSettings(credit=credit), dialect="hermes")
        assert found.turn_rewards == turn_rewards
        assert found.trajectory_rewards == [2.0, 1.0]
        right, wrong = found.advantages
        assert right[1] > wrong[1], "the last turn of the right one is better off either way"
