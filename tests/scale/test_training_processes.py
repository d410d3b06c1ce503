"""Training stages as groups of two processes, through `rewright run`: the steps of one process, whatever happens.

Four runs from the same data: in one process; in two with DDP (sft, reward, rl) and with FSDP2 (sft, reward), to which
nothing happens; and both again with something in every stage after its first step.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from support import groups, in_process, peers, trackers

pytest.importorskip("trl")
pytestmark = pytest.mark.scale

DATA = ("synth", "judge", "score", "repair", "build")
TRAINING = ("sft", "reward", "rl")
SPY = {f"{stage}.backend": "spy:Spy" for stage in TRAINING}
TWO: dict[str, Any] = {"training.processes": 2, "sft.micro_batch_size": 1, **SPY}
RESUME = ("run", "run", "--resume", "--trusted", "spy")
METRIC = 2e-5
"""Of the metrics of a step, relative to those above 1. Sums are made in another order: measured were 2e-7 for losses,
and 5e-6 for all metrics."""
WEIGHT = 2e-4
"""Of a weight after two steps with learning rates of at most 6e-4; measured: 6e-5. AdamW divides by the size of the
gradient, so where that is near 0 the rounding of its sum decides on a part of the step."""
TRACKERS = ["tensorboard", "wandb"] if peers.PYTHON.exists() else []


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in one process."""
    folder = groups.put(tmp_path_factory.mktemp("one"), *DATA, *TRAINING)
    said = in_process.rewright(folder, "run", "r.yaml", "--run", "run")
    assert said.code == 0, said.errors
    return folder / "run"


def from_data(one: Path, folder: Path, stages: tuple[str, ...], changes: dict[str, Any]) -> Path:
    """A run with the data of `one` that has not trained yet."""
    groups.put(folder)
    run = folder / "run"
    run.mkdir()
    shutil.copy(one / "recipe.yaml", run)
    for name in ("tasks", "trajectories", "verdicts", "quality", "repairs", "hard", "sft", "preferences"):
        shutil.copy(one / f"{name}.jsonl", run)
    state = json.loads((one / "state.json").read_text())
    (run / "state.json").write_text(json.dumps({name: state[name] for name in DATA}))
    groups.settings(run, {"stages": [*DATA, *stages], **changes})
    return run


@pytest.fixture(scope="module")
def two(one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in two processes, whose metrics also go to trackers."""
    report = {f"{stage}.report_to": TRACKERS for stage in TRAINING}
    run = from_data(one, tmp_path_factory.mktemp("two"), TRAINING, {**TWO, **report})
    groups.run(run.parent, *RESUME, tracked=bool(TRACKERS))
    return run


@pytest.fixture(scope="module")
def fsdp(one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SFT and the reward model with FSDP2 in two processes."""
    changes = {"training.accelerate": "fsdp.yaml", **SPY}
    run = from_data(one, tmp_path_factory.mktemp("fsdp"), TRAINING[:2], changes)
    groups.run(run.parent, *RESUME)
    return run


def seen(run: Path, stage: str) -> list[dict[str, Any]]:
    """What the two processes wrote at the end of a stage."""
    return [json.loads((run.parent / f"{stage}.rank{rank}.json").read_text()) for rank in (0, 1)]


def same_steps(found: Path, expected: Path, stage: str) -> None:
    """Two runs made the same steps of a stage, to the tolerances above."""
    left, right = groups.rows(found, stage), groups.rows(expected, stage)
    assert len(left) == len(right) == 2
    for row, other in zip(left, right, strict=True):
        assert row.keys() == other.keys()
        skipped = ("stage", "entropy", "mean_token_accuracy") if stage == "sft" else ("stage",)  # of micro-batches
        numbers = {name: value for name, value in row.items() if name not in skipped}
        assert numbers == {name: pytest.approx(other[name], abs=METRIC, rel=METRIC) for name in numbers}
    assert groups.difference(groups.weights(found, stage), groups.weights(expected, stage)) < WEIGHT


@pytest.mark.parametrize("stage", TRAINING)
def test_two_processes_make_the_steps_of_one(one: Path, two: Path, stage: str) -> None:
    """SFT's last batch is incomplete: it has two rows for one process, and one for the other."""
    same_steps(two, one, stage)
    first, second = seen(two, stage)
    assert first["weights"] == second["weights"]
    assert first["seed"] != second["seed"]
    if stage == "rl":
        assert groups.rollouts(two) == groups.rollouts(one)
    if stage == "reward":
        accuracies = [json.loads((run / "state.json").read_text())["reward"]["accuracies"] for run in (one, two)]
        assert accuracies[0] == accuracies[1]
        assert accuracies[0]["held_out_pairs"] == 2


def test_dpo_in_two_processes_is_dpo_in_one_and_resumed(one: Path, tmp_path: Path) -> None:
    """Seven held-out pairs, of which one is left over by the division. Process 1 is killed after the first step."""
    pairs = [json.loads(line) for line in (one / "preferences.jsonl").read_text().splitlines()]
    trained = [{**pair, "split": "train"} for pair in pairs[:4]]
    unseen = [{**pair, "split": "heldout"} for pair in (pairs * 3)[:7]]
    changes = {"dpo.batch_size": 2, "dpo.epochs": 1, "dpo.warmup": 0, "dpo.save_steps": 1, "dpo.learning_rate": 1e-4}
    runs = []
    for name, more in (("one", {}), ("two", {"training.processes": 2, "dpo.backend": "spy:Spy"})):
        run = from_data(one, tmp_path / name, ("dpo",), {**changes, **more})
        lines = "".join(json.dumps(pair) + "\n" for pair in (*trained, *unseen))
        (run / "preferences.jsonl").write_text(lines)
        runs.append(run)
    alone, group = runs
    assert in_process.rewright(alone.parent, "run", "run", "--resume").code == 0
    stopped(group, "dpo 1 kill", 1, "error: dpo: process 1 of 2 has ended without a message (killed, or out of memory)")
    groups.run(group.parent, *RESUME)
    same_steps(group, alone, "dpo")
    first, second = seen(group, "dpo")
    assert first["weights"] == second["weights"]
    found, expected = (json.loads((run / "state.json").read_text())["dpo"]["accuracies"] for run in (group, alone))
    assert found == {name: pytest.approx(value, abs=METRIC) for name, value in expected.items()}
    assert found["held_out_pairs"] == 7


@pytest.mark.parametrize("stage", TRAINING[:2])
def test_fsdp2_makes_the_steps_of_one_process_and_saves_the_whole_model(one: Path, fsdp: Path, stage: str) -> None:
    same_steps(fsdp, one, stage)
    first, second = seen(fsdp, stage)
    assert first["weights"] != second["weights"]  # each has one part of them
    configurations = [json.loads((run / f"models/{stage}/config.json").read_text()) for run in (one, fsdp)]
    for configuration in configurations:
        configuration.pop("_name_or_path", None)
    assert configurations[0] == configurations[1]


@peers.needs_peers
def test_a_group_has_one_run_of_each_stage_in_a_tracker(two: Path) -> None:
    events = json.loads(peers.run(trackers.EVENTS, two / "tensorboard"))
    assert sorted(events) == sorted(TRAINING)
    assert not (two / "models/tensorboard").exists()
    tags = {"sft": "train/loss", "reward": "train/loss", "rl": "train/rewright/success"}
    for stage, tag in tags.items():
        assert [step for step, _ in events[stage][tag]] == [1, 2]
    runs = json.loads(peers.run(trackers.WANDB, two.parent / "wandb"))
    assert [(run["name"], run["exit"]) for run in runs] == [(f"run/{stage}", 0) for stage in TRAINING]
    assert {(run["project"], run["group"]) for run in runs} == {("rewright", "run")}


def stopped(run: Path, fault: str, code: int, line: str) -> None:
    """Go on with a run until something happens: it ends with a line and all its processes, and can be resumed."""
    command = groups.start(run.parent, *RESUME, fault=fault)
    found, lines = command.end()
    assert (found, lines[-1]) == (code, line)
    assert "Traceback" not in "\n".join(lines)
    assert sum(one.startswith("error: ") for one in lines) <= 1
    assert groups.ended(groups.workers(run.parent))


def interrupted(run: Path, fault: str, signal: str) -> list[str]:
    """Send a signal to `rewright` while its processes wait for one that hangs. Returns its lines."""
    command = groups.start(run.parent, *RESUME, fault=fault)
    command.wait_for("held")
    (run.parent / "held").unlink()
    group = groups.workers(run.parent)
    assert sorted(group) == [0, 1]
    command.process.send_signal(groups.SIGNALS[signal])
    found, lines = command.end(timeout=300)
    assert found == {"Ctrl-C": 130, "SIGTERM": 130, "killed": -9}[signal]
    assert "Traceback" not in "\n".join(lines)
    assert groups.ended(group)
    return lines


def test_faults_in_every_stage_change_nothing_in_the_end(one: Path, two: Path, tmp_path: Path) -> None:
    """Each fault comes after the checkpoint of the first step. The weights are then those of `two` to the last bit."""
    run = from_data(one, tmp_path, TRAINING, {**TWO, "stage_seconds": None})
    log = "(its traceback is in run/libraries.log)"
    stopped(run, "sft 1 memory", 1, f"error: sft: process 1 of 2 failed: MemoryError {log}")
    killed = "error: reward: process 0 of 2 has ended without a message (killed, or out of memory)"
    stopped(run, "reward 0 kill", 1, killed)
    lines = interrupted(run, "rl 1 hold", "Ctrl-C")
    assert [line for line in lines if line.startswith("stopped; what was done is saved: go on with ")]
    assert lines[-1].startswith("interrupted after")
    stopped(run, "rl 1 judge", 1, "error: the judge of this process is lost")
    assert len((run / "rollouts.jsonl").read_text().splitlines()) == 16  # the last 8 without credit
    groups.settings(run, {"stage_seconds": 15})
    expected = "error: stage rl did not finish within 15 s (stage_seconds in the recipe)"
    stopped(run, "rl 0 hold", 1, expected)
    groups.settings(run, {"stage_seconds": None})
    groups.run(run.parent, *RESUME)
    assert groups.rows(run) == groups.rows(two)
    assert sorted(groups.rollouts(run)) == sorted(groups.rollouts(two))
    for stage in TRAINING:
        assert groups.difference(groups.weights(run, stage), groups.weights(two, stage)) == 0


def test_sharded_and_whole_checkpoints_of_fsdp2_are_resumed(one: Path, fsdp: Path, tmp_path: Path) -> None:
    run = from_data(one, tmp_path, TRAINING[:1], {"training.accelerate": "sharded.yaml", **SPY})
    interrupted(run, "sft 1 hold", "killed")
    assert (run / "models/sft.checkpoints/checkpoint-1/pytorch_model_fsdp_0/.metadata").exists()
    groups.run(run.parent, *RESUME)
    groups.settings(run, {"training.accelerate": "fsdp.yaml", "stages": [*DATA, *TRAINING[:2]]})
    interrupted(run, "reward 1 hold", "SIGTERM")
    groups.run(run.parent, *RESUME)
    assert groups.rows(run) == groups.rows(fsdp)
    for stage in TRAINING[:2]:
        assert groups.difference(groups.weights(run, stage), groups.weights(fsdp, stage)) == 0


def test_an_adapter_of_the_reward_model_is_merged_from_its_parts(one: Path, tmp_path: Path) -> None:
    changes = {"reward.lora_rank": 4, "training.accelerate": "sharded.yaml", **SPY}
    run = from_data(one, tmp_path / "fsdp", ("reward",), changes)
    interrupted(run, "reward 0 hold", "Ctrl-C")
    groups.run(run.parent, *RESUME)
    alone = from_data(one, tmp_path / "alone", ("reward",), {"reward.lora_rank": 4})
    assert in_process.rewright(alone.parent, "run", "run", "--resume").code == 0
    same_steps(run, alone, "reward")
