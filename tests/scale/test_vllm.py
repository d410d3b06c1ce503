"""vLLM (its CPU build) as the engine of RL in all three forms, as `model.engine`, and in a whole run.

Every start of vLLM takes some ten seconds, so that runs are shared. All of them have the same recipe and seed: what one
of them makes is what the others are compared with.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rewright.pipeline.run_directory import Run
from support import scale

pytestmark = [pytest.mark.scale, scale.needs_vllm]
load_file = pytest.importorskip("safetensors.numpy").load_file

RECIPE = """\
name: engines
model: {path: pico}
stages: [rl]
tasks: {format: town, split: train, profile: short, count: 8}
limits: {turns: 3, turn_tokens: 48, trajectory_tokens: 200, tool_seconds: 600, trajectory_seconds: 3000}
sandbox: {level: process, wall_seconds: 600}
rl: {learning_rate: 1.0e-3, steps: 2, tasks_per_step: 4, generations: 4}
"""
QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
MODELS = scale.ROOT / "src/rewright/engines/models"
VLLM = "rl.vllm.max_model_len=1024"
SECONDS = 900


class Server:
    """A vLLM server of pico on loopback, in a session of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            str(scale.VLLM), "-m", "vllm.entrypoints.openai.api_server", "--model", str(MODELS / "pico"),
            "--served-model-name", "policy", "--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32",
            "--enforce-eager", "--max-model-len", "1024", "--logprobs-mode", "processed_logprobs",
            "--generation-config", "vllm", "--worker-extension-cls", "rewright.engines.vllm_worker.LoadFile",
            "--distributed-executor-backend", "uni",
        ]  # fmt: skip
        variables = {
            **os.environ, **QUIET, "PYTHONPATH": str(scale.ROOT / "src"), "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        }  # fmt: skip
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=variables, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.5)
        self.kill()
        raise AssertionError((self.folder / "server.log").read_text()[-3000:])

    def answers(self) -> int:
        """How many requests for tokens it has answered, since it was started first."""
        return (self.folder / "server.log").read_text(errors="replace").count('/v1/completions HTTP/1.1" 200')

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("server"))
    started.start()
    yield started
    started.kill()


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("second"))
    started.start()
    yield started
    started.kill()


def overrides(engine: str, server: Server) -> list[str]:
    more = [f"rl.server.base_url={server.url}"] if engine == "server" else [VLLM]
    return [f"rl.engine={engine}", *more]


def rewright(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return scale.rewright(*arguments, folder=folder, interpreter=scale.VLLM, timeout=SECONDS, **QUIET)


def test_a_server_scores_tokens_as_transformers_does(server: Server) -> None:
    """First: later tests change the weights of the server."""
    from rewright.dialects import get_dialect
    from rewright.engines.embedded import HFSettings
    from rewright.engines.served import OpenAISettings
    from rewright.pipeline.signal_models import open_log_prob

    dialect = get_dialect("hermes")
    served = open_log_prob(OpenAISettings(path="policy", base_url=server.url, tokenizer=str(MODELS / "pico")), dialect)
    local = open_log_prob(HFSettings(path="pico"), dialect)
    whole = served.tokenize("<|im_start|>user\nWhat is the age of Ada?<|im_end|>\n<|im_start|>assistant\n") * 4
    pairs = [(whole[:end], served.tokenize(answer)) for end in (1, 9, 30, len(whole)) for answer in ("36", "Ada", "")]
    for found, expected in zip(served(pairs), local(pairs), strict=True):
        assert found is not None and expected is not None
        assert found == pytest.approx(expected, abs=1e-4)
    assert served([([5] * 1023, [6, 7]), ([5], [6])])[0] is None, "longer than the server's context"
    assert served.counts["too_long"] == 1
    served.close()


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory, server: Server) -> dict[str, Run]:
    """The same two steps of RL, by each form of vLLM."""
    folder = tmp_path_factory.mktemp("forms")
    (folder / "r.yaml").write_text(RECIPE)
    for engine in ("server", "vllm", "colocate"):
        made = rewright(folder, "run", "r.yaml", "--run", engine, *overrides(engine, server))
        assert made.returncode == 0, made.stderr
    return {engine: Run(folder / engine) for engine in ("server", "vllm", "colocate")}


def tokens(run: Run) -> list[list[Any]]:
    return [[turn.token_ids for turn in one.turns] for one in run.rollouts]


def test_each_form_takes_the_weights_of_every_step_and_samples_with_them(forms: dict[str, Run]) -> None:
    before = load_file(MODELS / "pico/model.safetensors")
    for engine, run in forms.items():
        versions = {(int(one.id.split("/")[-2]), turn.weights_version) for one in run.rollouts for turn in one.turns}
        assert versions == {(0, 0), (1, 1)}, engine
        rows = list(run.metrics())
        assert len(rows) == 2
        for row in rows:  # the second step is sampled with the weights of the first: those of the trainer, or a gap
            assert row["rewright/sampler_gap_mean"] == 0.0 and row["rewright/sampler_gap_max"] <= 0.001, engine
            assert row["sampling/importance_sampling_ratio/mean"] == pytest.approx(1.0, abs=1e-4)
        after = load_file(run.path / "models/rl/model.safetensors")
        assert max(abs(after[name] - before[name]).max() for name in after) > 1e-4, engine
        assert not [one for one in run.rollouts if one.failure is not None]


def test_all_forms_make_the_same_rollouts_and_steps(forms: dict[str, Run]) -> None:
    assert tokens(forms["vllm"]) == tokens(forms["colocate"]) == tokens(forms["server"])
    for rows in zip(*(run.metrics() for run in forms.values()), strict=True):
        assert [row["loss"] for row in rows] == pytest.approx([rows[0]["loss"]] * 3, abs=1e-5)


def test_greedy_turns_are_those_of_transformers_before_and_after_new_weights(server: Server, tmp_path: Path) -> None:
    made = scale.python(
        scale.VLLM, scale.ROOT / "tests/scale/engines_of_vllm.py", server.url, folder=tmp_path, timeout=SECONDS, **QUIET
    )
    assert made.returncode == 0, made.stderr
    said = json.loads(made.stdout.splitlines()[-1])
    for engine in ("server", "colocate", "vllm"):
        start, stale, updated, old, waited, last, seeded = said[engine]
        if engine != "server":  # which may have generated for a run before
            assert start["equal"] and start["version"] is None
        for row, version in ((updated, 0), (last, 1)):
            assert row["equal"] and row["gap"] < 1e-4 and row["version"] == version, engine
        assert not old["equal"] and old["version"] == 0, engine
        assert stale["gap"] > 0.01 or engine == "server"
        assert waited == {"waited": 1}  # a request that waited while the weights changed has the new ones
        assert seeded == {"seeded": True}
    ended = "policy: the process of vLLM has ended (killed, or out of memory)"
    assert said["killed"] == [ended] and said["update"] == ended and said["alive"] is False
    assert said["closed"] == "engine policy is closed"


def begun(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A run under way, with a checkpoint after each step. What it says is in `said.log`."""
    (folder / "r.yaml").write_text(RECIPE)
    with (folder / "said.log").open("w") as said:
        return subprocess.Popen(
            [str(scale.VLLM), "-m", "rewright", "run", "r.yaml", "--run", "run", "rl.save_steps=1", *arguments],
            cwd=folder,
            env={**os.environ, **QUIET, "PYTHONPATH": str(scale.ROOT / "src")},
            stdout=said,
            stderr=said,
            text=True,
        )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], folder: Path) -> None:
    """Wait until something is so. AssertionError if the run ends before, or does not get there."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None and time.monotonic() < end, (folder / "said.log").read_text()[-5000:]
        time.sleep(0.02)


def errors(process: subprocess.Popen[str], folder: Path) -> tuple[str, str]:
    """What a run says that ends with exit code 1, and its error line."""
    process.wait(SECONDS)
    said = (folder / "said.log").read_text()
    assert process.returncode == 1 and "Traceback" not in said, said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return said, line


def resumed(folder: Path, undisturbed: Run, *flags: str) -> None:
    """Resume a run, which then has the rollouts, the metrics and the weights of an undisturbed one."""
    said = rewright(folder, "run", "run", "--resume", *flags)
    assert said.returncode == 0, said.stderr
    run = Run(folder / "run")
    assert [one.id for one in run.rollouts] == [one.id for one in undisturbed.rollouts]
    assert tokens(run) == tokens(undisturbed)
    rows = list(run.metrics())
    assert [row["step"] for row in rows] == [1, 2]
    for found, expected in zip(rows, undisturbed.metrics(), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    ours, theirs = (load_file(one.path / "models/rl/model.safetensors") for one in (run, undisturbed))
    assert max(abs(ours[name] - theirs[name]).max() for name in theirs) < 1e-5


def command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue
        if stat and int(stat.rsplit(")", 1)[1].split()[1]) == parent:
            found.append(int(entry.name))
    return found


WAIT = """\
import time
from pathlib import Path
from transformers import TrainerCallback, trainer
from rewright.training.trl.backend import TRL

class Wait(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == STEP:
            Path("held").touch()
            while not Path("go").exists():
                time.sleep(0.02)

class Hold(TRL):
    def train_rl(self, job):
        trainer.DEFAULT_CALLBACKS.append(Wait)
        return super().train_rl(job)
"""
"""A backend that waits at the end of a step for a file."""


def test_a_killed_engine_is_one_line_and_the_run_is_resumed(
    forms: dict[str, Run], server: Server, tmp_path: Path
) -> None:
    (tmp_path / "hold.py").write_text(WAIT.replace("STEP", "1"))
    process = begun(tmp_path, *overrides("vllm", server), "rl.backend=hold:Hold")
    wait_for((tmp_path / "held").exists, process, tmp_path)
    core = [pid for pid in children(process.pid) if "EngineCore" in command_of(pid)]
    assert len(core) == 1
    os.kill(core[0], signal.SIGKILL)
    (tmp_path / "go").touch()
    assert "the process of vLLM has ended" in errors(process, tmp_path)[1]
    resumed(tmp_path, forms["vllm"], "--trusted", "hold")


def test_a_killed_run_with_vllm_in_its_process_is_resumed(
    forms: dict[str, Run], server: Server, tmp_path: Path
) -> None:
    (tmp_path / "hold.py").write_text(WAIT.replace("STEP", "2"))
    process = begun(tmp_path, *overrides("colocate", server), "rl.backend=hold:Hold")
    wait_for((tmp_path / "held").exists, process, tmp_path)
    process.kill()
    process.wait()
    assert (tmp_path / "run/models/rl.checkpoints/checkpoint-1/trainer_state.json").exists()
    assert not (tmp_path / "run/models/rl").exists()
    (tmp_path / "go").touch()
    resumed(tmp_path, forms["colocate"], "--trusted", "hold")


HOLD = """\
import asyncio
from rewright.engines.vllm_server import VLLMServerEngine

answered = 0
generate = VLLMServerEngine.generate

async def held(self, request):
    global answered
    while answered >= 8 and not Path("killed").exists():
        await asyncio.sleep(0.02)
    turn = await generate(self, request)
    answered += Path("go").exists()
    return turn

VLLMServerEngine.generate = held
"""


def test_of_two_servers_one_dies_and_returns_and_then_both_die(
    forms: dict[str, Run], server: Server, second: Server, tmp_path: Path
) -> None:
    """Killed while they generate: one in the first step, both in the second one. The run is resumed with one."""
    (tmp_path / "hold.py").write_text(WAIT.replace("STEP", "1") + HOLD)
    addresses = f"[{server.url}, {second.url}]"
    done = second.answers()
    process = begun(tmp_path, "rl.engine=server", f"rl.server.base_url={addresses}", "rl.backend=hold:Hold")
    wait_for(lambda: second.answers() > done + 1, process, tmp_path)
    second.kill()
    wait_for((tmp_path / "held").exists, process, tmp_path)
    second.start()
    done = [one.answers() for one in (server, second)]
    (tmp_path / "go").touch()
    # Both are used in the second step: with its weights, or the rollouts would be others. It waits for later turns.
    wait_for(
        lambda: all(one.answers() > before + 1 for one, before in zip((server, second), done, strict=True)),
        process,
        tmp_path,
    )
    server.kill()
    second.kill()
    (tmp_path / "killed").touch()
    said, error = errors(process, tmp_path)
    lines = said.splitlines()
    events = [(line.split()[0], line.split(": ")[0].split(" ", 1)[1]) for line in lines if line.startswith("http")]
    assert events[:2] == [(second.url, "is dropped"), (second.url, "answers again")]
    assert sorted(events[2:]) == sorted([(server.url, "is dropped"), (second.url, "is dropped")])
    assert "127.0.0.1" in error or "no server is left" in error
    server.start()
    resumed(tmp_path, forms["server"], "--trusted", "hold")


def test_vllm_as_the_models_engine_and_in_rl_makes_a_whole_run(tmp_path: Path) -> None:
    """Recipe vllm-town, smaller: synthesis, repair, SFT, RL and evaluation, and the table of them."""
    made = rewright(
        tmp_path, "run", str(scale.ROOT / "recipes/vllm-town.yaml"), "--run", "run", "tasks.count=24",
        "rl.tasks.count=16", "rl.steps=2", "rl.lora_rank=4", "rl.save_steps=null", "eval.tasks.count=8",
        "eval.temperature=0", "sft.epochs=1",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    table = [line.split()[0] for line in made.stdout.splitlines() if line[:4] in {"base", "sft ", "rl  "}]
    assert table[:3] == ["base", "sft", "rl"]
    assert "[shutdown]" not in made.stderr and "INFO" not in made.stderr  # vLLM's messages are in libraries.log
    plain = scale.rewright(
        "run", str(scale.ROOT / "recipes/vllm-town.yaml"), "--run", "plain", "model={path: pico}",
        "repair.model={path: pico-repairer}", "rl={engine: hf}", "stages=[eval_base]", "eval.tasks.count=8",
        "eval.temperature=0", folder=tmp_path, timeout=SECONDS,
    )  # fmt: skip
    assert plain.returncode == 0, plain.stderr
    assert evaluated(tmp_path / "run") == evaluated(tmp_path / "plain")


def evaluated(folder: Path) -> dict[str, list[Any]]:
    """The greedy turns of the evaluation of the base model, by task."""
    return {one.task_id: [turn.token_ids for turn in one.turns] for one in Run(folder).evaluation("base")[0]}
