"""What a recipe may say of rewards: a key that has no effect under the chosen reward is a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import yaml

from rewright.cli import main as cli
from rewright.core.records import Trajectory, Turn
from rewright.recipe.loader import load_recipe
from support.static_page import page_data

MISTAKES = [
    ("trajectory_reward: matchtir\n  reward_model_clip: 2", "rl.reward_model_clip", "rl.trajectory_reward is matchtir"),
    ("trajectory_reward: matchtir\n  reward_model_weight: 0.3", "rl.reward_model_weight", "rl.trajectory_reward is m"),
    ("reward_model_weight: 0\n  reward_model_clip: 2", "rl.reward_model_clip", "rl.reward_model_weight is 0"),
    ("trajectory_reward: autotraj\n  call_weight: 0.5", "rl.call_weight", "rl.trajectory_reward is autotraj"),
    ("trajectory_reward: autotraj\n  credit: {assignment: ot}", "rl.credit.assignment", "rl.trajectory_reward is auto"),
    ("trajectory_reward: autotraj\n  credit: {weights: [0, 1, 1]}", "rl.credit.weights", "rl.trajectory_reward is au"),
    ("call_weight: 0\n  credit: {aggregate: sum}", "rl.credit.aggregate", "rl.call_weight is 0"),
    ("steps: 1\n  credit: {reg: 0.2}", "rl.credit.reg", "rl.credit.assignment is optimal"),
    ("steps: 1\n  credit: {ot_scale: calls, assignment: greedy}", "rl.credit.ot_scale", "rl.credit.assignment is gree"),
    ("steps: 1\n  credit: {unmatched: -0.1, assignment: ot}", "rl.credit.unmatched", "rl.credit.assignment is ot"),
    ("steps: 1\n  credit: {gamma: 1, estimator: grpo}", "rl.credit.gamma", "rl.credit.estimator is grpo"),
    ("steps: 1\n  credit: {join: trajectory, estimator: grpo}", "rl.credit.join", "rl.credit.estimator is grpo"),
    ("steps: 1\n  credit: {eps: 0, estimator: leave_one_out}", "rl.credit.eps", "rl.credit.estimator is leave_one_out"),
    ("steps: 1\n  credit: {fusion: sum, estimator: fixed_horizon}", "rl.credit.fusion", "rl.credit.estimator is fixed"),
    ("steps: 1\n  credit: {gamma: 1, estimator: delta}", "rl.credit.gamma", "rl.credit.estimator is delta"),
    ("credit: {estimator: outcome_or_calls}\n  reward_model_weight: 0.3", "rl.reward_model_weight", "rl.credit.estim"),
    ("credit: {estimator: {name: outcome_or_calls, decay: batch}}\n  reward_model_clip: 2", "rl.reward_model_clip",
     "rl.credit.estimator is outcome_or_calls"),
    ("steps: 1\n  credit: {gamma: 1, estimator: turn_credit}", "rl.credit.gamma", "rl.credit.estimator is turn_credit"),
    ("steps: 1\n  credit: {eps: 0, estimator: turn_credit}", "rl.credit.eps", "rl.credit.estimator is turn_credit"),
    ("steps: 1\n  credit: {eps: 0, estimator: {name: igpo, normalize: index}}", "rl.credit.eps", "rl.credit"),
    ("steps: 1\n  credit: {estimator: {name: igpo, normalize: index, parity: true}}", "rl.credit.estimator.parity",
     "rl.credit.estimator.normalize is index"),
    ("steps: 1\n  credit: {join: trajectory, estimator: igpo}", "rl.credit.join", "rl.credit.estimator is igpo"),
    ("steps: 1\n  credit: {eps: 0, estimator: gigpo}", "rl.credit.eps", "rl.credit.estimator.normalisation is mean"),
    ("steps: 1\n  credit: {fusion: sum, estimator: {name: outcome_or_calls, level: turn}}", "rl.credit.fusion",
     "rl.credit.estimator.level is turn"),
    ("steps: 1\n  credit: {signal: {name: likelihood, form: prob, margin: 0.3}}", "rl.credit.signal.margin",
     "rl.credit.signal.form is prob"),
    ("steps: 1\n  credit: {signal: [matched, {name: likelihood, weight: 1}]}", "rl.credit.signal[1].weight",
     "rl.credit.signal[1].form is log_ratio"),
    ("steps: 1\n  credit: {signal: [matched, {name: outcome, scale: 2}]}", "rl.credit.signal[1].scale",
     "rl.credit.signal[1].name is outcome"),
    ("steps: 1\n  credit: {signal: {name: judge, form: draco, per: turn}}", "rl.credit.signal.per",
     "rl.credit.signal.form is draco"),
    ("steps: 1\n  credit: {signal: {name: judge, criteria: [short]}}", "rl.credit.signal.criteria",
     "rl.credit.signal.form is ruler"),
    ("steps: 1\n  credit: {signal: {name: model, temperature: 1}}", "rl.credit.signal.temperature",
     "rl.credit.signal.form is difference"),
]  # fmt: skip


def rewright(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr("sys.argv", ["rewright", *arguments])
        cli.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize(("text", "key", "cause"), MISTAKES, ids=[f"{key}, {cause}" for _, key, cause in MISTAKES])
def test_a_key_without_effect_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, key: str, cause: str
) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(f"stages: [rl]\nrl:\n  {text}\n")
    assert rewright("run", str(file), "--run", str(tmp_path / "run")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"r.yaml:4: {key} has no effect: {cause}" in line
    assert not (tmp_path / "run").exists()


def test_a_served_reward_model_that_nobody_asks_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["reward.url=http://127.0.0.1:9", "rl.trajectory_reward=matchtir", "--dry-run"]
    assert rewright("quickstart", *options) == 2
    assert "reward.url has no effect: rl.trajectory_reward is matchtir" in capsys.readouterr().err


def test_what_has_an_effect_or_is_as_by_default_is_none(tmp_path: Path) -> None:
    for text in (
        "trajectory_reward: matchtir\n  reward_model_weight: 0\n  reward_model_clip: 3.0",
        "trajectory_reward: autotraj\n  call_weight: 0",
        "steps: 1\n  credit: {assignment: ot, reg: 0.2, ot_scale: calls, unmatched: 0}",
        "steps: 1\n  credit: {estimator: 'my_package:function', gamma: 1, fusion: sum, join: trajectory}",
        "steps: 1\n  credit: {estimator: fixed_horizon, gamma: 1, join: trajectory}",
        "call_weight: 0\n  credit: {weights: [1, 1, 1]}",
        "steps: 1\n  credit: {signal: {name: likelihood, form: prob, margin: 0.1}, eps: 0}",
        "steps: 1\n  credit: {signal: {name: model, form: min, temperature: 1}, estimator: {name: igpo, parity: true}}",
        "steps: 1\n  credit: {signal: outcome, estimator: {name: gigpo, normalisation: mean_std}, eps: 0}",
    ):
        (tmp_path / "r.yaml").write_text(f"rl:\n  {text}\n")
        load_recipe(tmp_path / "r.yaml")


def test_what_a_file_says_is_dropped_where_an_override_chooses_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("rl: {reward_model_clip: 2, credit: {assignment: ot, reg: 0.2, gamma: 1, singleton_turn: raw}}\n")
    rl = load_recipe(file, ["rl.trajectory_reward=matchtir", "rl.credit.estimator=grpo"]).rl
    assert (rl.reward_model_clip, rl.credit.assignment, rl.credit.reg) == (3.0, "ot", 0.2)
    assert (rl.credit.gamma, rl.credit.singleton_turn) == (0.9, "zero")
    assert load_recipe(file, ["rl.trajectory_reward=autotraj"]).rl.credit.assignment == "optimal"


def test_a_run_of_an_older_version_can_be_looked_at_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    credit = {"estimator": "grpo", "gamma": 0.5}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"rl": {"credit": credit}}))
    one = Trajectory(id="a", task_id="t", stage="synth", index=0, turns=(Turn("36"),), stop_reason="no_answer")
    (tmp_path / "trajectories.jsonl").write_bytes(msgspec.json.encode(one))
    assert rewright("report", str(tmp_path)) == 0
    assert rewright("view", str(tmp_path), "--static", str(tmp_path / "page.html")) == 0
    text = page_data(tmp_path / "page.html")["runs"][0]["head"]["words"]
    assert "estimator grpo" in text and "cannot be read" not in text


@pytest.mark.needs_torch
def test_an_outcome_that_the_tasks_cannot_have_is_seen_before_anything_is_generated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"id": "a", "messages": [{"role": "user", "content": "Go."}], "gold": {"outputs": {"find": ["x"]}}}
    (tmp_path / "t.jsonl").write_text(json.dumps({**row, "judge": "solve"}) + "\n")
    (tmp_path / "r.yaml").write_text(
        f"stages: [eval_base, rl]\ntasks: {tmp_path / 't.jsonl'}\nrl: {{outcome: token_set_f1, tasks_per_step: 1}}\n"
    )
    said = (
        "rl.outcome is token_set_f1, which compares with gold.answers, and task a has none: expected rl.outcome: judge"
    )
    for more in (["--dry-run"], ["--run", str(tmp_path / "run")]):
        assert rewright("run", str(tmp_path / "r.yaml"), *more) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run" / "evaluations").exists()
    assert rewright("run", str(tmp_path / "r.yaml"), "rl.outcome=token_f1", "--dry-run") == 2
    assert (
        "rl.outcome: must be one of judge, answer_correctness, exact, math, qa, token_set_f1" in capsys.readouterr().err
    )
    assert rewright("run", str(tmp_path / "r.yaml"), "rl.outcome=judge", "--dry-run") == 0
