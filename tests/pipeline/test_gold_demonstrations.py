"""`sft.source: gold`: the gold calls of any task become trajectories of the real rollout loop, and are trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from rewright.engines.embedded import HFSettings
from rewright.engines.loading import load_tokenizer
from rewright.pipeline.run_directory import Run
from support import in_process

SCHEMA: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}
DECLARED = {"schema": SCHEMA, "kind": "declared"}
SOURCE = {"schema": SCHEMA, "source": "def find(name):\n    return {'Ann': 'Rome', 'Rome': 'Italy'}[name]\n"}
DONE: dict[str, Any] = {
    "schema": {"type": "function", "function": {"name": "done", "parameters": {"type": "object", "properties": {}}}},
    "kind": "declared",
}
RECORDED = {
    "schema": SCHEMA,
    "kind": "recorded",
    "data": {"results": [{"arguments": {"name": "Ann"}, "results": [{"content": "Rome"}]}]},
}
FOLLOW_UP = {"messages": [{"role": "user", "content": "And then?"}], "tools": []}


def task(identity: str, tool: dict[str, Any], *names: str, **changes: Any) -> dict[str, Any]:
    calls = [{"name": "find", "arguments": {"name": name}} for name in names]
    return {
        "id": identity,
        "messages": [{"role": "user", "content": f"Task {identity}"}],
        "tools": [tool],
        "gold": {"calls": calls} | changes.pop("gold", {}),
        "judge": "calls",
        **changes,
    }


def written(path: Path, rows: list[dict[str, Any]], **sft: Any) -> Path:
    (path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "stages": ["sft"],
        "model": "pico",
        "dialect": "chat",
        "sandbox": {"level": "process"},
        "tasks": {"format": "rewright", "path": "t.jsonl"},
        "limits": {"turn_tokens": 60},
        "sft": {"source": "gold", "epochs": 1, "learning_rate": 1e-4, "save_steps": 1} | sft,
    }
    (path / "r.yaml").write_text(json.dumps(recipe))
    return path


def test_gold_calls_are_played_by_the_rollout_loop_judged_and_trained_on(tmp_path: Path) -> None:
    rows = [
        task("declared", DECLARED, "Ann", "Bob"),
        task("none", DECLARED),
        task("run", SOURCE, "Ann", "Rome", gold={"answers": ["Italy"]}, judge="exact"),
        task("unrecorded", RECORDED, "Ann", "Bob"),
        task("long", DECLARED, "Ann " * 60),
        task("cut", DECLARED, "Ann", "Ann " * 60),
        task("wrong", SOURCE, "Ann", gold={"answers": ["Italy"]}, judge="exact", extractor="last_number"),
        task("unknown", DECLARED, judge="exact") | {"gold": {"answers": ["Rome"]}},
        task("later", SOURCE, "Ann", "Rome", judge="complexfuncbench", follow_ups=[FOLLOW_UP] * 2)
        | {"metadata": {"calls_per_message": [1, 0, 1], "last_message": "It is Italy."}},
        task("unknown message", SOURCE, "Ann", follow_ups=[FOLLOW_UP]),
        task("ended", SOURCE, "Ann", judge="complexfuncbench")
        | {"tools": [SOURCE, DONE], "metadata": {"ends_with_call": "done"}},
    ]
    said = in_process.rewright(written(tmp_path, rows), "run", "r.yaml", "--run", "run")
    assert said.code == 0, said.errors
    assert "5 of 11 tasks are trained on" in said.errors
    for reason in (
        "2 without gold calls", "1 with a call that cannot be executed", "1 ended by token_limit", "1 judged wrong",
        "1 with a turn longer than limits.turn_tokens",
    ):  # fmt: skip
        assert reason in " ".join(said.errors.split())

    run = Run.open(tmp_path / "run")
    played = {one.task_id: one for one in run.demonstrations}
    tokenizer = load_tokenizer(HFSettings(path="pico"))
    declared, none, executed = (played[name] for name in ("declared", "none", "run"))
    assert [turn.stop for turn in declared.turns] == ["end"]
    assert [call.arguments["name"] for call in declared.turns[0].calls] == ["Ann", "Bob"]
    assert declared.stop_reason == "called"
    assert [turn.text for turn in none.turns] == ["None of the functions can be used for this."]
    assert [len(turn.calls) for turn in executed.turns] == [1, 1, 0]
    assert [one.content for one in executed.results] == ["Rome", "Italy"]
    assert executed.answer == "Italy"
    later, ended = (played[name] for name in ("later", "ended"))
    assert [len(turn.calls) for turn in later.turns] == [1, 0, 0, 1, 0]
    assert [turn.text for turn in later.turns if not turn.calls] == ["Done.", "Done.", "It is Italy."]
    assert [[call.name for call in turn.calls] for turn in ended.turns] == [["find"], ["done"]]
    assert ended.stop_reason == "called"
    assert {one.provenance.model for one in played.values()} == {"gold"}
    for one in (declared, none, executed, later, ended):
        generated = [token for token, own in zip(one.token_ids, one.mask, strict=True) if own]
        assert tokenizer.decode(generated).count(tokenizer.eos_token) == len(one.turns)
    assert run.state()["sft"]["rows"] == 5
    assert run.model_folder("sft").is_dir()

    done = in_process.rewright(tmp_path, "run", "run", "--resume")
    assert done.code == 0, done.errors
    assert len(list(run.demonstrations)) == 9


def test_tasks_without_gold_calls_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    row = task("a", DECLARED) | {"gold": {"answers": ["Rome"]}, "judge": "exact"}
    said = in_process.rewright(written(tmp_path, [row]), "run", "r.yaml", "--run", "run")
    said.refused("sft.source is gold, and no task has gold calls: expected tasks with gold.calls")
    assert not (tmp_path / "run").exists()


def test_gold_calls_that_no_judge_accepts_are_no_success(tmp_path: Path) -> None:
    row = task("a", DECLARED, "Ann", gold={"answers": ["Rome"]}, judge="exact")
    said = in_process.rewright(written(tmp_path, [row]), "run", "r.yaml", "--run", "run")
    said.refused("no task is left to train on (1 judged wrong)")
    assert not (tmp_path / "run" / "models").exists()
