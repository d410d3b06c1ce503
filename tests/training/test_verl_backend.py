"""`rl.backend: verl` without verl: what is refused before a run, what is written for verl, and what is read back."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch")

import pyarrow.parquet as pq
import torch

from rewright.core.errors import InputError, TrainingError
from rewright.core.records import Task
from rewright.dialects import get_dialect
from rewright.engines.embedded import HFSettings
from rewright.recipe.loader import load_recipe
from rewright.rollout.episodes import read_settings, read_task
from rewright.rollout.settings import Limits
from rewright.tasks.worlds.town import generate
from rewright.tools import CombinedTools
from rewright.training.backend import RLJob
from rewright.training.settings import RLSettings
from rewright.training.verl import supervisor
from rewright.training.verl.checkpoints import keep_complete
from rewright.training.verl.config import Launch, as_arguments, overrides
from rewright.training.verl.data import write_agent_loops, write_tasks
from rewright.training.verl.launch import run
from rewright.training.verl.metrics import new_file, rows_of
from support import in_process

ROOT = Path(__file__).parents[2]
RECIPE = """\
name: on-verl
stages: [rl]
model: {path: pico}
limits: {turns: 4, turn_tokens: 48, trajectory_tokens: 200}
sandbox: {level: process}
rl:
  backend: verl
  tasks: {format: town, split: train, profile: short, count: 8}
  verl: {device: cpu, workers: 2}
  tasks_per_step: 4
  generations: 4
  trajectory_reward: matchtir
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path


REFUSED = {
    "trajectory reward": ("rl.trajectory_reward=autotraj", "rl.trajectory_reward is autotraj: expected matchtir"),
    "join": ("rl.credit.join=trajectory", "rl.credit.join is trajectory: expected last_turn"),
    "adapters": ("rl.lora_rank=8", "rl.lora_rank: not supported with rl.backend: verl"),
    "TRL's arguments": ("rl.arguments.optim=sgd", "rl.arguments: those are TRL's: expected rl.verl.overrides"),
    "loss": ("rl.loss_type=cispo", "rl.loss_type is cispo: expected one of grpo, bnpo, dapo, dr_grpo"),
    "scheduler": ("rl.scheduler=polynomial", "rl.scheduler is polynomial: expected constant or cosine"),
    "engine": ("rl.engine=server rl.server.base_url=http://h:1/v1", "rl.engine is server: with rl.backend: verl"),
    "top-p": ("rl.top_p=0.9", "rl.top_p is 0.9: expected 1"),
    "temperature": ("rl.temperature=0", "rl.temperature is 0"),
    "concurrency": ("rl.concurrency=3", "rl.concurrency has no effect: rl.backend is verl"),
    "updates": ("rl.updates_per_step=8", "rl.updates_per_step is 8: expected a divisor of rl.tasks_per_step, 4"),
    "workers": ("rl.verl.workers=3", "rl.verl.workers is 3 and rl.verl.nodes 1: expected a divisor of the 16 rollouts"),
    "micro batch": ("rl.micro_batch_size=3", "rl.micro_batch_size is 3: expected a divisor of the 8 rollouts of each"),
    "logger": ("rl.report_to=[azure]", "rl.report_to is 'azure': expected one of"),
    "length": ("limits.trajectory_tokens=null", "limits.trajectory_tokens is null: expected a number"),
    "nodes": ("rl.verl.nodes=2", "rl.verl.nodes is 2, and ray.address is missing"),
    "address": ("ray.address=auto", "ray.address: 'auto': expected HOST:PORT"),
    "client": ("ray.address=ray://127.0.0.1:10001", "expected HOST:PORT"),
    "another section": ("sft.backend=verl stages=[sft,rl] sft.source=demonstrations", "sft.backend is verl: the back"),
    "no interpreter": ("rl.verl.python=absent/python", "rl.verl.python: absent/python: expected a Python interpreter"),
    "another program": ("rl.verl.python=/bin/true", "rl.verl.python: /bin/true is no Python interpreter"),
    "reserved": ("rl.verl.overrides.trainer.nnodes=2", "trainer.nnodes is set by rl.verl.nodes: expected that key"),
    "a section": ("rl.verl.overrides.data={seed: 1}", "data.seed is set by seed: expected that key"),
    "unused address": ("rl.backend=trl ray.address=h:1", "ray.address has no effect: rl.backend is trl"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_verl_does_not_support_is_refused_with_its_key(folder: Path, name: str) -> None:
    given, words = REFUSED[name]
    overriding = yaml.safe_load(given.split("=", 1)[1]) if name == "a section" else None
    arguments = [given] if overriding else given.split()
    in_process.rewright(folder, "run", "r.yaml", "--dry-run", *arguments).refused(words)


def test_a_signal_of_yours_that_compares_rollouts_is_refused_before_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    (folder / "ranks_on_verl.py").write_text(
        "from rewright.credit import compares_trajectories\n"
        "@compares_trajectories\n"
        "def ranks(trajectories):\n"
        "    return [[0.0] * len(one.turns) for one in trajectories]\n"
    )
    said = in_process.rewright(folder, "run", "r.yaml", "--dry-run", "rl.credit.signal=ranks_on_verl:ranks")
    said.refused("rl.credit.signal 'ranks_on_verl:ranks' compares the trajectories of a task: this trainer gives one")
    assert not (folder / "runs").exists()


def test_settings_of_verl_have_no_effect_with_another_back_end(folder: Path) -> None:
    (folder / "trl.yaml").write_text(RECIPE.replace("backend: verl", "backend: trl"))
    in_process.rewright(folder, "run", "trl.yaml", "--dry-run").refused("rl.verl has no effect: rl.backend is trl")
    assert in_process.rewright(folder, "run", "r.yaml", "--dry-run", "rl.backend=trl").code == 0  # the section is kept


def test_no_gpu_and_no_verl_are_said_before_the_run(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    said = in_process.rewright(folder, "run", "r.yaml", "rl.verl.device=cuda")
    said.refused("rl.verl.workers is 2: this machine has 0 GPUs")
    in_process.rewright(folder, "run", "r.yaml").refused("has no verl: pip install 'rewright[verl]'")
    assert not (folder / "runs").exists()


def test_a_conflict_of_versions_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = "Metadata-Version: 2.1\nName: verl\nVersion: {}\nRequires-Dist: transformers<5.1,>=5.0\n"
    site = folder / "site"
    for name, text in {"verl": about.format("0.9.1"), "ray": "Name: ray\nVersion: 2.60.0\n"}.items():
        (site / f"{name}-1.dist-info").mkdir(parents=True)
        (site / f"{name}-1.dist-info/METADATA").write_text(text)
    for module in ("verl", "ray", "hydra", "tensordict", "transfer_queue"):
        (site / module).mkdir()
        (site / module / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(site))
    in_process.rewright(folder, "run", "r.yaml", "--dry-run").refused("verl 0.9.1 does not fit transformers 5.")
    (site / "verl-1.dist-info/METADATA").write_text(about.format("0.8.0"))
    said = in_process.rewright(folder, "run", "r.yaml", "--dry-run", "rl.steps=7")
    said.refused("has verl 0.8.0: expected verl 0.9")


def test_a_cluster_that_is_not_there_is_said(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    said = in_process.rewright(folder, "run", "r.yaml", "--dry-run", f"ray.address={address}")
    said.refused(f"ray.address: {address}: no Ray cluster there (Connection refused)")


def test_a_stored_run_does_not_start_another_interpreter_unasked(folder: Path) -> None:
    said = in_process.rewright(folder, "run", "r.yaml", "--run", "run", "stages=[eval_base]", "eval.tasks.count=1")
    assert said.code == 0, said.errors
    stored = yaml.safe_load((folder / "run/recipe.yaml").read_text())
    stored["rl"]["verl"]["python"] = "their/python"
    stored["rl"]["verl"]["overrides"] = {"reward": {"custom_reward_function.path": "theirs.py"}}
    (folder / "run/recipe.yaml").write_text(yaml.safe_dump(stored))
    said = in_process.rewright(folder, "run", "run", "--resume")
    said.refused("rl.verl.python: their/python, rl.verl.overrides.reward.custom_reward_function.path: theirs.py")


def settings(*given: str) -> RLSettings:
    return load_recipe(RECIPE_FILE, given).rl


@pytest.fixture(scope="module", autouse=True)
def _recipe_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    global RECIPE_FILE  # noqa: PLW0603
    RECIPE_FILE = tmp_path_factory.mktemp("recipe") / "r.yaml"
    RECIPE_FILE.write_text(RECIPE)


RECIPE_FILE = Path()
LAUNCH: dict[str, Any] = {
    "folder": Path("/run/rl"), "model": "/m", "rows": 10, "prompt_tokens": 7, "response_tokens": 200, "seed": 3,
}  # fmt: skip


def test_the_recipe_becomes_verls_configuration() -> None:
    given = settings(
        "rl.learning_rate=2e-5", "rl.steps=7", "rl.updates_per_step=2", "rl.beta=0.01", "rl.epsilon=0.3", "rl.warmup=3",
        "rl.entropy=0.002", "rl.loss_type=dr_grpo", "rl.save_steps=3", "rl.credit.gamma=0.5", "rl.scheduler=cosine",
        "rl.credit.compare.numbers_as_text=true", "rl.verl.overrides.actor_rollout_ref.actor.clip_ratio_c=5.0",
    )  # fmt: skip
    found = overrides(given, Launch(**LAUNCH))
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    expected = {
        "data.train_batch_size": 4, "data.seed": 3, "data.max_prompt_length": 7, "data.max_response_length": 200,
        f"{actor}.optim.lr": 2e-5, f"{actor}.optim.lr_scheduler_type": "cosine", f"{actor}.optim.lr_warmup_steps": 3,
        f"{actor}.ppo_mini_batch_size": 2, f"{actor}.ppo_micro_batch_size_per_gpu": 4, f"{actor}.clip_ratio_low": 0.3,
        f"{actor}.use_kl_loss": True, f"{actor}.kl_loss_coef": 0.01, f"{actor}.entropy_coeff": 0.002,
        f"{actor}.loss_agg_mode": "seq-mean-token-sum-norm", f"{actor}.loss_scale_factor": 200,
        f"{actor}.clip_ratio_c": 5.0, f"{rollout}.n": 4, f"{rollout}.name": "hf_cpu",
        "algorithm.adv_estimator": "rewright", "+algorithm.rewright.gamma": 0.5,
        "+algorithm.rewright.compare.numbers_as_text": True,
        "algorithm.rollout_correction.rollout_is": "token", "trainer.total_training_steps": 7, "trainer.save_freq": 3,
        "trainer.n_gpus_per_node": 2, "trainer.total_epochs": 5, "+ray_kwargs.ray_init.address": "local",
    }  # fmt: skip
    assert {key: found.get(key) for key in expected} == expected


def test_a_setting_of_the_users_own_replaces_a_default_and_a_cluster_gets_no_resources() -> None:
    given = settings("rl.verl.overrides.+ray_kwargs.ray_init.num_gpus=5", "rl.verl.overrides.data.max_prompt_length=9")
    found = overrides(given, Launch(**LAUNCH))
    assert (found["+ray_kwargs.ray_init.num_gpus"], found["data.max_prompt_length"]) == (5, 9)
    on_cluster = overrides(settings(), Launch(**LAUNCH, address="h:6379"))
    resources = [key for key in on_cluster if key.rpartition(".")[2] in ("num_gpus", "num_cpus", "_temp_dir")]
    assert resources == []


def test_arguments_are_in_hydras_grammar() -> None:
    values = {"a": None, "b": True, "c": 1e-06, "d": 'it\'s "${x}" \\', "e": ["x", 1], "f": {"k": "v"}}
    assert as_arguments(values) == [
        "a=null", "b=True", "c=1e-06", 'd="it\'s \\"\\${x}\\" \\\\"', 'e=["x",1]', 'f={k:"v"}'
    ]  # fmt: skip


def job_of(tasks: list[Task], **more: Any) -> RLJob:
    return RLJob(
        tasks=tasks, model=HFSettings(), settings=settings(), out=Path("rl"), seed=1, dialect=get_dialect("hermes"),
        tools=CombinedTools({}), limits=Limits(turns=3, trajectory_tokens=50), judges=("mine",), **more,
    )  # fmt: skip


def test_rows_hold_the_whole_task_and_the_agent_loop_its_settings(tmp_path: Path) -> None:
    job = job_of(list(generate("train", 3, profile="short")))
    write_tasks(tmp_path / "tasks.parquet", job)
    write_agent_loops(tmp_path / "loops.yaml", job, tmp_path / "rollouts")
    (loop,) = yaml.safe_load((tmp_path / "loops.yaml").read_text())
    found = read_settings(loop["settings"], "settings")
    assert (found.limits, found.outcome, found.trajectory_reward, found.seed) == (job.limits, "judge", "matchtir", 1)
    assert (found.judges, found.rollouts) == (("mine",), str(tmp_path / "rollouts"))
    rows = pq.read_table(tmp_path / "tasks.parquet").to_pylist()
    assert {row["agent_name"] for row in rows} == {loop["name"]}
    assert [read_task(row["extra_info"]["task"], found, "task") for row in rows] == job.tasks
    calls = [json.loads(row["extra_info"]["gold_calls"]) for row in rows]
    assert [[call["name"] for call in one] for one in calls] == [
        [call.name for call in task.gold.calls or ()] for task in job.tasks
    ]


def checkpoint(folder: Path, step: int, *, without: str = "", broken: str = "") -> Path:
    place = folder / f"global_step_{step}"
    files = [
        f"actor/{part}_world_size_2_rank_{rank}.pt" for part in ("model", "optim", "extra_state") for rank in (0, 1)
    ]
    for name in [*files, "data.pt"]:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        if name != without:
            torch.save({"step": step}, place / name)
        if name == broken:
            (place / name).write_bytes((place / name).read_bytes()[:-30])
    (place / "actor/huggingface").mkdir()
    (place / "actor/huggingface/config.json").write_text("{}")
    return place


@pytest.mark.parametrize(
    "kill",
    [
        {"without": "data.pt"},
        {"broken": "data.pt"},
        {"without": "actor/optim_world_size_2_rank_1.pt"},
        {"broken": "actor/model_world_size_2_rank_1.pt"},
    ],
    ids=str,
)
def test_a_checkpoint_that_was_not_finished_is_not_resumed_from(tmp_path: Path, kill: dict[str, str]) -> None:
    checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 4, **kill)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("4")
    assert keep_complete(tmp_path, 2) == 2
    assert (tmp_path / "latest_checkpointed_iteration.txt").read_text() == "2"
    assert [path.name for path in tmp_path.glob("global_step_*")] == ["global_step_2"]


def test_a_checkpoint_is_complete_before_verl_has_noted_it_and_one_of_other_workers_is_none(tmp_path: Path) -> None:
    checkpoint(tmp_path, 3)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("")  # verl was killed here
    assert keep_complete(tmp_path, 2) == 3
    assert (tmp_path / "latest_checkpointed_iteration.txt").read_text() == "3"
    assert keep_complete(tmp_path, 4) == 0
    assert list(tmp_path.iterdir()) == []


def test_rows_of_a_step_that_was_made_again_are_the_last_ones(tmp_path: Path) -> None:
    for lines in (
        [(1, {"actor/lr": 0.1}), (2, {"actor/lr": 0.2})],
        [(2, {"actor/lr": 0.25, "critic/rewards/mean": float("nan")}), (3, {"actor/lr": 0.3, "other": 1})],
    ):
        text = "".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in lines)
        new_file(tmp_path).write_text(text + '{"step": 9, "da')
    assert list(rows_of(tmp_path, 3).values()) == [
        {"step": 1, "learning_rate": 0.1},
        {"step": 2, "learning_rate": 0.25},
        {"step": 3, "learning_rate": 0.3},
    ]


DAEMON = """\
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        pathlib.Path("daemon.tmp").write_text(str(os.getpid()))
        os.rename("daemon.tmp", "daemon")
        time.sleep(600)
    os._exit(0)
while not pathlib.Path("daemon").exists():
    time.sleep(0.01)
print("(Runner pid=7) \\x1b[36mray.exceptions.RayTaskError(ValueError): x\\nValueError: too few GPUs", flush=True)
"""


def ended(process: int) -> bool:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_a_failure_is_one_line_with_the_cause_and_no_process_is_left(tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    with pytest.raises(TrainingError) as failed, (tmp_path / "lock").open("w") as lock:
        run(
            [sys.executable, "-c", DAEMON + "sys.exit(3)"],
            folder=tmp_path,
            log=tmp_path / "verl.log",
            what="verl",
            environment=os.environ,
            lock=lock.fileno(),
            temporary=tmp_path / "ray",
        )
    assert str(failed.value) == f"rl: verl failed: ValueError: too few GPUs (log: {tmp_path / 'verl.log'})"
    assert ended(int((tmp_path / "daemon").read_text()))
    assert not (tmp_path / "ray").exists()


def test_all_processes_end_if_the_one_that_started_them_is_killed(tmp_path: Path) -> None:
    arguments = [sys.executable, supervisor.__file__, "", "2", sys.executable, "-c", DAEMON + "time.sleep(600)"]
    code = f"import subprocess, time; subprocess.Popen({arguments!r}, stdin=subprocess.PIPE); time.sleep(600)"
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.DEVNULL)
    while not (tmp_path / "daemon").exists():
        assert driver.poll() is None
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert ended(int((tmp_path / "daemon").read_text()))


def test_the_command_ends_if_the_supervisor_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, time; pathlib.Path('command').write_text(str(os.getpid()));"
        "os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)"
    )
    with pytest.raises(TrainingError, match="it was killed by signal 9"), (tmp_path / "lock").open("w") as lock:
        run(
            [sys.executable, "-c", code],
            folder=tmp_path,
            log=tmp_path / "verl.log",
            what="verl",
            environment=os.environ,
            lock=lock.fileno(),
        )
    assert ended(int((tmp_path / "command").read_text()))


def test_a_lost_worker_does_not_hang(tmp_path: Path) -> None:
    said = "(raylet) A worker died or was killed while executing a task by an unexpected system error."
    words = r"verl failed: Ray has lost a node or a worker: no step in the 0\.1 s after it: A worker died"
    with pytest.raises(TrainingError, match=words), (tmp_path / "lock").open("w") as lock:
        run(
            [sys.executable, "-c", f"import time; print({said!r}, flush=True); time.sleep(600)"],
            folder=tmp_path,
            log=tmp_path / "verl.log",
            what="verl",
            environment=os.environ,
            lock=lock.fileno(),
            stall_seconds=0.1,
        )


def test_a_lost_node_is_named_before_the_exception_that_followed(tmp_path: Path) -> None:
    """Lines of Ray 2.60 and torch after the death of one of two nodes."""
    said = (
        "(raylet) Raylet is terminated. Termination is unexpected. Possible reasons include: (1) SIGKILL by the user"
        "\\n(WorkerDict pid=7) RuntimeError: [pair.cc:534] Connection closed by peer [127.0.0.1]:36915"
    )
    words = r"verl failed: Ray has lost a node or a worker: RuntimeError: \[pair\.cc:534\] Connection closed by peer"
    with pytest.raises(TrainingError, match=words), (tmp_path / "lock").open("w") as lock:
        run(
            [sys.executable, "-c", f"import sys; print('{said}', flush=True); sys.exit(1)"],
            folder=tmp_path,
            log=tmp_path / "verl.log",
            what="verl",
            environment=os.environ,
            lock=lock.fileno(),
        )


def test_an_unknown_trainer_is_still_refused(folder: Path) -> None:
    in_process.rewright(folder, "run", "r.yaml", "--dry-run", "rl.backend=verll").refused("verll")
    with pytest.raises(InputError):
        load_recipe(folder / "r.yaml", ["rl.verl.workers=0"])
