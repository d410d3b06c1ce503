"""The `hf` engine: a local `transformers` model with continuous batching.

One thread owns the model. Requests of any number of trajectories join a running batch of `slots` rows. A trajectory
keeps its slot, and so its KV cache, between turns, so that a later turn only prefills its new tokens. The samples of a
group share the KV cache of their prompt. The same engine serves synthesis, repair, evaluation and, in RL, the policy
(it is a `TrainableEngine`).

Every request has its own seed. For small models on a CPU, results are independent of the batch composition: one thread
and batch sizes that are multiples of ROW_STEP make the result of a row bitwise independent of its position, up to some
190 tokens. For longer sequences on some processors, larger models or a GPU, the last bits of log-probabilities may
depend on the batch.

Not supported, use a server instead: paged attention, tensor parallelism, quantised caches, sliding-window layers.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any, Final, Literal

import torch

from rewright.core.errors import EngineError, InputError
from rewright.engines.base import Generation, Request
from rewright.engines.checks import layer_problem
from rewright.engines.sampling import sample
from rewright.engines.slot_cache import SlotCache, cache_argument, end_token_ids
from rewright.engines.slots import Command, Job, Slot, common_prefix_length, copy_prompts, leader_of
from rewright.engines.weight_updates import WeightUpdates

__all__ = ["HFEngine"]

MAX_PREFILL_ROWS: Final = 8
PREFILL_CHUNK_LENGTHS: Final = (16, 32, 64)
"""Chunk lengths of a prefill pass, in tokens. A row uses the smallest that suffices, whatever the other rows need."""
DECODE_LENGTH_STEP: Final = 64
PREFILL_LENGTH_STEP: Final = 192
"""Cache lengths are multiples of these, for decoding and prefill. MKL's products over 193 to 383 keys differ in their
last bits from those over more, independently of the mask (measured): a step of 192 keeps prefill out of that range."""
ROW_STEP: Final = 8
"""Batch sizes are multiples of this, so that every row is computed by the same kernel."""
FEWEST_ROWS: Final = 16
"""Smallest batch of a small model on a CPU: some processors compute products of 8 rows by another kernel (measured)."""
MAX_SINGLE_THREAD_PARAMETERS: Final = 20_000_000
"""Up to this number of parameters, one CPU thread is as fast as two and makes results independent of the batch."""
STOP_TAIL_TOKENS: Final = 24
"""Number of last tokens that are decoded to detect a stop string."""


class HFEngine(WeightUpdates):
    """A token engine for a local model (see the module's docstring). Requests must have `token_ids`.

    Args:
        model: a causal language model of `transformers` with full attention in every layer.
        tokenizer: its tokenizer.
        name: name in records and errors; default: the model's.
        slots: maximum number of sequences in the running batch.
        max_length: context length in tokens; default: the model's.
        end_ids: token ids that end a turn; default: those of the tokenizer and the model's configuration.

    Raises InputError for a model with other attention layers.
    """

    tokens = True

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str = "",
        slots: int = 32,
        max_length: int | None = None,
        end_ids: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        config = model.config.get_text_config()
        if (problem := layer_problem(config, max_length)) is not None:
            raise InputError(f"engine hf cannot run {name or config.model_type}: {problem}")
        self.model, self.tokenizer = model, tokenizer
        self.name = name or str(getattr(model, "name_or_path", "")) or "model"
        self.max_length = max_length or int(getattr(config, "max_position_embeddings", 2048))
        self.end_ids = set(end_ids) if end_ids is not None else end_token_ids(model, tokenizer)
        self.device = next(model.parameters()).device
        self.slots = [Slot() for _ in range(slots)]
        # Padding rows after the slots complete the last batch.
        small = sum(weight.numel() for weight in model.parameters()) <= MAX_SINGLE_THREAD_PARAMETERS
        self.threads = 1 if small and self.device.type == "cpu" else None
        self._fewest = ROW_STEP if self.threads is None else FEWEST_ROWS
        self._layers, self._rows = int(config.num_hidden_layers), self._batch_size(slots)
        self.cache = SlotCache(self._layers, self._rows)
        self.cache_name = cache_argument(model)
        self.waiting: list[Job] = []
        self._clock = 0
        self._thread = threading.Thread(target=self._run, name=f"engine-{self.name}", daemon=True)
        self._thread.start()

    async def generate(self, request: Request) -> Generation:
        """Generate the turn after `request.token_ids`. Raises EngineError for a model failure or a timeout."""
        if not request.token_ids:
            raise EngineError("engine hf needs token ids: the request has none")
        if self._closed:
            raise EngineError(f"engine {self.name} is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Generation] = loop.create_future()
        self._inbox.put(Job(request, loop, future))
        try:
            async with asyncio.timeout(request.timeout_seconds):
                return await future
        except TimeoutError:
            raise EngineError(f"no answer of {self.name} within {request.timeout_seconds} s") from None

    async def release(self, session: str) -> None:
        """Free the slot of a trajectory, which has ended. Until then, the slot is reserved for it."""
        self._inbox.put(session)

    async def close(self) -> None:
        """Stop the thread. Running requests fail with EngineError."""
        self.shutdown()

    def shutdown(self) -> None:
        """Same as `close`, but not a coroutine."""
        if not self._closed:
            self._closed = True
            self._inbox.put(None)
            self._thread.join(timeout=30)

    # The engine's thread.

    def _run(self) -> None:
        with torch.inference_mode():
            while True:
                if not self._receive(self._problem):
                    return
                if self._problem is not None:
                    continue
                try:
                    self._assign_slots()
                    if not self._prefill():
                        self._decode()
                except Exception as failure:  # out of memory, a faulty model: fails every request
                    self._problem = EngineError(f"{self.name}: {type(failure).__name__}: {failure}")
                    self._fail(self._problem)

    def _receive(self, problem: EngineError | None) -> bool:
        """Process the inbox; block only if there is no other work. Returns False if the engine was closed."""
        running = any(slot.job is not None for slot in self.slots)
        while self._pausing and not running:
            self._pausing.pop().set_result(None)
        idle = problem is not None or (
            not running and (self._paused or all(self._find_slot(job.request.session) is None for job in self.waiting))
        )
        while True:
            try:
                item = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            idle = False
            if item is None:
                closed = EngineError(f"engine {self.name} was closed")
                self._fail(closed)
                self._drain(closed)
                return False
            if isinstance(item, Command):
                self._obey(item)
            elif isinstance(item, str):
                for slot in self.slots:
                    if slot.session == item:
                        slot.session = ""
            elif problem is not None:
                item.finish(problem)
            else:
                self.waiting.append(item)

    def _obey(self, command: Command) -> None:
        if command.kind == "pause":
            self._paused = True
            self._pausing.append(command.future)  # until no request is running
            return
        if command.kind == "resume":
            self._paused = False
        else:
            for slot in self.slots:
                if slot.job is None:
                    slot.session = ""
                else:
                    slot.pending = slot.ids + slot.pending  # prefill a running turn again
                slot.ids = []
            if command.kind == "sleep":
                self.cache = SlotCache(self._layers, self._rows)
        command.future.set_result(None)

    def _fail(self, problem: EngineError) -> None:
        for slot in self.slots:
            if slot.job is not None:
                slot.job.finish(problem)
                slot.job = None
        for job in self.waiting:
            job.finish(problem)
        self.waiting = []

    def _assign_slots(self) -> None:
        """Assign slots to waiting requests: the one of their trajectory, else a free one."""
        for running in self.slots:
            if running.job is not None and running.job.future.cancelled():  # no coroutine waits for it
                running.job, running.pending = None, []
        if self._paused:
            return
        waiting: list[Job] = []
        for job in self.waiting:
            if job.future.cancelled():
                continue
            ids = list(job.request.token_ids or ())
            if len(ids) >= self.max_length:
                job.finish(Generation(text="", token_ids=(), log_probs=(), stop="length", prompt_tokens=len(ids)))
                continue
            slot = self._find_slot(job.request.session)
            if slot is None:
                waiting.append(job)
                continue
            self._start_job(slot, job, ids)
        self.waiting = waiting

    def _find_slot(self, session: str) -> Slot | None:
        idle = [slot for slot in self.slots if slot.job is None]
        reserved = [slot for slot in idle if session and slot.session == session]
        if reserved:
            return reserved[0]
        # A slot is reserved for its trajectory until `release`. Prefilled keys and values differ in their last bits
        # from decoded ones, so with eviction the samples would depend on the schedule.
        free = [slot for slot in idle if not slot.session]
        return min(free, key=lambda slot: slot.used, default=None)

    def _start_job(self, slot: Slot, job: Job, ids: list[int]) -> None:
        self._clock += 1
        kept = common_prefix_length(slot.ids, ids)
        donor, shared = None, kept
        for other in self.slots:
            if other is not slot and other.ids[:1] == ids[:1]:
                length = common_prefix_length(other.ids, ids)
                if length > shared:
                    donor, shared = other, length
        shared = min(shared, len(ids) - 1)  # the last token is always processed by the decoding step, for its logits
        if donor is not None and shared - kept >= PREFILL_CHUNK_LENGTHS[0]:
            self.cache.copy(self.slots.index(donor), self.slots.index(slot), shared)
            kept = shared
        kept = min(kept, len(ids) - 1)
        # The samples of a group usually start together: the first one prefills their prompt. Not with small models on a
        # CPU: there a pass costs the same for all rows, and every row is to be computed in the same way.
        waits = self.threads is None and len(ids) - 1 - kept >= PREFILL_CHUNK_LENGTHS[0]
        slot.leader = leader_of(ids, self.slots) if waits else None
        slot.ids, slot.pending = ids[:kept], ids[kept:]
        slot.session, slot.job, slot.used = job.request.session, job, self._clock

    def _prefill(self) -> bool:
        """Prefill the pending tokens (all but the last) of up to MAX_PREFILL_ROWS slots. Returns False without a pass.

        A pass costs the same for one row as for all, so a partial batch waits while enough other rows can decode.
        """
        followers = copy_prompts(self.slots, self.cache)
        rows_of: dict[int, list[int]] = {}
        ready = 0
        for index, slot in enumerate(self.slots):
            if slot.job is None or slot.leader is not None:
                continue
            if len(slot.pending) > 1:
                rows_of.setdefault(_chunk_length(len(slot.pending) - 1), []).append(index)
            else:
                ready += 1
        if not rows_of:
            return False
        length, rows = max(rows_of.items(), key=lambda entry: (len(entry[1]), -entry[0]))
        if len(rows) + followers < MAX_PREFILL_ROWS and ready > sum(map(len, rows_of.values())) + followers:
            return False
        rows = rows[:MAX_PREFILL_ROWS]
        ids_B_Q = torch.zeros((len(rows), length), dtype=torch.long)
        positions_B_Q = torch.arange(length).expand(len(rows), -1).clone()
        rows_B = torch.tensor(rows)
        for row, index in enumerate(rows):
            slot = self.slots[index]
            chunk = slot.pending[: min(length, len(slot.pending) - 1)]
            ids_B_Q[row, : len(chunk)] = torch.tensor(chunk)
            positions_B_Q[row] += len(slot.ids)
            slot.ids.extend(chunk)
            slot.pending = slot.pending[len(chunk) :]
        # Padding inside a chunk is written past the row's end: the mask hides it until later tokens overwrite it.
        self._forward(ids_B_Q, rows_B, positions_B_Q, all_rows=False)
        return True

    def _decode(self) -> None:
        """Decode one token for every slot whose context has been prefilled."""
        active = [index for index, slot in enumerate(self.slots) if slot.job is not None and len(slot.pending) == 1]
        if not active:
            return
        active, count = self._compact(active)
        ids_B_Q = torch.zeros((count, 1), dtype=torch.long)
        positions_B_Q = torch.zeros((count, 1), dtype=torch.long)
        for index, slot in enumerate(self.slots[:count]):
            positions_B_Q[index, 0] = len(slot.ids)
            if len(slot.pending) == 1:
                ids_B_Q[index, 0] = slot.pending[0]
        logits = self._forward(ids_B_Q, torch.arange(count), positions_B_Q, all_rows=True)[:, -1]
        jobs = [job for index in active if (job := self.slots[index].job) is not None]
        samplings = [job.request.sampling for job in jobs]
        uniform_B = torch.tensor([job.uniform_T[len(job.tokens)] for job in jobs], dtype=torch.float64)
        rows = logits if len(active) == len(logits) else logits[active]
        chosen, log_probs = sample(rows.float(), samplings, uniform_B)
        for index, job, token, log_prob in zip(active, jobs, chosen, log_probs, strict=True):
            slot = self.slots[index]
            slot.ids.extend(slot.pending)
            slot.pending = [token]
            job.tokens.append(token)
            job.log_probs.append(log_prob)
            stop = self._stopped(slot, job)
            if stop is not None:
                slot.job = None
                slot.pending = []
                job.finish(self._result(job, stop))

    def _batch_size(self, rows: int) -> int:
        return max(self._fewest, -(-rows // ROW_STEP) * ROW_STEP)

    def _compact(self, active: list[int]) -> tuple[list[int], int]:
        """Move the active slots to the front if that shrinks the batch considerably. Returns (slots, batch size)."""
        needed = self._batch_size(len(active))
        if active[-1] < needed + needed // 2:
            return active, self._batch_size(active[-1] + 1)
        free_rows = iter(sorted(set(range(needed)) - set(active)))
        rows = []
        for index in active:
            row = index if index < needed else next(free_rows)
            if row != index:
                longest = max(len(self.slots[index].ids), len(self.slots[row].ids))
                self.cache.swap(index, row, longest)
                self.slots[index], self.slots[row] = self.slots[row], self.slots[index]
            rows.append(row)
        return sorted(rows), needed

    def _forward(
        self, ids_B_Q: torch.Tensor, rows_B: torch.Tensor, positions_B_Q: torch.Tensor, *, all_rows: bool
    ) -> torch.Tensor:
        needed = int(positions_B_Q.max()) + 1
        step = DECODE_LENGTH_STEP if all_rows else PREFILL_LENGTH_STEP
        length = -(-needed // step) * step
        self.cache.reserve(length)
        positions = positions_B_Q.to(self.device)
        mask_B_1_Q_K = torch.arange(length, device=self.device)[None, None, None] <= positions[:, None, :, None]
        self.cache.set_positions(rows_B.to(self.device), positions, length, all_rows=all_rows)
        training, threads = self.model.training, torch.get_num_threads()
        if training:
            self.model.eval()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        output = self.model(
            input_ids=ids_B_Q.to(self.device),
            position_ids=positions,
            attention_mask=mask_B_1_Q_K,
            **{self.cache_name: self.cache},
            use_cache=True,
            logits_to_keep=1,
        )
        if training:
            self.model.train()
        torch.set_num_threads(threads)
        logits: torch.Tensor = output.logits
        return logits  # on the model's device: they are sampled there

    def _stopped(self, slot: Slot, job: Job) -> Literal["end", "length", "stop"] | None:
        sampling = job.request.sampling
        if job.tokens[-1] in self.end_ids:
            return "end"
        if sampling.stop:
            tail = self.tokenizer.decode(job.tokens[-STOP_TAIL_TOKENS:])
            if any(word in tail for word in sampling.stop):
                return "stop"
        if len(job.tokens) >= sampling.max_tokens or len(slot.ids) + 1 >= self.max_length:
            return "length"
        return None

    def _result(self, job: Job, stop: Literal["end", "length", "stop"]) -> Generation:
        kept = job.tokens[:-1] if stop == "end" else job.tokens
        return Generation(
            text=self.tokenizer.decode(kept, skip_special_tokens=False),
            token_ids=tuple(job.tokens),
            log_probs=tuple(job.log_probs),
            stop=stop,
            prompt_tokens=len(job.request.token_ids or ()),
            completion_tokens=len(job.tokens),
            weights_version=self.weights_version,
        )


def _chunk_length(pending: int) -> int:
    """Return the chunk length of a prefill pass for `pending` tokens."""
    return next((length for length in PREFILL_CHUNK_LENGTHS if pending <= length), PREFILL_CHUNK_LENGTHS[-1])
