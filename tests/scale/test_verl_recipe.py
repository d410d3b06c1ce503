"""A recipe with `rl.backend: verl`: in one environment, and with another interpreter on a cluster of two nodes, killed.

The first run is undisturbed. The second one loses a node, then verl's main process, and is killed itself between the
last checkpoint and the merge. It makes the same steps.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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
from rewright.training.verl.metrics import rows_of as rows_of_verl
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


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(scale.ROOT / "src"), str(scale.ROOT / "tests")])}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One environment, and a Ray of its own."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "r.yaml").write_text(RECIPE)
    said = scale.rewright("run", "r.yaml", "--run", "run", folder=folder, interpreter=scale.VERL, timeout=SECONDS)
    assert said.returncode == 0, said.stderr + log_of(folder)
    assert f"rl steps: {STEPS}/{STEPS}" in said.stderr
    assert "success" in said.stdout
    return folder / "run"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Two interpreters, and a cluster of two nodes with one worker each. The run, and its error lines."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "r.yaml").write_text(RECIPE)
    with cluster(str(scale.VERL), 2, environment()) as nodes:
        given = [f"rl.verl.python={scale.VERL}", f"ray.address={nodes.address}", "rl.verl.nodes=2", "rl.verl.workers=1"]
        process = begun(folder, *given, until=lambda step: step >= 1)
        nodes.lose()
        errors = [error_of(process, folder)]
        nodes.join()
        process = begun(folder, *given, "--resume", until=lambda step: step >= 2)
        os.kill(main_process(folder), signal.SIGKILL)
        errors.append(error_of(process, folder))
        process = begun(folder, *given, "--resume", until=lambda step: step == STEPS)
        process.kill()
        process.communicate()
        wait_for(lambda: processes_of(folder) == [])
        assert not (folder / "run/models/rl").exists()
        said = scale.rewright("run", "r.yaml", "--run", "run", *given, "--resume", folder=folder, timeout=SECONDS)
    assert said.returncode == 0, said.stderr + log_of(folder)
    return folder / "run", errors


def begun(folder: Path, *arguments: str, until: Callable[[int], bool]) -> subprocess.Popen[str]:
    """Start the run, and wait until the newest step with a checkpoint and metrics is the wanted one."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rewright", "run", "r.yaml", "--run", "run", *arguments],
        cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + SECONDS
    while not until(reached(folder)):
        assert process.poll() is None and time.monotonic() < end, log_of(folder)
        time.sleep(0.1)
    return process


def error_of(process: subprocess.Popen[str], folder: Path) -> str:
    """The line of a run that ends with exit code 1, and leaves no process, also on the cluster."""
    said = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 1 and "Traceback" not in said, said
    wait_for(lambda: processes_of(folder) == [])
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return line


def main_process(folder: Path) -> int:
    """verl's own main process, which is not one of Ray's."""
    start = f"{scale.VERL}\0-m\0verl.trainer.main_ppo\0"
    (found,) = [pid for pid, command in processes(folder) if command.startswith(start)]
    return found


def reached(folder: Path) -> int:
    """The newest step with a complete checkpoint and its metrics, which verl writes after it."""
    checkpoints = folder / "run/models/rl.checkpoints"
    return min(last_step(checkpoints / "checkpoints", 2), max(rows_of_verl(checkpoints, STEPS), default=0))


def processes(folder: Path) -> list[tuple[int, str]]:
    """The processes that have the folder in their environment, as all of verl's have: id and command."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(folder / "run").encode() in (entry / "environ").read_bytes():
                found.append((int(entry.name), (entry / "cmdline").read_text()))
        except OSError:
            continue
    return found


def processes_of(folder: Path) -> list[str]:
    return [command for _, command in processes(folder)]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
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


def test_a_lost_node_and_a_killed_main_process_are_one_line(killed: tuple[Path, list[str]]) -> None:
    node, main = killed[1]
    assert "verl 0.9.1 failed: Ray has lost a node or a worker: " in node
    assert "verl 0.9.1 failed: it was killed by signal 9 (log: " in main


def test_a_run_that_was_killed_makes_the_steps_of_an_undisturbed_one(
    undisturbed: Path, killed: tuple[Path, list[str]]
) -> None:
    rows = rows_of(killed[0])
    assert [row["step"] for row in rows] == [row["step"] for row in rows_of(undisturbed)]
    assert [row["learning_rate"] for row in rows] == [row["learning_rate"] for row in rows_of(undisturbed)]
    mine, expected = rollouts_of(killed[0]), rollouts_of(undisturbed)
    assert sorted(mine) == sorted(expected)  # the same tasks in the same steps
    lines = (killed[0] / "rollouts.jsonl").read_text().splitlines()
    assert len(lines) == len(mine)  # each of them once


def test_between_checkpoint_and_merge_nothing_is_trained_again(killed: tuple[Path, list[str]]) -> None:
    starts = [line for line in log_of_run(killed[0]) if line.startswith("=== ")]
    trained = [" verl.trainer.main_ppo " in line for line in starts]
    assert sum(trained) == 3 and "merge.py" in starts[-1] and not any(trained[6:])
    assert not (killed[0] / "models/rl.checkpoints").exists()


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
