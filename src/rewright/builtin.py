"""What the registry knows from the start. A new part of ours is its file and one line here (docs/architecture.md)."""

from __future__ import annotations

from rewright.core.registry import register

register("dialect", "hermes", "rewright.dialects.hermes:Hermes")
register("dialect", "tags", "rewright.dialects.tags:Tags")

register("engine", "hf", "rewright.engines.embedded:HFSettings")
register("engine", "openai", "rewright.engines.served:OpenAISettings")

register("judge", "answer_correctness", "rewright.judging.correctness:answer_correctness")
register("judge", "bfcl", "rewright.benchmarks.bfcl.judge:JUDGE")
register("judge", "exact", "rewright.judging.exact:exact")
register("judge", "math", "rewright.judging.mathematics:JUDGE")
register("judge", "qa", "rewright.judging.qa:qa")
register("judge", "reasoning_gym", "rewright.benchmarks.reasoning_gym.judge:JUDGE")
register("judge", "solve", "rewright.judging.solve:SOLVE")
register("judge", "solve_parity", "rewright.judging.solve:SOLVE_PARITY")
register("judge", "token_set_f1", "rewright.judging.qa:token_set_f1")
