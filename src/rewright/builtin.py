"""Registrations of all built-in components. A new component needs one line here (docs/architecture.md)."""

from __future__ import annotations

from typing import Final

from rewright.core.registry import register
from rewright.core.trust import register_builtin_target

__all__ = ["RENAMED"]

RENAMED: Final[dict[str, str]] = {
    "rewright.quality:confidence": "confidence",
    "rewright.quality:length": "length",
    "rewright.quality:repetition": "repetition",
    "rewright.quality_dimensions:tool_errors": "tool_errors",
    "rewright.quality_dimensions:redundant_calls": "redundant_calls",
    "rewright.quality_dimensions:well_formed": "format",
    "rewright.quality_dimensions:tags_format": "tags_format",
    "rewright.worlds.town:look_up": "rewright.tasks.worlds.town:look_up",
    "rewright.worlds.town:calculate": "rewright.tasks.worlds.town:calculate",
    "rewright.benchmarks.bfcl_world:call": "rewright.benchmarks.bfcl.world:call",
}
"""Old import paths in recipes and tasks of run directories of format 1, and their current names.

Used only by the migration of run directories.
"""

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

# In run order.
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

register("judge", "answer_correctness", "rewright.judging.correctness:answer_correctness")
register("judge", "bfcl", "rewright.benchmarks.bfcl.judge:JUDGE")
register("judge", "calls", "rewright.judging.calls:JUDGE")
register("judge", "exact", "rewright.judging.exact:exact")
register("judge", "math", "rewright.judging.mathematics:JUDGE")
register("judge", "qa", "rewright.judging.qa:qa")
register("judge", "reasoning_gym", "rewright.benchmarks.reasoning_gym.judge:JUDGE")
register("judge", "solve", "rewright.judging.solve:SOLVE")
register("judge", "solve_parity", "rewright.judging.solve:SOLVE_PARITY")
register("judge", "token_set_f1", "rewright.judging.qa:token_set_f1")
register("judge", "verifiers", "rewright.benchmarks.verifiers.judge:JUDGE")

register("task_format", "2wikimultihopqa", "rewright.benchmarks.wikimultihop.tasks:FORMAT")
register("task_format", "aime24", "rewright.benchmarks.aime.tasks:AIME24")
register("task_format", "aime25", "rewright.benchmarks.aime.tasks:AIME25")
register("task_format", "almanac", "rewright.tasks.worlds.almanac:FORMAT")
register("task_format", "amc23", "rewright.benchmarks.amc23.tasks:FORMAT")
register("task_format", "apigen-mt", "rewright.tasks.sets.apigen_mt:FORMAT")
register("task_format", "autotraj", "rewright.benchmarks.autotraj.tasks:FORMAT")
register("task_format", "bamboogle", "rewright.benchmarks.bamboogle.tasks:FORMAT")
register("task_format", "bfcl-multi-turn", "rewright.benchmarks.bfcl.tasks:FORMAT")
register("task_format", "ftrl", "rewright.benchmarks.ftrl.tasks:FORMAT")
register("task_format", "glaive", "rewright.tasks.sets.glaive:FORMAT")
register("task_format", "gsm8k", "rewright.benchmarks.gsm8k.tasks:FORMAT")
register("task_format", "hermes-fc", "rewright.tasks.sets.hermes_fc:FORMAT")
register("task_format", "hle", "rewright.benchmarks.hle.tasks:FORMAT")
register("task_format", "hotpotqa", "rewright.benchmarks.hotpotqa.tasks:FORMAT")
register("task_format", "math", "rewright.benchmarks.math.tasks:FORMAT")
register("task_format", "musique", "rewright.benchmarks.musique.tasks:FORMAT")
register("task_format", "reasoning_gym", "rewright.benchmarks.reasoning_gym.tasks:FORMAT")
register("task_format", "rewright", "rewright.tasks.own_format:FORMAT")
register("task_format", "toolace", "rewright.tasks.sets.toolace:FORMAT")
register("task_format", "toolhop", "rewright.benchmarks.toolhop.tasks:FORMAT")
register("task_format", "toolmind", "rewright.tasks.sets.toolmind:FORMAT")
register("task_format", "town", "rewright.tasks.worlds.town:FORMAT")
register("task_format", "verifiers", "rewright.benchmarks.verifiers.tasks:FORMAT")
register("task_format", "when2call", "rewright.tasks.sets.when2call:FORMAT")
register("task_format", "xlam", "rewright.tasks.sets.xlam:FORMAT")

register("dimension", "confidence", "rewright.repair.quality:confidence")
register("dimension", "format", "rewright.repair.dimensions:well_formed")
register("dimension", "length", "rewright.repair.quality:length")
register("dimension", "redundant_calls", "rewright.repair.dimensions:redundant_calls")
register("dimension", "repetition", "rewright.repair.quality:repetition")
register("dimension", "tags_format", "rewright.repair.dimensions:tags_format")
register("dimension", "tool_errors", "rewright.repair.dimensions:tool_errors")

register("benchmark", "2wikimultihopqa", "rewright.benchmarks.wikimultihop.protocol:BENCHMARK")
register("benchmark", "bamboogle", "rewright.benchmarks.bamboogle.protocol:BENCHMARK")
register("benchmark", "bfcl-multi-turn", "rewright.benchmarks.bfcl.protocol:BENCHMARK")
register("benchmark", "hotpotqa", "rewright.benchmarks.hotpotqa.protocol:BENCHMARK")
register("benchmark", "musique", "rewright.benchmarks.musique.protocol:BENCHMARK")

register_builtin_target("rewright.tasks.worlds.town:look_up")
register_builtin_target("rewright.tasks.worlds.town:calculate")
register_builtin_target("rewright.benchmarks.bfcl.world:call")
register_builtin_target("rewright.benchmarks.verifiers.world:call", in_files=False)
