"""`rewright eval --benchmark` of question sets: exact match and F1 beside success."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiohttp import web

from support.chat_server import Body, chat_server, said_by_user, says
from support.in_process import rewright as in_process
from support.served import served
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


# A served model answers in sentences (dialect chat): the judge compares a part of them.
SAID = {
    "Who wrote Emma?": says("The answer is Jane Austen."),
    "Where is Bath?": says("So it is \\boxed{Somerset, England}."),
    "Which river?": says("The answer is the Severn.", finish_reason="length"),
    "When?": says("I do not know."),
    "Are both English?": says("Yes, both are English."),
    "What breaks?": says("The answer is", error=True),
}
GOLD = {
    "Who wrote Emma?": "Jane Austen", "Where is Bath?": "Somerset", "Which river?": "Severn", "When?": "1815",
    "Are both English?": "yes", "What breaks?": "The answer is",
}  # fmt: skip


@pytest.mark.parametrize("benchmark", ["hotpotqa", "bamboogle", "hle"])
def test_the_metrics_are_of_the_text_that_the_verdict_compared(tmp_path: Path, benchmark: str) -> None:
    row = {"answer_type": "exactMatch", "image": ""} if benchmark == "hle" else {}
    rows = [{"question": question, "answer": gold, **row} for question, gold in GOLD.items()]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def reply(body: Body) -> Body:
        message = dict(SAID[said_by_user(body)])
        if message.pop("error", False):
            raise web.HTTPInternalServerError(text="broken")
        return message

    with served(lambda: chat_server(reply)) as url:
        engine = ["model.engine=openai", f"model.base_url={url}/v1", "model.attempts=1", "dialect=chat"]
        path = f"eval.tasks.path={tmp_path / 'rows.jsonl'}"
        done = in_process(tmp_path, "eval", "--benchmark", benchmark, "--model", "m", *engine, path, "--run", "run")
    assert done.code == 0, done.errors
    found = json.loads((tmp_path / "run/metrics.jsonl").read_text())["metrics"]
    verdicts = [json.loads(line) for line in (tmp_path / "run/evaluations/base.verdicts.jsonl").open()]
    judged = [one["metrics"] for one in verdicts if one["metrics"]]
    if benchmark != "hle":  # there, numbers have another judge
        assert len(judged) == 4
        assert found["exact_match"]["value"] == pytest.approx(sum(one["exact_match"] for one in judged) / 6)
        assert found["f1"]["value"] == pytest.approx(sum(one["f1"] for one in judged) / 6)
    assert found["exact_match"]["value"] == pytest.approx(2 / 6)  # Jane Austen, yes
    assert found["f1"]["value"] == pytest.approx((1 + 1 + 2 / 3) / 6)  # and a part of the box
