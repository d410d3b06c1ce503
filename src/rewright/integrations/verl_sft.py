"""verl: multi-turn SFT on tables whose `tools` are JSON text, as `rewright export --format verl` writes them.

    data.custom_cls.path=pkg://rewright.integrations.verl_sft data.custom_cls.name=ToolSFTDataset

verl's own class wants lists of schemas; in a parquet column these come back with the fields of all schemas of the
table, filled with nulls. Written for verl 0.9.1.
"""

from __future__ import annotations

import json
from typing import Any

from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

__all__ = ["ToolSFTDataset"]


class ToolSFTDataset(MultiTurnSFTDataset):  # type: ignore[misc]
    """verl's `MultiTurnSFTDataset`; the cells of the tools column may be JSON text."""

    tools: list[Any] | None

    def _read_files_and_process(self) -> None:
        """verl's reading, then the tools as the schemas that they are."""
        super()._read_files_and_process()
        if self.tools is not None:
            self.tools = [json.loads(tools) or None if isinstance(tools, str) else tools for tools in self.tools]
