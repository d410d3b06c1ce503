"""A trainer back end in one file: its SFT counts tokens. `sft.backend: toy` in a recipe chooses it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rewright.core.errors import InputError
from rewright.core.registry import register
from rewright.engines.settings import ModelSettings
from rewright.training.backend import Section
from rewright.training.settings import RewardSettings, RLSettings, SFTSettings


class ToyTrainer:
    """See `rewright.training.backend.Backend`. It trains in SFT only, so it has no other training method."""

    def check(self, section: Section, settings: SFTSettings | RewardSettings | RLSettings) -> None:
        """Refuse the other sections."""
        if section != "sft":
            raise InputError(f"{section}.backend: toy trains in sft only")

    def train_sft(
        self, rows: Sequence[dict[str, Any]], model: ModelSettings, settings: SFTSettings, out: Path, *, seed: int
    ) -> list[dict[str, Any]]:
        """Save how often each generated token occurs. Returns one logged row."""
        counts = Counter(
            token
            for row in rows
            for token, is_own in zip(row["input_ids"], row["mask"], strict=True)
            if is_own
        )  # fmt: skip
        out.mkdir(parents=True)
        about = {"rows": len(rows), "base": model.path, "epochs": settings.epochs, "seed": seed}
        (out / "unigrams.json").write_text(json.dumps({**about, "counts": dict(counts)}), encoding="utf-8")
        return [{"step": 1, "tokens": counts.total()}]


register("trainer", "toy", ToyTrainer)
