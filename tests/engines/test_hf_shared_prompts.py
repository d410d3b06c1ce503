"""The samples of a group that start together prefill their prompt once, and are what they are one by one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rewright.core.errors import EngineError
from rewright.engines.base import Generation, Request, Sampling
from rewright.engines.hf import HFEngine
from support.small_tokenizers import CHATML, chat_tokenizer

TOKENIZER = chat_tokenizer(CHATML)
PROMPTS = tuple(
    tuple(5 + (number * 31 + start) % 190 for number in range(length)) for start, length in ((1, 150), (7, 90))
)


@pytest.fixture(scope="module")
def model() -> Any:
    """A random Llama that is too large to count as a small model, because of its vocabulary."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=160_000, hidden_size=128, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.1, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def asked(prompt: tuple[int, ...], seed: int, *, timeout: float | None = None) -> Request:
    sampling = Sampling(seed=seed, max_tokens=12)
    return Request(
        messages=(), tools=(), sampling=sampling, token_ids=prompt, session=f"{seed}", timeout_seconds=timeout
    )


async def generated(
    model: Any, requests: list[Request], *, together: bool, slots: int = 16
) -> tuple[list[Generation], int]:
    """The generations, and the number of prompt tokens that went through the model."""
    prefilled = 0

    def count(module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
        nonlocal prefilled
        rows, length = keywords["input_ids"].shape
        prefilled += rows * length if length > 1 else 0

    engine = HFEngine(model, TOKENIZER, slots=slots, end_ids=())
    hook = model.register_forward_pre_hook(count, with_kwargs=True)

    async def one(request: Request) -> Generation:
        made = await engine.generate(request)
        await engine.release(request.session)
        return made

    try:
        await engine.pause()  # so that all are there when the first one starts
        waiting = [asyncio.ensure_future(one(request)) for request in requests[: len(requests) if together else 1]]
        await asyncio.sleep(0)
        await engine.resume()
        made = list(await asyncio.gather(*waiting))
        made += [await one(request) for request in requests[len(waiting) :]]
    finally:
        hook.remove()
        await engine.close()
    return made, prefilled


async def test_a_group_that_starts_together_prefills_its_prompt_once(model: Any) -> None:
    requests = [asked(PROMPTS[seed % 2], seed) for seed in range(16)]
    together, prefilled = await generated(model, requests, together=True)
    alone, expected = await generated(model, requests, together=False)
    assert prefilled == expected  # once for each of the two prompts
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)  # two prompts in one pass, or one by one
    assert len({one.token_ids for one in together}) > 4
    few_slots, _ = await generated(model, requests, together=True, slots=3)
    assert [one.token_ids for one in few_slots] == [one.token_ids for one in alone]


async def test_the_others_go_on_if_the_first_of_the_group_is_given_up(model: Any) -> None:
    engine = HFEngine(model, TOKENIZER, slots=8, end_ids=())
    try:
        (expected,), _ = await generated(model, [asked(PROMPTS[0], 2)], together=True)
        await engine.pause()
        first = asyncio.ensure_future(engine.generate(asked(PROMPTS[0], 1, timeout=1e-9)))
        second = asyncio.ensure_future(engine.generate(asked(PROMPTS[0], 2)))
        await asyncio.sleep(0)
        await engine.resume()
        with pytest.raises(EngineError, match="no answer"):
            await first
        assert (await second).token_ids == expected.token_ids
    finally:
        await engine.close()
