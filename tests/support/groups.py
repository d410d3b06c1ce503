"""Runs whose training stages are groups of processes: their recipe, their processes, and faults in one of them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from support import peers

__all__ = [
    "SIGNALS", "Command", "difference", "ended", "put", "rollouts", "rows", "run", "settings", "start",
    "weights", "workers",
]  # fmt: skip

RECIPE = """\
name: group
model: {path: pico, slots: 8}
stages: [STAGES]
tasks: {format: town, split: train, profile: short, count: 8}
synth: {n: 2, temperature: 1.0, top_p: 1.0}
limits: {turns: 4, turn_tokens: 64, trajectory_tokens: 320, tool_seconds: 600, trajectory_seconds: 3000}
sandbox: {level: process, wall_seconds: 600}
repair: {model: {path: pico-repairer, slots: 8}, temperature: 0.7, calls: 4}
build: {held_out_fraction: 0.6}
sft: {source: demonstrations, demonstrations: 7, learning_rate: 6.0e-4, batch_size: 4, epochs: 1, warmup: 0,
      save_steps: 1}
reward: {learning_rate: 3.0e-4, batch_size: 2, epochs: 2, warmup: 0, save_steps: 1, minimum_pairs: 1,
         minimum_accuracy: 0.0}
rl: {learning_rate: 1.0e-4, steps: 2, tasks_per_step: 2, generations: 4, save_steps: 1, temperature: 1.5}
"""
FSDP = """\
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
num_machines: 1
num_processes: 2
use_cpu: true
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer
  fsdp_state_dict_type: FULL_STATE_DICT
"""
# Stands beside the recipe. Its trainer back end is TRL's; each process writes what it ends a stage with. REWRIGHT_FAULT
# says what happens in one of them once a step of a stage has a checkpoint: `STAGE RANK KIND`.
SPY = """\
import hashlib, json, os, signal, threading
from pathlib import Path
import torch
from transformers import TrainerCallback, trainer as trainers
from rewright.core.errors import JudgeError
from rewright.training.trl import dpo, reward_model, rl, rl_trainer, sft
from rewright.training.trl.backend import TRL

RANK = os.environ.get("RANK", "0")
FAULT = os.environ.get("REWRIGHT_FAULT", "- - -").split()

def digest(model):
    local = (getattr(weight, "to_local", lambda weight=weight: weight)() for weight in model.parameters())
    parts = [weight.detach().numpy().tobytes() for weight in local]
    return hashlib.sha256(b"".join(parts)).hexdigest()

class Fault(TrainerCallback):
    def on_step_begin(self, args, state, control, **_):
        if state.global_step != 1 or FAULT[:2] != [Path(args.output_dir).name.partition(".")[0], RANK]:
            return
        if FAULT[2] == "memory":
            raise MemoryError
        if FAULT[2] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if FAULT[2] == "hold":  # the others wait for this process
            Path("held").touch()
            threading.Event().wait()

class Spy(TRL):
    def train_sft(self, *arguments, **named):
        return self.watched(sft, "sft", super().train_sft, arguments, named)

    def train_dpo(self, *arguments, **named):
        return self.watched(dpo, "dpo", super().train_dpo, arguments, named)

    def train_reward_model(self, *arguments, **named):
        return self.watched(reward_model, "reward", super().train_reward_model, arguments, named)

    def train_rl(self, job):
        return self.watched(rl, "rl", super().train_rl, (job,), {})

    def watched(self, module, stage, train, arguments, named):
        original, judge = module.save, rl_trainer.judge_rollouts
        def save(trainer, *rest):
            seen = {"weights": digest(trainer.model), "seed": torch.initial_seed()}
            Path(f"{stage}.rank{RANK}.json").write_text(json.dumps(seen))
            original(trainer, *rest)
        def judged(*rest, **more):
            if FAULT == [stage, RANK, "judge"] and list(Path().glob("*/models/rl.checkpoints/checkpoint-1")):
                raise JudgeError("the judge of this process is lost")
            return judge(*rest, **more)
        module.save, rl_trainer.judge_rollouts = save, judged
        trainers.DEFAULT_CALLBACKS.append(Fault)
        return train(*arguments, **named)
"""
# `rewright ...` in an interpreter that finds the trackers of the peers' environment behind its own packages.
TRACKED = "import sys; sys.path.append(sys.argv.pop(1)); from rewright.cli.main import main; main()"


class Command:
    """A running `rewright ...`."""

    def __init__(self, folder: Path, *arguments: str, fault: str = "- - -", tracked: bool = False) -> None:
        self.folder = folder
        program = ["-m", "rewright"]
        variables = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "TENSORBOARD_"))}
        if tracked:
            program = ["-c", TRACKED, str(next((peers.PYTHON.parents[1] / "lib").glob("python*/site-packages")))]
            variables["WANDB_MODE"] = "offline"
        self.process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**variables, "REWRIGHT_FAULT": fault, "REWRIGHT_TEST_GROUP": str(folder)},
        )  # fmt: skip

    def wait_for(self, file: str) -> None:
        """Until a file is in the folder. AssertionError if the command ends before."""
        while not (self.folder / file).exists():
            with suppress(subprocess.TimeoutExpired):
                raise AssertionError(self.process.communicate(timeout=0.1)[1])

    def end(self, timeout: float = 600) -> tuple[int, list[str]]:
        """The exit code, and the lines on standard error."""
        errors = self.process.communicate(timeout=timeout)[1]
        return self.process.returncode, errors.splitlines()


def start(folder: Path, *arguments: str, **how: Any) -> Command:
    """Start `rewright ARGUMENTS` in `folder`."""
    return Command(folder, *arguments, **how)


def run(folder: Path, *arguments: str, **how: Any) -> list[str]:
    """The lines on standard error of `rewright ARGUMENTS`, which succeeds."""
    code, lines = start(folder, *arguments, **how).end()
    assert code == 0, "\n".join(lines)
    return lines


def put(folder: Path, *stages: str) -> Path:
    """Write the recipe, the files of accelerate and the back end that fails into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "r.yaml").write_text(RECIPE.replace("STAGES", ", ".join(stages)))
    (folder / "fsdp.yaml").write_text(FSDP)
    (folder / "sharded.yaml").write_text(FSDP.replace("FULL", "SHARDED"))
    (folder / "spy.py").write_text(SPY)
    return folder


def settings(run_directory: Path, changes: Mapping[str, Any]) -> None:
    """Change settings in the recipe of a run, as its user may with an editor."""
    file = run_directory / "recipe.yaml"
    recipe = yaml.safe_load(file.read_text())
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = recipe
        for one in sections:
            section = section[one]
        section[name] = value
    file.write_text(yaml.safe_dump(recipe, sort_keys=False))


def workers(folder: Path) -> dict[int, int]:
    """The processes of the groups that were started in `folder`, by rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            variables = (entry / "environ").read_bytes().split(b"\0") if b"processes.worker" in command else []
        except OSError:
            continue
        ranks = [int(one[5:]) for one in variables if one.startswith(b"RANK=")]
        if ranks and f"REWRIGHT_TEST_GROUP={folder}".encode() in variables:
            found[ranks[0]] = int(entry.name)
    return found


def ended(processes: Mapping[int, int]) -> bool:
    """Whether processes (ids by rank) end within a minute."""
    for pid in processes.values():
        poll = select.poll()
        with suppress(ProcessLookupError):  # it has ended
            poll.register(os.pidfd_open(pid), select.POLLIN)
            if not poll.poll(60_000):
                return False
    return True


def rows(run_directory: Path, *stages: str) -> list[dict[str, Any]]:
    """The metrics of a run's steps, of some stages or all."""
    stored = map(json.loads, (run_directory / "metrics.jsonl").read_text().splitlines())
    return [row for row in stored if not stages or row["stage"] in stages]


def rollouts(run_directory: Path) -> list[tuple[Any, ...]]:
    """The tokens and the verdict of the stored rollouts of RL."""
    stored = map(json.loads, (run_directory / "rollouts.jsonl").read_text().splitlines())
    return [(one["id"], [turn["token_ids"] for turn in one["turns"]], one["credit"]["verdict"]) for one in stored]


def weights(run_directory: Path, stage: str) -> dict[str, Any]:
    """The saved weights of a stage."""
    from safetensors.numpy import load_file

    return dict(load_file(run_directory / f"models/{stage}/model.safetensors"))


def difference(left: Mapping[str, Any], right: Mapping[str, Any]) -> float:
    """The largest difference of two weights of the same name; AssertionError if the names differ."""
    assert left.keys() == right.keys()
    return max(float(abs(left[name] - right[name]).max()) for name in left)


SIGNALS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM, "killed": signal.SIGKILL}
