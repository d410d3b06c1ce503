"""verl's platform interface for a machine without an accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase

__all__ = ["CpuPlatform"]

MEMORY_BYTES = (8 << 30, 16 << 30)
"""Free and total memory that verl is told of. It only logs them."""


def _device_module() -> ModuleType:
    """Return `torch.cpu` with the functions of `torch.cuda` that verl calls, which have no effect here."""
    module = ModuleType("rewright_cpu_device")
    module.__dict__.update({name: getattr(torch.cpu, name) for name in dir(torch.cpu) if not name.startswith("_")})
    for name in (
        "empty_cache", "ipc_collect", "manual_seed", "manual_seed_all", "reset_peak_memory_stats",
        "set_per_process_memory_fraction",
    ):  # fmt: skip
        setattr(module, name, lambda *_, **__: None)
    for name in ("max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved"):
        setattr(module, name, lambda *_, **__: 0)
    numbers: dict[str, Any] = {
        "get_device_name": lambda *_: "CPU",
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "mem_get_info": lambda *_: MEMORY_BYTES,
        "set_rng_state": lambda state, *_: torch.set_rng_state(state),
    }
    module.__dict__.update(numbers)
    return module


_DEVICE_MODULE = _device_module()


class CpuPlatform(PlatformBase):  # type: ignore[misc]
    """A platform of CPU devices, one for each process. Ray counts them as the logical resource GPU.

    `ray_kwargs.ray_init.num_gpus` is the number of processes that may train. See verl's `PlatformBase` for the methods.
    """

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _DEVICE_MODULE

    def is_available(self) -> bool:
        """A CPU is always there."""
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        """False: verl never selects this platform by itself, only by `VERL_PLATFORM=cpu`."""
        return False

    def current_device(self) -> Any:
        """The device, by its name: `torch.device` takes it."""
        return "cpu"

    def device_count(self) -> int:
        """One device in each process."""
        return 1

    def set_device(self, device_index: int) -> None:
        """There is one device."""

    def synchronize(self, device_index: int | None = None) -> None:
        """Operations on the CPU are synchronous."""

    def manual_seed(self, seed: int) -> None:
        """Seed torch's generator."""
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        """Seed torch's generator."""
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """There is no allocator to configure."""

    def empty_cache(self) -> None:
        """There is no cache."""

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        """There is none."""
        return None, None

    def communication_backend_name(self) -> str:
        """The back end of collective operations."""
        return "gloo"

    def visible_devices_envvar(self) -> str:
        """Ray sets this variable for the resource GPU."""
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        """There is no profiler."""
        yield

    def profiler_start(self) -> None:
        """There is no profiler."""

    def profiler_stop(self) -> None:
        """There is no profiler."""

    def ray_resource_name(self) -> str:
        """A logical resource, which `ray.init(num_gpus=…)` declares."""
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        """There are none."""
        return []

    def is_ipc_supported(self) -> bool:
        """Weights are copied."""
        return False

    def cudart(self) -> None:
        """There is none."""
        return
