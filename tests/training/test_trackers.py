"""What TensorBoard, wandb and trackio have of a run, read from their own files: an interrupted, resumed and redone one.

The trackers are in the peers' environment, which has no torch: one process of ours finds them behind its own packages.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import peers, trackers

pytest.importorskip("trl")
pytestmark = [pytest.mark.needs_torch, peers.needs_peers]

RECIPE = """\
name: tiny
stages: [eval_base, sft, eval_sft, rl]
model: {path: pico, slots: 8}
tasks: {format: town, split: train, profile: short, count: 4}
limits: {turns: 3, turn_tokens: 48, trajectory_tokens: 200}
sandbox: {level: process}
sft: {source: demonstrations, demonstrations: 10, batch_size: 2, epochs: 1, learning_rate: 1.0e-3, save_steps: 2,
      report_to: [tensorboard, wandb, trackio]}
rl: {learning_rate: 1.0e-3, steps: 1, tasks_per_step: 2, generations: 4, report_to: [tensorboard, wandb, trackio]}
eval: {tasks: {format: town, split: heldout, profile: short, count: 2, seed: 1}}
"""

# Ctrl-C before the fourth step of SFT, of which a checkpoint holds two; then on to the end; then SFT again, elsewhere.
PROCESS = """
import contextlib, sys
sys.path.append(sys.argv[1])
with contextlib.redirect_stdout(sys.stderr):
    import transformers.trainer
from rewright.cli.main import main

class Interrupt(transformers.TrainerCallback):
    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 3:
            raise KeyboardInterrupt

def rewright(*arguments):
    sys.argv = ["rewright", *arguments]
    try:
        main()
    except SystemExit as end:
        print(arguments, "ended with", end.code, file=sys.stderr)

transformers.trainer.DEFAULT_CALLBACKS.append(Interrupt)
rewright("run", "r.yaml")
transformers.trainer.DEFAULT_CALLBACKS.remove(Interrupt)
rewright("run", "r.yaml", "--resume", "--json")
rewright("sft", "runs/tiny")
rewright("eval", "runs/tiny", "--model", "base")
"""


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracked")
    (folder / "r.yaml").write_text(RECIPE)
    site = next((peers.PYTHON.parents[1] / "lib").glob("python*/site-packages"))
    hidden = {name for name in os.environ if name.startswith(("WANDB_", "TRACKIO_", "TENSORBOARD_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, str(site)],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key not in hidden}
        | {"WANDB_MODE": "offline", "TRACKIO_DIR": str(folder / "trackio")},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    (folder / "out").write_text(done.stdout)
    (folder / "err").write_text(done.stderr)
    ends = [line.rpartition(" ")[2] for line in done.stderr.splitlines() if " ended with " in line]
    assert ends == ["130", "0", "0", "0"], done.stderr[-6000:]
    return folder


def sft_steps(folder: Path) -> list[tuple[int, float]]:
    rows = map(json.loads, (folder / "runs/tiny/metrics.jsonl").read_text().splitlines())
    return [(row["step"], row["loss"]) for row in rows if row["stage"] == "sft"]


def test_tensorboard_keeps_one_folder_per_stage_with_every_step_once(tracked: Path) -> None:
    found: dict[str, dict[str, Any]] = json.loads(peers.run(trackers.EVENTS, tracked / "runs/tiny/tensorboard"))
    assert sorted(found) == ["eval_base", "eval_sft", "rl", "sft"]
    assert found["sft"]["train/loss"] == [[step, pytest.approx(loss)] for step, loss in sft_steps(tracked)]
    assert [step for step, _ in found["sft"]["train/loss"]] == [1, 2, 3, 4, 5]
    assert [step for step, _ in found["rl"]["train/rewright/success"]] == [1]
    assert len(found["eval_base"]["eval/success"]) == 1
    assert not list((tracked / "runs/tiny/models").glob("*.checkpoints"))


def test_wandb_has_a_named_run_per_stage_and_a_resumed_one_goes_on(tracked: Path) -> None:
    runs = json.loads(peers.run(trackers.WANDB, tracked / "wandb"))
    assert {(run["project"], run["group"]) for run in runs} == {("rewright", "tiny")}
    names = ["eval_base", "sft", "sft", "eval_sft", "rl", "sft", "eval_base"]
    assert [run["name"] for run in runs] == [f"tiny/{name}" for name in names]
    assert [run["job_type"] for run in runs] == names
    interrupted, resumed, again = (run for run in runs if run["name"] == "tiny/sft")
    assert resumed["id"] == interrupted["id"] != again["id"]
    assert (interrupted["exit"], resumed["exit"]) == (1, 0)
    steps = [[row["train/global_step"] for row in run["history"] if "train/loss" in row] for run in
             (interrupted, resumed, again)]  # fmt: skip
    assert steps == [[1, 2, 3], [3, 4, 5], [1, 2, 3, 4, 5]]
    assert "eval/success" in runs[0]["history"][-1]


def test_trackio_has_a_named_run_per_stage_and_a_resumed_one_goes_on(tracked: Path) -> None:
    with sqlite3.connect(tracked / "trackio/rewright.db") as database:
        rows = database.execute("SELECT run_id, run_name, metrics FROM metrics ORDER BY id").fetchall()
    runs: dict[tuple[str, str], list[Any]] = {}
    for run_id, name, metrics in rows:
        runs.setdefault((name, run_id), []).append(json.loads(metrics))
    names = [name for name, _ in runs]
    assert names == [f"tiny/{name}" for name in ("eval_base", "sft", "eval_sft", "rl", "sft", "eval_base")]
    first, again = (
        [row["train/global_step"] for row in found if "train/loss" in row]
        for (name, _), found in runs.items()
        if name == "tiny/sft"
    )
    assert (first, again) == ([1, 2, 3, 3, 4, 5], [1, 2, 3, 4, 5])
    assert all("eval/success" in found[0] for (name, _), found in runs.items() if "eval" in name)


def test_trackers_print_nothing_on_standard_output(tracked: Path) -> None:
    shown = (tracked / "out").read_text()
    assert "rackio" not in shown
    assert "WANDB" not in shown
    assert any(line.startswith('{"run"') for line in shown.splitlines())
