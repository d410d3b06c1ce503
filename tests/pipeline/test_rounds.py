"""Rounds of expert iteration and DPO on the pairs, in one small run through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import rewright as rw
from support import command_line
from support.command_line import Kill
from support.in_process import rewright
from support.micro_run import same
from support.static_page import page_data

pytest.importorskip("trl")

STAGES = ("synth", "judge", "score", "repair", "build", "sft", "eval_sft")
RECIPE = """\
name: rounds
model: {path: pico, slots: 8}
stages: [synth, judge, score, repair, build, sft, eval_sft, dpo, eval_dpo]
tasks: {format: town, split: train, profile: short, count: 6}
synth: {n: 2, temperature: 1.0, top_p: 1.0}
limits: {turns: 4, turn_tokens: 64, trajectory_tokens: 320, tool_seconds: 600, trajectory_seconds: 3000}
sandbox: {level: process, wall_seconds: 600}
repair: {model: {path: pico-repairer, slots: 8}, temperature: 0.7, calls: 4, rounds: 2, form: splice}
build: {held_out_fraction: 0.6}
sft: {learning_rate: 6.0e-4, batch_size: 2, epochs: 1, save_steps: 1}
dpo: {learning_rate: 1.0e-4, batch_size: 2, save_steps: 1}
eval: {tasks: {format: town, split: heldout, profile: short, count: 3, seed: 1}}
"""


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def forget(run: Path, *stages: str) -> None:
    """Make a run as it was before these stages."""
    state = json.loads((run / "state.json").read_text())
    (run / "state.json").write_text(json.dumps({name: state[name] for name in state if name not in stages}))
    metrics = [one for one in rows(run / "metrics.jsonl") if one["stage"] not in stages]
    (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in metrics))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and its finished run."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "r.yaml").write_text(RECIPE)
    done = rewright(folder, "run", "r.yaml", "--run", "run")
    assert done.code == 0, done.errors
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A folder with copies of both."""
    shutil.copytree(made / "run", tmp_path / "run")
    shutil.copyfile(made / "r.yaml", tmp_path / "r.yaml")
    return tmp_path


def test_the_second_round_has_files_and_models_of_its_own(made: Path) -> None:
    run = made / "run"
    state = json.loads((run / "state.json").read_text())
    assert [*state] == [*STAGES, *(f"{name}_2" for name in STAGES), "dpo", "eval_dpo"]
    assert not any(entry.get("skipped") for entry in state.values())
    for name in ("trajectories", "verdicts", "quality", "repairs", "sft", "preferences", "hard"):
        assert (run / f"rounds/2/{name}.jsonl").exists(), name
    weights = [(run / f"models/{name}/model.safetensors").read_bytes() for name in ("sft", "sft_2", "dpo")]
    assert len({*weights}) == 3
    first, second = rows(run / "trajectories.jsonl"), rows(run / "rounds/2/trajectories.jsonl")
    assert not {one["id"] for one in first} & {one["id"] for one in second}
    assert {one["stage"] for one in second} == {"synth_2", "repair_2"}
    models = {one["provenance"]["model"] for one in second if one["provenance"]["parent"] is None}
    assert models == {"models/sft"}, "the candidates of a round are those of the policy before it"
    assert {one["trajectory_id"] for one in rows(run / "rounds/2/verdicts.jsonl")} == {one["id"] for one in second}


def test_unsolved_tasks_come_first(made: Path) -> None:
    run = made / "run"
    kept = {one["trajectory_id"] for one in rows(run / "quality.jsonl") if one["selected"] == "kept"}
    solved = {one["task_id"] for one in rows(run / "trajectories.jsonl") if one["id"] in kept}
    solved |= {one["task_id"] for one in rows(run / "repairs.jsonl") if one["accepted"]}
    tasks = [one["id"] for one in rows(run / "tasks.jsonl")]
    second = [
        one["task_id"] for one in rows(run / "rounds/2/trajectories.jsonl") if one["provenance"]["parent"] is None
    ]
    expected = [task for task in tasks if task not in solved] + [task for task in tasks if task in solved]
    assert [*dict.fromkeys(second)] == expected
    state = json.loads((run / "state.json").read_text())
    assert state["synth_2"]["unsolved"] == len({*tasks} - solved)
    assert 0 < state["synth_2"]["unsolved"] < len(tasks), "else this test shows nothing"


def test_the_sets_of_a_round_include_those_before_it_without_held_out_tasks(made: Path) -> None:
    run = made / "run"
    pairs = rows(run / "rounds/2/preferences.jsonl")
    held_out = {one["task_id"] for one in pairs if one["split"] == "heldout"}
    second = rows(run / "rounds/2/sft.jsonl")
    assert not {one["task_id"] for one in second} & held_out
    texts = [json.dumps(one["messages"]) for one in second]
    assert len({*texts}) == len(texts)
    for one in rows(run / "sft.jsonl"):
        assert json.dumps(one["messages"]) in texts or one["task_id"] in held_out
    assert {one["id"] for one in rows(run / "preferences.jsonl")} <= {one["id"] for one in pairs}


def test_report_page_credit_and_export_show_the_rounds(folder: Path) -> None:
    said = rewright(folder, "report", "run", "--json")
    report = json.loads(said.output)
    assert [row["stage"] for row in report["stages"]] == ["sft", "sft_2", "dpo"]
    first, second = report["rounds"]
    assert (first["round"], second["round"]) == (1, 2)
    for name in ("candidates", "kept", "low", "wrong", "repaired", "hard"):
        assert report["counts"][name] == first[name] + second[name]
    assert report["counts"]["pairs"] == second["pairs"] == len(rows(folder / "run/rounds/2/preferences.jsonl"))
    sets = report["sets"]
    assert sets["sft"] == sets["kept"] + sets["repaired"] - sets["duplicates"] - sets["held_out"] == second["sft"]
    table = rewright(folder, "report", "run").output
    assert any(line.split()[:2] == ["round", "tasks"] for line in table.splitlines())
    assert "sft_2" in table
    assert "DPO: the log-ratios rank" in table

    assert rewright(folder, "view", "run", "--static", "page.html").code == 0
    (page,) = page_data(folder / "page.html")["runs"]
    found = json.dumps(page)
    for one in rows(folder / "run/rounds/2/trajectories.jsonl"):
        assert one["id"] in found
    assert "splice at turn" in found

    credited = rewright(folder, "credit", "run", "--json", "--stage", "synth_2")
    assert credited.code == 0, credited.errors
    assert rewright(folder, "export", "run", "out").code == 0
    assert len(rows(folder / "out/sft.jsonl")) == len(rows(folder / "run/rounds/2/sft.jsonl"))
    opened = rw.Run(folder / "run")
    assert len(opened.sft) == second["sft"]
    assert len(opened.round(2).trajectories) == len(rows(folder / "run/rounds/2/trajectories.jsonl"))


def test_the_report_of_an_unfinished_round_counts_what_is_built(folder: Path, made: Path) -> None:
    """Of a round without sets nothing is said of them: those of round 1 are the run's, with its own arithmetic."""
    first, _ = json.loads(rewright(made, "report", "run", "--json").output)["rounds"]
    forget(folder / "run", "build_2", "sft_2", "eval_sft_2", "dpo", "eval_dpo")
    report = json.loads(rewright(folder, "report", "run", "--json").output)
    unfinished = report["rounds"][1]
    assert (unfinished["pairs"], unfinished["sft"]) == (None, None)
    assert report["counts"]["pairs"] == first["pairs"] == len(rows(folder / "run/preferences.jsonl")) > 0
    sets = report["sets"]
    assert (sets["kept"], sets["repaired"]) == (first["kept"], first["repaired"])
    assert sets["sft"] == sets["kept"] + sets["repaired"] - sets["duplicates"] - sets["held_out"]
    table = rewright(folder, "report", "run").output.splitlines()
    assert next(line for line in table if line.startswith("2 ")).split()[-2:] == ["-", "-"]


def test_a_report_is_shown_where_its_picture_cannot_be_written(folder: Path) -> None:
    picture = folder / "run/learning_curves.png"
    before = picture.read_bytes()
    said = command_line.run(["report", str(folder / "run"), "--json"], folder / "log", largest_file=len(before) // 2)
    assert said.code == 0, said.errors
    assert len(json.loads(said.output)["rounds"]) == 2
    assert f"warning: cannot write {picture}: " in said.errors
    assert "written: " not in said.errors
    assert picture.read_bytes() == before


@pytest.mark.parametrize(
    ("lost", "command"),
    [
        ("rounds/2/preferences.jsonl", ["dpo"]),
        ("sft.jsonl", ["build", "--round", "2"]),
        ("preferences.jsonl", ["build", "--round", "2"]),
        ("quality.jsonl", ["synth", "--round", "2"]),
        ("repairs.jsonl", ["synth", "--round", "2"]),
    ],
)
def test_a_stage_is_not_done_again_without_what_other_rounds_have_made(
    folder: Path, lost: str, command: list[str]
) -> None:
    (folder / "run" / lost).unlink()
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.suffix in (".jsonl", ".json")}
    verb, *options = command
    rewright(folder, verb, "run", *options).refused(f"is done, but its {lost} is missing: put it back, or do the stage")
    assert before == {path: path.read_bytes() for path in before}


def test_fewer_rounds_train_on_the_sets_of_their_policy(folder: Path) -> None:
    """The policy of round 1 has learned from tasks that are held out in round 2."""
    run = folder / "run"
    pairs = rows(run / "preferences.jsonl")
    assert any(one["split"] == "train" for one in pairs)
    later = [{**one, "split": "heldout"} for one in rows(run / "rounds/2/preferences.jsonl")]
    (run / "rounds/2/preferences.jsonl").write_text("".join(json.dumps(one) + "\n" for one in later))
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("rounds: 2", "rounds: 1"))
    done = rewright(folder, "dpo", "run")
    assert done.code == 0, done.errors
    state = json.loads((run / "state.json").read_text())["dpo"]
    assert state["pairs"] == sum(one["split"] == "train" for one in pairs)
    assert state["accuracies"]["held_out_pairs"] == sum(one["split"] == "heldout" for one in pairs)


def test_a_stage_of_a_round_is_done_again_by_its_number(folder: Path) -> None:
    before = (folder / "run/rounds/2/verdicts.jsonl").read_text()
    (folder / "run/rounds/2/verdicts.jsonl").write_text("")
    done = rewright(folder, "judge", "run", "--round", "2")
    assert done.code == 0, done.errors
    assert (folder / "run/rounds/2/verdicts.jsonl").read_text() == before
    assert "rewright score run --round 2" in done.errors
    assert "round 2 of 2" in done.errors.splitlines()
    rewright(folder, "judge", "run", "--round", "3").refused("--round is 3: run has repair.rounds: 2: expected 1 to 2")


def test_dpo_moves_the_weights_and_measures_held_out_tasks(made: Path) -> None:
    run = made / "run"
    state = json.loads((run / "state.json").read_text())["dpo"]
    pairs = rows(run / "rounds/2/preferences.jsonl")
    splits = {split: [one for one in pairs if one["split"] == split] for split in ("train", "heldout")}
    assert state["pairs"] == len(splits["train"]) > 0
    assert not {one["task_id"] for one in splits["train"]} & {one["task_id"] for one in splits["heldout"]}
    metrics = [one for one in rows(run / "metrics.jsonl") if one["stage"] == "dpo"]
    assert metrics
    assert metrics[0]["loss"] == pytest.approx(0.6931, abs=1e-3), "log 2: the first step starts at the reference"
    assert metrics[-1]["step"] == -(-len(splits["train"]) // 2) if "step" in metrics[-1] else True
    accuracies = state["accuracies"]
    assert accuracies["held_out_pairs"] == len(splits["heldout"]) > 0
    assert 0 <= accuracies["accuracy"] <= 1


def test_what_is_longer_than_a_training_takes_is_said(folder: Path) -> None:
    run = folder / "run"
    pairs = [one for one in rows(run / "rounds/2/preferences.jsonl") if one["split"] == "train"]
    copies = [{**pairs[0], "id": f"copy {number}"} for number in range(2)]
    long = {**copies[0], "chosen_ids": copies[0]["chosen_ids"] * 9, "chosen_mask": copies[0]["chosen_mask"] * 9}
    text = "".join(json.dumps(one) + "\n" for one in (*copies, long))
    (run / "rounds/2/preferences.jsonl").write_text(text)
    learned = rows(run / "rounds/2/sft.jsonl")
    limit = max(len(one["input_ids"]) for one in learned)
    limit = max(limit - 1, *(len(copies[0][f"{side}_ids"]) for side in ("chosen", "rejected")))
    (run / "rounds/2/sft.jsonl").write_text(
        "".join(
            json.dumps(one) + "\n" for one in (*learned, {**learned[0], "input_ids": [5] * 2000, "mask": [1] * 2000})
        )
    )
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("max_length: null\n  epochs", f"max_length: {limit}\n  epochs"))
    for stage, what, arguments in (("dpo", "training pairs", []), ("sft", "rows", ["--round", "2"])):
        done = rewright(folder, stage, "run", *arguments)
        assert done.code == 0, done.errors
        line = next(line for line in done.errors.splitlines() if "left out" in line)
        assert line.startswith(f"{stage}: ")
        assert line.endswith(f"left out: longer than {stage}.max_length, {limit} tokens")
        assert what in line
    state = json.loads((run / "state.json").read_text())
    assert state["dpo"]["pairs"] == 2
    assert state["sft_2"]["rows"] == sum(len(one["input_ids"]) <= limit for one in learned)


def test_a_run_that_is_killed_in_its_second_round_goes_on(made: Path, tmp_path: Path) -> None:
    kills = [
        Kill("synth_2", write=3), Kill("judge_2", write=2), Kill("repair_2", write=2), Kill("build_2", write=2),
        Kill("sft_2", cpu_seconds=0.3),
    ]  # fmt: skip
    killed = 0
    arguments = ["run", str(made / "r.yaml"), "--run", str(tmp_path / "run")]
    for kill in kills:
        resume = ["--resume"] if (tmp_path / "run").exists() else []
        ended = command_line.run([*arguments, *resume], tmp_path / "log", [kill])
        killed += ended.code < 0
    done = command_line.run([*arguments, "--resume"], tmp_path / "log")
    assert done.code == 0, done.errors
    assert killed >= len(kills) - 1  # a training of a few steps may be over before its time
    same(tmp_path / "run", made / "run")


def test_more_rounds_are_added_to_a_finished_run(folder: Path) -> None:
    """The rounds that are done keep their trajectories."""
    recipe = folder / "run/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("rounds: 2", "rounds: 3"))
    before = (folder / "run/rounds/2/trajectories.jsonl").read_text()
    plan = rewright(folder, "run", "run", "--dry-run", "--json")
    assert [one for one in json.loads(plan.output)["stages"] if one.endswith("_3")] == [f"{one}_3" for one in STAGES]
    done = rewright(folder, "synth", "run", "--round", "3")
    assert done.code == 0, done.errors
    assert (folder / "run/rounds/2/trajectories.jsonl").read_text() == before
    third = rows(folder / "run/rounds/3/trajectories.jsonl")
    assert {one["provenance"]["model"] for one in third} == {"models/sft_2"}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["stages=[synth, judge, score, repair, build]"], "repair.rounds is 2: a further round needs the stages"),
        (["sft.source=gold"], "repair.rounds is 2, and sft.source is gold: expected sft.source: run"),
        (["repair.rounds=0"], "repair.rounds: must be at least 1"),
        (["repair.rounds=101"], "repair.rounds: must be at most 100"),
        (["repair.rounds=1", "repair.round_start=previous"], "repair.round_start has no effect: repair.rounds is 1"),
        (["repair.form=patch"], "repair.form: invalid enum value 'patch': expected one of rewrite, splice"),
        (["dpo.beta=0"], "dpo.beta: must be positive"),
        (["dpo.backend=verl"], "dpo.backend is verl"),
        (["dpo.arguments={betta: 1}"], "TRL's DPOConfig has no argument betta: did you mean beta?"),
        (["dpo.micro_batch_size=3"], "dpo.micro_batch_size is 3"),
    ],
)
def test_a_mistake_is_found_before_the_first_stage(
    made: Path, tmp_path: Path, overrides: list[str], words: str
) -> None:
    rewright(tmp_path, "run", str(made / "r.yaml"), *overrides).refused(words)
    assert not (tmp_path / "runs").exists()


def test_the_policies_of_later_rounds_are_continued(folder: Path) -> None:
    """The candidates of round 2 come from the policy of round 1, and its evaluation is of its own policy."""
    few = ("--turns", "5", "--k", "1", "--repeat", "1", "--factual", "2", "--alternatives", "policy", "--json")
    for stage, file, model in (
        ("eval-sft_2", "evaluations/sft_2.verdicts.jsonl", "models/sft_2"),
        ("synth_2", "rounds/2/verdicts.jsonl", "models/sft"),
    ):
        verdicts = folder / "run" / file
        changed = [{**row, "outcome": float(index % 2)} for index, row in enumerate(rows(verdicts))]
        verdicts.write_text("".join(json.dumps(row) + "\n" for row in changed))
        said = rewright(folder, "audit", "run", "--stage", stage, *few)  # continuations must be its policy's own
        assert said.code == 0, said.errors
        assert json.loads(said.output)["model"] == model
    rewright(folder, "audit", "run", "--stage", "sft_2").refused(
        "expected one of eval-rl, eval-dpo, eval-sft_2, synth_2, eval-sft, synth, eval-base"
    )


def test_repairs_of_a_later_round_are_no_siblings(folder: Path) -> None:
    for name, key in (("trajectories", "id"), ("verdicts", "trajectory_id")):
        path = folder / f"run/rounds/2/{name}.jsonl"
        repairs = {one["id"] for one in rows(folder / "run/rounds/2/trajectories.jsonl") if one["stage"] == "repair_2"}
        assert repairs
        copies = [{**one, key: f"{one[key]}/{copy}"} for one in rows(path) if one[key] in repairs for copy in range(4)]
        path.write_text(path.read_text() + "".join(json.dumps(one) + "\n" for one in copies))
    rewright(folder, "audit", "run", "--siblings", "--stage", "repair_2").refused("0 turns have siblings")
