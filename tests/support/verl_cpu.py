"""verl's own trainer on a CPU: the command line and environment of a tiny run with Rewright's agent loop."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from support import scale

LOOP = "rewright.integrations.verl"
LIGHT = {
    "VERL_USE_EXTERNAL_MODULES": f"{LOOP}.cpu,{LOOP}",
    "OMP_NUM_THREADS": "1",
    "HYDRA_FULL_ERROR": "1",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_DEDUP_LOGS": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Ray's memory monitor counts the memory of the whole machine."""
SLOW_START = "The current node timed out during startup"
"""Ray waits 30 seconds for its own processes, which can be too little on a busy machine."""


def overrides(
    *, model: Path, train: Path, loop: Path, out: Path, tasks: int = 4, generations: int = 4, workers: int = 2
) -> list[str]:
    """Overrides of `verl.trainer.main_ppo` for `workers` processes without an accelerator."""
    rows = tasks * generations // workers
    actor, rollout, reference = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.ref"
    return [
        "algorithm.adv_estimator=rewright", "+algorithm.rewright.singleton_turn=zero",
        f"data.train_files={train}", f"data.val_files={train}", f"data.train_batch_size={tasks}",
        "data.max_prompt_length=512", "data.max_response_length=400", "data.dataloader_num_workers=0",
        "data.return_raw_chat=True", "data.filter_overlong_prompts=False", "data.shuffle=False",
        f"actor_rollout_ref.model.path={model}", "actor_rollout_ref.model.use_remove_padding=False",
        "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
        "actor_rollout_ref.model.enable_gradient_checkpointing=False",
        f"{actor}.strategy=fsdp2", f"{reference}.strategy=fsdp2", f"{actor}.optim.lr=1e-4",
        f"{actor}.use_torch_compile=False", f"{actor}.fsdp_config.use_torch_compile=False",
        f"{reference}.fsdp_config.use_torch_compile=False",
        f"+{actor}.fsdp_config.mixed_precision.param_dtype=fp32",
        f"+{reference}.fsdp_config.mixed_precision.param_dtype=fp32", f"{reference}.fsdp_config.model_dtype=fp32",
        f"{actor}.ppo_mini_batch_size={tasks}", f"{actor}.ppo_micro_batch_size_per_gpu={rows}",
        f"{rollout}.name=hf_cpu", f"{rollout}.n={generations}", f"{rollout}.tensor_model_parallel_size=1",
        f"{rollout}.calculate_log_probs=True", f"{rollout}.agent.num_workers={workers}",
        f"{rollout}.agent.agent_loop_config_path={loop}", f"{rollout}.multi_turn.enable=True",
        f"{rollout}.log_prob_micro_batch_size_per_gpu={rows}",
        f"{reference}.log_prob_micro_batch_size_per_gpu={rows}",
        "reward.num_workers=1", "trainer.device=cpu", "trainer.logger=[console,file]", "trainer.val_before_train=False",
        "trainer.test_freq=-1", "trainer.save_freq=-1", "trainer.resume_mode=disable", "trainer.total_training_steps=3",
        "trainer.total_epochs=100", "trainer.project_name=rewright", "trainer.experiment_name=test",
        f"trainer.n_gpus_per_node={workers}", "trainer.nnodes=1", f"trainer.default_local_dir={out / 'checkpoints'}",
        f"trainer.rollout_data_dir={out / 'generations'}", f"hydra.run.dir={out / 'hydra'}",
    ]  # fmt: skip


def local_ray(workers: int = 2) -> list[str]:
    """Overrides for a Ray of its own, with logical resources."""
    ray = "ray_kwargs.ray_init"
    return [
        f"{ray}.num_cpus=16", f"+{ray}.num_gpus={workers}", f"+{ray}.include_dashboard=False",
        f"+{ray}.object_store_memory=300000000",
    ]  # fmt: skip


def main_ppo(
    arguments: Sequence[str],
    folder: Path,
    *,
    timeout: float = 900,
    before: Sequence[str | Path] = (),
    retry: bool = True,
    **more: str,
) -> subprocess.CompletedProcess[str]:
    """`verl.trainer.main_ppo`, finished. `before`: a program that starts it; `more`: environment variables."""
    command = [*before, scale.VERL, "-m", "verl.trainer.main_ppo", *arguments]
    path = os.pathsep.join([str(scale.ROOT / "src"), str(scale.ROOT / "tests")])
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as ray:  # a path of a socket has at most 107 bytes
        done = subprocess.run(
            [*map(str, command)], cwd=folder, env=os.environ | LIGHT | {"PYTHONPATH": path, "RAY_TMPDIR": ray} | more,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
    if done.returncode and SLOW_START in done.stderr and retry:
        return main_ppo(arguments, folder, timeout=timeout, before=before, retry=False, **more)
    return done
