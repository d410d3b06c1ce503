"""verl: multi-turn SFT on tables whose `tools` column is JSON text, as written by `rewright export --format verl`.

    data.custom_cls.path=pkg://rewright.integrations.verl.sft data.custom_cls.name=ToolSFTDataset

verl's class expects lists of schemas. A parquet column of schemas would give each schema the fields of all others,
filled with nulls. Written for verl 0.9.1.
"""

from __future__ import annotations

import json
from typing import Any

from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

__all__ = ["ToolSFTDataset"]


class ToolSFTDataset(MultiTurnSFTDataset):  # type: ignore[misc]
    """verl's `MultiTurnSFTDataset` with support for JSON text in the tools column."""

    tools: list[Any] | None

    def _read_files_and_process(self) -> None:
        """verl's method; then decode the tools column."""
        super()._read_files_and_process()
        if self.tools is not None:
            self.tools = [json.loads(tools) or None if isinstance(tools, str) else tools for tools in self.tools]
