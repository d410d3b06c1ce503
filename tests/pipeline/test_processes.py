"""Training stages as groups of processes: the same training as in one, and an end within seconds if one fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewright.training.launch import Launch, launch_of
from rewright.training.settings import TrainingSettings
from support import groups, in_process

pytest.importorskip("trl")


def test_rl_in_two_processes_makes_the_steps_of_one(tmp_path: Path) -> None:
    """tests/scale/test_training_processes.py has the other stages, FSDP2, and what happens if a process fails."""
    groups.put(tmp_path, "rl")
    lines = groups.run(tmp_path, "run", "r.yaml", "--run", "two", "training.processes=2")
    assert any(line.startswith("rl steps: 2/2") for line in lines)
    alone = in_process.rewright(tmp_path, "run", "r.yaml", "--run", "one")
    assert alone.code == 0, alone.errors
    two, one = tmp_path / "two", tmp_path / "one"
    assert len(groups.rows(two)) == 2
    for found, expected in zip(groups.rows(two), groups.rows(one), strict=True):
        assert found.keys() == expected.keys()
        assert {name: found[name] for name in found if name != "stage"} == {
            name: pytest.approx(value, abs=1e-4) for name, value in expected.items() if name != "stage"
        }
    assert groups.rollouts(two) == groups.rollouts(one)
    assert groups.difference(groups.weights(two, "rl"), groups.weights(one, "rl")) < 1e-4


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
    groups.put(tmp_path, "rl")
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
        ("{distributed_type: FSDP, num_processes: 2, fsdp_config: 2}", "fsdp_config is 2: expected a mapping"),
        ("{distributed_type: DEEPSPEED, deepspeed_config: {zero_stage: 4}}", "the stage of ZeRO is 4: expected 0, 1"),
        ("{distributed_type: DEEPSPEED, deepspeed_config: {deepspeed_config_file: absent}}", "absent: cannot read it"),
        ("{distributed_type: DEEPSPEED, deepspeed_config: {deepspeed_config_file: a.yaml}}", "a.yaml: not JSON"),
    ],
)
def test_a_file_of_accelerate_that_cannot_be_used_is_refused(tmp_path: Path, content: str, words: str) -> None:
    groups.put(tmp_path, "sft")
    (tmp_path / "a.yaml").write_text(content)
    in_process.rewright(tmp_path, "run", "r.yaml", "training.accelerate=a.yaml").refused(words)


FILE = "deepspeed_config_file: ds.json"
ZERO3 = {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}


@pytest.mark.parametrize(
    ("config", "file", "words"),
    [
        ("zero_stage: 2", {}, "DEEPSPEED needs the package deepspeed, which is not installed"),
        ("zero_stage: 2, gradient_accumulation_steps: 2", {}, "needs the package deepspeed"),  # as in the recipe
        ("gradient_accumulation_steps: 1", {}, "gradient_accumulation_steps is 1, and stage sft has 2: expected auto"),
        ("gradient_clipping: 0.5", {}, "gradient_clipping is 0.5, and stage sft has 1: expected auto"),
        ("zero_stage: 3", {}, "expected zero3_save_16bit_model: true with ZeRO 3, or the trained weights cannot be"),
        ("zero_stage: 3, zero3_save_16bit_model: true", {}, "needs the package deepspeed"),
        (FILE, {"zero_optimization": ZERO3, "train_batch_size": "auto"}, "needs the package deepspeed"),
        (FILE, {"zero_optimization": ZERO3, "train_batch_size": 16}, "train_batch_size is 16, and stage sft has 4"),
        (FILE, {"zero_optimization": {"stage": 3}}, "expected stage3_gather_16bit_weights_on_model_save: true"),
        (FILE, [], "ds.json: expected a JSON object"),
    ],
)
def test_settings_of_deepspeed_are_compared_with_the_recipe(
    tmp_path: Path, config: str, file: object, words: str
) -> None:
    groups.put(tmp_path, "sft")
    (tmp_path / "ds.json").write_text(json.dumps(file))
    (tmp_path / "a.yaml").write_text(
        f"{{distributed_type: DEEPSPEED, num_processes: 2, deepspeed_config: {{{config}}}}}"
    )
    settings = ("training.accelerate=a.yaml", "sft.micro_batch_size=1")
    in_process.rewright(tmp_path, "run", "r.yaml", *settings).refused(words)
    assert not (tmp_path / "runs").exists()


def test_checkpointing_of_fsdp_and_of_trl_at_once_is_refused(tmp_path: Path) -> None:
    groups.put(tmp_path, "sft")
    with (tmp_path / "fsdp.yaml").open("a") as file:
        file.write("  fsdp_activation_checkpointing: true\n")
    command = ("run", "r.yaml", "training.accelerate=fsdp.yaml", "--dry-run")
    in_process.rewright(tmp_path, *command).refused("fsdp_activation_checkpointing is true, and TRL checkpoints")
    said = in_process.rewright(tmp_path, *command, "sft.arguments.gradient_checkpointing=false")
    assert said.code == 0, said.errors


def test_the_number_of_processes_comes_from_either_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "{distributed_type: DEEPSPEED, num_processes: 4, deepspeed_config: {zero_stage: 3}}"
    )
    assert launch_of(TrainingSettings()) == Launch(1)
    assert launch_of(TrainingSettings(processes=2)) == Launch(2)
    path = tmp_path / "a.yaml"
    assert launch_of(TrainingSettings(accelerate=str(path))) == Launch(4, path, "DEEPSPEED", 3)
