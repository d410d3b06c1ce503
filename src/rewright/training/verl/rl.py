"""RL of a policy with verl: launch, follow, merge. Resumes from verl's last checkpoint, or only merges."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec

from rewright.core.errors import StorageError, TrainingError
from rewright.core.progress import Bar, say
from rewright.training.backend import RLJob
from rewright.training.checkpoints import checkpoint_folder, discard_checkpoints
from rewright.training.settings import check_task_count
from rewright.training.trackers import PROJECT, current_stage, trl_integrations
from rewright.training.verl.checkpoints import keep_complete, last_step, weights_folder
from rewright.training.verl.config import Launch, as_arguments, overrides
from rewright.training.verl.data import longest_prompt, write_agent_loops, write_tasks
from rewright.training.verl.interpreter import check_interpreter, interpreter, python_path, script
from rewright.training.verl.launch import SLOW_START, environment_of, exclusive, ray_folder, run
from rewright.training.verl.metrics import Follower, new_file, rows_of
from rewright.training.verl.rollouts import check_step, keep_steps, metrics_of, read_steps, rewards_of

__all__ = ["LOG_FILE", "train_rl"]

LOG_FILE: Final = "verl.log"
"""Output of verl and its Ray, in the run directory."""
PLUGIN: Final = "rewright.integrations.verl"
MEMORY_MONITOR: Final = "RAY_memory_monitor_refresh_ms"
CHECK: Final = "rewright.integrations.verl.check"
CPU_PLUGIN: Final = "rewright.integrations.verl.cpu"


def train_rl(job: RLJob) -> list[dict[str, Any]]:
    """Train the policy of a job with verl, and save it. Returns the rows of its steps.

    Raises InputError for fewer tasks than `tasks_per_step`, TrainingError if verl fails or no weight changes.
    """
    check_task_count(len(job.tasks), job.settings)
    from rewright.engines.loading import load_tokenizer

    tokenizer = load_tokenizer(job.model)
    folder = checkpoint_folder(job.out).absolute()
    try:
        for part in ("checkpoints", "rollouts"):
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise StorageError(f"cannot write {folder}: {problem.strerror or problem}") from problem
    log = current_stage(job.out).folder.absolute() / LOG_FILE
    with exclusive(folder) as lock:
        done = keep_complete(folder / "checkpoints", _processes(job))
        if done < job.settings.steps:
            try:
                _train(job, tokenizer, folder, log, done=done, lock=lock)
            except TrainingError as problem:
                if SLOW_START not in str(problem):
                    raise
                say("rl: Ray did not start in time (a busy machine?): it is tried again")
                _train(job, tokenizer, folder, log, done=done, lock=lock)
            done = keep_complete(folder / "checkpoints", _processes(job))
        if done < job.settings.steps:
            raise TrainingError(
                f"rl: verl ended after a checkpoint of step {done}: expected {job.settings.steps} steps (log: {log})"
            )
        rows = _rows(job, folder)
        _check_trained(rows)
        _merge(job, tokenizer, folder, log, lock=lock)
    discard_checkpoints(job.out)
    return rows


def _train(job: RLJob, tokenizer: Any, folder: Path, log: Path, *, done: int, lock: int) -> None:
    """Run verl from the step `done` to the last one."""
    settings, stage = job.settings, current_stage(job.out)
    metrics = new_file(folder)
    keep_steps(folder / "rollouts", done)
    write_tasks(folder / "tasks.parquet", job)
    write_agent_loops(folder / "agent_loops.yaml", job, folder / "rollouts")
    path = python_path(folder)
    variables = _variables(job, metrics, path)
    temporary = ray_folder() if job.ray.address is None else None
    values = overrides(
        settings,
        Launch(
            folder=folder,
            model=_local(job.model.path),
            tokenizer=None if job.model.tokenizer is None else _local(job.model.tokenizer),
            trust_remote_code=job.model.trust_remote_code,
            rows=len(job.tasks),
            prompt_tokens=longest_prompt(job, tokenizer),
            response_tokens=job.limits.trajectory_tokens or 1,
            seed=job.seed,
            address=job.ray.address,
            environment=variables,
            temporary=temporary,
            loggers=tuple(trl_integrations(settings.report_to)),
            project=stage.project or PROJECT,
            experiment=stage.name,
        ),
    )
    arguments = as_arguments(values)
    versions = check_interpreter(settings.verl, arguments)
    say(f"rl: verl {versions['verl']} on Ray {versions['ray']} starts, which takes a minute or more (log: {log})")
    environment = environment_of(path, variables | _local_variables(job, stage.tensorboard_folder()))
    python = interpreter(settings.verl)
    run(
        [python, "-m", CHECK, *arguments],
        folder=folder, log=log, what="the check of verl's data", environment=environment, lock=lock,
    )  # fmt: skip
    with Bar("rl steps", settings.steps, done=done) as bar:
        follower = _Progress(job, bar, metrics, folder, done)
        run(
            [python, "-m", "verl.trainer.main_ppo", *arguments, "hydra.run.dir=.", "hydra.output_subdir=null"],
            folder=folder,
            log=log,
            what=f"verl {versions['verl']}",
            environment=environment,
            lock=lock,
            temporary=temporary,
            poll=follower.poll,
            stall_seconds=settings.verl.stall_seconds,
        )


def _merge(job: RLJob, tokenizer: Any, folder: Path, log: Path, *, lock: int) -> None:
    """Merge the weights of the last checkpoint into a model, and save it with its tokenizer atomically."""
    temporary = job.out.absolute().with_name(job.out.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    weights = weights_folder(folder / "checkpoints", job.settings.steps)
    command = [interpreter(job.settings.verl), script("merge.py"), "merge", "--backend", "fsdp"]
    command += ["--local_dir", str(weights), "--target_dir", str(temporary)]
    if job.model.trust_remote_code:
        command.append("--trust-remote-code")
    try:
        run(
            command,
            folder=folder,
            log=log,
            what="verl's model merger",
            environment=environment_of(python_path(folder), {}),
            lock=lock,
        )
        _complete(temporary, tokenizer)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(job.out, ignore_errors=True)
    temporary.rename(job.out)


def _complete(model: Path, tokenizer: Any) -> None:
    """Add the tokenizer of the run, and state the dtype of the weights. Raises TrainingError for NaN weights."""
    import torch
    from safetensors import safe_open

    for file in model.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            if not all(bool(torch.isfinite(weights.get_tensor(name)).all()) for name in weights.keys()):  # noqa: SIM118
                raise TrainingError("rl: the weights are NaN or infinite: expected a lower rl.learning_rate")
    config = model / "config.json"
    content = msgspec.json.decode(config.read_bytes())
    content.pop("torch_dtype", None)
    content["dtype"] = "float32"
    config.write_bytes(msgspec.json.format(msgspec.json.encode(content)))
    tokenizer.save_pretrained(model)


def _rows(job: RLJob, folder: Path) -> list[dict[str, Any]]:
    """The rows of all steps. Passes on all rollouts, since some may not have been stored."""
    rows = rows_of(folder, job.settings.steps)
    planned = job.settings.tasks_per_step * job.settings.generations
    for step, trajectories in read_steps(folder / "rollouts", 1, job.settings.steps).items():
        if job.on_rollouts is not None:
            job.on_rollouts(trajectories)
        if step not in rows:
            say(f"rl: verl was ended before it had logged step {step}: its row has the metrics of the rollouts alone")
            rows[step] = {"step": step, **rewards_of(trajectories)}
        rows[step] |= metrics_of(trajectories, planned)
    return [rows[step] for step in sorted(rows)]


def _check_trained(rows: list[dict[str, Any]]) -> None:
    norms = [row["grad_norm"] for row in rows if "grad_norm" in row]
    if norms and not any(norms):
        raise TrainingError(
            f"rl: no weight changed in {len(norms)} steps, so no model is saved: all rollouts of each task have equal "
            "rewards"
        )


def _variables(job: RLJob, metrics: Path, path: list[str]) -> dict[str, str]:
    """Environment variables of all processes of verl, on all nodes."""
    cpu = job.settings.verl.device == "cpu"
    variables = {
        "PYTHONPATH": os.pathsep.join(path),
        "VERL_USE_EXTERNAL_MODULES": f"{CPU_PLUGIN},{PLUGIN}" if cpu else PLUGIN,
        "VERL_FILE_LOGGER_PATH": str(metrics),
    }
    if cpu:
        # Its engines are registered for an accelerator, and work without one.
        variables |= {"VERL_PLATFORM": "cpu", "VERL_ENGINE_DEVICE": "cuda", "OMP_NUM_THREADS": "1"}
    return variables


def _local_variables(job: RLJob, tensorboard: Path) -> dict[str, str]:
    variables = {"TENSORBOARD_DIR": str(tensorboard.absolute())}
    if job.ray.address is None:
        variables["RAY_DISABLE_DOCKER_CPU_WARNING"] = "1"
        if job.settings.verl.device == "cpu":  # Ray would kill workers for the memory that others use
            variables[MEMORY_MONITOR] = os.environ.get(MEMORY_MONITOR, "0")
    return variables


def _processes(job: RLJob) -> int:
    return job.settings.verl.workers * job.settings.verl.nodes


def _local(path: str) -> str:
    """A model's folder as an absolute path, or its Hugging Face id."""
    from rewright.engines.loading import resolve_path

    found = resolve_path(path)
    return str(Path(found).absolute()) if Path(found).is_dir() else found


class _Progress:
    """Shows the steps that verl logs. Passes on the rollouts of steps in a checkpoint: others are made again."""

    def __init__(self, job: RLJob, bar: Bar, metrics: Path, folder: Path, done: int) -> None:
        self._job, self._bar, self._folder = job, bar, folder
        self._metrics, self._done, self._stored = Follower(metrics), done, done

    def poll(self) -> bool:
        """Read what is new. Returns whether there was a new step.

        Raises InputError for a step of which the credit signal lacks more than a tenth of the rollouts.
        """
        before = self._done
        for step, data in self._metrics.read():
            if step > self._done:
                reward = data.get("critic/rewards/mean")
                self._bar.step(step - self._done, detail="" if reward is None else f"reward {reward:.3f}")
                self._done = step
        if self._done > before and self._job.on_rollouts is not None:
            self._store()
        credit = self._job.settings.credit
        if self._done > before and not credit.rewards_matches:
            for trajectories in read_steps(self._folder / "rollouts", before + 1, self._done).values():
                check_step(trajectories, credit.signal_name, bridged=credit.missing == "bridge")
        return self._done > before

    def _store(self) -> None:
        saved = min(self._done, last_step(self._folder / "checkpoints", _processes(self._job)))
        if saved > self._stored and self._job.on_rollouts is not None:
            for trajectories in read_steps(self._folder / "rollouts", self._stored + 1, saved).values():
                self._job.on_rollouts(trajectories)
            self._stored = saved
