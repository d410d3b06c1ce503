"""The tags dialect on the local engine: a real model that would invent its results does not get to."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from rewright.core.records import Task
from rewright.dialects import conversation
from rewright.dialects.tags import Tags
from rewright.engines.base import Sampling
from rewright.rendering.renderer import Renderer
from rewright.rollout.loop import Plan, Rollout
from rewright.rollout.settings import Limits
from rewright.tools import PythonTool
from support.scripted_model import HIDDEN, successor_weights
from support.small_tokenizers import CHATML, chat_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from rewright.engines.hf import HFEngine  # noqa: E402

SCRIPT = ["<code>", "print(36 * 7)", "</", "code", ">", "<result>251</result>", "<answer>\\boxed{251}</answer>"]
"""What the model writes behind every line break. Its closing tag is three tokens, as in most vocabularies."""


def model_of(tokenizer: Any) -> Any:
    """A Qwen2 in which every token has one certain successor."""
    ids = tokenizer.convert_tokens_to_ids(["Ċ", *SCRIPT, "<|im_end|>"])
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=HIDDEN, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=False, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = transformers.Qwen2ForCausalLM(config).eval()
    weights = successor_weights(len(tokenizer), dict(pairwise(ids)))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return model


async def test_the_tool_runs_before_the_model_goes_on() -> None:
    tokenizer, dialect = chat_tokenizer(CHATML, added=SCRIPT), Tags()
    task = Task(id="t", messages=({"role": "user", "content": "36 times 7?"},), tools=(PythonTool.spec(),))
    engine, tools = (
        HFEngine(model_of(tokenizer), tokenizer, name="tiny", slots=2),
        PythonTool(level="process", wall_seconds=60.0, preload=()),
    )
    renderer = Renderer(tokenizer, dialect)
    rollout = Rollout(
        engine, dialect, tools, renderer=renderer, limits=Limits(tool_calls=3, turns=10, tool_seconds=60.0),
        sampling=Sampling(temperature=0.0),
    )  # fmt: skip
    try:
        trajectory = await rollout.run(Plan(id="1", task=task, stage="synth", index=0, seed=0))
    finally:
        await engine.close()
        await tools.close()
    assert [turn.text for turn in trajectory.turns] == ["<code>print(36 * 7)</code>"] * 4
    assert [result.content for result in trajectory.results] == ["252"] * 3
    assert (trajectory.stop_reason, trajectory.answer) == ("tool_limit", None)
    assert "251" not in tokenizer.decode(trajectory.token_ids)
    messages = [*dialect.messages(task), *conversation(dialect, trajectory.turns, renderer.escape)]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(trajectory.token_ids) + "<|im_end|>\n" == rendered
