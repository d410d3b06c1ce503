"""Training stages as groups of processes: the same training as in one, and an end within seconds if one fails."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rewright.core.errors import InputError
from rewright.training.launch import Launch, launch_of
from rewright.training.settings import TrainingSettings
from support import in_process

pytest.importorskip("trl")
load_file = pytest.importorskip("safetensors.numpy").load_file

RECIPE = """\
name: group
model: {path: pico, slots: 8}
stages: [STAGES]
tasks: {format: town, split: train, profile: short, count: 6}
limits: {turns: 4, turn_tokens: 64, trajectory_tokens: 320, tool_seconds: 600, trajectory_seconds: 3000}
sandbox: {level: process, wall_seconds: 600}
sft: {source: demonstrations, demonstrations: 6, learning_rate: 6.0e-4, batch_size: 4, epochs: 1, save_steps: 1}
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
# A trainer back end that also writes what each process ends with, and fails in one process where a file says so.
SPY = """\
import hashlib, json, os
from pathlib import Path
import torch
from rewright.core.errors import JudgeError
from rewright.training.trl import rl, sft
from rewright.training.trl.backend import TRL

def digest(model):
    local = (getattr(weight, "to_local", lambda weight=weight: weight)() for weight in model.parameters())
    parts = [weight.detach().numpy().tobytes() for weight in local]
    return hashlib.sha256(b"".join(parts)).hexdigest()

class Spy(TRL):
    def train_sft(self, *arguments, **named):
        return self.watched(sft, super().train_sft, arguments, named)

    def train_rl(self, job):
        return self.watched(rl, super().train_rl, (job,), {})

    def watched(self, module, train, arguments, named):
        rank, original, judge = os.environ.get("RANK", "0"), module.save, rl.judge_rollouts
        def save(trainer, *rest):
            seen = {"weights": digest(trainer.model), "seed": torch.initial_seed()}
            Path(f"rank{rank}.json").write_text(json.dumps(seen))
            original(trainer, *rest)
        def judged(*rest, **more):
            if Path(f"fail{rank}").exists() and Path("run/models/rl.checkpoints/checkpoint-1").exists():
                raise JudgeError("the judge of this process is lost")
            return judge(*rest, **more)
        module.save, rl.judge_rollouts = save, judged
        return train(*arguments, **named)
"""


def put(folder: Path, *stages: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "r.yaml").write_text(RECIPE.replace("STAGES", ", ".join(stages)))
    (folder / "fsdp.yaml").write_text(FSDP)
    (folder / "spy.py").write_text(SPY)
    return folder


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rewright", "run", *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "REWRIGHT_TEST_GROUP": str(folder)},
    )  # fmt: skip


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    process = start(folder, *arguments)
    errors = process.communicate(timeout=600)[1]
    return process.returncode, errors


def workers(folder: Path) -> dict[int, int]:
    """The processes of the group that was started in `folder`, by rank."""
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


def rows(run_directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_directory / "metrics.jsonl").read_text().splitlines()]


def rollouts(run_directory: Path) -> list[tuple[Any, ...]]:
    stored = [json.loads(line) for line in (run_directory / "rollouts.jsonl").read_text().splitlines()]
    return [(one["id"], [turn["token_ids"] for turn in one["turns"]], one["credit"]["verdict"]) for one in stored]


def weights(run_directory: Path, stage: str) -> dict[str, Any]:
    return dict(load_file(run_directory / f"models/{stage}/model.safetensors"))


def same_weights(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all((left[name] == right[name]).all() for name in right)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RL in two processes, to which nothing happens."""
    folder = put(tmp_path_factory.mktemp("two"), "rl")
    code, errors = run(folder, "r.yaml", "--run", "run", "training.processes=2", "rl.backend=spy:Spy")
    assert code == 0, errors
    assert "rl steps: 2/2" in errors
    return folder


def test_rl_in_two_processes_makes_the_steps_of_one(two: Path, tmp_path: Path) -> None:
    alone = in_process.rewright(put(tmp_path, "rl"), "run", "r.yaml", "--run", "run")
    assert alone.code == 0, alone.errors
    expected = rows(tmp_path / "run")
    assert len(expected) == 2
    for found, one in zip(rows(two / "run"), expected, strict=True):
        assert found.keys() == one.keys()
        assert found == {
            name: value if name == "stage" else pytest.approx(value, abs=1e-4) for name, value in one.items()
        }
    assert rollouts(two / "run") == rollouts(tmp_path / "run")
    found, one = weights(two / "run", "rl"), weights(tmp_path / "run", "rl")
    assert max(abs(found[name] - one[name]).max() for name in one) < 1e-4


def test_all_processes_end_with_the_same_weights_and_draw_different_numbers(two: Path) -> None:
    first, second = (json.loads((two / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["weights"] == second["weights"]
    assert first["seed"] != second["seed"]


@pytest.mark.slow
def test_an_incomplete_last_batch_of_sft_counts_once(tmp_path: Path) -> None:
    """Seven rows in batches of four: the last batch has two rows for one process, and one for the other."""
    put(tmp_path, "sft")
    for name, more in {"one": [], "two": ["training.processes=2", "sft.micro_batch_size=1"]}.items():
        code, errors = run(tmp_path, "r.yaml", "--run", name, "sft.demonstrations=7", *more)
        assert code == 0, errors
    one, two = ([(row["loss"], row["grad_norm"]) for row in rows(tmp_path / name)] for name in ("one", "two"))
    assert len(one) == 2
    assert two == [pytest.approx(step, abs=1e-5) for step in one]


@pytest.mark.slow
def test_fsdp2_saves_the_whole_model(tmp_path: Path) -> None:
    put(tmp_path, "sft")
    for name, more in {"one": [], "fsdp": ["training.accelerate=fsdp.yaml", "sft.backend=spy:Spy"]}.items():
        code, errors = run(tmp_path, "r.yaml", "--run", name, *more)
        assert code == 0, errors
    assert [row["loss"] for row in rows(tmp_path / "fsdp")] == pytest.approx(
        [row["loss"] for row in rows(tmp_path / "one")], abs=1e-4
    )
    parts = [json.loads((tmp_path / f"rank{rank}.json").read_text())["weights"] for rank in (0, 1)]
    assert parts[0] != parts[1]  # each has one part of them
    found, one = weights(tmp_path / "fsdp", "sft"), weights(tmp_path / "one", "sft")
    assert found.keys() == one.keys()
    assert max(abs(found[name] - one[name]).max() for name in one) < 1e-4
    configurations = [json.loads((tmp_path / name / "models/sft/config.json").read_text()) for name in ("one", "fsdp")]
    assert configurations[0] == configurations[1]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["main", "other", "parent"])
def test_a_killed_process_ends_all_and_the_run_is_resumed(two: Path, tmp_path: Path, victim: str) -> None:
    put(tmp_path, "rl")
    process = start(tmp_path, "r.yaml", "--run", "run", "training.processes=2", "rl.backend=spy:Spy", "rl.steps=2")
    while not list(tmp_path.glob("run/models/rl.checkpoints/checkpoint-1/trainer_state.json")):
        with suppress(subprocess.TimeoutExpired):
            raise AssertionError(process.communicate(timeout=0.1)[1])
    group = workers(tmp_path)
    assert sorted(group) == [0, 1]
    os.kill({"main": group[0], "other": group[1], "parent": process.pid}[victim], signal.SIGKILL)
    errors = process.communicate(timeout=60)[1]
    if victim == "parent":
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 1
        rank = {"main": 0, "other": 1}[victim]
        expected = f"error: rl: process {rank} of 2 has ended without a message (killed, or out of memory)"
        assert errors.splitlines()[-1] == expected
    for pid in group.values():
        poll = select.poll()
        with suppress(ProcessLookupError):  # it has ended
            poll.register(os.pidfd_open(pid), select.POLLIN)
            assert poll.poll(60_000)
    code, errors = run(tmp_path, "run", "--resume", "--trusted", "spy")
    assert code == 0, errors
    assert rows(tmp_path / "run") == rows(two / "run")
    assert rollouts(tmp_path / "run") == rollouts(two / "run")
    assert same_weights(weights(tmp_path / "run", "rl"), weights(two / "run", "rl"))


@pytest.mark.slow
def test_a_failure_in_one_process_is_told_as_that_of_one(two: Path, tmp_path: Path) -> None:
    """The error and the exit code are those of one process; finished steps and rollouts are kept."""
    put(tmp_path, "rl")
    (tmp_path / "fail1").touch()
    arguments = ("training.processes=2", "rl.backend=spy:Spy")
    code, errors = run(tmp_path, "r.yaml", "--run", "run", *arguments)
    assert (code, errors.splitlines()[-1]) == (1, "error: the judge of this process is lost")
    assert not workers(tmp_path)
    assert len((tmp_path / "run/rollouts.jsonl").read_text().splitlines()) == 16  # the last 8 without credit
    (tmp_path / "fail1").unlink()
    code, errors = run(tmp_path, "run", "--resume", "--trusted", "spy")
    assert code == 0, errors
    assert rows(tmp_path / "run") == rows(two / "run")
    assert sorted(rollouts(tmp_path / "run")) == sorted(rollouts(two / "run"))


MISTAKES = {
    "division": ("training.processes=3", "an optimizer step of rl has 8 rollouts: expected a multiple of"),
    "micro": (
        "training.processes=2 rl.micro_batch_size=8",
        "a divisor of the 4 sequences of an optimizer step in each",
    ),
    "engine": ("training.accelerate=fsdp.yaml", "rl generates with the engine hf, which needs all of them"),
    "back end": ("training.processes=2 rl.backend=alone:Alone", "the back end alone:Alone trains in one process"),
    "no file": ("training.accelerate=absent.yaml", "training.accelerate: absent.yaml: cannot read it: No such file"),
    "no number": ("training.processes=0", "training.processes"),
    "two numbers": ("training.accelerate=fsdp.yaml training.processes=3", "num_processes is 2, and training.processes"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_a_group_cannot_do_is_said_before_the_run(tmp_path: Path, name: str) -> None:
    put(tmp_path, "rl")
    (tmp_path / "alone.py").write_text(
        "from rewright.training.trl.backend import TRL\n\nclass Alone(TRL):\n    processes = False\n"
    )
    settings, words = MISTAKES[name]
    in_process.rewright(tmp_path, "run", "r.yaml", *settings.split()).refused(words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- a list", "expected a file as `accelerate config` writes it"),
        ("a: [", "not YAML"),
        ("distributed_type: XLA", "distributed_type is XLA"),
        ("{distributed_type: MULTI_GPU, num_machines: 2, num_processes: 16}", "num_machines is 2"),
        ("{distributed_type: MULTI_GPU, num_processes: many}", "num_processes is 'many'"),
        ("{distributed_type: FSDP, num_processes: 2, fsdp_config: {fsdp_version: 1}}", "expected fsdp_version: 2"),
    ],
)
def test_a_file_of_accelerate_that_cannot_be_used_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(InputError, match=words.replace("[", r"\[")):
        launch_of(TrainingSettings(accelerate=str(tmp_path / "a.yaml")))


def test_the_number_of_processes_comes_from_either_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "{distributed_type: DEEPSPEED, num_processes: 4, deepspeed_config: {zero_stage: 3}}"
    )
    assert launch_of(TrainingSettings()) == Launch(1)
    assert launch_of(TrainingSettings(processes=2)) == Launch(2)
    path = tmp_path / "a.yaml"
    assert launch_of(TrainingSettings(accelerate=str(path))) == Launch(4, path, "DEEPSPEED", 3)
