"""A recipe with `rl.backend: verl`: with another interpreter on a cluster of two nodes, and in one environment, killed.

The first run is undisturbed. The second one is killed twice, in the middle of the training and between the last
checkpoint and the merge, and makes the same steps.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file

from rewright.training.verl.checkpoints import last_step
from support import scale
from support.ray_nodes import cluster

pytestmark = [pytest.mark.scale, scale.needs_verl]

STEPS = 3
RECIPE = f"""\
name: on-verl
stages: [sft, rl, eval_rl]
model: {{path: pico, slots: 16}}
limits: {{turns: 4, turn_tokens: 48, trajectory_tokens: 200, tool_seconds: 600, trajectory_seconds: 3000}}
sandbox: {{level: process, wall_seconds: 600}}
sft: {{source: demonstrations, demonstrations: 8, batch_size: 8, epochs: 1, learning_rate: 1.0e-4}}
rl:
  backend: verl
  verl: {{device: cpu, workers: 2}}
  tasks: {{format: town, split: train, profile: short, count: 6, seed: 5}}
  learning_rate: 1.0e-3
  steps: {STEPS}
  tasks_per_step: 2
  generations: 4
  beta: 0.01
  trajectory_reward: matchtir
  credit: {{singleton_turn: zero}}
  save_steps: 1
eval: {{tasks: {{format: town, split: heldout, profile: short, count: 4, seed: 1}}}}
"""
SECONDS = 900
ONLY_VERLS = {
    *("loss", "grad_norm", "learning_rate", "entropy", "kl", "clip_ratio/region_mean"),
    *(f"completions/{name}" for name in ("mean_length", "max_length", "min_length", "clipped_ratio")),
    *(f"verl/{name}" for name in ("num_turns", "rollout_probs_diff_mean", "rollout_probs_diff_max", "rollout_is_mean")),
}


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(scale.ROOT / "src"), str(scale.ROOT / "tests")])}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two interpreters, and a cluster of two nodes with one worker each."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "r.yaml").write_text(RECIPE)
    with cluster(str(scale.VERL), 2, environment()) as address:
        given = [f"rl.verl.python={scale.VERL}", f"ray.address={address}", "rl.verl.nodes=2", "rl.verl.workers=1"]
        said = scale.rewright("run", "r.yaml", "--run", "run", *given, folder=folder, timeout=SECONDS)
    assert said.returncode == 0, said.stderr + log_of(folder)
    assert f"rl steps: {STEPS}/{STEPS}" in said.stderr
    assert "success" in said.stdout
    return folder / "run"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One environment and a Ray of its own; killed after the first checkpoint, and after the last one."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "r.yaml").write_text(RECIPE)
    kill(folder, lambda step: step >= 1)
    assert 1 <= saved(folder) < STEPS
    kill(folder, lambda step: step == STEPS, "--resume")
    assert not (folder / "run/models/rl").exists()
    said = scale.rewright(
        "run", "r.yaml", "--run", "run", "--resume", folder=folder, interpreter=scale.VERL, timeout=SECONDS
    )
    assert said.returncode == 0, said.stderr + log_of(folder)
    return folder / "run"


def kill(folder: Path, when: Callable[[int], bool], *flags: str) -> None:
    """Start the run, end `rewright` with SIGKILL when a checkpoint is complete, and wait for all other processes."""
    process = subprocess.Popen(
        [scale.VERL, "-m", "rewright", "run", "r.yaml", "--run", "run", *flags],
        cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    end = time.monotonic() + SECONDS
    while not when(saved(folder)):
        assert process.poll() is None and time.monotonic() < end, log_of(folder)
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: processes_of(folder) == [])


def saved(folder: Path) -> int:
    """The step of the newest complete checkpoint."""
    return last_step(folder / "run/models/rl.checkpoints/checkpoints", 2)


def processes_of(folder: Path) -> list[str]:
    """The processes that have the folder in their environment, as all of verl's have."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(folder / "run").encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def log_of(folder: Path) -> str:
    log = folder / "run/verl.log"
    return log.read_text(errors="replace")[-5000:] if log.exists() else ""


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["stage"] == "rl"]


def rollouts_of(run: Path) -> dict[str, Any]:
    return {one["id"]: one for one in map(json.loads, (run / "rollouts.jsonl").read_text().splitlines())}


def test_every_step_has_the_metrics_of_every_trainer(undisturbed: Path) -> None:
    rows = rows_of(undisturbed)
    assert [row["step"] for row in rows] == [1, 2, 3]
    shared = {"loss", "grad_norm", "learning_rate", "reward", "kl", "entropy", "completions/mean_length"}
    own = {"rewright/success", "rewright/turn_reward", "rewright/turns", "rewright/calls", "rewright/failures"}
    assert [sorted((shared | own) - row.keys()) for row in rows] == [[]] * STEPS
    rollouts = rollouts_of(undisturbed)
    assert len(rollouts) == STEPS * 2 * 4
    for step, row in enumerate(rows):
        mine = [one["credit"]["trajectory_reward"] for one in rollouts.values() if f"/{step}/" in one["id"]]
        assert row["reward"] == pytest.approx(sum(mine) / len(mine), abs=1e-5)


def test_the_model_is_the_trained_one_in_float32_and_is_evaluated(undisturbed: Path) -> None:
    before, after = (load_file(undisturbed / f"models/{name}/model.safetensors") for name in ("sft", "rl"))
    assert before.keys() == after.keys()
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    changed = [name for name in after if not torch.equal(before[name], after[name])]
    assert len(changed) == len(after)
    # An update is finer than bfloat16: the merged weights are not rounded.
    assert any(not torch.equal(weight, weight.bfloat16().float()) for weight in after.values())
    assert json.loads((undisturbed / "state.json").read_text())["eval_rl"]["done"]
    assert not (undisturbed / "models/rl.checkpoints").exists()


def test_a_run_that_was_killed_makes_the_steps_of_an_undisturbed_one(undisturbed: Path, killed: Path) -> None:
    rows = rows_of(killed)
    assert [row["step"] for row in rows] == [row["step"] for row in rows_of(undisturbed)]
    # verl logs a step after its checkpoint, so a kill may lose what only verl knows of the steps 1 and 3.
    for row, expected in zip(rows, rows_of(undisturbed), strict=True):
        assert row.get("learning_rate", expected["learning_rate"]) == expected["learning_rate"]
        assert (row.keys() | ONLY_VERLS) >= expected.keys()
    assert rows[1].keys() == rows_of(undisturbed)[1].keys()
    assert sorted(rollouts_of(killed)) == sorted(rollouts_of(undisturbed))  # the same tasks in the same steps


def test_between_checkpoint_and_merge_nothing_is_trained_again(killed: Path) -> None:
    starts = [line for line in log_of_run(killed) if line.startswith("=== ") and "verl.check" not in line]
    assert [("main_ppo" in line, "merge.py" in line) for line in starts][:2] == [(True, False), (True, False)]
    assert all("main_ppo" not in line for line in starts[2:]) and "merge.py" in starts[-1]
    assert not (killed / "models/rl.checkpoints").exists()


def log_of_run(run: Path) -> list[str]:
    return (run / "verl.log").read_text(errors="replace").splitlines()


LOST = """\
import os, signal, sys
import ray
from rewright.integrations.verl.watched import watch

ray.init(address="local", num_cpus=1, include_dashboard=False, _temp_dir=sys.argv[1])

@ray.remote
class Worker:
    def pid(self):
        return os.getpid()

worker = Worker.remote()
os.kill(ray.get(worker.pid.remote()), signal.SIGKILL)
watch([worker])
"""


def test_verl_ends_if_an_agent_loop_worker_dies(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as short:
        said = scale.python(scale.VERL, "-c", LOST, short, folder=tmp_path)
    assert said.returncode == 1
    assert "WorkerError: an agent loop worker has died" in said.stderr


def test_what_verl_refuses_is_one_line_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    given = ["run", "r.yaml", f"rl.verl.python={scale.VERL}", "rl.verl.overrides.trainer.no_such_key=1"]
    said = scale.rewright(*given, folder=tmp_path)
    assert said.returncode == 2
    assert "error: rl.verl.overrides: verl 0.9.1 says: Could not override 'trainer.no_such_key'" in said.stderr
    assert not (tmp_path / "runs").exists()


def test_quoted_values_reach_verl_as_they_are(tmp_path: Path) -> None:
    code = (
        "import json, sys; from hydra.core.override_parser.overrides_parser import OverridesParser as P;"
        "print(json.dumps([one.value() for one in P.create().parse_overrides(json.loads(sys.argv[1]))]))"
    )
    values = {
        "a": 'it\'s "1" \\',
        "b": ["x, y", "[z]"],
        "c": "plain",
        "d": "/a b/c=d",
        "e": 1e-06,
        "f": '\\"',
        "g": None,
    }
    from rewright.training.verl.config import as_arguments

    said = scale.python(scale.VERL, "-c", code, json.dumps(as_arguments(values)), folder=tmp_path)
    assert json.loads(said.stdout) == list(values.values()), said.stderr
