"""What the registry knows from the start. A new part of ours is its file and one line here (docs/architecture.md)."""

from __future__ import annotations

from rewright.core.registry import register

register("dialect", "hermes", "rewright.dialects.hermes:Hermes")
register("dialect", "tags", "rewright.dialects.tags:Tags")

register("engine", "hf", "rewright.engines.embedded:HFSettings")
register("engine", "openai", "rewright.engines.served:OpenAISettings")
