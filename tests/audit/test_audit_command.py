"""`rewright audit`: a small run of pico in the town, audited whole, interrupted, resumed and refused."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from rewright.core.registry import register
from rewright.credit import CreditTrajectory
from support.in_process import Said, rewright
from support.served import served
from support.small_reward_model import make_reward_model
from support.small_tokenizers import pico_tokenizer

pytestmark = pytest.mark.needs_torch

RECIPE = """\
name: audited
stages: [eval_base]
model: {path: pico, slots: 16}
limits: {turns: 5, turn_tokens: 64, trajectory_tokens: 320, tool_seconds: 600}
sandbox: {level: process, wall_seconds: 600}
eval: {n: 2, tasks: {format: town, split: heldout, profile: short, count: 8, seed: 1}}
"""
SMALL = ("--turns", "8", "--k", "2", "--repeat", "1", "--factual", "2", "--alternatives", "policy")

OWN = """\
import math
from rewright.credit import TurnSignal

def long_turns(trajectories):
    return [[float(len(turn.text or "")) for turn in one.turns] for one in trajectories]

def tiny(trajectories):
    return [[1e-13 * value for value in row] for row in long_turns(trajectories)]

def holes(trajectories):
    return [[math.nan for turn in one.turns] for one in trajectories]

def broken(trajectories):
    raise KeyError("x")

def in_pairs(trajectories):
    tasks = [one.task_id for one in trajectories]
    alone = sorted({task for task in tasks if tasks.count(task) != 2})
    if alone:
        raise ValueError(f"{len(alone)} tasks have no pair of attempts")
    return long_turns(trajectories)

def both(trajectories):
    values = long_turns(trajectories)
    return TurnSignal.of(values, added=values)

def whole(trajectories):
    states = {len(one.state_scores() or ()) - len(one.turns) for one in trajectories}
    if states != {1}:
        raise ValueError(f"scores are missing: {states}")
    return long_turns(trajectories)
"""


@register("signal", "index")
def index(trajectories: list[CreditTrajectory]) -> list[list[float]]:
    """A signal with the name of a row that is always there."""
    return [[float(len(turn.text or "")) for turn in one.turns] for one in trajectories]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    (folder / "recipe.yaml").write_text(RECIPE)
    said = rewright(folder, "run", "recipe.yaml", "--run", "run")
    assert said.code in (0, None), said.errors
    return folder / "run"


@pytest.fixture(scope="module")
def audited(run: Path) -> tuple[dict[str, Any], Said]:
    copy = run.with_name("audited")
    shutil.copytree(run, copy)
    said = rewright(
        run.parent, "audit", "audited", *SMALL, "--signal", "matched", "--signal", "{name: branch, k: 2}", "--json",
        "--out", "picture.svg",
    )  # fmt: skip
    assert said.code in (0, None), said.errors
    return json.loads(said.output), said


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def files(folder: Path) -> set[str]:
    return {str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file()} - {".lock", "libraries.log"}


def test_the_table_has_the_signals_and_four_more_rows(audited: tuple[dict[str, Any], Said]) -> None:
    found, said = audited
    assert [row["signal"] for row in found["signals"]] == [
        "matched", "branch(k=2)", "random", "index", "log-prob", "outcome",
    ]  # fmt: skip
    assert (found["planned"], found["stage"], found["model"]) == (8, "eval-base", "pico")
    assert found["defined"] + sum(found["undefined"].values()) == 8
    assert found["turns"] == found["defined"] == 8
    assert set(found["ceiling"]) == {"rho", "within", "auc_not_zero", "auc_harmful", "sign"}
    assert found["costs"]["plan"]["generations"] > 0
    assert found["costs"]["branch(k=2)"]["generations"] > 0
    assert found["costs"]["matched"]["generations"] == 0
    assert "generations" in said.errors.splitlines()[0]  # the cost comes first
    assert "for the signal branch" in said.errors.splitlines()[0]
    assert "a perfect signal" in said.errors  # with --json the table goes to standard error


def test_the_plan_is_stored_with_its_draws(run: Path, audited: tuple[dict[str, Any], Said]) -> None:
    folder = run.parent / audited[0]["folder"]
    plan = json.loads((folder / "plan.json").read_text())
    assert len(plan["turns"]) == 8
    assert {one["won"] for one in plan["turns"]} == {True, False}
    assert len({one["part"] for one in plan["turns"]}) > 1
    draws = [json.loads(line) for line in (folder / "draws.jsonl").read_text().splitlines()]
    assert len({one["key"] for one in draws}) == len(draws)
    assert all(one["outcome"] in (0.0, 1.0) for one in draws)
    assert json.loads((folder / "result.json").read_text())["signals"] == audited[0]["signals"]
    picture = (run.parent / "picture.svg").read_text()
    assert "perfect signal" in picture and "branch(k=2)" in picture


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_audit_that_waits_for_a_judge_can_be_stopped(copy: Path, number: signal.Signals) -> None:
    arrived = threading.Event()

    async def chat(_: web.Request) -> web.Response:
        arrived.set()
        await asyncio.sleep(3600)
        raise AssertionError

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "judge", "object": "model"}]})

    def application() -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", chat)
        app.router.add_get("/v1/models", models)
        return app

    with served(application) as url:
        command = [sys.executable, "-m", "rewright", "audit", str(copy), *SMALL, "--signal", "judge"]
        process = subprocess.Popen([*command, "--judge", f"judge@{url}/v1"], stderr=subprocess.PIPE, text=True)
        assert arrived.wait(300)
        process.send_signal(number)
        errors = process.communicate(timeout=300)[1]
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("interrupted after")
    assert "Traceback" not in errors
    assert not (copy / "audits").exists()


def test_an_interrupted_audit_goes_on_exactly(run: Path, audited: tuple[dict[str, Any], Said], tmp_path: Path) -> None:
    found, _ = audited
    shutil.copytree(run.parent / "audited", tmp_path / "audited")
    folder = tmp_path / found["folder"]
    (folder / "result.json").unlink()
    for name in ("alternatives.jsonl", "draws.jsonl", "signals.jsonl"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])  # also in the middle of a line
    arguments = ("audited", *SMALL, "--signal", "matched", "--signal", "{name: branch, k: 2}", "--json")
    rewright(tmp_path, "audit", *arguments).refused("expected --resume")
    said = rewright(tmp_path, "audit", *arguments, "--resume")
    assert said.code in (0, None), said.errors
    again = json.loads(said.output)
    for one in (found, again):
        one["costs"] = {name: {**cost, "seconds": 0} for name, cost in one["costs"].items()}
        one["seconds"] = 0
    assert again == found


def test_a_finished_audit_takes_further_signals_and_no_other_plan(
    run: Path, audited: tuple[dict[str, Any], Said], tmp_path: Path
) -> None:
    found, _ = audited
    shutil.copytree(run.parent / "audited", tmp_path / "audited")
    (tmp_path / "own_signals.py").write_text(OWN)
    said = rewright(
        tmp_path, "audit", "audited", *SMALL, "--resume", "--signal", "own_signals:long_turns", "--budget", "100000"
    )
    assert said.code in (0, None), said.errors
    assert said.output.splitlines()[1].startswith("own_signals:long_turns")
    draws = [json.loads(line) for line in (tmp_path / found["folder"] / "draws.jsonl").read_text().splitlines()]
    assert len(draws) == len({one["key"] for one in draws})
    rewright(tmp_path, "audit", "audited", *SMALL, "--seed", "5", "--resume").refused("no audit")
    rewright(tmp_path, "audit", "audited", *SMALL, "--resume", "--signal", "own_signals:holes").refused("no value for")
    rewright(tmp_path, "audit", "audited", *SMALL, "--resume", "--signal", "own_signals:broken").refused("KeyError")


def test_a_signal_of_state_scores_is_audited(run: Path, audited: tuple[dict[str, Any], Said], tmp_path: Path) -> None:
    shutil.copytree(run.parent / "audited", tmp_path / "audited")
    said = rewright(tmp_path, "audit", "audited", *SMALL, "--resume", "--signal", "score", "--json")
    assert said.code in (0, None), said.errors
    (row,) = [one for one in json.loads(said.output)["signals"] if one["signal"] == "score"]
    assert row["missing"] == 0
    assert row["ess"] > 0  # the share of expected outputs grows at some turns


def test_a_signal_with_the_name_of_a_row_is_a_row_of_its_own(
    run: Path, audited: tuple[dict[str, Any], Said], tmp_path: Path
) -> None:
    shutil.copytree(run.parent / "audited", tmp_path / "audited")
    (tmp_path / "own_signals.py").write_text(OWN)

    def turns(*arguments: str) -> dict[str, Any]:
        said = rewright(tmp_path, "audit", "audited", *SMALL, "--resume", "--json", *arguments)
        assert said.code in (0, None), said.errors
        return {row["signal"]: row for row in json.loads(said.output)["signals"]}

    before = turns("--signal", "random", "--signal", "own_signals:long_turns")
    assert list(before) == ["own_signals:long_turns", "random", "index", "log-prob", "outcome"]
    found = turns("--signal", "index")
    assert list(found) == ["signal index", "random", "index", "log-prob", "outcome"]
    assert found["index"] == before["index"]
    assert {**found["signal index"], "signal": ""} == {**before["own_signals:long_turns"], "signal": ""}


def test_a_signal_that_compares_attempts_gets_all_attempts_at_the_planned_tasks(
    run: Path, audited: tuple[dict[str, Any], Said], tmp_path: Path
) -> None:
    found, _ = audited
    shutil.copytree(run.parent / "audited", tmp_path / "audited")
    (tmp_path / "own_signals.py").write_text(OWN)
    planned = json.loads((tmp_path / found["folder"] / "plan.json").read_text())["turns"]
    assert len({one["trajectory"] for one in planned}) < 2 * len({one["task"] for one in planned})
    said = rewright(
        tmp_path, "audit", "audited", *SMALL, "--resume", "--signal", "own_signals:in_pairs",
        "--signal", "{name: likelihood, form: delete}",
    )  # fmt: skip
    assert said.code in (0, None), said.errors
    stored = [json.loads(line) for line in (tmp_path / found["folder"] / "signals.jsonl").read_text().splitlines()]
    (values,) = [one["values"] for one in stored if one["key"].startswith("likelihood")]
    assert any(values), "an attempt that is compared with nobody has zeros"


@pytest.mark.parametrize("name", ["own_signals:broken", "own_signals:holes", "own_signals:both"])
def test_a_signal_that_fails_costs_nothing(copy: Path, name: str) -> None:
    (copy.parent / "own_signals.py").write_text(OWN)
    before = files(copy)
    rewright(copy.parent, "audit", "run", *SMALL, "--signal", name).refused(name)
    assert files(copy) == before


def test_a_budget_that_is_spent_during_branch_keeps_its_continuations(
    run: Path, audited: tuple[dict[str, Any], Said], tmp_path: Path
) -> None:
    """The audit needs a few generations more than was expected."""
    found, said = audited
    shutil.copytree(run, tmp_path / "audited")
    arguments = ("audited", *SMALL, "--signal", "matched", "--signal", "{name: branch, k: 2}", "--json")
    needed = int(said.errors.split("about ")[1].split(" generations")[0].replace(",", ""))
    total = sum(one["generations"] for one in found["costs"].values())
    assert needed < total

    def generated() -> int:
        rows = [
            json.loads(line)
            for name in ("alternatives", "draws", "branches")
            for line in (tmp_path / found["folder"] / f"{name}.jsonl").read_text().splitlines()
        ]
        return sum(one["generations"] for one in rows)

    stopped = rewright(tmp_path, "audit", *arguments, "--budget", str(needed))
    assert stopped.code == 1, stopped.errors
    assert stopped.errors.splitlines()[-1].endswith("--resume goes on")
    assert found["costs"]["plan"]["generations"] < needed - 5 < generated() < total
    said = rewright(tmp_path, "audit", *arguments, "--budget", str(total + 5), "--resume")
    assert said.code in (0, None), said.errors
    assert generated() == total
    assert json.loads(said.output)["signals"] == found["signals"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--signal", "matchd"), "did you mean 'matched'"),
        (("--signal", "{name: branch, k: 1}"), "signal.k"),
        (("--signal", "{branch"), "expected a name"),
        (("--signal", "{name: likelihood, form: prob, margin: 2}"), "signal.margin has no effect: signal.form is prob"),
        (("--signal", "{name: matched, reg: 2}"), "signal.reg has no effect: assignment is optimal"),
        (("--signal", "[{name: matched}, {name: score}]"), "its parts are audited one by one"),
        (("--signal", "matched", "--signal", "matched"), "given twice"),
        (("--stage", "rl"), "expected one of eval-rl"),
        (("--stage", "eval-sft"), "no judged trajectories of eval-sft"),
        (("--budget", "5"), "expected --turns"),
        (("--temperature", "0"), "temperature 0"),
        (("--out", "picture.jpg"), "expected .svg or .png"),
        (("--resume",), "no audit"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(copy: Path, arguments: tuple[str, ...], words: str) -> None:
    before = files(copy)
    rewright(copy.parent, "audit", "run", *SMALL, *arguments).refused(words)
    assert files(copy) == before


def test_fewer_turns_than_asked_for_are_said(copy: Path) -> None:
    said = rewright(copy.parent, "audit", "run", "--turns", "900", "--budget", "5")
    said.refused("expected --turns")
    assert "900 turns were asked for, and there are" in said.errors


def test_a_policy_that_always_or_never_succeeds_is_refused(copy: Path) -> None:
    verdicts = copy / "evaluations" / "base.verdicts.jsonl"
    changed(verdicts, lambda row: row.update(outcome=1.0))
    rewright(copy.parent, "audit", "run", *SMALL).refused("succeeds in 100.0%")
    changed(verdicts, lambda row: row.update(outcome=0.0))
    rewright(copy.parent, "audit", "run", *SMALL).refused("expected 10 to 90%")


def test_a_world_that_cannot_be_replayed_is_refused(copy: Path) -> None:
    def other_results(row: dict[str, Any]) -> None:
        for turn in row["turns"]:
            for result in turn["results"]:
                result["content"] = "something else"

    changed(copy / "evaluations" / "base.jsonl", other_results)
    before = files(copy)
    rewright(copy.parent, "audit", "run", *SMALL).refused("the world cannot be replayed")
    assert files(copy) == before


def test_single_trajectories_that_cannot_be_replayed_are_counted(copy: Path) -> None:
    first: list[str] = []

    def some(row: dict[str, Any]) -> None:
        first.append(row["task_id"])
        if row["task_id"] in first[:1]:
            for turn in row["turns"]:
                turn["suffix_ids"] = [*turn["suffix_ids"], 5] if turn["suffix_ids"] else []

    changed(copy / "evaluations" / "base.jsonl", some)
    said = rewright(
        copy.parent, "audit", "run", "--turns", "40", "--k", "1", "--repeat", "1", "--factual", "2", "--json"
    )
    assert said.code in (0, None), said.errors
    found = json.loads(said.output)
    assert found["undefined"]["not replayed"] > 0


def test_another_model_than_the_stored_one_is_refused(copy: Path) -> None:
    changed(copy / "evaluations" / "base.jsonl", lambda row: row["provenance"].update(model="gpt"))
    rewright(copy.parent, "audit", "run", *SMALL).refused("was generated by gpt")


def test_numbers_that_rounding_nearly_removes_are_warned_of(
    run: Path, audited: tuple[dict[str, Any], Said], tmp_path: Path
) -> None:
    shutil.copytree(run.parent / "audited", tmp_path / "audited")
    (tmp_path / "own_signals.py").write_text(OWN)
    for arguments in ((*SMALL, "--resume"), ("--siblings",)):
        for name, warned in (("own_signals:tiny", True), ("own_signals:long_turns", False)):
            said = rewright(tmp_path, "audit", "audited", *arguments, "--signal", name)
            assert said.code in (0, None), said.errors
            assert (f"warning: the numbers of {name} are at most" in said.errors) is warned


def test_siblings_need_no_model(run: Path) -> None:
    said = rewright(run.parent, "audit", "run", "--siblings", "--signal", "matched", "--json")
    assert said.code in (0, None), said.errors
    (row,) = json.loads(said.output)["signals"]
    assert row["signal"] == "matched"
    assert row["turns"] >= 3
    assert row["pearson"]["low"] <= row["pearson"]["value"] <= row["pearson"]["high"]
    rewright(run.parent, "audit", "run", "--siblings", "--signal", "branch").refused("an engine and the tasks' tools")
    rewright(run.parent, "audit", "run", "--siblings", "--stage", "synth").refused("no trajectory of it")


def test_signals_that_need_a_model_are_audited_with_it(audited: tuple[dict[str, Any], Said], run: Path) -> None:
    shutil.copytree(run.parent / "audited", run.parent / "scored")
    scored = ("scored", *SMALL, "--resume", "--signal", "likelihood")
    plain = json.loads(rewright(run.parent, "audit", *scored, "--json").output)
    assert plain["signals"][0]["signal"] == "likelihood"
    named = json.loads(rewright(run.parent, "audit", *scored, "--scorer", "pico", "--json").output)
    assert named["signals"] == plain["signals"]
    rewright(run.parent, "audit", "scored", *SMALL, "--resume", "--signal", "judge").refused("signals.judge")
    rewright(run.parent, "audit", "scored", *SMALL, "--resume", "--signal", "model").refused("signals.reward_model")


def test_what_was_computed_with_a_model_is_computed_again_when_it_is_trained_again(
    audited: tuple[dict[str, Any], Said], run: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    shutil.copytree(run.parent / "audited", tmp_path / "audited")
    folder = make_reward_model(tmp_path / "audited" / "models" / "reward")

    def scores() -> list[list[float]]:
        said = rewright(tmp_path, "audit", "audited", *SMALL, "--resume", "--signal", "model", "--json")
        assert said.code in (0, None), said.errors
        (path,) = (tmp_path / "audited" / "audits").glob("*/signals.jsonl")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [row["values"] for row in rows if row["key"].startswith("model")]

    first = scores()
    assert scores() == first, "nothing was computed again"
    trained = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        trained.score.weight.neg_()
    trained.save_pretrained(folder)
    again = scores()
    assert again[:1] == first
    assert again[1] == pytest.approx([-value for value in first[0]], abs=1e-6)


def test_trajectories_that_were_made_anew_are_not_mixed_with_old_draws(
    run: Path, audited: tuple[dict[str, Any], Said], tmp_path: Path
) -> None:
    found, _ = audited
    shutil.copytree(run.parent / "audited", tmp_path / "audited")
    planned = json.loads((tmp_path / found["folder"] / "plan.json").read_text())["turns"][0]["trajectory"]

    def other(row: dict[str, Any]) -> None:
        if row["id"] == planned:
            row["turns"][-1]["text"] += "!"

    changed(tmp_path / "audited" / "evaluations" / "base.jsonl", other)
    rewright(tmp_path, "audit", "audited", *SMALL, "--resume").refused(f"was begun with another {planned}")


def test_a_scorer_with_another_vocabulary_than_the_policy_is_refused(copy: Path) -> None:
    pico_tokenizer().save_pretrained(copy.parent / "other")
    before = files(copy)
    scored = rewright(copy.parent, "audit", "run", *SMALL, "--signal", "likelihood", "--scorer", "other")
    scored.refused("expected a model with the policy's tokenizer")
    assert files(copy) == before


def test_few_tasks_are_warned_of(run: Path, audited: tuple[dict[str, Any], Said]) -> None:
    assert "warning: the 95% intervals are too narrow" in audited[1].errors
    said = rewright(run.parent, "audit", "run", "--siblings", "--signal", "matched")
    assert "warning: the 95% intervals are too narrow" in said.output


def test_credit_continues_the_trajectories_of_a_run(run: Path) -> None:
    said = rewright(run.parent, "credit", "run", "--signal", "{name: branch, k: 2}", "--json")
    assert said.code in (0, None), said.errors
    assert all(row["signal"] == "branch" for row in map(json.loads, said.output.splitlines()))


def test_the_resource_continues_stored_trajectories_in_a_thread_of_its_own(run: Path) -> None:
    from rewright.core.errors import InputError
    from rewright.credit.resources import Resources
    from rewright.credit.signals import turn_signal
    from rewright.credit.trajectories import CreditTrajectory
    from rewright.pipeline.branch_resource import open_branch
    from rewright.reports.run_credit import read_run

    stored = [one.credit_trajectory() for one in read_run(run)][:2]
    resource = open_branch(SimpleNamespace(run=run))
    try:
        found = turn_signal(stored, "branch", resources=Resources(branch=resource), k=2)
        assert not any(mask.any() for mask in found.missing)
        assert found.stats["branch/continuations"] == 2 * sum(len(one.turns) for one in stored)
        with pytest.raises(InputError, match="cannot be continued"):
            resource(CreditTrajectory([], id="other"), 0, 2, 0)
    finally:
        resource.close()
    with pytest.raises(InputError, match="expected a run directory"):
        open_branch(SimpleNamespace(run=None))
