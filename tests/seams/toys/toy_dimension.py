"""A dimension of quality in one file: how short is the text?"""

from __future__ import annotations

from rewright.core.registry import register
from rewright.repair.quality import Sample


def brevity(sample: Sample) -> float:
    """1 for no word at all, 0.5 for ten words."""
    return 10 / (10 + len(sample.words))


register("dimension", "toy_brevity", brevity)
