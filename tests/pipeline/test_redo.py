"""Stages done again, and stages whose results are gone: nothing is lost, no other model stands in for a missing one.

The run has no trained model of its own: its candidates never end, so SFT has nothing to learn from. Where a test needs
one, the shipped model's folder takes its place.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rewright.engines.pico import pico_path
from support import command_line
from support.command_line import WHOLE, Kill
from support.in_process import rewright
from support.micro_run import same
from support.static_page import page_data

pytest.importorskip("trl")

RECIPE = """\
name: small
model: {path: pico, slots: 4}
stages: [eval_base, synth, judge, score, repair, build, sft, eval_sft]
tasks: {format: town, profile: short, count: 2}
synth: {n: 1}
repair: {modes: [low_quality]}
limits: {turns: 1, turn_tokens: 4}
sandbox: process
rl: {steps: 1, tasks_per_step: 1, generations: 2}
eval: {tasks: {format: town, split: heldout, profile: short, count: 1}}
"""
RESUME = ["run", "run/recipe.yaml", "--run", "run", "--resume"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    (folder / "r.yaml").write_text(RECIPE)
    done = rewright(folder, "run", "r.yaml", "--run", "run")
    assert done.code == 0, done.errors
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A folder with a copy of the run."""
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path


def with_models(folder: Path, *stages: str) -> None:
    """As if these stages had trained models."""
    state = json.loads((folder / "run/state.json").read_text())
    for stage in stages:
        shutil.copytree(pico_path("pico"), folder / "run/models" / stage)
        state[stage] = {"done": True, "seconds": 1.0}
    (folder / "run/state.json").write_text(json.dumps(state))


def contents(folder: Path) -> dict[str, str]:
    """Every file of the run, by a digest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "run").rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


# A stage that is done and whose results are gone.


def test_no_other_model_is_evaluated_in_the_place_of_a_missing_one(folder: Path) -> None:
    with_models(folder, "sft", "rl")
    assert rewright(folder, "eval", "run", "--model", "rl").code == 0
    shutil.rmtree(folder / "run/models/rl")
    before = contents(folder)
    said = "run: stage rl is done, but its models/rl is missing: put it back, or do the stage again with rewright rl"
    rewright(folder, "eval", "run", "--model", "rl").refused(said)
    shutil.rmtree(folder / "run/models/sft")
    for verb in ("rl", "reward"):
        rewright(folder, verb, "run").refused("run: stage sft is done, but its models/sft is missing: ")
    rewright(folder, *RESUME).refused("run: stage sft is done, but its models/sft is missing: ")
    assert contents(folder) == {name: text for name, text in before.items() if "models/" not in name}


@pytest.mark.parametrize(
    ("name", "stage", "readers"),
    [
        ("evaluations/base.jsonl", "eval_base", ["report"]),
        ("evaluations/sft.verdicts.jsonl", "eval_sft", ["report"]),
        ("trajectories.jsonl", "synth", ["report", "judge", "score", "repair", "build"]),
        ("verdicts.jsonl", "judge", ["report", "score", "repair", "build"]),
        ("quality.jsonl", "score", ["report", "view", "repair", "build"]),
        ("sft.jsonl", "build", ["report", "sft"]),
        ("preferences.jsonl", "build", ["report", "reward"]),
    ],
)
def test_what_a_finished_stage_has_written_is_not_silently_nothing(
    name: str, stage: str, readers: list[str], folder: Path
) -> None:
    (folder / "run" / name).unlink()
    before = contents(folder)
    said = f"run: stage {stage} is done, but its {name} is missing: put it back, or do the stage again with rewright "
    rewright(folder, *RESUME).refused(said)
    for verb in readers:
        rewright(folder, verb, "run").refused(said)
    if stage == "build":
        rewright(folder, "export", "run", "out").refused(said)
    assert contents(folder) == before


def test_a_missing_row_of_an_evaluation_is_an_error_too(folder: Path) -> None:
    (folder / "run/metrics.jsonl").unlink()
    rewright(folder, "report", "run").refused("stage eval_base is done, but its row in metrics.jsonl is missing")


def test_results_that_are_gone_are_made_again_by_the_verb_that_the_error_names(folder: Path) -> None:
    before = contents(folder)
    (folder / "run/verdicts.jsonl").unlink()
    assert rewright(folder, "judge", "run").code == 0
    assert contents(folder).keys() == before.keys()


def test_a_model_that_is_not_trained_yet_is_not_the_base(folder: Path) -> None:
    """SFT is in the recipe, and has not been done: RL and the reward model would begin with another model."""
    state = json.loads((folder / "run/state.json").read_text())
    del state["sft"]
    (folder / "run/state.json").write_text(json.dumps(state))
    rewright(folder, "rl", "run").refused("run: no model of stage sft: that stage is not done, run it first")


def test_a_stage_that_had_nothing_to_learn_from_is_said_to_be_skipped(folder: Path) -> None:
    reason = "nothing was kept or repaired, or all is held out"
    (sft,) = [row for row in map(json.loads, (folder / "run/metrics.jsonl").open()) if row["stage"] == "eval_sft"]
    assert sft["untrained"] == f"stage sft was skipped ({reason})"
    said = rewright(folder, "report", "run", "--json")
    assert f"\n  stage sft was skipped ({reason}): this is the model before it" in said.errors
    assert f"\nskipped: sft ({reason})\n" in said.errors
    assert json.loads(said.output.splitlines()[-1])["skipped"] == {"sft": reason}
    assert rewright(folder, "view", "run", "--static", "page.html").code == 0
    (page,) = page_data(folder / "page.html")["runs"]
    (row,) = [one for one in page["summary"]["report"]["stages"] if one["stage"] == "sft"]
    assert row["untrained"] == f"stage sft was skipped ({reason})"


def test_a_model_of_a_stage_that_is_now_skipped_is_removed(folder: Path) -> None:
    with_models(folder, "sft")
    assert rewright(folder, "sft", "run").code == 0
    assert not (folder / "run/models/sft").exists()
    assert json.loads((folder / "run/state.json").read_text())["sft"]["skipped"]


# A stage that is done again and fails.


def broken_line(name: str) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        with (run / name).open("ab") as file:
            file.write(b'{"id": 3}\n')

    return spoil


def broken_weights(run: Path) -> None:
    (run / "models/sft/model.safetensors").write_bytes(b"none")


def other_tasks(run: Path) -> None:
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("count: 2", "count: 1"))


@pytest.mark.parametrize(
    ("verb", "spoil", "said"),
    [
        (["judge"], broken_line("trajectories.jsonl"), "trajectories.jsonl:3: not a valid record"),
        (["judge"], other_tasks, "trajectory of the unknown task"),
        (["score"], broken_line("verdicts.jsonl"), "verdicts.jsonl:3: not a valid record"),
        (["repair"], broken_line("quality.jsonl"), "quality.jsonl:3: not a valid record"),
        (["build"], broken_line("trajectories.jsonl"), "trajectories.jsonl:3: not a valid record"),
        (["sft"], broken_line("sft.jsonl"), "run/sft.jsonl has no token ids: expected"),
        (["reward"], broken_line("preferences.jsonl"), "preferences.jsonl:1: not a row of this file"),
        (["rl"], broken_weights, "model run/models/sft: cannot load it"),
        (["eval", "--model", "sft"], broken_weights, "model run/models/sft: cannot load it"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) if isinstance(value, list) else None,
)
def test_a_redone_stage_that_cannot_begin_leaves_its_earlier_results(
    verb: list[str], spoil: Callable[[Path], None], said: str, folder: Path
) -> None:
    with_models(folder, "sft", "reward", "rl")
    (folder / "run/evaluations/rl.jsonl").write_bytes(b"")
    spoil(folder / "run")
    before = contents(folder)
    done = rewright(folder, verb[0], "run", *verb[1:])
    done.refused(said)
    assert "what was done is saved" not in done.errors
    assert "the earlier results of" in done.errors
    assert contents(folder) == before


def test_a_stage_whose_candidates_cannot_be_made_stays_done(folder: Path) -> None:
    recipe = folder / "run/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("path: pico", "path: ./none", 1))
    before = contents(folder)
    rewright(folder, "synth", "run").refused("./none: not a folder")
    assert contents(folder) == before


# A stage that is done again and killed.


def test_a_redone_stage_that_is_killed_leaves_its_earlier_results_until_it_is_finished(
    folder: Path, tmp_path: Path
) -> None:
    verdicts = folder / "run/verdicts.jsonl"
    rows = [json.loads(line) for line in verdicts.open()]
    earlier = "".join(json.dumps({**row, "reason": "earlier"}) + "\n" for row in rows)
    verdicts.write_text(earlier)
    for name in ("expected", "again"):
        shutil.copytree(folder / "run", tmp_path / name / "run")
    done = command_line.run(["judge", str(tmp_path / "expected/run")], tmp_path / "expected")
    assert done.code == 0, done.errors
    assert "earlier" not in (tmp_path / "expected/run/verdicts.jsonl").read_text()
    writes = done.costs["judge"][1]
    resume = ["run", str(folder / "run/recipe.yaml"), "--run", str(folder / "run"), "--resume"]
    for write in range(1, writes + 1):
        killed = command_line.run(["judge", str(folder / "run")], tmp_path / "log", [Kill("judge", write=write)])
        assert killed.code == -9, killed.errors
        finished = (folder / "run/redo/judge/done.json").exists()
        assert finished == (write == writes)
        if not finished:
            assert verdicts.read_text() == earlier
        resumed = command_line.run(resume, tmp_path / "log")
        assert resumed.code == 0, resumed.errors
        same(folder / "run", tmp_path / "expected/run")
        shutil.rmtree(folder / "run")
        shutil.copytree(tmp_path / "again/run", folder / "run")


def verdicts_that_are_right(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "verdicts.jsonl").open()]
    (run / "verdicts.jsonl").write_text(
        "".join(json.dumps({**row, "outcome": 1.0, "correct": True}) + "\n" for row in rows)
    )


def test_a_later_stage_is_not_continued_with_the_inputs_from_before_a_redone_one(folder: Path, tmp_path: Path) -> None:
    """Killed at any moment: verdicts that are new never stand beside scores of the earlier ones."""
    run, log = folder / "run", tmp_path / "log"
    resume = ["run", str(run / "recipe.yaml"), "--run", str(run), "--resume"]
    verdicts, quality = ((run / f"{name}.jsonl").read_bytes() for name in ("verdicts", "quality"))
    verdicts_that_are_right(run)
    killed = command_line.run(["score", str(run)], log, [Kill("score", change="done.json.tmp")])
    assert (killed.code, (run / "redo/score/quality.jsonl").exists()) == (-9, True), killed.errors
    shutil.copytree(run, tmp_path / "pending")
    whole = command_line.run(["judge", str(run)], log)
    assert whole.code == 0, whole.errors
    last = whole.changes[WHOLE]
    for change in range(last - 11, last + 1):  # the new files replace the earlier ones
        shutil.rmtree(run)
        shutil.copytree(tmp_path / "pending", run)
        command_line.run(["judge", str(run)], log, [Kill(WHOLE, change=change)])
        resumed = command_line.run(resume, log)
        assert resumed.code == 0, resumed.errors
        found = tuple((run / f"{name}.jsonl").read_bytes() for name in ("verdicts", "quality"))
        assert found[0] != verdicts or found[1] == quality, change
        assert not (run / "redo").exists()


def test_an_interrupted_redo_is_removed_wholly_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    """From a checkpoint with some of its files the next command would go on."""
    run, log = folder / "run", tmp_path / "log"
    checkpoint = run / "redo/sft/models/sft.checkpoints/checkpoint-1"
    checkpoint.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"):
        (checkpoint / name).write_text("{}")
    shutil.copyfile(run / "recipe.yaml", run / "redo/sft/recipe.yaml")
    shutil.copytree(run, tmp_path / "pending")
    for change in range(1, 13):  # the earlier redo is removed
        shutil.rmtree(run)
        shutil.copytree(tmp_path / "pending", run)
        command_line.run(["sft", str(run)], log, [Kill(WHOLE, change=change)])
        assert len(list(checkpoint.glob("*"))) in (0, 4), change
    resumed = command_line.run(["run", str(run / "recipe.yaml"), "--run", str(run), "--resume"], log)
    assert resumed.code == 0, resumed.errors
    assert not (run / "redo").exists()
