"""What RL used is what `rewright credit RUN` and `rewright view RUN` show, and both agree for every stage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from rewright.cli import main as cli
from rewright.core.records import Credit, Gold, Provenance, Task, ToolCall, Trajectory, Turn, Verdict
from rewright.credit import advantages
from rewright.pipeline.run_directory import Run
from support.static_page import page_data

RECIPE = """\
stages: [eval_base, synth, judge, score, repair, rl]
model: {path: pico, slots: 8}
tasks: {format: town, split: train, profile: short, count: 2}
synth: {n: 3, temperature: 1.0, top_p: 1.0}
limits: {turns: 4, turn_tokens: 40, trajectory_tokens: 160, tool_seconds: 600, trajectory_seconds: 3000}
sandbox: {level: process, wall_seconds: 600}
repair: {model: {path: pico-repairer, slots: 8}, temperature: 0.7, calls: 4}
rl:
  {learning_rate: 1.0e-4, steps: 2, tasks_per_step: 2, generations: 3, call_weight: 0.5, outcome: token_set_f1,
   tasks: {format: town, profile: short, count: 4, seed: 5}}
eval: {tasks: {format: town, split: heldout, profile: short, count: 2, seed: 1}}
"""


def rewright(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr("sys.argv", ["rewright", *arguments])
        cli.main()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with candidates, repairs, an evaluation, and two steps of RL. Nobody writes into it."""
    pytest.importorskip("trl")
    folder = tmp_path_factory.mktemp("trained")
    (folder / "recipe.yaml").write_text(RECIPE)
    assert rewright("run", str(folder / "recipe.yaml"), "--run", str(folder / "run")) == 0
    return folder / "run"


def credit_of(capsys: pytest.CaptureFixture[str], run: Path, *options: str) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert rewright("credit", str(run), "--json", *options) == 0
    return {row["id"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}


def shown_by(page: Path, rows: dict[str, dict[str, Any]]) -> set[str]:
    """Checks that the page shows the turn rewards and advantages of its trajectories; returns their ids."""
    (found,) = page_data(page)["runs"]
    for key, one in found["trajectories"].items():
        credit, row = one["credit"], rows[key]
        assert credit["rewards"] == pytest.approx(row["turn_rewards"])
        assert credit["advantages"] == (
            None if row["turn_advantages"] is None else pytest.approx(row["turn_advantages"])
        )
        assert credit["trajectory_reward"] == pytest.approx(row["reward"])
        assert credit["used_by_rl"] == row["used_by_rl"]
        labels = [shape["label"] for shape in credit["drawing"]["shapes"] if shape.get("label")]
        assert [label for label in labels if label.startswith("reward")] == [
            f"reward {value:.4f}" for value in credit["rewards"]
        ]
    return set(found["trajectories"])


def test_every_rollout_holds_what_rl_trained_on(trained: Path) -> None:
    run = Run.open(trained)
    rollouts = list(run.rollouts)
    assert len(rollouts) == 2 * 2 * 3
    logged = [row for row in run.metrics() if row["stage"] == "rl"]
    for step, row in enumerate(logged):
        mine = [one for one in rollouts if one.id.split("/")[2] == str(step)]
        kept = [one.credit for one in mine if one.credit is not None]
        assert len(kept) == len(mine) == 6
        rewards = [one.trajectory_reward for one in kept]
        assert np.mean(rewards) == pytest.approx(row["reward"], abs=1e-6), "what TRL was given"
        found = advantages(
            [one.turn_rewards for one in kept],
            [one.task_id for one in mine],
            singleton_turn="zero",
            trajectory_rewards=rewards,
        )
        assert [one.advantages for one in kept] == [pytest.approx(values.tolist()) for values in found]
        answered = [one.verdict for one in kept if one.verdict is not None and one.verdict.answer is not None]
        assert all("token_set_f1" in verdict.metrics for verdict in answered), "rl.outcome is the judge"
        assert np.mean([one.verdict.outcome for one in kept]) == pytest.approx(row["rewright/success"])


def test_credit_and_page_show_that_and_agree_for_every_stage(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = credit_of(capsys, trained)
    run = Run.open(trained)
    for one in run.rollouts:
        assert one.credit is not None
        row = rows[one.id]
        assert row["used_by_rl"] and row["reward"] == one.credit.trajectory_reward
        assert (row["turn_rewards"], row["turn_advantages"]) == (
            list(one.credit.turn_rewards),
            list(one.credit.advantages),
        )
    stages = [key.split("/")[0] for key in rows]
    assert {name: stages.count(name) for name in stages} == {
        "synth": 6, "repair": sum(1 for _ in run.repairs), "eval-base": 2, "rl": 12,
    }  # fmt: skip
    assert stages.count("repair") > 0
    for key, row in rows.items():
        alone = key.startswith(("repair/", "eval-"))
        assert (row["group"] is None) == (row["turn_advantages"] is None) == alone
    assert rewright("view", str(trained), "--static", str(tmp_path / "page.html")) == 0
    seen = shown_by(tmp_path / "page.html", rows)
    assert {key.split("/")[0] for key in seen} == {"synth", "repair", "eval-base", "rl"}
    assert seen >= {key for key in rows if key.startswith(("synth/", "repair/", "eval-"))}


def test_a_repair_changes_nothing_for_its_original(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = credit_of(capsys, trained, "--stage", "synth")
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    lines = (copy / "trajectories.jsonl").read_text().splitlines()
    own = [line for line in lines if json.loads(line)["provenance"]["parent"] is None]
    assert len(own) < len(lines)
    (copy / "trajectories.jsonl").write_text("".join(f"{line}\n" for line in own))
    assert credit_of(capsys, copy, "--stage", "synth") == before


def test_rollouts_of_an_older_version_are_computed_anew_and_that_is_said(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = credit_of(capsys, trained, "--stage", "rl")
    old = Path(shutil.copytree(trained, tmp_path / "old"))
    rows = [json.loads(line) for line in (old / "rollouts.jsonl").read_text().splitlines()]
    for row in rows:
        del row["credit"]
    (old / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert rewright("credit", str(old), "--stage", "rl", "--json") == 0
    printed = capsys.readouterr()
    assert "12 rollouts do not store the values that RL used" in " ".join(printed.err.split())
    found = {row["id"]: row for row in map(json.loads, printed.out.splitlines())}
    for key, row in found.items():  # here RL had no reward model, so nothing is lost
        assert not row["used_by_rl"]
        assert row["reward"] == pytest.approx(new[key]["reward"])
        assert row["turn_advantages"] == pytest.approx(new[key]["turn_advantages"])
    everything = credit_of(capsys, old)
    page = tmp_path / "page.html"
    assert rewright("view", str(old), "--static", str(page)) == 0
    assert shown_by(page, everything)
    rollouts = [one for one in page_data(page)["runs"][0]["trajectories"].values() if one["row"]["stage"] == "rl"]
    assert len(rollouts) == 12 and all(one["recomputed"] for one in rollouts)


def test_other_settings_are_computed_and_that_is_said(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rewright("credit", str(trained), "estimator=leave_one_out", "--stage", "rl", "--json") == 0
    printed = capsys.readouterr()
    assert "the credit of 12 rollouts is computed with the given settings" in " ".join(printed.err.split())
    rows = list(map(json.loads, printed.out.splitlines()))
    first = [row for row in rows if row["group"] == rows[0]["group"]]
    rewards = [row["reward"] for row in first]
    expected = advantages([row["turn_rewards"] for row in first], [0] * 3, estimator="leave_one_out",
                          trajectory_rewards=rewards)  # fmt: skip
    assert [row["turn_advantages"] for row in first] == [pytest.approx(values.tolist()) for values in expected]
    assert rewright("credit", str(trained), "--stage", "rll") == 2
    assert "has no trajectory of it: it has eval-base, repair, rl, synth" in " ".join(capsys.readouterr().err.split())


ADA, BEN = ToolCall("age", {"of": "Ada"}), ToolCall("age", {"of": "Ben"})
BROKEN = ToolCall("", {}, "<tool_call>{age", "malformed call: no JSON")
TASK = Task(id="t", messages=({"role": "user", "content": "Who is older?"},), gold=Gold(("Ada",), (ADA, BEN)))
MALFORMED = ((ADA,), (BROKEN,), (BEN,), ())
"""Turn rewards 1, 0, 1 and the outcome."""
UNANSWERED = ((ADA,), (BEN,), ())


def attempt(key: str, turns: Any, answer: str | None, **more: Any) -> Trajectory:
    return Trajectory(
        id=key, task_id="t", stage="synth", index=0, turns=tuple(Turn("said", calls=calls) for calls in turns),
        stop_reason="no_answer" if answer is None else "answered", answer=answer, **more,
    )  # fmt: skip


def by_hand(folder: Path, trajectories: list[Trajectory], rollouts: list[Trajectory], **rl: Any) -> Path:
    verdicts = [
        Verdict(trajectory_id=one.id, outcome=float(one.answer == "Ada"), reason="by hand") for one in trajectories
    ]
    folder.mkdir()
    for name, records in (
        ("tasks", [TASK]), ("trajectories", trajectories), ("verdicts", verdicts), ("rollouts", rollouts),
    ):  # fmt: skip
        if records:
            (folder / f"{name}.jsonl").write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in records))
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"rl": rl}))
    return folder


@pytest.mark.parametrize(
    ("reward", "expected"),
    [("matchtir", (3.0, 2.0, 1.0)), ("autotraj", (-1.0, -1.0, 1.0)), ("matchtir+autotraj", (1.0, 1.0, 1.0))],
)
def test_the_trajectory_reward_is_that_of_the_specification(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reward: str, expected: tuple[float, ...]
) -> None:
    """MatchTIR: R is the sum of the turn rewards. AutoTraj: -1 for an invalid format, else the outcome."""
    tried = [attempt("malformed", MALFORMED, "Ada"), attempt("unanswered", UNANSWERED, None),
             attempt("guessed", ((),), "Ada")]  # fmt: skip
    rows = credit_of(capsys, by_hand(tmp_path / "run", tried, [], trajectory_reward=reward))
    assert tuple(row["reward"] for row in rows.values()) == expected
    paid = reward != "autotraj"
    assert rows["malformed"]["turn_rewards"] == [1.0 * paid, 0.0, 1.0 * paid, 1.0]
    assert rows["unanswered"]["turn_rewards"] == [1.0 * paid, 1.0 * paid, 0.0]
    assert [call["reward"] for call in rows["malformed"]["calls"]] == [1.0 * paid, 0.0, 1.0 * paid]


def test_stored_numbers_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where nobody could compute them again: a reward model gave its score, and is gone."""
    verdict = Verdict(trajectory_id="rl/t/0/0", outcome=0.625, reason="as RL saw it")
    kept = Credit((0.25, 0.125, 0.5), 1.375, (-0.271, 0.018, -0.763), verdict, None, 2.5)
    one = attempt("rl/t/0/0", UNANSWERED, "Ada", credit=kept)
    broke = msgspec.structs.replace(one, id="rl/t/0/1", credit=Credit((0.0, 0.0, 0.0), None, (0.0, 0.0, 0.0)))
    run = by_hand(tmp_path / "run", [], [one, broke])
    rows = credit_of(capsys, run)
    shown = rows["rl/t/0/0"]
    assert (shown["turn_rewards"], shown["reward"]) == ([0.25, 0.125, 0.5], 1.375)
    assert (shown["turn_advantages"], shown["outcome"]) == ([-0.271, 0.018, -0.763], 0.625)
    assert rows["rl/t/0/1"]["reward"] is None
    assert rewright("credit", str(run)) == 0
    assert "0.625    1.375   0.250 0.125 0.500  -0.271 +0.018 -0.763" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert rewright("view", str(run), "--static", str(page)) == 0
    one = page_data(page)["runs"][0]["trajectories"]["rl/t/0/0"]
    assert (one["verdict"]["outcome"], one["verdict"]["reason"]) == (0.625, "as RL saw it")
    assert (one["credit"]["rewards"], one["credit"]["advantages"]) == ([0.25, 0.125, 0.5], [-0.271, 0.018, -0.763])
    assert (one["credit"]["trajectory_reward"], one["credit"]["used_by_rl"], one["reward_model"]) == (1.375, True, 2.5)


def test_one_rule_says_who_is_compared_with_whom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right, wrong = attempt("right", UNANSWERED, "Ada"), attempt("wrong", UNANSWERED, "Ben")
    repaired = attempt("repaired", MALFORMED, "Ada", provenance=Provenance(parent="wrong"))
    rows = credit_of(capsys, by_hand(tmp_path / "run", [right, wrong, repaired], [], trajectory_reward="matchtir"))
    expected = advantages([[1, 1, 1], [1, 1, 0]], ["t", "t"], singleton_turn="zero")
    assert rows["right"]["turn_advantages"] == pytest.approx(expected[0].tolist())
    assert rows["wrong"]["turn_advantages"] == pytest.approx(expected[1].tolist())
    assert rows["repaired"]["turn_advantages"] is None
    assert rows["repaired"]["turn_rewards"] == [1.0, 0.0, 1.0, 1.0]
