"""From a log to its exported sets: each command says what the next one is and what it will need."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from support.in_process import Said, rewright
from support.logs import CALL, OPENAI

LOG = json.dumps({"messages": OPENAI, "answer": "21"}) + "\n"


def warning_of(said: Said) -> str:
    """The only warning of a command that succeeded."""
    assert said.code == 0, said.errors
    (line,) = [line for line in said.errors.splitlines() if line.startswith("warning: ")]
    return line


def test_import_says_which_model_a_repair_needs(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(LOG)
    said = rewright(tmp_path, "import", "log.jsonl", "--run", "a")
    line = warning_of(said)
    assert line.startswith(
        "warning: rewright repair a will use pico, the model that ships, because no model is named: "
    )
    assert "model.base_url=http://HOST:PORT/v1 model.path=NAME" in line and "a/recipe.yaml" in line

    said = rewright(tmp_path, "import", "log.jsonl", "--run", "b", "model.engine=openai", "model.path=m")
    line = warning_of(said)
    assert "rewright repair b will refuse: model.base_url is missing: engine openai requires base_url" in line
    assert line.endswith("change it in b/recipe.yaml")
    assert rewright(tmp_path, "judge", "b").code == rewright(tmp_path, "score", "b").code == 0
    rewright(tmp_path, "repair", "b").refused("model.base_url is missing: engine openai requires base_url")
    recipe = tmp_path / "b/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("base_url: null", "base_url: http://127.0.0.1:9/v1\n  attempts: 1"))

    said = rewright(
        tmp_path, "import", "log.jsonl", "--run", "c", "model.engine=openai", "model.path=m",
        "model.base_url=http://127.0.0.1:9/v1",
    )  # fmt: skip
    assert "warning" not in said.errors


def test_a_log_without_gold_says_with_which_options_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(LOG.replace('"answer": ', '"solution_text": '))
    assert rewright(tmp_path, "import", "log.jsonl", "--run", "a").code == 0
    rewright(tmp_path, "judge", "a").refused("import the log again with --answer COLUMN or --gold FILE")
    refused = rewright(tmp_path, "import", "log.jsonl", "--run", "b", "tasks.judge=math")
    refused.refused("the recipe judges by math, which needs gold.answers, and task ")
    refused.refused("--answer COLUMN or --gold FILE")
    assert not (tmp_path / "b").exists()
    assert rewright(tmp_path, "import", "log.jsonl", "--run", "b", "--answer", "solution_text").code == 0
    assert rewright(tmp_path, "judge", "b").code == 0


@pytest.mark.needs_torch
def test_every_command_names_the_next_one(tmp_path: Path) -> None:
    """From a log to the exported sets: each command runs as the one before it has printed it."""
    (tmp_path / "log.jsonl").write_text(LOG)
    (tmp_path / "gold.json").write_text(json.dumps([CALL]))
    said = rewright(tmp_path, "credit", "log.jsonl", "--gold", "gold.json")
    assert "only; judging gives outcomes: rewright import log.jsonl --run runs/log\n" in said.errors
    stages = ["stages=[synth, judge, score, build]", "model.path=pico"]
    said = rewright(tmp_path, "import", "log.jsonl", "--run", "runs/log", *stages)
    ran = []
    while (found := re.search(r"go on with rewright (.*)$", said.output + said.errors, re.M)) is not None:
        ran.append(found[1])
        said = rewright(tmp_path, *found[1].split())
        assert said.code == 0, said.errors
    assert ran == ["judge runs/log", "score runs/log", "build runs/log", "export runs/log out"]
    assert "look at the run with rewright view runs/log" in said.errors
    assert "judging gives" not in rewright(tmp_path, "credit", "runs/log").errors
