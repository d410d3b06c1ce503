"""Killed, interrupted, out of disk: after --resume a run is the same as one that nothing happened to.

Everything is compared to the last bit, weights included, but for times and for log-probabilities (to 1e-5).
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import command_line
from support.command_line import Kill
from support.micro_run import RECIPE, STAGES, contents, same

pytest.importorskip("trl")

KILLED = (-signal.SIGKILL, -signal.SIGPROF)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "micro.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def undisturbed(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run that nothing happens to; one for all worker processes of a test session."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    folder = shared / "undisturbed"
    with (shared / "undisturbed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "costs.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            done = command_line.run(["run", str(recipe), "--run", str(folder / "run")], folder)
            assert done.code == 0, done.errors
            (folder / "costs.json").write_text(json.dumps([done.costs, done.changes]))
    return folder


def test_the_micro_run_does_something_in_every_stage(undisturbed: Path) -> None:
    """Otherwise the tests below compare nothing."""
    found = contents(undisturbed / "run")
    assert set(found["state.json"]) == set(STAGES)
    assert not any(stage.get("skipped") for stage in found["state.json"].values())
    for name in ("trajectories", "verdicts", "quality", "repairs", "sft", "preferences", "rollouts", "metrics"):
        assert found[f"{name}.jsonl"], name
    assert {f"models/{stage}/model.safetensors" for stage in ("sft", "reward", "rl")} <= set(found)
    assert len({found[f"models/{stage}/model.safetensors"] for stage in ("sft", "rl")}) == 2
    assert not [name for name in found if ".tmp" in name or "checkpoint" in name]


def test_the_same_recipe_gives_the_same_run(undisturbed: Path, recipe: Path, tmp_path: Path) -> None:
    done = command_line.run(["run", str(recipe), "--run", str(tmp_path / "run")], tmp_path)
    assert done.code == 0, done.errors
    same(tmp_path / "run", undisturbed / "run")


def kills(seed: int, undisturbed: Path, times: int = 1) -> Iterator[Kill]:
    """`times` random moments of every stage: in a write, before a name is changed, or after some CPU time."""
    draw = random.Random(seed)
    costs, changes = json.loads((undisturbed / "costs.json").read_text())
    for stage in STAGES:
        seconds, writes = costs[stage]
        for _ in range(times):
            if seconds > 0.2 and draw.random() < 0.5:  # the timer counts in hundredths of a second
                yield Kill(stage, cpu_seconds=draw.uniform(0.01, seconds))
            elif draw.random() < 0.5:
                yield Kill(stage, write=draw.randint(1, writes))
            else:
                yield Kill(stage, change=draw.randint(1, changes[stage]))


def killed_in_every_stage(seed: int, recipe: Path, undisturbed: Path, folder: Path, times: int = 1) -> int:
    """Kill a run at many moments, resume it each time, compare it at its end. Returns how often it died."""
    command = ["run", str(recipe), "--run", str(folder / "run")]
    waiting = list(kills(seed, undisturbed, times))
    died = 0
    while True:
        resume = ["--resume"] if (folder / "run/recipe.yaml").exists() else []
        done = command_line.run([*command, *resume], folder, waiting)
        if done.code == 0:
            same(folder / "run", undisturbed / "run")
            return died
        assert done.code in KILLED, done.errors
        died += 1
        state = folder / "run/state.json"
        finished = json.loads(state.read_text()) if state.exists() else {}
        where = next((stage for stage in STAGES if stage not in finished), STAGES[-1])  # or after its last write
        waiting.remove(next(kill for kill in waiting if kill.stage == where))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_that_is_killed_in_every_stage_ends_as_if_nothing_had_happened(
    seed: int, recipe: Path, undisturbed: Path, tmp_path: Path
) -> None:
    assert killed_in_every_stage(seed, recipe, undisturbed, tmp_path) >= len(STAGES) // 2  # a moment may come too late


def test_a_training_that_is_killed_after_its_last_checkpoint_makes_no_further_step(
    recipe: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Two steps are less than an epoch: the trainer would go on with the third row of tasks."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed / "run", run)
    state = json.loads((run / "state.json").read_text())
    (run / "state.json").write_text(json.dumps({name: state[name] for name in STAGES[:-2]}))
    shutil.rmtree(run / "models/rl")
    for name in ("rollouts.jsonl", "evaluations/rl.jsonl", "evaluations/rl.verdicts.jsonl"):
        (run / name).unlink()
    command = ["run", str(recipe), "--run", str(run), "--resume"]
    killed = command_line.run(command, tmp_path, [Kill("rl", change="models/rl.tmp")])  # before the model is saved
    assert killed.code == -signal.SIGKILL, killed.errors
    assert (run / "models/rl.checkpoints/checkpoint-2/trainer_state.json").exists()
    done = command_line.run(command, tmp_path)
    assert done.code == 0, done.errors
    same(run, undisturbed / "run")


def test_settings_that_changed_before_a_training_is_resumed_are_said(recipe: Path, tmp_path: Path) -> None:
    """The settings of the optimizer and the weights are the checkpoint's; with another adapter it cannot be loaded."""
    run = tmp_path / "run"
    command = ["run", str(recipe), "stages=[rl]", "rl.steps=2", "--run", str(run)]
    killed = command_line.run(command, tmp_path, [Kill("rl", change="checkpoint-2")])
    assert killed.code == -signal.SIGKILL, killed.errors
    resume = ["run", str(run), "--resume"]
    stored = yaml.safe_load((run / "recipe.yaml").read_text())

    def change(**settings: object) -> None:
        changed = {**stored, "rl": {**stored["rl"], **settings}}
        (run / "recipe.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))

    change(lora_rank=2)
    refused = command_line.run(resume, tmp_path)
    assert refused.code == 2
    assert "rl: cannot go on from step 1 of 2: lora_rank was null, and is 2" in refused.errors
    change(learning_rate=7e-4, arguments={"weight_decay": 0.5}, scheduler="linear", micro_batch_size=2)
    done = command_line.run(resume, tmp_path)
    assert done.code == 0, done.errors
    assert (
        "warning: rl: goes on from step 1 of 2, with learning_rate 0.0001 of the checkpoint, not 0.0007 and "
        'arguments.weight_decay unset of the checkpoint, not 0.5; scheduler is "linear" from here on, and was '
        f'"constant": to begin anew, remove {run}/models/rl.checkpoints'
    ) in done.errors


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
def test_soak_kills(seed: int, recipe: Path, undisturbed: Path, tmp_path: Path) -> None:
    died = killed_in_every_stage(seed, recipe, undisturbed, tmp_path, times=3)
    print(f"seed {seed}: killed {died} times")


def interrupted(number: signal.Signals, line: str, command: list[str], folder: Path) -> tuple[int, str]:
    """Send a signal as soon as a line is printed. Returns exit code and everything that was printed."""
    folder.mkdir(exist_ok=True)
    os.mkfifo(folder / "errors")
    process = command_line.start(command, folder)
    text = ""
    with (folder / "errors").open() as errors:
        for said in errors:
            text += said
            if said.startswith(line):
                os.kill(process.pid, number)
                break
        text += errors.read()
    return command_line.finished(process, folder).code, text


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGINT, "evaluation of base: 3/3"),  # while candidates are made
        (signal.SIGTERM, "quality: "),  # repairs
        (signal.SIGINT, "repairs: "),  # sft
        (signal.SIGTERM, "reward model steps: "),  # rl
    ],
)
def test_a_signal_stops_the_run_and_the_printed_command_goes_on_with_it(
    number: signal.Signals, line: str, recipe: Path, undisturbed: Path, tmp_path: Path
) -> None:
    command = ["run", str(recipe), "--run", str(tmp_path / "a run")]
    code, text = interrupted(number, line, command, tmp_path / "first")
    assert code == 130
    assert "Traceback" not in text
    printed = re.search(r"what was done is saved: go on with rewright (.*)$", text, re.MULTILINE)
    assert printed is not None, text
    done = command_line.run(shlex.split(printed[1]), tmp_path / "second")
    assert done.code == 0, done.errors
    same(tmp_path / "a run", undisturbed / "run")


def stopped_by_a_full_disk(done: Any) -> None:
    assert done.code == 1, done.errors
    assert "Traceback" not in done.errors
    assert re.fullmatch(
        r"error: cannot write .*: .*(File too large|No space left|may be full).*", done.errors.splitlines()[-1]
    )
    assert "go on with rewright run " in done.errors


@pytest.mark.parametrize("largest_file", [20_000, 200_000])  # a file of records; a model
def test_a_full_disk_is_a_clear_error_and_the_run_goes_on_when_there_is_space(
    largest_file: int, recipe: Path, undisturbed: Path, tmp_path: Path
) -> None:
    command = ["run", str(recipe), "--run", str(tmp_path / "run")]
    stopped_by_a_full_disk(command_line.run(command, tmp_path, largest_file=largest_file))
    done = command_line.run([*command, "--resume"], tmp_path)
    assert done.code == 0, done.errors
    same(tmp_path / "run", undisturbed / "run")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which `mount -o remount,size=` makes larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes root and the right to mount")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path, recipe: Path, undisturbed: Path, tmp_path: Path) -> None:
    """It is too small for the models, then has room for them and not for the checkpoints."""
    run = small_disk / "run"
    command = ["run", str(recipe), "--run", str(run)]
    refused = command_line.run(command, tmp_path)
    assert (refused.code, run.exists()) == (2, False), refused.errors
    assert "take at least " in refused.errors.splitlines()[-1]
    room = 3 * (undisturbed / "run/models/sft/model.safetensors").stat().st_size + 2_000_000
    subprocess.run(["mount", "-o", f"remount,size={room}", str(small_disk)], check=True)
    stopped_by_a_full_disk(command_line.run(command, tmp_path))
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    done = command_line.run([*command, "--resume"], tmp_path)
    assert done.code == 0, done.errors
    same(run, undisturbed / "run")
