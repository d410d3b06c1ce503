"""Token engines on vLLM in this process: sampling, results and weight updates of both forms.

`rewright.engines.vllm_async` has a vLLM in a child process (one or more GPUs), `rewright.engines.vllm_stepped` one in
this process. Both batch continuously over trajectories and are `TrainableEngine`s. Written after vLLM 0.32.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

from rewright.core.errors import EngineError
from rewright.core.library_logs import current_log
from rewright.engines.base import Generation, NamedWeights, Request
from rewright.engines.gate import Gate
from rewright.engines.vllm_options import VLLMOptions

__all__ = ["VLLMEngine", "engine_arguments", "output_to_log", "while_alive"]

CPU_CACHE_BYTES: Final = 2**30
"""KV cache on a CPU, unless `kv_cache_memory_bytes` or VLLM_CPU_KVCACHE_SPACE says otherwise."""
CPU_BATCHED_TOKENS: Final = 8192
ALIVE_SECONDS: Final = 1.0
"""Time between two looks at whether vLLM's process is alive, while a call waits for it."""


class VLLMEngine(ABC):
    """Base of both engines (see the module's docstring). Belongs to one event loop.

    Args:
        tokenizer: the tokenizer of the model.
        name: name in records and errors.
        end_ids: token ids that end a turn.
        max_length: context length in tokens.
    """

    tokens = True

    def __init__(self, tokenizer: Any, name: str, end_ids: set[int], max_length: int) -> None:
        self.tokenizer, self.name, self.end_ids, self.max_length = tokenizer, name, end_ids, max_length
        self.weights_version: int | None = None
        self._gate = Gate()
        self._numbers = count()

    @abstractmethod
    async def _run(self, number: str, prompt: dict[str, Any], params: Any) -> Any:
        """Return vLLM's finished output of a request. Raises any exception of vLLM."""

    @abstractmethod
    async def _load(self, named: NamedWeights, version: int) -> None:
        """Load new weights while no request runs, and forget the prefix cache."""

    @abstractmethod
    async def _set_asleep(self, asleep: bool) -> None:
        """Have vLLM free or take back memory, while no request runs."""

    async def generate(self, request: Request) -> Generation:
        """Generate the turn after `request.token_ids`. Raises EngineError for a failure of vLLM or a timeout."""
        ids = list(request.token_ids or ())
        if not ids:
            raise EngineError(f"{self.name}: vLLM needs token ids: the request has none")
        room = self.max_length - len(ids)
        if room <= 0:
            return Generation(text="", token_ids=(), log_probs=(), stop="length", prompt_tokens=len(ids))
        params = sampling_params(request, room, self.end_ids)
        number = f"{request.session}#{next(self._numbers)}"
        try:
            async with asyncio.timeout(request.timeout_seconds), self._gate.request():
                output = await self._run(number, {"type": "token", "prompt_token_ids": ids}, params)
                return self._result(request, output, self.weights_version)
        except TimeoutError:
            raise EngineError(f"no answer of {self.name} within {request.timeout_seconds} s") from None
        except EngineError:
            raise
        except Exception as problem:
            raise self.failed(problem) from problem

    async def release(self, session: str) -> None:
        """Return at once: vLLM evicts the prefix of an ended trajectory when it needs the memory."""
        return

    async def update_weights(self, named: NamedWeights, version: int) -> None:
        """Replace the weights between two requests (see `TrainableEngine`). Raises EngineError."""
        paused = not self._gate.is_open
        await self._gate.close()
        try:
            await self._load(named, version)
            self.weights_version = version
        except EngineError:
            raise
        except Exception as problem:
            raise self.failed(problem) from problem
        finally:
            if not paused:
                self._gate.open()

    async def pause(self) -> None:
        """Complete the running requests; later ones wait for `resume`."""
        await self._gate.close()

    async def resume(self) -> None:
        """Continue with the requests that wait."""
        self._gate.open()

    async def sleep(self) -> None:
        """Pause; free the KV cache, and keep the weights in CPU memory."""
        await self._gate.close()
        await self._set_asleep(True)

    async def wake(self) -> None:
        """End `sleep`."""
        await self._set_asleep(False)
        self._gate.open()

    def failed(self, problem: Exception) -> EngineError:
        """The error for an exception of vLLM."""
        if type(problem).__name__ == "EngineDeadError":
            return EngineError(f"{self.name}: the process of vLLM has ended (killed, or out of memory)")
        reason = " ".join(str(problem).split())[:300]
        return EngineError(f"{self.name}: vLLM failed: {type(problem).__name__}{': ' * bool(reason)}{reason}")

    def _result(self, request: Request, output: Any, version: int | None) -> Generation:
        made = output.outputs[0]
        ids = [int(token) for token in made.token_ids]
        ended = bool(ids) and ids[-1] in self.end_ids
        usable = request.sampling.temperature <= 0 or request.sampling.top_p >= 1
        log_probs = made.logprobs if usable else None
        return Generation(
            text=self.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False),
            token_ids=tuple(ids),
            log_probs=None
            if log_probs is None
            else tuple(float(row[token].logprob) for row, token in zip(log_probs, ids, strict=True)),
            stop="end" if ended else "stop" if made.finish_reason == "stop" else "length",
            prompt_tokens=len(request.token_ids or ()),
            completion_tokens=len(ids),
            weights_version=version,
        )


async def while_alive(llm: Any, call: Awaitable[Any]) -> None:
    """Await a call to the process of an AsyncLLM. Raises vLLM's EngineDeadError if the process ends meanwhile.

    vLLM ends the requests of a process that has ended, and leaves such calls without an answer.
    """
    task = asyncio.ensure_future(call)
    try:
        while not (await asyncio.wait({task}, timeout=ALIVE_SECONDS))[0]:
            if llm.errored:
                raise llm.dead_error
        await task
    finally:
        task.cancel()


def sampling_params(request: Request, room: int, end_ids: set[int]) -> Any:
    """vLLM's sampling parameters of a request that has room for `room` tokens."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling = request.sampling
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        stop=list(sampling.stop) or None,
        max_tokens=max(1, min(sampling.max_tokens, room)),
        stop_token_ids=sorted(end_ids),
        include_stop_str_in_output=True,
        detokenize=bool(sampling.stop),  # only to find a stop string
        skip_special_tokens=False,
        spaces_between_special_tokens=False,
        logprobs=0,  # of the chosen token
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def engine_arguments(
    options: VLLMOptions, path: str, *, tokenizer: str | None, dtype: str, trust_remote_code: bool, utilization: float
) -> dict[str, Any]:
    """vLLM's engine arguments.

    Args:
        options: settings of the recipe; its `arguments` override what is set here.
        path: folder or Hugging Face id of the model.
        tokenizer: the same for its tokenizer; None: the model's.
        dtype: dtype of the weights.
        trust_remote_code: run code that comes with the model.
        utilization: default of `gpu_memory_utilization`.
    """
    import torch

    on_cpu = not torch.cuda.is_available()
    arguments: dict[str, Any] = {
        "model": path,
        "tokenizer": tokenizer,
        "dtype": dtype,
        "trust_remote_code": trust_remote_code,
        "gpu_memory_utilization": options.gpu_memory_utilization or utilization,
        "tensor_parallel_size": options.tensor_parallel_size,
        "max_model_len": options.max_model_len,
        "max_num_seqs": options.max_num_seqs,
        "enforce_eager": on_cpu if options.enforce_eager is None else options.enforce_eager,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",  # the sampling parameters are those of the request alone
        "worker_extension_cls": "rewright.engines.vllm_worker.LoadFile",
        "disable_log_stats": True,
    }
    if on_cpu:
        # The random numbers of a CPU have no offset: vLLM 0.32 fails if a prompt with a seed is read in chunks.
        arguments |= {
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(CPU_BATCHED_TOKENS, options.max_model_len or 0),
        }
        if not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            arguments["kv_cache_memory_bytes"] = CPU_CACHE_BYTES
    return arguments | options.arguments


def end_token_ids(path: str, tokenizer: Any, config: Any) -> set[int]:
    """The token ids that end a turn: those of the tokenizer, of the model's configuration and of its generation."""
    from transformers import GenerationConfig

    generation = None
    with contextlib.suppress(OSError, ValueError):
        generation = GenerationConfig.from_pretrained(path)
    ids: set[int] = set()
    for value in (
        tokenizer.eos_token_id,
        getattr(config, "eos_token_id", None),
        getattr(generation, "eos_token_id", None),
    ):
        if isinstance(value, int):
            ids.add(value)
        elif value is not None:
            ids.update(int(token) for token in value)
    return ids


@contextlib.contextmanager
def output_to_log() -> Iterator[Path | None]:
    """Inside the block, what is written to standard output and error goes to the libraries' log of the run.

    Child processes that start in the block keep it. Without a run it goes to standard error.
    """
    log = current_log()
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    target = os.dup(2) if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        yield log
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for descriptor in (*kept, target):
            os.close(descriptor)


def quiet_vllm() -> None:
    """Leave the messages of vLLM to the libraries' log of the run. Called before vLLM is imported."""
    if "VLLM_LOGGING_LEVEL" not in os.environ and "VLLM_CONFIGURE_LOGGING" not in os.environ:
        os.environ["VLLM_CONFIGURE_LOGGING"] = "0"
        logger = logging.getLogger("vllm")
        logger.setLevel(logging.INFO)
        logger.addHandler(logging.NullHandler())  # outside of a run they would be printed
    # On a CPU vLLM binds its threads to cores otherwise, and with them those of the trainer.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # TRL's own code for vLLM is not used.
    warnings.filterwarnings("ignore", "TRL currently supports vLLM versions")
