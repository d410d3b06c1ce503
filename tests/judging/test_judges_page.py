"""docs/judges.md: every row of its tables is what the judges say."""

import re
from pathlib import Path

import pytest

from rewright.core.records import ToolCall, ToolResult, Trajectory, Turn
from rewright.core.registry import known
from rewright.judging import judge_answer
from rewright.judging.solve import solve_metrics

PAGE = (Path(__file__).parents[2] / "docs" / "judges.md").read_text("utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}


def rows() -> list[tuple[str, str, str, float]]:
    found = []
    for title, text in SECTIONS.items():
        for answer, gold, outcome in re.findall(r"^\| `(.+)` \| `(.+)` \| ([0-9.]+) \|$", text, re.MULTILINE):
            found.append((title.strip("`"), answer, gold, float(outcome)))
    return found


@pytest.mark.parametrize(("judge", "answer", "gold", "outcome"), rows())
def test_the_tables_are_true(judge: str, answer: str, gold: str, outcome: float) -> None:
    judgement = judge_answer(judge, answer, [gold])
    assert judgement.outcome == pytest.approx(outcome, abs=5e-4), judgement.reason


def test_the_solve_table_is_true() -> None:
    table = re.findall(
        r"^\| `(.+)` \| `(.+)` \| ([01]) \| ([01]) \|$", SECTIONS["`solve` and `solve_parity`"], re.MULTILINE
    )
    assert len(table) > 5
    for output, expected, strict, parity in table:
        turn = Turn(text="", calls=(ToolCall("f", {}),), results=(ToolResult(output),))
        attempt = Trajectory(
            id="t/0", task_id="t", stage="synth", index=0, turns=(turn,), answer=None, stop_reason="turn_limit"
        )
        metrics = solve_metrics(attempt, {"f": [expected]})
        assert (metrics["solve_f1_strict"], metrics["solve_f1"]) == (int(strict), int(parity)), output


def test_every_judge_has_its_place_on_the_page() -> None:
    named = set(re.findall(r"`([\w-]+)`", PAGE.split("\n## ")[0]))
    assert set(known("judge")) <= named
    assert {judge for judge, *_ in rows()} == {"exact", "math", "qa", "token_set_f1", "answer_correctness"}
