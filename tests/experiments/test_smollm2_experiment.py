"""The experiment with SmolLM2: which parts run, what resumes, and the numbers of the report."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

from smollm2 import SETTINGS, main, parts, read_results, report, row_of

from rewright.recipe.loader import load_recipe


def row(stage: str, right: dict[str, str], seed: int = 0) -> dict[str, Any]:
    """`right`: by category, a 1 or 0 for each task."""
    found = {name: {f"{name}-{n}": int(value) for n, value in enumerate(values)} for name, values in right.items()}
    return {"setting": "bfcl", "stage": stage, "seed": seed, "overrides": [], "outcomes": found}


def test_a_stopped_experiment_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    results.write_text(json.dumps(row("base", {"multiple": "0"})) + '\n{"setting": "bfcl", "st')
    planned = parts("bfcl", ["graded"], 2, ())
    assert [(part.stage, part.seed) for part in planned] == [
        ("base", 0), ("sft", 0), ("graded", 0), ("graded", 1),
    ]  # fmt: skip
    missing = [part for part in planned if row_of(part, read_results(results)) is None]
    assert missing == planned[1:]
    assert row_of(parts("bfcl", [], 1, ("sft.epochs=1",))[0], read_results(results)) is None  # other settings

    first, graded = missing[0].command(tmp_path), missing[2].command(tmp_path)
    assert "--resume" not in first
    assert f"model.path={tmp_path / 'bfcl' / 'sft-0' / 'models' / 'sft'}" in graded
    assert "seed=1" in graded
    (missing[0].folder(tmp_path)).mkdir(parents=True)
    (missing[0].folder(tmp_path) / "recipe.yaml").touch()
    assert missing[0].command(tmp_path)[3:] == ["run", str(tmp_path / "bfcl" / "sft-0"), "--resume"]


def test_other_settings_have_runs_of_their_own(tmp_path: Path) -> None:
    """Else a finished run would be resumed, and its scores stored as those of the new settings."""
    quick = SETTINGS["bfcl"].quick

    def planned(*overrides: str) -> list[Path]:
        return [part.folder(tmp_path) for part in parts("bfcl", ["graded"], 1, overrides)]

    default = planned()
    assert default == planned(*quick) == [tmp_path / "bfcl" / name for name in ("base-0", "sft-0", "graded-0")]
    all_settings = [default, planned("sft.epochs=1"), planned("sft.epochs=2"), planned(*quick, "sft.epochs=1")]
    assert planned("sft.epochs=1") == planned(*quick, "sft.epochs=1")  # --quick has a folder of its own for its runs
    assert len({folder for folders in all_settings for folder in folders}) == 9

    for folder in default:
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").touch()
    base, sft, graded = (part.command(tmp_path) for part in parts("bfcl", ["graded"], 1, ("sft.epochs=1",)))
    assert all("--resume" not in command and "sft.epochs=1" in command for command in (base, sft, graded))
    assert f"model.path={planned('sft.epochs=1')[1] / 'models' / 'sft'}" in graded


@pytest.mark.parametrize(("name", "method"), [(name, one) for name, found in SETTINGS.items() for one in found.methods])
def test_the_settings_of_every_part_are_those_of_a_recipe(name: str, method: str, tmp_path: Path) -> None:
    setting = SETTINGS[name]
    for part in parts(name, [method], 1, setting.quick):
        command = part.command(tmp_path)
        recipe = load_recipe(setting.recipe, [word for word in command[5:] if "=" in word])
        assert recipe.seed == part.seed
        assert recipe.stages[-1] == f"eval_{part.evaluation}"


def test_the_report_has_intervals_and_compares_rl_with_the_sft_that_it_starts_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        row("base", {"multiple": "0" * 20, "irrelevance": "11"}),
        row("sft", {"multiple": "1" * 8 + "0" * 12, "irrelevance": "10"}),
        row("graded", {"multiple": "1" * 14 + "0" * 6, "irrelevance": "11"}),
        row("graded", {"multiple": "1" * 12 + "0" * 8, "irrelevance": "00"}, seed=1),
    ]
    lines = report("bfcl", rows).splitlines()
    assert "40.0% [21.9, 61.3] 20" in lines[2]
    assert lines[2].split()[-2:] == ["8/20", "1/2"]
    assert lines[-1].startswith("graded - sft: +25.0 points [")  # 6 and 4 of 20 tasks; irrelevance is apart
    assert "2 seeds, 20 tasks" in lines[-1]

    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps(one) + "\n" for one in rows))
    main(["--report", "--results", str(results)])
    assert capsys.readouterr().out.strip() == "\n".join(lines).strip()
