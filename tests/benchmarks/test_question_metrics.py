"""`rewright eval --benchmark` of question sets: exact match and F1 beside success."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.toys import rewright

# The toy engine answers with the sum of the numbers in the question.
ROWS = [
    {"question": "1 + 1 = ?", "answer": "2"},
    {"question": "2 + 3 = ?", "answer": "5 apples"},
    {"question": "4 + 4 = ?", "answer": "Ada Lovelace"},
    {"question": "1 + 8 = ?", "golden_answers": ["9", "nine"]},
]
TOY = ("model.engine=toy", "dialect=toy")


@pytest.mark.parametrize("benchmark", ["hotpotqa", "2wikimultihopqa", "musique", "bamboogle"])
def test_exact_match_and_f1_are_shown_and_stored(tmp_path: Path, benchmark: str) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    path = f"eval.tasks.path={tmp_path / 'rows.jsonl'}"
    done = rewright(tmp_path, "eval", "--benchmark", benchmark, path, *TOY, "--run", "run", "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])["stages"][0]
    found = {name: (part["value"], part["trajectories"]) for name, part in row["metrics"].items()}
    assert found == {"exact_match": (0.5, 4), "f1": (pytest.approx((1 + 2 / 3 + 0 + 1) / 4), 4)}
    assert row["success"] == 0.75  # F1 of at least 0.5
    assert any(line.startswith("  exact_match: 0.500 [") for line in done.stderr.splitlines())
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text())["metrics"] == row["metrics"]
