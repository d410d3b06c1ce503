"""Log-probabilities of the engine that sampled the rollouts, against those of the trainer.

Kernels, precision and batches differ between them, so the rollouts are samples of a slightly other policy. The gap is
measured in the forward pass of the loss, in the first update after the rollouts, when the weights are those that
generated them. TRL corrects for it with truncated importance weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

__all__ = ["SamplerGap", "use_trl_correction"]

MEAN_DIGITS: Final = 4
MAX_DIGITS: Final = 3
"""Decimals of the gap. The last bits of log-probabilities depend on which rollouts shared a batch (engine hf in
float32: mean 6e-7, at most 3e-5), and a run that is made again has the same figures."""

Part = tuple[float, int, float]


class SamplerGap:
    """Collects the gap over the micro-batches of an optimizer step: (sum, tokens, largest)."""

    def __init__(self) -> None:
        self._step = -1
        self._batch: tuple[torch.Tensor, torch.Tensor] | None = None
        self._parts: list[Part] = []

    def expect(self, step: int) -> None:
        """Compare in the losses of the optimizer step `step`, whose weights generated the rollouts."""
        self._step = step

    @contextmanager
    def batch(self, inputs: dict[str, Any], step: int) -> Iterator[None]:
        """Compare the log-probabilities that are computed inside the block with those of `inputs` (B, T)."""
        sampled = inputs.get("sampling_per_token_logps")
        if sampled is not None and step == self._step:
            mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
            self._batch = (sampled, mask.bool())
        try:
            yield
        finally:
            self._batch = None

    def record(self, log_probs_B_T: torch.Tensor) -> None:
        """Compare the log-probabilities of the loss; does nothing outside of `batch`."""
        if self._batch is None:
            return
        sampled, mask = self._batch
        gap = (log_probs_B_T.detach().float() - sampled).abs()[mask]
        gap = gap[~gap.isnan()]
        if len(gap):
            self._parts.append((float(gap.double().sum()), len(gap), float(gap.max())))

    def metrics(self, gather: Callable[[list[Part]], list[Part]]) -> dict[str, float]:
        """Return the mean and the largest gap since the last call, over all processes. Empty: nothing was compared."""
        parts, self._parts = gather(self._parts), []
        count = sum(tokens for _, tokens, _ in parts)
        if not count:
            return {}
        return {
            "rewright/sampler_gap_mean": round(sum(total for total, _, _ in parts) / count, MEAN_DIGITS),
            "rewright/sampler_gap_max": round(max(largest for _, _, largest in parts), MAX_DIGITS),
        }


class _NoSync:
    """Stands for TRL's own vLLM, of which a trainer with a rollout function needs this method alone."""

    def sync_weights(self) -> None:
        """Do nothing: the rollouts update the engine themselves."""


def use_trl_correction(trainer: Any) -> None:
    """Have a GRPOTrainer use its importance correction, which it has for vLLM, with the engine of its rollouts."""
    trainer.use_vllm = True
    trainer.vllm_importance_sampling_correction = True
    trainer.vllm_mode = "rewright"
    trainer.vllm_generation = _NoSync()
    trainer._last_loaded_step = -1
