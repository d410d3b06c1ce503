"""`rewright credit --estimator gigpo|hgpo|gdpo`, and where else these can be named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewright.cli import main as cli

Rewright = Callable[..., tuple[int, str, str]]


@pytest.fixture
def rewright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rewright:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["rewright", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


def turn(of: str, age: str) -> list[dict[str, Any]]:
    call = {"type": "function", "function": {"name": "age", "arguments": json.dumps({"of": of})}}
    return [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": age}]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Attempts at one task: Ada twice and right; Ada and wrong; Ben, who is as old as Ada, and wrong."""
    question, end = {"role": "user", "content": "How old?"}, {"role": "assistant", "content": "77"}
    turns = [turn("Ada", "36") * 2, turn("Ada", "36"), turn("Ben", "36")]
    rows = [
        {"id": name, "group": "q", "messages": [question, *calls, end], "reward": reward}
        for name, calls, reward in zip("abc", turns, (1.0, 0.0, 0.0), strict=True)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "log.jsonl"


def credit(rewright: Rewright, *more: str) -> tuple[list[list[float]], str]:
    code, out, said = rewright("credit", "log.jsonl", "--signal", "outcome", *more, "--json")
    assert code == 0, said
    return [json.loads(line)["turn_advantages"] for line in out.splitlines()], said


def test_gigpo_needs_no_gold_and_says_how_many_turns_it_compares(rewright: Rewright, log: Path) -> None:
    found, said = credit(rewright, "--estimator", "gigpo", "gamma=1")
    # All begin in one state; after one turn a and b are in one: 1 and 0. R - mean is 2/3 and -1/3.
    assert found == [
        pytest.approx([4 / 3, 2 / 3 + 1 / 2, 2 / 3], abs=1e-4),
        pytest.approx([-2 / 3, -1 / 3 - 1 / 2], abs=1e-4),
        pytest.approx([-2 / 3, -1 / 3], abs=1e-4),
    ]
    assert "credit: state_groups/compared: 71% of the turns" in said  # 5 of 7
    assert "credit: state_groups/with_choice: 71% of the turns" in said  # Ada or Ben; Ada again or the answer
    assert "credit: state_groups/unknown: 0% of the turns" in said
    assert "gold" not in said.replace("gold calls are not", "")


def test_the_last_observation_alone_makes_more_states_equal(rewright: Rewright, log: Path) -> None:
    found, said = credit(rewright, "--estimator", "gigpo", "gamma=1", "estimator.state_key=last_observation")
    assert found[2][1] == pytest.approx(-1 / 3 - 1 / 3, abs=1e-4)  # with a's and b's turn after "36": 1, 0, 0
    assert "compared: 100% of the turns" in said
    own, said = credit(rewright, "--estimator", "gigpo", "gamma=1", "estimator.state_key=own")
    assert own[0] == pytest.approx([2 / 3] * 3, abs=1e-4)
    assert "credit: state_groups/unknown: 100% of the turns" in said


def test_hgpo_and_gdpo(rewright: Rewright, log: Path) -> None:
    found, _ = credit(rewright, "--estimator", "hgpo", "gamma=1", "estimator.K=0")
    assert [row[0] for row in found] == pytest.approx([2 / 3, -1 / 3, -1 / 3], abs=1e-4)
    found, said = credit(rewright, "--estimator", "{name: gdpo, weights: {format: 0}}")
    # One part has a spread: z is (1.1547, -0.5774, -0.5774), and so it is after whitening.
    assert found == [
        pytest.approx([1.1547] * 3, abs=1e-4),
        pytest.approx([-0.5774] * 2, abs=1e-4),
        pytest.approx([-0.5774] * 2, abs=1e-4),
    ]
    assert "of the turns" not in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--estimator", "gigpo", "estimator.omega=-1"], "rl.credit.estimator.omega: must not be negative, got -1"),
        (["--estimator", "gigpo", "estimator.visits=last"], "rl.credit.estimator.visits"),
        (
            ["--estimator", "gigpo", "estimator.gamma=1"],
            "rl.credit.estimator.gamma: must be beside estimator, not in it",
        ),
        (["--estimator", "gigpo", "fusion=sum"], "rl.credit.fusion has no effect: rl.credit.estimator is gigpo"),
        (["--estimator", "gdpo", "gamma=1"], "rl.credit.gamma has no effect: rl.credit.estimator is gdpo"),
        (["--estimator", "gigp"], "unknown estimator 'gigp': did you mean 'gigpo'?"),
        (
            ["--estimator", "{name: gdpo, weights: {outcom: 1}}"],
            "weights.outcom: expected one of the parts outcome, sig",
        ),
        (
            ["--estimator", "{name: gdpo, whitening: tokens}"],
            "whitening is 'tokens', and the numbers of tokens are unkn",
        ),
    ],
)
def test_a_mistake_is_one_line(rewright: Rewright, log: Path, given: list[str], said: str) -> None:
    code, out, complaint = rewright("credit", "log.jsonl", "--signal", "outcome", *given)
    assert (code, out) == (2, "")
    (line,) = complaint.splitlines()
    assert said in line


@pytest.mark.parametrize(("name", "reads"), [("gigpo", "the states"), ("hgpo", "the states"), ("gdpo", "the parts")])
def test_verl_has_rewards_only(rewright: Rewright, tmp_path: Path, name: str, reads: str) -> None:
    rl = {"backend": "verl", "trajectory_reward": "matchtir", "credit": {"estimator": name}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"stages": ["rl"], "rl": rl}))
    code, _, said = rewright("run", "r.yaml", "--dry-run")
    assert code == 2
    assert f"rl.credit.estimator: estimator '{name}' reads {reads}" in said


def test_hgpo_refuses_an_outcome_that_it_would_ignore(rewright: Rewright, log: Path, tmp_path: Path) -> None:
    outcome = ("credit", "log.jsonl", "--signal", "outcome", "--estimator", "hgpo", "join=trajectory")
    code, out, said = rewright(*outcome)
    assert (code, out, said.count("\n")) == (2, "", 1)
    assert "join: must be last_turn with the estimator hgpo" in said and "base_group: true" in said
    code, out, _ = rewright(*outcome, "estimator.base_group=true", "--json")
    first = [json.loads(line)["turn_advantages"][0] for line in out.splitlines()]
    assert code == 0 and first[0] > 0 > first[1]
    recipe = {"rl": {"credit": {"signal": "outcome", "estimator": "hgpo", "join": "trajectory"}}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    code, _, said = rewright("run", "r.yaml", "--dry-run")
    assert (code, "rl.credit.join: must be last_turn with the estimator hgpo" in said) == (2, True), said


def test_leaving_the_trajectory_out_concerns_the_step_level_only(rewright: Rewright, log: Path) -> None:
    alone = [credit(rewright, "--estimator", "gigpo", "estimator.omega=0", *more)[0]
             for more in ((), ("estimator.leave_trajectory_out=true",))]  # fmt: skip
    assert alone[0] == alone[1]
    both = [credit(rewright, "--estimator", "gigpo", "gamma=1", *more)[0]
            for more in ((), ("estimator.leave_trajectory_out=true",))]  # fmt: skip
    # At turn 1 all three are in one state: 1 against a mean of 1/3 with itself, of 0 without.
    assert [rows[0][0] for rows in both] == [pytest.approx(4 / 3, abs=1e-4), pytest.approx(5 / 3, abs=1e-4)]
