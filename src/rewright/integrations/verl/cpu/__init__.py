"""verl without an accelerator: a CPU platform and a rollout server on transformers. For tests and for trying out.

Load it before the plug-in, in every process::

    export VERL_USE_EXTERNAL_MODULES=rewright.integrations.verl.cpu,rewright.integrations.verl

and select it with `actor_rollout_ref.rollout.name=hf_cpu trainer.device=cpu`. docs/plugins.md has all overrides. The
trainer (FSDP2), the agent loops and the weight transfer are verl's; only the rollout server is not. Written for verl
0.9.1.

On import, two functions are replaced that do not work without an accelerator: torch's `init_process_group` rejects the
back end "cpu:gloo,cpu:gloo", which verl asks for, and FSDP2's policy for offloaded parameters pins memory.
"""

from __future__ import annotations

import os
from functools import wraps
from typing import Any

import torch.distributed
from verl.plugin.platform.platform_manager import PlatformRegistry, set_platform
from verl.workers.rollout import base as rollouts
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry

from rewright.integrations.verl.cpu.platform import CpuPlatform

__all__ = ["NAME", "CpuPlatform"]

NAME = "hf_cpu"
"""Name of the rollout server."""


def _replica() -> type[RolloutReplica]:
    from rewright.integrations.verl.cpu.server import CpuReplica

    return CpuReplica


def _with_one_backend(function: Any) -> Any:
    """Wrap `init_process_group`: a device may have one back end only."""

    @wraps(function)
    def init_process_group(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("backend") == "cpu:gloo,cpu:gloo":
            kwargs["backend"] = "cpu:gloo"
        return function(*args, **kwargs)

    return init_process_group


def _without_pinned_memory() -> None:
    from verl.utils import fsdp_utils

    class UnpinnedOffloadPolicy(fsdp_utils.CPUOffloadPolicy):  # type: ignore[misc]
        def __init__(self, pin_memory: bool = False) -> None:
            super().__init__(pin_memory=False)

    fsdp_utils.CPUOffloadPolicy = UnpinnedOffloadPolicy


PlatformRegistry.register(platform="cpu")(CpuPlatform)
if (
    "VERL_PLATFORM" not in os.environ
):  # not set here: a child process that does not load this module has no platform cpu
    set_platform(CpuPlatform())
os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")  # verl's FSDP engine is registered for CUDA, and runs on any device
rollouts._ROLLOUT_REGISTRY[NAME, "async"] = "rewright.integrations.verl.cpu.server.CpuRollout"
RolloutReplicaRegistry.register(NAME, _replica)
torch.distributed.init_process_group = _with_one_backend(torch.distributed.init_process_group)
_without_pinned_memory()
