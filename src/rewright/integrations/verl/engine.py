"""verl's rollout servers as an engine of `rewright.rollout`: token ids in, token ids out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, Literal

from rewright.core.errors import EngineError
from rewright.engines.base import Generation, Request

__all__ = ["VerlEngine"]

STOP_TAIL_TOKENS: Final = 24
"""Number of last tokens that are decoded to detect a stop string."""
SPEC_DECODE_KEYS: Final = ("spec_num_draft_tokens", "spec_num_accepted_tokens", "spec_num_verify_steps")
"""Counts of speculative decoding that verl reports per rollout; those of the turns are added up."""


class VerlEngine:
    """The engine of one rollout, on verl's `LLMServerClient`.

    Args:
        server: the client.
        tokenizer: the policy's tokenizer.
        sampling: verl's sampling parameters of the rollout. Those of a request limit the tokens and set stop strings.
        name: name in records and errors.
        end_ids: token ids that end a turn.
        prompt_length: largest number of tokens of a prompt.
        context: largest number of tokens of prompt and response.
        request_id: identifies the rollout, whose turns stay with one server.
        seeded: the servers take a seed per request.
        extra: further arguments of verl's `generate`, such as `priority`.
    """

    tokens = True

    def __init__(
        self,
        server: Any,
        tokenizer: Any,
        sampling: dict[str, Any],
        *,
        name: str,
        end_ids: Sequence[int],
        prompt_length: int,
        context: int,
        request_id: str,
        seeded: bool = False,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self._server, self._tokenizer, self._sampling = server, tokenizer, dict(sampling)
        self._end_ids, self._prompt_length, self._context = frozenset(end_ids), prompt_length, context
        self._request_id, self._seeded, self._extra = request_id, seeded, extra or {}
        self.seconds = 0.0
        """Time of all requests."""
        self.preempted: int | None = None
        """Number of preemptions; None if the servers do not report it."""
        self.fields: dict[str, Any] = {}
        """What verl's trainer reads about a rollout: `min_global_steps`, `max_global_steps` and what servers report."""
        self.routed_experts: Any = None
        """The experts of all tokens, if the servers report them (`enable_rollout_routing_replay`)."""

    async def generate(self, request: Request) -> Generation:
        """Generate the turn after `request.token_ids`. Raises EngineError."""
        ids = list(request.token_ids or ())
        if not self.fields and len(ids) > self._prompt_length:
            raise EngineError(
                f"the prompt has {len(ids)} tokens: expected at most data.max_prompt_length={self._prompt_length}"
            )
        limit = min(request.sampling.max_tokens, self._context - len(ids))
        if limit < 1:
            return Generation(text="", token_ids=(), log_probs=(), stop="length", prompt_tokens=len(ids))
        sampling = self._sampling | {"max_tokens": limit}
        if request.sampling.stop:
            sampling["stop"] = list(request.sampling.stop)
        if self._seeded:
            sampling["seed"] = request.sampling.seed
        started = time.monotonic()
        try:
            output = await self._server.generate(
                request_id=self._request_id, prompt_ids=ids, sampling_params=sampling, **self._extra
            )
        except Exception as problem:  # verl's client and Ray raise anything
            lines = str(problem).strip().splitlines() or [""]
            raise EngineError(f"verl's rollout server: {type(problem).__name__}: {lines[-1]}") from problem
        self.seconds += time.monotonic() - started
        if output.stop_reason in ("aborted", "abort"):
            raise EngineError("verl's rollout server aborted the request")
        self._record(output)
        return self._generation(output, request, limit, len(ids))

    async def release(self, session: str) -> None:
        """Nothing to do: verl's servers keep no state of a rollout that has ended."""

    async def close(self) -> None:
        """Nothing to do: the servers are verl's."""

    def _record(self, output: Any) -> None:
        if output.num_preempted is not None:
            self.preempted = (self.preempted or 0) + output.num_preempted
        if output.routed_experts is not None:
            self.routed_experts = output.routed_experts
        fields = dict(output.extra_fields)
        if not self.fields:
            self.fields = fields
            return
        if fields.get("max_global_steps") is not None:
            self.fields["max_global_steps"] = fields["max_global_steps"]
        for key in SPEC_DECODE_KEYS:
            if key in fields and key in self.fields:
                self.fields[key] = int(self.fields[key]) + int(fields[key])

    def _generation(self, output: Any, request: Request, limit: int, prompt_tokens: int) -> Generation:
        tokens = list(output.token_ids)
        stop: Literal["end", "length", "stop"] = "length" if len(tokens) >= limit else "end"
        if tokens and tokens[-1] in self._end_ids:
            stop = "end"
        at_stop = self._first_stop(tokens, request.sampling.stop)
        if at_stop is not None and not (at_stop == len(tokens) and tokens[-1] in self._end_ids):
            tokens, stop = tokens[:at_stop], "stop"
        log_probs = None if output.log_probs is None else tuple(output.log_probs[: len(tokens)])
        text = self._tokenizer.decode(tokens[:-1] if stop == "end" else tokens, skip_special_tokens=False)
        version = output.extra_fields.get("global_steps")
        return Generation(
            text=text,
            token_ids=tuple(tokens),
            log_probs=log_probs,
            stop=stop,
            prompt_tokens=prompt_tokens,
            completion_tokens=len(tokens),
            weights_version=None if version is None else int(version),
        )

    def _first_stop(self, tokens: list[int], words: Sequence[str]) -> int | None:
        """The number of tokens up to the first stop string; None without one. (Servers may generate more.)"""
        if not words or not any(word in self._tokenizer.decode(tokens) for word in words):
            return None
        for end in range(1, len(tokens) + 1):
            tail = self._tokenizer.decode(tokens[max(0, end - STOP_TAIL_TOKENS) : end])
            if any(word in tail for word in words):
                return end
        return None
