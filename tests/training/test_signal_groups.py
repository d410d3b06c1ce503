"""Signals that compare trajectories compare those of one group, and none that failed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from rewright.core.errors import InputError
from rewright.core.records import (
    Credit,
    Failure,
    Gold,
    Provenance,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
    Verdict,
)
from rewright.core.registry import register
from rewright.credit import CreditTrajectory, Resources
from rewright.credit.settings import TurnCredit
from rewright.pipeline.run_directory import Run
from rewright.training.group_credit import CreditInput, Rewards, credit_groups, score_rollouts
from rewright.training.rl_step import step_metrics
from rewright.training.settings import RLSettings
from support.hard_trajectories import made_run
from support.in_process import rewright

TASK = Task(id="q", messages=({"role": "user", "content": "How old?"},), gold=Gold(("36",)))
DRACO = {"name": "judge", "form": "draco", "criteria": ["Only Ada is asked about."], "twice": 0.0}


def rollout(place: int, of: str, *, step: int = 0, failed: bool = False) -> Trajectory:
    return Trajectory(
        id=f"rl/q/{step}/{place}", task_id="q", stage="rl", index=place, stop_reason="answered", answer="36",
        turns=(Turn("", calls=(ToolCall("age", {"of": of}),), results=(ToolResult("36"),)), Turn("36")),
        failure=Failure("engine", "gone") if failed else None,
    )  # fmt: skip


def verdicts(rollouts: Sequence[Trajectory]) -> list[Verdict]:
    return [Verdict(trajectory_id=one.id, outcome=0.0, reason="") for one in rollouts]


@register("signal", "one_a_turn")
def ones(trajectories: Sequence[CreditTrajectory]) -> list[list[float]]:
    return [[1.0] * len(one.turns) for one in trajectories]


class Rubric:
    """Answers as a language model does: an attempt that asks about Ben fails. Keeps the prompts."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, prompts: Sequence[str], schema: Any, *, check: Any = None) -> list[Any]:
        self.prompts += prompts
        answers = [
            {"verdicts": [{"id": "1", "verdict": "fail" if "Ben" in prompt else "pass", "turns": [1]}]}
            for prompt in prompts
        ]
        for number, answer in enumerate(answers):
            check(number, answer)
        return answers


def scored(rollouts: list[Trajectory], judge: Rubric | None = None, **credit: Any) -> Rewards:
    settings = RLSettings(credit=TurnCredit.of({"estimator": "grpo", **credit}), trajectory_reward="matchtir")
    return score_rollouts(
        [TASK] * len(rollouts), rollouts, verdicts(rollouts), settings, dialect="tags", resources=Resources(judge=judge)
    )


@pytest.mark.parametrize("place", [0, 2, 3])
def test_a_failed_rollout_is_not_compared_with_and_not_asked_about(place: int) -> None:
    judge, rollouts = Rubric(), [rollout(number, "Ada") for number in range(3)]
    rollouts.insert(place, rollout(3, "Ben", failed=True))
    found = scored(rollouts, judge, signal=DRACO)
    assert found.advantages == [[0.0, 0.0]] * 4
    assert len(judge.prompts) == 3 and not any("Ben" in prompt for prompt in judge.prompts)
    assert np.isnan(found.turn_rewards[place]).all() and found.trajectory_rewards[place] is None
    assert not any(found.missing) and not any(found.left_out)
    whole = scored([one for one in rollouts if one.failure is None], Rubric(), signal=DRACO)
    step = step_metrics(scored(rollouts, signal="one_a_turn"), rollouts)
    assert (step["rewright/turn_reward"], step["rewright/failures"]) == (2.0, 1.0)  # of those that did not fail
    assert [row for number, row in enumerate(found.turn_rewards) if number != place] == whole.turn_rewards


def test_numbers_and_causes_stay_with_their_rollouts_beside_a_failed_one() -> None:
    @register("signal", "told_by_name")
    def told(trajectories: Sequence[CreditTrajectory]) -> list[list[float]]:
        return [[float("nan") if "Ben" in str(one.turns[0].calls) else 1.0, 0.5] for one in trajectories]

    rollouts = [rollout(0, "Zoe", failed=True), rollout(1, "Ada"), rollout(2, "Ben"), rollout(3, "Ada")]
    found = scored(rollouts, signal="told_by_name", missing="bridge")
    assert found.missing == [False, False, True, False]
    assert np.isnan(found.turn_rewards[2][0]) and found.turn_rewards[1] == found.turn_rewards[3] == [1.0, 0.5]
    assert scored([rollout(0, "Ada", failed=True)], signal="told_by_name").advantages == [[0.0, 0.0]]


def test_groups_of_one_task_are_apart_and_what_is_in_no_group_is_alone() -> None:
    rollouts = [*(rollout(n, "Ada", step=1) for n in range(2)), *(rollout(n, "Ben", step=9) for n in range(2))]
    inputs = [
        CreditInput(CreditTrajectory.of(one, TASK, outcome=0.0), group=f"step {one.id.split('/')[2]}, q")
        for one in rollouts
    ]
    inputs.append(CreditInput(CreditTrajectory.of(rollout(0, "Ben"), TASK, outcome=0.0), group=None))
    settings = RLSettings(credit=TurnCredit.of({"estimator": "grpo", "signal": DRACO}), trajectory_reward="matchtir")
    shuffled = [inputs[place] for place in (4, 2, 0, 3, 1)]
    found = credit_groups(shuffled, settings, resources=Resources(judge=Rubric()))
    assert [None if one.advantages is None else one.advantages.tolist() for one in found] == [None, *[[0.0, 0.0]] * 4]


COMPARES = """
from collections import Counter
def group_sizes(trajectories):
    sizes = Counter(one.task_id for one in trajectories)
    return [[float(sizes[one.task_id])] * len(one.turns) for one in trajectories]
def fails(trajectories):
    raise KeyError("no such word")
"""


def test_credit_of_a_run_compares_a_signal_s_trajectories_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "by_group.py").write_text(COMPARES)
    monkeypatch.syspath_prepend(tmp_path)
    sampled = [
        msgspec.structs.replace(rollout(n, "Ada"), id=f"synth/q/{n}", stage="synth", provenance=Provenance("m"))
        for n in range(2)
    ]
    run = made_run(tmp_path / "made", sampled, task=TASK)
    opened = Run.open(run)
    for step, count in ((1, 2), (9, 3)):
        for number in range(count):
            one = rollout(number, "Ada", step=step)
            (verdict,) = verdicts([one])
            opened.rollouts.append(
                msgspec.structs.replace(one, credit=Credit((0.0, 0.0), 0.0, (0.0, 0.0), verdict=verdict))
            )
    opened.rollouts.append(rollout(3, "Ada", step=9, failed=True))
    opened.close()
    said = rewright(tmp_path, "credit", str(run), "--signal", "by_group:group_sizes", "--json")
    assert said.code == 0, said.errors
    rows = [json.loads(line) for line in said.output.splitlines()]
    sizes = {row["id"]: row["turn_rewards"][0] for row in rows}
    assert sizes == {
        "synth/q/0": 2.0, "synth/q/1": 2.0, "rl/q/1/0": 2.0, "rl/q/1/1": 2.0,
        "rl/q/9/0": 3.0, "rl/q/9/1": 3.0, "rl/q/9/2": 3.0, "rl/q/9/3": None,
    }  # fmt: skip
    assert all(row["missing"] is None for row in rows)


def test_a_signal_or_an_estimator_that_raises_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raising.py").write_text(COMPARES)
    monkeypatch.syspath_prepend(tmp_path)
    for key in ("signal", "estimator"):
        with pytest.raises(InputError, match=rf"rl\.credit: {key} 'raising:fails' failed: KeyError: 'no such word'"):
            scored([rollout(0, "Ada")], None, **{key: "raising:fails"})
    unknown = {"name": "gdpo", "weights": {"speed": 1.0}}
    with pytest.raises(InputError, match=r"weights\.speed: expected one of the parts outcome, signal, format"):
        scored([rollout(0, "Ada"), rollout(1, "Ben")], signal="outcome", estimator=unknown)


RECIPE = """\
stages: [rl]
tasks: tasks.jsonl
rl: {backend: 'no_trainer:Nothing', steps: 1, tasks_per_step: 1, generations: 2}
"""
NOTHING = """
class Nothing:
    def check(self, section, settings): pass
    def train_rl(self, job): raise AssertionError("it is refused before")
"""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ["rl.credit.estimator={name: gdpo, weights: {reward_model: 0.5}}"],
            "rl.credit.estimator.weights.reward_model: expected one of the parts outcome, signal, format, since RL has",
        ),
        (
            ["rl.credit.estimator={name: gdpo, weights: {speed: 0.5}}", "reward.url=http://127.0.0.1:9"],
            "rl.credit.estimator.weights.speed: expected one of the parts outcome, signal, format, reward_model",
        ),
        (
            ["rl.credit.signal=model", "reward.url=http://127.0.0.1:9"],
            "signal model needs a reward model: expected signals.reward_model (rewright credit: --reward-model FOLDER)",
        ),
    ],
)
def test_what_an_estimator_or_a_signal_lacks_is_said_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: list[str], said: str
) -> None:
    (tmp_path / "no_trainer.py").write_text(NOTHING)
    (tmp_path / "r.yaml").write_text(RECIPE)
    task = {"id": "a", "messages": [{"role": "user", "content": "1 + 1 = ?"}], "gold": {"answers": ["2"]}}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    for arguments in (("--dry-run",), ("--run", "run")):
        rewright(tmp_path, "run", "r.yaml", *changes, *arguments).refused(said)
    assert not (tmp_path / "run").exists()


def test_a_served_reward_model_does_not_score_beginnings_of_a_log(tmp_path: Path) -> None:
    row = {"group": "q", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "36"}]}
    (tmp_path / "log.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "r.yaml").write_text("rl: {credit: {signal: model}}\nreward: {url: http://127.0.0.1:9}\n")
    rewright(tmp_path, "credit", "log.jsonl", "--recipe", "r.yaml").refused(
        "or a run with a reward model (the model at reward.url scores whole trajectories only)"
    )


@pytest.mark.needs_torch
def test_a_model_of_another_vocabulary_scores_no_token_ids(tmp_path: Path) -> None:
    one = msgspec.structs.replace(
        rollout(0, "Ada"), id="synth/q/0", stage="synth", prompt_ids=(1, 2), provenance=Provenance("m", tokenizer="0"),
        turns=tuple(msgspec.structs.replace(turn, token_ids=(3, 4)) for turn in rollout(0, "Ada").turns),
    )  # fmt: skip
    repair = msgspec.structs.replace(
        one, id="repair/q/0", provenance=Provenance("r", tokenizer="1", parent="synth/q/0")
    )
    run = made_run(tmp_path / "made", [repair, one], task=TASK)
    for path in (run, run / "trajectories.jsonl"):
        said = rewright(tmp_path, "credit", str(path), "--signal", "likelihood", "--scorer", "pico")
        said.refused("the policy 0: expected a model with the policy's tokenizer")
        assert "the model pico that scores tokens has the vocabulary" in said.errors
