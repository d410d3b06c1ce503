"""The configuration of verl (0.9.1, v1 trainer) for an RL job, as Hydra overrides of its `ppo_trainer`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from rewright.core.errors import InputError
from rewright.training.settings import RLSettings

__all__ = ["LOSSES", "Launch", "as_arguments", "overrides"]

LOSSES: Final = {
    "grpo": "seq-mean-token-mean",
    "bnpo": "token-mean",
    "dapo": "token-mean",
    "dr_grpo": "seq-mean-token-sum-norm",
}
"""verl's `loss_agg_mode` by `rl.loss_type`."""
IS_THRESHOLD: Final = 3.0
"""Limit of the importance ratio, as with TRL."""
CPU_SLOTS: Final = 16
"""Logical CPUs of a Ray on this machine if it has fewer: verl reserves one for each of its many small processes."""
STORE_BYTES: Final = 500_000_000
ROLLOUT: Final = {"cuda": "vllm", "cpu": "hf_cpu"}
"""The rollout engine of each device."""

MANAGER: Final = "rewright.integrations.verl.watched.WatchedAgentLoopManager"

ACTOR: Final = "actor_rollout_ref.actor"
ROLL: Final = "actor_rollout_ref.rollout"
REF: Final = "actor_rollout_ref.ref"
MODEL: Final = "actor_rollout_ref.model"
INIT: Final = "ray_kwargs.ray_init"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What the configuration needs besides the recipe's `rl` section.

    Attributes:
        folder: the folder of data, checkpoints and logs.
        model: folder or Hugging Face id of the policy before RL.
        tokenizer: that of its tokenizer; None: the model's.
        trust_remote_code: whether code that comes with the model runs.
        rows: number of training tasks.
        prompt_tokens: length of the longest prompt.
        response_tokens: `limits.trajectory_tokens`.
        seed: seed of the run.
        address: Ray cluster; None: a Ray of its own.
        environment: environment variables of all of verl's processes.
        temporary: Ray's folder for temporary files; None: on a cluster.
        loggers: verl's loggers.
        project, experiment: names in the loggers.
    """

    folder: Path
    model: str
    rows: int
    prompt_tokens: int
    response_tokens: int
    seed: int
    tokenizer: str | None = None
    trust_remote_code: bool = False
    address: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    temporary: Path | None = None
    loggers: tuple[str, ...] = ()
    project: str = "rewright"
    experiment: str = "rl"


def overrides(settings: RLSettings, launch: Launch) -> dict[str, Any]:
    """The overrides by their names; a name with `+` adds a key. The user's own (`rl.verl.overrides`) are included.

    Raises InputError for one of the user's that another key of the recipe sets, or that Rewright needs.
    """
    fixed = _from_recipe(settings, launch)
    own = {key: value for key, (value, _) in fixed.items()}
    own |= _defaults(settings, launch)
    if settings.verl.device == "cpu":
        own |= _cpu(settings, launch)
    sources = {_plain(key): source for key, (_, source) in fixed.items()}
    for key, value in _flat(settings.verl.overrides):
        source = next((sources[one] for one in (_plain(key), *_parents(_plain(key))) if one in sources), None)
        if source is not None:
            raise InputError(f"rl.verl.overrides: {_plain(key)} is set by {source}: expected that key, or no override")
        for same in [one for one in own if _plain(one) == _plain(key)]:
            del own[same]
        own[key] = value
    return own


def as_arguments(values: Mapping[str, Any]) -> list[str]:
    """Overrides as arguments of the command line, in Hydra's grammar."""
    return [f"{key}={_text(value)}" for key, value in values.items()]


def _from_recipe(settings: RLSettings, launch: Launch) -> dict[str, tuple[Any, str]]:
    """The overrides that the recipe determines, with what to name instead."""
    own, verl = "Rewright", settings.verl
    steps_per_epoch = max(1, launch.rows // settings.tasks_per_step)
    correction = "token" if settings.corrects_sampling else None
    loss = LOSSES.get(settings.loss_type, settings.loss_type)
    ratio, steps = (settings.warmup, 0) if settings.warmup < 1 else (0.0, int(settings.warmup))
    values: dict[str, tuple[Any, str]] = {
        "data.train_files": (str(launch.folder / "tasks.parquet"), own),
        "data.val_files": (str(launch.folder / "tasks.parquet"), own),
        "data.val_max_samples": (1, own),
        "data.train_batch_size": (settings.tasks_per_step, "rl.tasks_per_step"),
        "data.seed": (launch.seed, "seed"),
        "data.shuffle": (True, own),
        "data.return_raw_chat": (True, own),
        "data.max_response_length": (launch.response_tokens, "limits.trajectory_tokens"),
        "data.trust_remote_code": (launch.trust_remote_code, "model.trust_remote_code"),
        "algorithm.adv_estimator": ("rewright", "rl.credit"),
        "algorithm.rollout_correction.rollout_is": (correction, "rl.importance_correction"),
        f"{MODEL}.path": (launch.model, "model.path"),
        f"{MODEL}.tokenizer_path": (launch.tokenizer, "model.tokenizer"),
        f"{MODEL}.trust_remote_code": (launch.trust_remote_code, "model.trust_remote_code"),
        f"{ACTOR}.optim.lr": (settings.learning_rate, "rl.learning_rate"),
        f"{ACTOR}.optim.lr_scheduler_type": (settings.scheduler, "rl.scheduler"),
        f"{ACTOR}.optim.lr_warmup_steps": (steps, "rl.warmup"),
        f"{ACTOR}.optim.lr_warmup_steps_ratio": (ratio, "rl.warmup"),
        f"{ACTOR}.ppo_mini_batch_size": (settings.tasks_per_step // settings.updates_per_step, "rl.updates_per_step"),
        f"{ACTOR}.clip_ratio": (settings.epsilon, "rl.epsilon"),
        f"{ACTOR}.clip_ratio_low": (settings.epsilon, "rl.epsilon"),
        f"{ACTOR}.clip_ratio_high": (settings.epsilon, "rl.epsilon"),
        f"{ACTOR}.use_kl_loss": (settings.beta > 0, "rl.beta"),
        f"{ACTOR}.kl_loss_coef": (settings.beta, "rl.beta"),
        f"{ACTOR}.kl_loss_type": ("low_var_kl", own),
        f"{ACTOR}.entropy_coeff": (settings.entropy, "rl.entropy"),
        f"{ACTOR}.loss_agg_mode": (loss, "rl.loss_type"),
        f"{ROLL}.name": (verl.rollout or ROLLOUT[verl.device], "rl.verl.rollout"),
        f"{ROLL}.n": (settings.generations, "rl.generations"),
        f"{ROLL}.temperature": (settings.temperature, "rl.temperature"),
        f"{ROLL}.top_p": (settings.top_p, "rl.top_p"),
        f"{ROLL}.calculate_log_probs": (True, own),
        f"{ROLL}.agent.agent_loop_config_path": (str(launch.folder / "agent_loops.yaml"), own),
        f"+{ROLL}.agent.agent_loop_manager_class": (MANAGER, own),
        "trainer.total_training_steps": (settings.steps, "rl.steps"),
        "trainer.total_epochs": (math.ceil(settings.steps / steps_per_epoch) + 1, "rl.steps"),
        "trainer.save_freq": (min(settings.save_steps or settings.steps, settings.steps), "rl.save_steps"),
        "trainer.default_local_dir": (str(launch.folder / "checkpoints"), own),
        "trainer.resume_mode": ("auto", own),
        "trainer.max_actor_ckpt_to_keep": (2, own),
        "trainer.val_before_train": (False, own),
        "trainer.test_freq": (-1, own),
        "trainer.logger": (["console", "file", *launch.loggers], "rl.report_to"),
        "trainer.project_name": (launch.project, "project"),
        "trainer.experiment_name": (launch.experiment, own),
        "trainer.n_gpus_per_node": (verl.workers, "rl.verl.workers"),
        "trainer.nnodes": (verl.nodes, "rl.verl.nodes"),
        "trainer.device": (verl.device, "rl.verl.device"),
        "trainer.use_v1": (True, own),
        f"+{INIT}.address": (launch.address or "local", "ray.address"),
    }
    if correction is not None:
        values["algorithm.rollout_correction.rollout_is_threshold"] = (IS_THRESHOLD, "rl.importance_correction")
    if settings.loss_type == "dr_grpo":
        values[f"{ACTOR}.loss_scale_factor"] = (launch.response_tokens, "limits.trajectory_tokens")
    credit, usual = msgspec.to_builtins(settings.credit), msgspec.to_builtins(type(settings.credit)())
    for key, value in _flat({key: value for key, value in credit.items() if value != usual[key]}):
        values[f"+algorithm.rewright.{key}"] = (value, f"rl.credit.{key}")
    for key, value in launch.environment.items():
        values[f"+{INIT}.runtime_env.env_vars.{key}"] = (value, own)
    if launch.temporary is not None:
        values[f"+{INIT}._temp_dir"] = (str(launch.temporary), own)
    return values


def _defaults(settings: RLSettings, launch: Launch) -> dict[str, Any]:
    """The overrides that `rl.verl.overrides` may replace."""
    verl = settings.verl
    rollouts = settings.tasks_per_step * settings.generations
    share = max(1, rollouts // settings.updates_per_step // (verl.workers * verl.nodes))
    micro = settings.micro_batch_size or share
    values: dict[str, Any] = {
        "data.max_prompt_length": launch.prompt_tokens,
        "data.dataloader_num_workers": 0,
        f"{ACTOR}.strategy": "fsdp2",
        f"{REF}.strategy": "fsdp2",
        f"{ACTOR}.optim.weight_decay": 0.0,
        f"{ACTOR}.ppo_micro_batch_size_per_gpu": micro,
        f"{ROLL}.log_prob_micro_batch_size_per_gpu": micro,
        f"{REF}.log_prob_micro_batch_size_per_gpu": micro,
        f"{ROLL}.tensor_model_parallel_size": 1,
    }
    if launch.address is None and (os.cpu_count() or 1) < CPU_SLOTS:
        values[f"{INIT}.num_cpus"] = CPU_SLOTS + 2 * verl.workers
    if launch.address is None:
        values[f"+{INIT}.include_dashboard"] = False
    return values


def _cpu(settings: RLSettings, launch: Launch) -> dict[str, Any]:
    """Settings of verl without an accelerator: a process for each worker, float32, few helpers."""
    workers = settings.verl.workers
    engines = {f"{role}.fsdp_config.use_torch_compile": False for role in (ACTOR, REF)}
    precision = {f"+{role}.fsdp_config.mixed_precision.param_dtype": "fp32" for role in (ACTOR, REF)}
    values: dict[str, Any] = {
        **engines,
        **precision,
        f"{ACTOR}.use_torch_compile": False,
        f"{REF}.fsdp_config.model_dtype": "fp32",
        f"{MODEL}.use_remove_padding": False,
        f"+{MODEL}.override_config.attn_implementation": "sdpa",
        f"{MODEL}.enable_gradient_checkpointing": False,
        f"{ROLL}.agent.num_workers": workers,
        "reward.num_workers": 1,
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
    }
    if launch.address is None:
        values |= {f"+{INIT}.num_gpus": workers, f"+{INIT}.object_store_memory": STORE_BYTES}
    return values


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested mappings by their dotted names."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _plain(key: str) -> str:
    return key.lstrip("+~")


def _parents(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _text(value: Any) -> str:
    """A value in Hydra's grammar of overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_text(one) for one in value) + "]"
    text = str(value)
    head = text.rstrip("\\")
    # Backslashes count as such, except before a quote, which ends the text otherwise.
    escaped = head.replace('\\"', '\\\\"').replace('"', '\\"') + "\\" * (2 * (len(text) - len(head)))
    escaped = escaped.replace("${", "\\${")
    return f'"{escaped}"'
