"""The rollout server `hf_cpu`: the engine `hf` of Rewright in a Ray actor, behind verl's interfaces."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final

import ray
import torch
from verl.utils.fs import copy_to_local
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

from rewright.engines.base import Request, Sampling
from rewright.engines.hf import HFEngine

__all__ = ["CpuReplica", "CpuRollout", "CpuServer"]

MAX_SLOTS: Final = 32


class CpuServer:
    """A model in a Ray actor: token ids in, token ids out.

    Args:
        path: folder of the model and its tokenizer.
        max_length: largest number of tokens of prompt and response.
        prompt_length, response_length: the limits of the rollout, for requests without a limit of their own.
        slots: largest number of concurrent sequences.
    """

    def __init__(
        self, path: str, *, max_length: int, prompt_length: int, response_length: int, slots: int = MAX_SLOTS
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self._names = {name for name, _ in model.named_parameters()}
        self._tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - self._names
        self._prompt_length, self._response_length = prompt_length, response_length
        context = int(getattr(model.config.get_text_config(), "max_position_embeddings", max_length))
        self._engine = HFEngine(
            model, AutoTokenizer.from_pretrained(path), name="hf_cpu", slots=slots, max_length=min(max_length, context)
        )

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str, **_: Any
    ) -> TokenOutput:
        """Generate tokens after `prompt_ids`. Raises ValueError for sampling parameters that are not supported."""
        asked = dict(sampling_params)
        limit = asked.pop("max_tokens", None) or min(
            self._response_length, self._prompt_length + self._response_length - len(prompt_ids)
        )
        log_probs = bool(asked.pop("logprobs", False))
        sampling = Sampling(
            temperature=float(asked.pop("temperature", 1.0)),
            top_p=float(asked.pop("top_p", 1.0)),
            max_tokens=max(1, limit),
            stop=tuple(asked.pop("stop", None) or ()),
            seed=asked.pop("seed", None),
        )
        neutral = {"top_k": (-1, 0, None), "repetition_penalty": (1.0, None)}
        for name, value in asked.items():
            if value not in neutral.get(name, (None,)):
                raise ValueError(f"the rollout server hf_cpu does not support {name}={value!r}")
        made = await self._engine.generate(Request((), (), sampling, token_ids=tuple(prompt_ids)))
        return TokenOutput(
            token_ids=list(made.token_ids or ()),
            log_probs=list(made.log_probs or ()) if log_probs else None,
            stop_reason="completed",
            extra_fields={"global_steps": self._engine.weights_version},
        )

    async def load_weights(self, state: dict[str, torch.Tensor], global_steps: int | None) -> None:
        """Replace the weights. Raises ValueError unless `state` has all of them."""
        missing = sorted(self._names - state.keys())
        if missing:
            raise ValueError(f"hf_cpu: an update has no weight {missing[0]}, and {len(missing) - 1} others are missing")
        named = [(name, value) for name, value in state.items() if name not in self._tied]
        await self._engine.update_weights(named, 0 if global_steps is None else global_steps)

    async def ready(self) -> bool:
        """Return True when the model is loaded."""
        return await self._engine.alive()

    async def wake_up(self) -> None:
        """Answer requests again."""
        await self._engine.wake()

    async def sleep(self) -> None:
        """Free the KV cache. Requests wait for `wake_up`, or for new weights."""
        await self._engine.sleep()

    async def resume_generation(self) -> None:
        """Answer requests again."""
        await self._engine.resume()

    async def abort_all_requests(self, reject_request: bool = False) -> dict[str, Any]:
        """Complete the running requests; later ones wait for `resume_generation`."""
        await self._engine.pause()
        return {}

    async def clear_kv_cache(self) -> None:
        """Nothing to do: new weights clear it."""

    async def release_kv_cache(self) -> None:
        """Nothing to do."""

    async def resume_kv_cache(self) -> None:
        """Nothing to do."""

    async def start_profile(self, **_: Any) -> None:
        """There is no profiler."""

    async def stop_profile(self) -> None:
        """There is no profiler."""


class CpuReplica(RolloutReplica):  # type: ignore[misc]
    """verl's handle of one server, which is one Ray actor."""

    async def launch_servers(self) -> None:
        """Start the actor and wait until its model is loaded."""
        path = copy_to_local(self.model_config["path"])
        actor = ray.remote(CpuServer).options(
            name=server_name(self.replica_rank), num_cpus=0, max_concurrency=self.max_concurrency
        )
        server = actor.remote(
            path,
            max_length=self.config.prompt_length + self.config.response_length,
            prompt_length=self.config.prompt_length,
            response_length=self.config.response_length,
            slots=min(MAX_SLOTS, self.config.max_num_seqs),
        )
        await server.ready.remote()
        self.servers = [server]
        self._server_handle, self._server_address = server, server_name(self.replica_rank)


class CpuRollout(BaseRollout):  # type: ignore[misc]
    """The side of a training process: sends the weights that verl's checkpoint engine yields to the server."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, model_config, device_mesh)
        settings = self.config
        processes = (
            settings.tensor_model_parallel_size * settings.data_parallel_size * settings.pipeline_model_parallel_size
        )
        self.replica_rank, self.rollout_rank = divmod(int(os.environ["RANK"]), processes)
        self.is_leader_rank = self.rollout_rank == 0

    async def resume(self, tags: list[str]) -> None:
        """Nothing to do: the server keeps its memory."""

    async def release(self) -> None:
        """Nothing to do."""

    async def update_weights(
        self,
        weights: Iterable[tuple[str, torch.Tensor]],
        wire_format: str = "named_tensors",
        global_steps: int | None = None,
        **_: Any,
    ) -> None:
        """Send the weights to the server, which answers requests again. Raises ValueError for weight differences."""
        if wire_format != "named_tensors":
            raise ValueError(f"checkpoint_engine: hf_cpu takes whole weights, got {wire_format}")
        # Reading a sharded weight is a collective operation: every process reads all of them.
        state = {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights}
        if self.is_leader_rank:
            server = ray.get_actor(server_name(self.replica_rank))
            await server.load_weights.remote(state, global_steps)
            await server.wake_up.remote()


def server_name(replica_rank: int) -> str:
    """Name of the actor of a replica."""
    return f"rewright_hf_cpu_{replica_rank}"
