"""What the registry knows from the start. A new part of ours is its file and one line here (docs/architecture.md)."""

from __future__ import annotations

from rewright.core.registry import register

register("dialect", "hermes", "rewright.dialects.hermes:Hermes")
register("dialect", "tags", "rewright.dialects.tags:Tags")

register("engine", "hf", "rewright.engines.embedded:HFSettings")
register("engine", "openai", "rewright.engines.served:OpenAISettings")

register("trainer", "trl", "rewright.training.trl.backend:TRL")

# In the order of a run.
register("stage", "eval_base", "rewright.pipeline.stages.evaluate:EVAL_BASE")
register("stage", "synth", "rewright.pipeline.stages.data:SYNTH")
register("stage", "judge", "rewright.pipeline.stages.data:JUDGE")
register("stage", "score", "rewright.pipeline.stages.data:SCORE")
register("stage", "repair", "rewright.pipeline.stages.repair:REPAIR")
register("stage", "build", "rewright.pipeline.stages.build:BUILD")
register("stage", "sft", "rewright.pipeline.stages.sft:SFT")
register("stage", "eval_sft", "rewright.pipeline.stages.evaluate:EVAL_SFT")
register("stage", "reward", "rewright.pipeline.stages.reward:REWARD")
register("stage", "rl", "rewright.pipeline.stages.rl:RL")
register("stage", "eval_rl", "rewright.pipeline.stages.evaluate:EVAL_RL")
