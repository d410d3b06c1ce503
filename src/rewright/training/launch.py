"""How many processes a training stage has: the `training` section of a recipe and the file of accelerate that it names.

`rewright run` stays one process. It launches each training stage as a group of processes
(`rewright.pipeline.processes`), one for each GPU, or on the CPU if there is none.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from rewright.core.errors import InputError
from rewright.training.settings import RewardSettings, RLSettings, SFTSettings, TrainingSettings

__all__ = ["Launch", "as_portable", "check_launch", "launch_of", "rank", "world_size"]

PLAIN: Final = ("NO", "MULTI_CPU", "MULTI_GPU")
"""Values of `distributed_type` with a whole copy of the model in each process."""


@dataclass(frozen=True, slots=True)
class Launch:
    """The processes of a training stage.

    Attributes:
        processes: number of processes.
        config: configuration file of accelerate; None: none.
        kind: its `distributed_type`.
        zero_stage: the stage of DeepSpeed's ZeRO; None: unknown, or not DeepSpeed.
    """

    processes: int = 1
    config: Path | None = None
    kind: str = "NO"
    zero_stage: int | None = None

    @property
    def is_group(self) -> bool:
        """Whether the stage is launched as a group of processes, and does not run in the calling one."""
        return self.processes > 1 or self.config is not None

    @property
    def divides_model(self) -> bool:
        """Whether parts of the training state are divided over the processes."""
        return self.kind not in PLAIN


def launch_of(settings: TrainingSettings) -> Launch:
    """The processes that a recipe asks for. Raises InputError for a file of accelerate that cannot be used."""
    if settings.accelerate is None:
        return Launch(settings.processes or 1)
    path = Path(settings.accelerate).expanduser()
    key = f"training.accelerate: {path}"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{key}: cannot read it: {getattr(problem, 'strerror', None) or problem}") from None
    except yaml.YAMLError as problem:
        raise InputError(f"{key}: not YAML: {' '.join(str(problem).split())[:200]}") from None
    if not isinstance(content, Mapping) or "distributed_type" not in content:
        raise InputError(f"{key}: expected a file as `accelerate config` writes it, with distributed_type")
    kind = str(content["distributed_type"])
    if kind not in (*PLAIN, "FSDP", "DEEPSPEED"):
        raise InputError(f"{key}: distributed_type is {kind}: expected {', '.join(PLAIN)}, FSDP or DEEPSPEED")
    machines, given = content.get("num_machines", 1), content.get("num_processes", 1)
    if machines not in (1, None):
        raise InputError(f"{key}: num_machines is {machines}: expected 1, the processes of a stage are on one machine")
    if not isinstance(given, int) or given < 1:
        raise InputError(f"{key}: num_processes is {given!r}: expected a positive number")
    if settings.processes not in (None, given):
        raise InputError(
            f"{key}: num_processes is {given}, and training.processes is {settings.processes}: expected one"
        )
    if kind == "FSDP" and str((content.get("fsdp_config") or {}).get("fsdp_version", 1)) != "2":
        raise InputError(f"{key}: expected fsdp_version: 2 in fsdp_config, version 1 is not supported")
    return Launch(given, path, kind, _zero_stage(content) if kind == "DEEPSPEED" else None)


def check_launch(section: str, settings: SFTSettings | RewardSettings | RLSettings, launch: Launch) -> None:
    """Raise InputError for processes that this machine or this training cannot have. Needs torch."""
    import torch

    devices = torch.cuda.device_count()
    if devices and launch.processes > devices:
        raise InputError(f"training.processes is {launch.processes}: this machine has {devices} GPUs, one for each")
    if launch.processes > 1 and isinstance(settings, RLSettings) and settings.vllm and settings.vllm.weights == "ipc":
        raise InputError(
            f"training.processes is {launch.processes}, and rl.vllm.weights is ipc: expected 1, or rl.vllm.weights: "
            "file"
        )
    if launch.processes > 1 and isinstance(settings, RLSettings) and settings.engine == "colocate":
        raise InputError(
            f"training.processes is {launch.processes}, and rl.engine is colocate, which has not been run in several "
            "processes: expected training.processes: 1, or rl.engine: vllm"
        )
    if not launch.divides_model:
        return
    key = f"training.accelerate: {launch.config} divides the weights ({launch.kind})"
    if launch.kind == "DEEPSPEED" and importlib.util.find_spec("deepspeed") is None:
        raise InputError(f"{key}: it needs the package deepspeed, which is not installed")
    if launch.zero_stage in (0, 1, 2):
        return  # optimizer and gradients are divided, each process has all weights
    if settings.lora_rank is not None:
        raise InputError(f"{key}: {section}.lora_rank is not supported there: expected no lora_rank, or MULTI_GPU")
    if isinstance(settings, RLSettings) and settings.engine == "hf":
        raise InputError(
            f"{key}: rl generates with the engine hf, which needs all of them in each process: expected MULTI_GPU, or "
            "another engine"
        )


def as_portable(problem: Exception) -> Exception:
    """The exception, or if another process cannot read it, a RuntimeError with its message."""
    try:
        pickle.loads(pickle.dumps(problem))
    except Exception:  # an exception of a library may need arguments that it does not keep
        return RuntimeError(f"{type(problem).__name__}: {problem}")
    return problem


def rank() -> int:
    """The rank of this process in its group; 0 without one."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def world_size() -> int:
    """The number of processes of the group that a launcher has put this process in; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def _zero_stage(content: Mapping[str, Any]) -> int | None:
    stage = (content.get("deepspeed_config") or {}).get("zero_stage")
    return stage if isinstance(stage, int) else None
