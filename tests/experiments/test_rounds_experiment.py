"""The experiment on rounds: what its table says of the results file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import rounds

from rewright.pipeline.registry import recipe_stages
from rewright.pipeline.run_directory import Run
from rewright.pipeline.stages.evaluate import summarise


def row(arm: str, seed: int, success: float, **more: Any) -> dict[str, Any]:
    return {
        "world": "town", "seed": seed, "arm": arm, "tasks_made": None, "success": success, "rows": 10, "repaired": 3,
        "tokens_per_repair": 40.0, **more,
    }  # fmt: skip


def test_differences_are_taken_within_a_seed() -> None:
    rows = [row("round 1", 0, 0.5), row("round 2", 0, 0.6), row("round 1", 1, 0.7), row("round 2", 1, 0.8)]
    printed = rounds.table([*rows, row("dpo", 1, 0.65, tokens_per_repair=None)])
    assert "### town" in printed
    assert "almanac" not in printed
    assert "| round 2 - round 1 | 2 | +10.0 ± 0.0 |" in printed
    assert "| dpo - round 1 | 1 | -5.0 |" in printed
    assert "| dpo | 1 | 10 | 3 | - | 65.0 |" in printed


def test_the_report_has_the_finished_arms_of_each_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "rounds.jsonl"
    lines = [row("round 1", 0, 0.5), row("round 1", 1, 0.9, tasks_made=24)]
    results.write_text("".join(json.dumps(one) + "\n" for one in lines) + '{"world": "to')
    monkeypatch.setattr("sys.argv", ["rounds.py", "--report", "--results", str(results)])
    rounds.main()
    whole, separator, small = capsys.readouterr().out.partition("## tasks_made 24\n")
    assert separator
    assert "| round 1 | 1 | 10 | 3 | 40 | 50.0 |" in whole
    assert "| round 1 | 1 | 10 | 3 | 40 | 90.0 |" in small
    monkeypatch.setattr("sys.argv", ["rounds.py", "--report", "--results", str(tmp_path / "none.jsonl")])
    with pytest.raises(SystemExit, match="no finished arm yet"):
        rounds.main()


def test_lines_of_other_held_out_tasks_or_settings_are_of_another_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "rounds.jsonl"
    lines = [
        row("round 1", 0, 0.5), row("round 1", 0, 0.6, held_out=20, settings=[]),
        row("round 1", 0, 0.7, held_out=None, settings=["sft.epochs=1"]),
    ]  # fmt: skip
    results.write_text("".join(json.dumps(one) + "\n" for one in lines))
    given = ["rounds.py", "--report", "--results", str(results)]
    folders = set()
    for more, success in (([], "50.0"), (["--held-out", "20"], "60.0"), (["--set", "sft.epochs=1"], "70.0")):
        monkeypatch.setattr("sys.argv", [*given, *more])
        rounds.main()
        assert f"| round 1 | 1 | 10 | 3 | 40 | {success} |" in capsys.readouterr().out
        folders.add(rounds.folder_of(rounds.parse(), rounds.Job("town", 0), "dpo"))
    assert len(folders) == 3


def options(monkeypatch: pytest.MonkeyPatch, *given: str) -> argparse.Namespace:
    monkeypatch.setattr("sys.argv", ["rounds.py", *given])
    return rounds.parse()


def test_all_arms_repair_equally_often_at_a_temperature_at_which_a_policy_does_not_repeat_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for world in rounds.RECIPES:
        recipe = rounds.recipe_of(options(monkeypatch), rounds.Job(world, 0), rounds.ROUND)
        assert recipe.repair.attempts > 1
        assert recipe.repair.temperature > 0


def test_arms_without_anything_to_train_are_lines_without_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of both rounds in which nothing was kept or repaired."""
    given = options(monkeypatch, "--runs", str(tmp_path / "runs"), "--worlds", "town", "--tasks", "2")
    job = rounds.Job("town", 0)
    recipe = rounds.recipe_of(given, job, ("eval_base", *rounds.ROUND), "repair.rounds=2")
    run = Run.create(rounds.folder_of(given, job, "rounds"), recipe, resume=False)
    with run.locked():
        for stage in recipe_stages(recipe):
            skipped = {"skipped": True, "reason": "nothing was kept"} if stage.name.startswith("sft") else {}
            run.finish(stage.name, 1.0, **skipped)
            for name in stage.files if not skipped else ():
                run.file(name).parent.mkdir(parents=True, exist_ok=True)
                run.file(name).touch()
            if stage.evaluates is not None:
                run.set_metrics(stage.name, [{**summarise([], [], seconds=0.0), "success": 0.25}])
    made, problem = rounds.work(job, options=given, have={job: frozenset({"round 1, twice sampled", "splice", "self"})})
    assert problem is None
    success = {row["arm"]: row["success"] for row in made}
    assert success == {"base": 0.25, "round 1": None, "round 2": None, "round 1, same steps": None, "dpo": None}
    assert [made[0][key] for key in ("rows", "repairs", "repaired", "tokens_per_repair")] == [None] * 4
    printed = rounds.table(made)
    assert "| base | 1 | - | - | - | 25.0 |" in printed
    assert "| dpo | 1 | - | - | - | - |" in printed
    assert "round 1 - base" not in printed


def test_an_arm_that_fails_is_named_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = options(monkeypatch, "--runs", str(tmp_path), "--set", "repair.attempts=0", "--arms", "base", "self")
    made, problem = rounds.work(rounds.Job("town", 3), options=given, have={rounds.Job("town", 3): frozenset()})
    assert made == []
    assert problem is not None
    assert [part.partition(": ")[0] for part in problem.split("; ")] == ["town seed 3 base", "town seed 3 self"]
    assert "repair.attempts: must be at least 1, got 0" in problem
