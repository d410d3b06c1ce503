"""KV cache with slots for `transformers` decoders: every row of a batch has its own length.

The caches of `transformers` have the same length in all rows. Here each row writes at its own position and attends to
its own past, so sequences can join and leave a running batch and keep their cache between turns. Supports decoders with
full attention in every layer, with the public `Cache` interface and a 4-D attention mask.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

__all__ = ["SlotCache", "cache_argument", "end_token_ids"]


class _SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer: (slots, heads, length, head dimension)."""

    is_sliding = False

    def __init__(self, owner: SlotCache) -> None:
        super().__init__()
        self.owner = owner

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        slots, length = self.owner.slots, self.owner.allocated
        shape = (slots, key_states.shape[1], length)
        self.keys = key_states.new_zeros((*shape, key_states.shape[3]))
        self.values = value_states.new_zeros((*shape, value_states.shape[3]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        owner = self.owner
        rows, positions, length = owner.rows, owner.positions, owner.length
        # (B, 1) rows and (B, Q) positions pick (B, Q, heads, dimension).
        self.keys[rows, :, positions] = key_states.transpose(1, 2)
        self.values[rows, :, positions] = value_states.transpose(1, 2)
        if owner.all_rows:
            count = len(rows)
            return self.keys[:count, :, :length], self.values[:count, :, :length]
        picked = rows[:, 0]
        return self.keys[picked, :, :length], self.values[picked, :, :length]

    def grow(self, length: int) -> None:
        if self.is_initialized:
            more = length - self.keys.shape[2]
            self.keys = torch.nn.functional.pad(self.keys, (0, 0, 0, more))
            self.values = torch.nn.functional.pad(self.values, (0, 0, 0, more))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.owner.length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_cache_shape(self) -> int:  # called by transformers up to 5.12
        return -1

    def get_max_length(self) -> int:
        return -1


class SlotCache(Cache):  # type: ignore[misc]
    """A cache of `slots` rows for `layers` layers. `set_positions` sets where the next pass reads and writes."""

    def __init__(self, layers: int, slots: int) -> None:
        self.slots = slots
        self.allocated = 0
        self.rows = torch.zeros((0, 1), dtype=torch.long)
        self.positions = torch.zeros((0, 0), dtype=torch.long)
        self.length = 0
        self.all_rows = False
        super().__init__(layers=[_SlotLayer(self) for _ in range(layers)])

    def reserve(self, length: int) -> None:
        """Allocate at least `length` positions in every slot."""
        if length > self.allocated:
            self.allocated = length
            for layer in self.layers:
                layer.grow(length)

    def set_positions(self, rows_B: torch.Tensor, positions_B_Q: torch.Tensor, length: int, *, all_rows: bool) -> None:
        """Set up the next pass: write at `positions_B_Q` of the slots `rows_B`, attend to the first `length` positions.

        `rows_B`: slot indices, shape (batch,). `positions_B_Q`: shape (batch, query length). `all_rows`: `rows_B` is
        0, 1, 2, …, which avoids a copy.
        """
        self.rows, self.positions, self.length, self.all_rows = rows_B[:, None], positions_B_Q, length, all_rows

    def swap(self, first: int, second: int, length: int) -> None:
        """Exchange the first `length` positions of two slots."""
        for layer in self.layers:
            if layer.is_initialized:
                for held in (layer.keys, layer.values):
                    saved = held[first, :, :length].clone()
                    held[first, :, :length] = held[second, :, :length]
                    held[second, :, :length] = saved

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one slot to another (a shared prompt)."""
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys[target, :, :length] = layer.keys[source, :, :length]
                layer.values[target, :, :length] = layer.values[source, :, :length]


def cache_argument(model: Any) -> str:
    """Return the name of the KV cache among the arguments of `forward`; transformers 5.24 has renamed it to `cache`."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "cache" if "cache" in inspect.signature(type(base).forward).parameters else "past_key_values"


def end_token_ids(model: Any, tokenizer: Any) -> set[int]:
    """Return the token ids that end a turn: those of the tokenizer and of the model's configurations."""
    ids: set[int] = set()
    generation = getattr(model, "generation_config", None)
    for value in (tokenizer.eos_token_id, getattr(generation, "eos_token_id", None), model.config.eos_token_id):
        if isinstance(value, int):
            ids.add(value)
        elif value is not None:
            ids.update(int(token_id) for token_id in value)
    return ids
