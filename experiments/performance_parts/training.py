"""A step of RL beside one of TRL's own GRPOTrainer with tools, on the same prompts, tool, batch and length."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from performance_parts.rows import Figure, Row, rounded

STEPS = 3


def rl_rows(*, tiny: bool) -> list[Row]:
    """Seconds of CPU of a step; medians of all steps but the first."""
    import torch

    sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
    import gpu_check  # type: ignore[import-not-found]

    from rewright.engines.embedded import HFSettings

    small = {"tasks": 2, "generations": 2, "completion": 8, "slots": 4}
    sizes: Any = gpu_check.Sizes(**(small if tiny else {"tasks": 4, "generations": 4, "completion": 48, "slots": 16}))
    steps = 2 if tiny else STEPS
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = gpu_check.make_large(folder / "model", tiny=True, dtype=torch.float32)
        settings = HFSettings(path=str(model), dtype="float32", slots=sizes.slots)
        found = gpu_check.check_against_trl(settings, folder, sizes, steps=steps)
    ours, theirs = (
        rounded(statistics.median(found[name]["step_cpu_seconds"][1:])) for name in ("rewright", "trl")
    )  # fmt: skip
    tokens = [found[name]["generated_tokens"] for name in ("rewright", "trl")]
    assert 0.8 < tokens[0] / tokens[1] < 1.25, f"unequal work: {tokens} generated tokens"
    rollouts = sizes.tasks * sizes.generations
    return [
        Row(
            what=f"RL step: {rollouts} rollouts of {sizes.completion} tokens with a tool, random small Qwen3, CPU time",
            command="make performance",
            unit="s",
            today=ours,
            peer=Figure(theirs, "TRL's GRPOTrainer with tools"),
        )
    ]
