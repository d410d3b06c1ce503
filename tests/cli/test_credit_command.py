"""`rewright credit` as a person calls it: settings, table, JSON, pictures, mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from rewright.cli import main as cli
from rewright.core.records import Gold, Task, ToolCall, Trajectory, Turn, Verdict
from rewright.credit import advantages, turn_rewards

ADA, BEN = {"name": "lookup", "arguments": {"name": "Ada"}}, {"name": "lookup", "arguments": {"name": "Ben"}}
QUESTION = {"role": "user", "content": "How old together?"}


def said(calls: list[dict[str, Any]], content: Any = None) -> dict[str, Any]:
    functions = [{"name": call["name"], "arguments": json.dumps(call["arguments"])} for call in calls]
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [{"type": "function", "function": f} for f in functions],
    }


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two chat logs in OpenAI's convention, their gold calls beside them, in the current directory."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": 0, "task_id": "q", "messages": [QUESTION, said([ADA]), said([BEN]), said([], "77")], "reward": 1.0},
        {
            "id": "b",
            "task_id": "q",
            "messages": [QUESTION, said([ADA, ADA]), said([], [{"type": "text", "text": "36"}])],
        },
    ]
    Path("logs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Path("gold.json").write_text(json.dumps([ADA, BEN]), encoding="utf-8")
    return tmp_path


def rewright(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr("sys.argv", ["rewright", *arguments])
        cli.main()
    return int(end.value.code or 0)


REWARDS = [[1.0, 1.0, 1.0], [5 / 6, 0.0]]


def test_the_table_has_a_heading_and_a_line_for_each_trajectory(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rewright("credit", "logs.jsonl", "--gold", "gold.json") == 0
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["trajectory", "outcome", "reward", "turn", "rewards", "turn", "advantages"]
    numbers = " ".join(f"{value:+.3f}" for value in advantages(REWARDS, [0, 0])[0])
    assert first.split() == ["0", "1.000", "3.000", "1.000", "1.000", "1.000", *numbers.split()]
    assert second.split()[:5] == ["b", "-", "0.833", "0.833", "0.000"]
    assert {line.index(mark) for line, mark in ((heading, "turn a"), (first, "+"), (second, "-0."))} == {
        heading.index("turn advantages")
    }


def test_every_setting_can_be_given(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["gamma=0.5", "singleton_turn=zero", "fusion=sum", "--estimator", "matchtir", "aggregate=sum", "--json"]
    assert rewright("credit", "logs.jsonl", "--gold", "gold.json", *options) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rewards = [REWARDS[0], [5 / 3, 0.0]]
    expected = advantages(rewards, [0, 0], gamma=0.5, singleton_turn="zero", fusion="sum")
    for one, own, values in zip(found, rewards, expected, strict=True):
        assert one["turn_rewards"] == pytest.approx(own)
        assert one["turn_advantages"] == pytest.approx(values)


def test_a_run_is_credited_by_its_own_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls = (ToolCall(**ADA), ToolCall(**BEN))
    task = Task(id="q", messages=(QUESTION,), gold=Gold(calls=calls))
    turns = (Turn("one", calls=calls), Turn("77"))
    one = Trajectory(id="q-0", task_id="q", stage="rl", index=0, stop_reason="answered", turns=turns, answer="77")
    verdict = Verdict(trajectory_id="q-0", outcome=1.0, reason="right")
    for name, record in (("tasks", task), ("trajectories", one), ("verdicts", verdict)):
        (tmp_path / f"{name}.jsonl").write_bytes(msgspec.json.encode(record) + b"\n")
    credit = {"aggregate": "sum", "estimator": "leave_one_out"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"rl": {"call_weight": 0.25, "credit": credit}}))
    assert rewright("credit", str(tmp_path), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["turn_rewards"], found["turn_advantages"]) == ([0.5, 1.0], [1.5, 1.5])
    assert [call["reward"] for call in found["calls"]] == [0.25, 0.25]  # what adds up to the turn's
    assert rewright("credit", str(tmp_path), "--json", "--estimator", "fixed_horizon") == 0
    assert json.loads(capsys.readouterr().out)["turn_advantages"] == [0.0, 0.0]
    assert rewright("credit", str(tmp_path / "trajectories.jsonl"), "--json") == 0  # no recipe: MatchTIR's settings
    found = json.loads(capsys.readouterr().out)
    own = turn_rewards([calls, []], calls, outcome=1.0)
    assert found["turn_rewards"] == own.tolist() == [1.0, 1.0]
    assert found["turn_advantages"] == pytest.approx(advantages([own], [0])[0])


def test_pictures_are_svg_or_png(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("matplotlib.image")
    for name in ("one.svg", "one.png"):
        assert rewright("credit", "logs.jsonl", "--gold", "gold.json", "--trajectory", "b", "--picture", name) == 0
    assert "How old together?" in Path("one.svg").read_text(encoding="utf-8")
    assert "no call  36" in Path("one.svg").read_text(encoding="utf-8").replace('</tspan><tspan fill="#66727f">', "")
    pixels = image.imread("one.png")
    height, width = pixels.shape[:2]
    assert (width, height > 300) == (2160, True)
    colours = {tuple(colour) for colour in (pixels[..., :3] * 255).round().astype(int).reshape(-1, 3)[::7]}
    assert {(255, 255, 255), (0x0B, 0x7A, 0x75), (0xF2, 0xF4, 0xF7)} <= colours  # ground, paid, a turn's band
    assert np.isfinite(pixels).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gama=1"], "unknown key rl.credit.gama: did you mean rl.credit.gamma?"),
        (["gamma=x"], "rl.credit.gamma: expected `float`, got `str`"),
        (["gamma=7"], "rl.credit.gamma: must be at most 1, got 7"),
        (["estimator=os:getcwd"], "estimator 'os:getcwd' failed: TypeError"),
        (["estimator=foo"], "unknown estimator 'foo': expected one of delta"),
        (["--picture", "no/such/folder.svg"], "no/such/folder.svg: cannot be written: No such file or directory"),
        (["--picture", "no/such/folder.png"], "no/such/folder.png: cannot be written: No such file or directory"),
        (["--picture", "one.pdf"], "one.pdf: unknown kind of picture, expected .svg or .png"),
        (["--picture", "one.svg", "--trajectory", "c"], "--trajectory c: logs.jsonl has no trajectory of that id"),
    ],
)
def test_mistakes_are_one_line(
    logs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert rewright("credit", "logs.jsonl", "--gold", "gold.json", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
