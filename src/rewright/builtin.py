"""What the registry knows from the start. A new part of ours is its file and one line here (docs/architecture.md)."""

from __future__ import annotations

from rewright.core.registry import register

register("dialect", "hermes", "rewright.dialects.hermes:Hermes")
register("dialect", "tags", "rewright.dialects.tags:Tags")

register("engine", "hf", "rewright.engines.embedded:HFSettings")
register("engine", "openai", "rewright.engines.served:OpenAISettings")

register("estimator", "delta", "rewright.credit.estimators:delta")
register("estimator", "fixed_horizon", "rewright.credit.estimators:fixed_horizon")
register("estimator", "grpo", "rewright.credit.estimators:grpo")
register("estimator", "leave_one_out", "rewright.credit.estimators:leave_one_out")
register("estimator", "matchtir", "rewright.credit.estimators:matchtir")

register("signal", "matched", "rewright.credit.signals:matched")
register("signal", "outcome", "rewright.credit.signals:outcome")

register("exporter", "autotraj", "rewright.exports.autotraj:export")
register("exporter", "llama-factory", "rewright.exports.llama_factory:export")
register("exporter", "ms-swift", "rewright.exports.swift:export")
register("exporter", "openai", "rewright.exports.openai:export")
register("exporter", "trl", "rewright.exports.trl:export")
register("exporter", "verl", "rewright.exports.verl:export")

register("importer", "autotraj", "rewright.importers.autotraj:IMPORTER")
register("importer", "chat-logs", "rewright.importers.chat_logs:IMPORTER")
register("importer", "rewright", "rewright.importers.own:IMPORTER")

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
