"""Tool tokens in training: the model attends to them, and no loss falls on them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rewright.core.records import Task, ToolSpec, Trajectory
from rewright.dialects.hermes import Hermes
from rewright.rendering.renderer import Renderer
from rewright.rollout.loop import Plan, Rollout
from rewright.rollout.settings import Limits
from rewright.tools import FunctionTools
from support.scripted_engine import ScriptedEngine
from support.small_tokenizers import pico_tokenizer

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

LINES = [
    '<think>Look.</think><tool_call>{"name": "age", "arguments": {"of": "Kalo"}}</tool_call>'
    '<tool_call>{"name": "age", "arguments": {"of": "Boru"}}</tool_call>',
    "<think>Done.</think><answer>It is known.</answer>",
]


@cache
def model() -> Any:
    from rewright.engines.pico import build_model

    made = build_model(pico_tokenizer(), hidden=32, layers=2, heads=2).eval()
    for parameter in made.parameters():
        parameter.data.mul_(5.0)  # sharp enough for differences to be seen
    return made


def task(age: int) -> Task:
    schema = {"type": "function", "function": {"name": "age", "parameters": {"properties": {"of": {"type": "string"}}}}}
    source = f"def age(of):\n    return {age} if of == 'Kalo' else 41"
    question = {"role": "user", "content": "How old are Kalo and Boru?"}
    return Task(id="t", messages=(question,), tools=(ToolSpec(schema=schema, source=source),))


async def rolled_out(age: int) -> Trajectory:
    """The same model text, whatever the tool says; the tool is run."""
    tools = FunctionTools(level="process", wall_seconds=20.0)
    renderer = Renderer(pico_tokenizer(), Hermes())
    rollout = Rollout(
        ScriptedEngine(LINES, tokenizer=pico_tokenizer()), Hermes(), tools, renderer=renderer,
        limits=Limits(tool_seconds=20.0),
    )  # fmt: skip
    try:
        return await rollout.run(Plan(id=str(age), task=task(age), stage="synth", index=0, seed=0))
    finally:
        await tools.close()


def row_of(trajectory: Trajectory) -> dict[str, list[int]]:
    ids, mask = Renderer(pico_tokenizer(), Hermes()).training_ids(task(36), trajectory)
    return {"input_ids": ids, "mask": mask}


def log_probs(ids: list[int]) -> Any:
    """Log-probability of every token of `ids` but the first, in one training forward pass."""
    with torch.no_grad():
        logits = model()(input_ids=torch.tensor([ids])).logits[0].float()
    return torch.log_softmax(logits[:-1], dim=-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


async def test_another_tool_output_changes_the_next_turns_log_probabilities() -> None:
    first, other = await rolled_out(36), await rolled_out(97)
    assert [turn.token_ids for turn in first.turns] == [turn.token_ids for turn in other.turns]
    assert first.results[0].content == "36"
    assert other.results[0].content == "97"
    numbers = [log_probs(row_of(one)["input_ids"]) for one in (first, other)]
    (before, after), (before_other, after_other) = [
        [row[span.start - 1 : span.end - 1] for span in one.spans]
        for row, one in zip(numbers, (first, other), strict=True)
    ]
    assert torch.equal(before, before_other), "what was written before the tool ran does not change"
    assert not torch.allclose(after, after_other, atol=1e-3)
    assert bool((after != after_other).all()), "every token of the next turn attends to the result"


async def test_no_loss_falls_on_tool_tokens(tmp_path: Path) -> None:
    """Through TRL's own trainer and collator: the gradient is zero wherever a token of a tool would be predicted."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from rewright.training.trl.sft import labels_of

    trajectory = await rolled_out(36)
    row = row_of(trajectory)
    own = [position for span in trajectory.spans for position in range(span.start, span.end)]
    assert [position for position, label in enumerate(labels_of(row)) if label != -100] == own
    shorter = {"input_ids": row["input_ids"][: trajectory.spans[0].end], "mask": row["mask"][: trajectory.spans[0].end]}
    dataset = Dataset.from_list([{"input_ids": one["input_ids"], "labels": labels_of(one)} for one in (row, shorter)])
    config = SFTConfig(
        output_dir=str(tmp_path), max_length=None, packing=False, report_to="none", use_cpu=True, bf16=False,
        per_device_train_batch_size=2,
    )  # fmt: skip
    trainer = SFTTrainer(model=model(), args=config, train_dataset=dataset, processing_class=pico_tokenizer())
    batch = next(iter(trainer.get_train_dataloader()))
    gradients: list[Any] = []

    def keep(module: Any, inputs: Any, output: Any) -> None:
        output.register_hook(gradients.append)

    # What leaves the last layer at a position is read by nothing but the head that predicts the next token.
    hook = trainer.model.model.norm.register_forward_hook(keep)
    try:
        loss = trainer.compute_loss(trainer.model, dict(batch))
        loss.backward()
    finally:
        hook.remove()
        trainer.model.zero_grad()
    length = len(row["input_ids"])
    line = next(index for index in range(2) if batch["input_ids"][index, length - 1] == row["input_ids"][-1])
    weight = gradients[0][line].abs().sum(dim=-1)
    assert {int(position) + 1 for position in weight.nonzero()[:, 0]} == set(own)
    numbers = log_probs(row["input_ids"])
    both = [numbers[position - 1] for position in own]
    both += [numbers[position - 1] for position in own if position < trajectory.spans[0].end]
    assert float(loss.detach()) == pytest.approx(-float(sum(both)) / len(both), rel=1e-4)


async def test_the_text_of_tools_is_all_that_is_masked_after_the_prompt() -> None:
    trajectory = await rolled_out(36)
    row = row_of(trajectory)
    tokenizer = pico_tokenizer()
    prompt = len(trajectory.prompt_ids or ())
    masked = [one for one, flag in zip(row["input_ids"][prompt:], row["mask"][prompt:], strict=True) if not flag]
    assert tokenizer.decode(masked) == (
        "\n<|im_start|>user\n<tool_response>36</tool_response><|im_end|>\n"
        "<|im_start|>user\n<tool_response>41</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    trained = [one for one, flag in zip(row["input_ids"], row["mask"], strict=True) if flag]
    assert tokenizer.decode(trained) == "".join(f"{line}<|im_end|>" for line in LINES)
