"""New weights from GPU to GPU memory by vLLM's own weight transfer: CUDA IPC and NCCL.

Written after the sources of vLLM 0.32 (vllm/distributed/weight_transfer) and of TRL 1.16. It has not been run, since
both need a GPU: the tested way is a file in memory (`rewright.engines.weight_file`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

from rewright.core.errors import EngineError
from rewright.engines.base import NamedWeights
from rewright.engines.vllm_engine import while_alive

__all__ = ["IPCUpdate", "NCCLTransfer", "NamedSource", "with_ipc"]


class NamedSource:
    """Weights as a `WeightSource` of vLLM: what is declared by `metadata` is what iterating yields, in its order.

    `dtype`: name of the dtype in which they are sent; None: their own.
    """

    def __init__(self, named: NamedWeights, dtype: str | None = None) -> None:
        import torch

        to = None if dtype is None else getattr(torch, dtype)
        self._named = [(name, value.detach().to(to or value.dtype).contiguous()) for name, value in named]

    def metadata(self) -> list[Any]:
        """Return vLLM's description of each weight."""
        from vllm.distributed.weight_transfer.base import ParamMeta

        return [ParamMeta(name, value.dtype, tuple(value.shape)) for name, value in self._named]

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._named)

    @property
    def device(self) -> Any:
        """The device of the weights."""
        return self._named[0][1].device


def with_ipc(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return vLLM's engine arguments for updates by CUDA IPC."""
    # Handles of GPU memory are pickled on their way to the child process, which this process has started itself.
    os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
    return {**arguments, "weight_transfer_config": {"backend": "ipc"}}


class IPCUpdate:
    """Updates an AsyncLLM on the GPU of this process by CUDA IPC (see `AsyncVLLMEngine`, `update`).

    `dtype`: dtype of the weights in vLLM, in which they are sent.
    """

    def __init__(self, dtype: str) -> None:
        self._dtype, self._trainer = dtype, None

    async def __call__(self, llm: Any, named: NamedWeights, version: int) -> None:
        """Send the weights, while no request runs."""
        source = NamedSource(named, self._dtype)
        client = _Client(llm, asyncio.get_running_loop())
        await asyncio.to_thread(self._send, client, source)

    def _send(self, client: _Client, source: NamedSource) -> None:
        import torch
        from vllm.distributed.weight_transfer.factory import (
            WeightTransferTrainerFactory,
        )
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

        torch.cuda.set_device(source.device)  # of this thread
        if self._trainer is None:
            self._trainer = WeightTransferTrainerFactory.trainer_init(
                IPCTrainerInitInfo(rank=0), client=client, source=source
            )
        trainer: Any = self._trainer
        trainer.source = source
        try:
            trainer.send_weights()
        finally:
            trainer.source = None


class _Client:
    """The calls that vLLM's trainer side makes, from a thread, on an AsyncLLM of an event loop."""

    def __init__(self, llm: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._llm, self._loop = llm, loop

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        self._wait(self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info=init_info)))

    def shutdown_weight_transfer_engine(self) -> None:
        self._wait(self._llm.shutdown_weight_transfer_engine())

    def start_weight_update(self) -> None:
        self._wait(self._llm.start_weight_update())

    def update_weights(self, update_info: Any) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        self._wait(self._llm.update_weights(WeightTransferUpdateRequest(update_info=update_info)))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._wait(self._llm.finish_weight_update(weight_version))

    def _wait(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(while_alive(self._llm, work), self._loop).result()


class NCCLTransfer:
    """Broadcasts weights to the workers of one vLLM server (started with `--weight-transfer-config`) by NCCL.

    Args:
        address: the server's, without /v1.
        seconds: time limit of one call.
    """

    def __init__(self, address: str, seconds: float) -> None:
        self._address, self._seconds = address, seconds
        self._trainer: Any = None

    def send(self, source: NamedSource) -> None:
        """Send the weights, while the server is paused. Blocks. Raises EngineError."""
        import torch

        torch.cuda.set_device(source.device)  # of this thread
        try:
            if self._trainer is None:
                self._trainer = self._join(source)
            self._trainer.source = source
            self._trainer.send_weights()
        except Exception as problem:
            self._trainer = None  # the group cannot be used again: the next update makes a new one
            reason = " ".join(str(problem).split())[:300]
            raise EngineError(f"{self._address}: NCCL: {type(problem).__name__}: {reason}") from problem
        finally:
            if self._trainer is not None:
                self._trainer.source = None

    def _join(self, source: NamedSource) -> Any:
        """Make a group of this process and the workers of the server, in which this process is the first."""
        import requests
        from vllm.distributed.weight_transfer.clients import (
            HTTPVLLMWeightSyncClient,
        )
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
        from vllm.utils.network_utils import get_ip, get_open_port

        workers = requests.get(f"{self._address}/get_world_size", timeout=self._seconds).json()["world_size"]
        info = NCCLTrainerInitInfo(
            master_address=get_ip(), master_port=get_open_port(), world_size=int(workers) + 1, rank=0
        )
        client = HTTPVLLMWeightSyncClient(self._address, self._seconds)
        return WeightTransferTrainerFactory.trainer_init(info, client=client, source=source)
