"""The embedded engine takes new weights: no turn is made by two versions, and each says which one made it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rewright.core.errors import EngineError
from rewright.engines.base import Request, Sampling, TrainableEngine
from support.small_tokenizers import CHATML, chat_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from rewright.engines.hf import HFEngine  # noqa: E402

TOKENIZER = chat_tokenizer(CHATML)
PROMPT = tuple(range(40, 60))


def build(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=2048, initializer_range=0.3, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def turn(count: int = 12, session: str = "") -> Request:
    return Request((), (), Sampling(max_tokens=count, seed=1), token_ids=PROMPT, session=session)


@asynccontextmanager
async def opened(model: Any) -> AsyncIterator[HFEngine]:
    engine = HFEngine(model, TOKENIZER, name="tiny", end_ids=(), slots=2)
    try:
        yield engine
    finally:
        await engine.close()


async def test_new_weights_are_used_and_running_turns_are_completed_with_the_old_ones() -> None:
    model, trained = build(), build(seed=5)
    async with opened(copy.deepcopy(trained)) as other:
        expected = await other.generate(turn())
        assert expected.weights_version is None
    async with opened(model) as engine:
        trainable: TrainableEngine = engine
        before = await engine.generate(turn(300))
        running = asyncio.create_task(engine.generate(turn(300, "a")))
        await asyncio.sleep(0)
        first = await engine.generate(turn(1, "b"))  # the other has begun by now
        update = asyncio.create_task(trainable.update_weights(trained.named_parameters(), 7))
        await asyncio.sleep(0)
        late = asyncio.create_task(engine.generate(turn(session="c")))
        await engine.release("b")
        await update
        done = await running
        await engine.release("a")
        assert (done.token_ids, done.weights_version, first.weights_version) == (before.token_ids, None, None)
        made = await engine.generate(turn(session="d"))
        assert [made.token_ids, made.log_probs, made.weights_version] == [expected.token_ids, expected.log_probs, 7]
        assert (await late).token_ids == expected.token_ids and (await late).weights_version == 7
        assert engine.weights_version == 7


async def test_a_paused_or_sleeping_engine_makes_requests_wait() -> None:
    async with opened(build()) as engine:
        expected = await engine.generate(turn(session="a"))
        for stop, go in ((engine.pause, engine.resume), (engine.sleep, engine.wake)):
            await stop()
            waiting = asyncio.create_task(engine.generate(turn(session="a")))
            # What is changed meanwhile leaves it paused.
            await engine.update_weights(engine.model.named_parameters(), 1)
            assert not waiting.done() and await engine.alive()
            await go()
            assert (await waiting).log_probs == expected.log_probs
        await engine.pause()
        lost = asyncio.create_task(engine.generate(turn(session="b")))
        await asyncio.sleep(0)
    with pytest.raises(EngineError, match="was closed"):
        await lost
    assert not await engine.alive()
    with pytest.raises(EngineError, match="is closed"):
        await engine.pause()


async def test_weights_of_another_model_are_refused() -> None:
    async with opened(build()) as engine:
        with pytest.raises(EngineError, match=r"tiny has no weight lm_head.weight of shape \(1, 2\)"):
            await engine.update_weights([("lm_head.weight", torch.zeros(1, 2))], 1)
        with pytest.raises(EngineError, match=r"tiny has no weight other of shape \(3,\)"):
            await engine.update_weights([("other", torch.zeros(3))], 1)
        assert (await engine.generate(turn())).weights_version is None
