"""The local engine: the numbers of a plain forward pass, whatever else is in the batch."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rewright.core.errors import EngineError, InputError
from rewright.engines.base import Generation, Request, Sampling
from support.small_tokenizers import CHATML, chat_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from rewright.engines.embedded import HFSettings  # noqa: E402
from rewright.engines.hf import HFEngine  # noqa: E402
from rewright.engines.loading import load_model  # noqa: E402
from rewright.engines.sampling import sample  # noqa: E402

TOKENIZER = chat_tokenizer(CHATML)
LETTERS = range(256)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """What most machines have at least: with more than one, rows of a batch are computed by different threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def build(seed: int = 0, **changes: Any) -> Any:
    """A tiny random Llama. Its output is sharp enough for sampling to be interesting, and never certain."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": len(TOKENIZER), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048, "initializer_range": 0.3,
        "bos_token_id": None, "eos_token_id": TOKENIZER.eos_token_id, "pad_token_id": TOKENIZER.pad_token_id,
    }  # fmt: skip
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings | changes)).eval()


@asynccontextmanager
async def opened(model: Any, *, end_ids: tuple[int, ...] = (), **options: Any) -> AsyncIterator[HFEngine]:
    engine = HFEngine(model, TOKENIZER, name="tiny", end_ids=end_ids, **options)
    try:
        yield engine
    finally:
        await engine.close()


def request(ids: Sequence[int], *, session: str = "", timeout: float | None = None, **sampling: Any) -> Request:
    settings = Sampling(**{"max_tokens": 12, "seed": 0, **sampling})
    return Request(
        messages=(), tools=(), sampling=settings, token_ids=tuple(ids), session=session, timeout_seconds=timeout
    )


def prompt(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(LETTERS, k=length)


def plain_log_probs(model: Any, ids: Sequence[int], start: int, temperature: float = 1.0) -> list[float]:
    """Log-probabilities of `ids[start:]`, by one ordinary forward pass over everything."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].float()
    log_probs = torch.log_softmax(logits / temperature, dim=-1)
    return [float(log_probs[position - 1, ids[position]]) for position in range(start, len(ids))]


def check(model: Any, context: Sequence[int], made: Generation, temperature: float = 1.0) -> None:
    assert made.token_ids is not None
    expected = plain_log_probs(model, [*context, *made.token_ids], len(context), temperature)
    assert made.log_probs == pytest.approx(expected, abs=1e-4)


# The numbers.


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
async def test_log_probabilities_are_those_of_a_plain_forward_pass(temperature: float) -> None:
    model = build()
    async with opened(model, slots=6) as engine:
        prompts = [prompt(seed, length) for seed, length in enumerate((1, 2, 15, 16, 17, 33, 63, 64, 65, 66, 130, 300))]
        made = await asyncio.gather(
            *(engine.generate(request(ids, temperature=temperature, seed=seed)) for seed, ids in enumerate(prompts))
        )
    for ids, one in zip(prompts, made, strict=True):
        assert (one.stop, one.completion_tokens, one.prompt_tokens) == ("length", 12, len(ids))
        assert one.text == TOKENIZER.decode(list(one.token_ids or ()))
        check(model, ids, one, temperature)
    assert len({one.token_ids for one in made}) > 6


async def converse(engine: HFEngine, session: str, first: Sequence[int], seed: int, turns: int = 3) -> list[Generation]:
    """A trajectory: what is generated, then a tool's tokens, again and again, in one session."""
    context, made = list(first), []
    for turn in range(turns):
        one = await engine.generate(request(context, session=session, seed=seed * 100 + turn, max_tokens=8 + seed % 5))
        made.append(one)
        context += [*(one.token_ids or ()), *prompt(seed * 7 + turn, 3 + (seed * 11 + turn * 17) % 90)]
        await asyncio.sleep(0)
    await engine.release(session)
    return made


def groups(count: int = 16) -> list[list[int]]:
    """Prompts of groups of four: the same within a group, the same beginning for all."""
    common = prompt(1000, 40)
    return [common + prompt(2000 + index // 4, 20 + 15 * (index // 4)) for index in range(count)]


async def sampled(model: Any, prompts: list[list[int]], concurrency: int, **options: Any) -> list[list[Generation]]:
    async with opened(model, **options) as engine:
        limit = asyncio.Semaphore(concurrency)

        async def one(index: int) -> list[Generation]:
            async with limit:
                return await converse(engine, f"s{index}", prompts[index], index)

        return list(await asyncio.gather(*(one(index) for index in range(len(prompts)))))


@pytest.mark.parametrize("setting", ["0", "1"])
async def test_grouped_heads_need_no_copies(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' attention copies the keys of a group for every head, or PyTorch's kernel reads them once."""
    monkeypatch.setenv("TRANSFORMERS_SDPA_FORCE_GQA", setting)
    model, prompts = build(num_key_value_heads=1), groups(8)
    for index, turns in enumerate(await sampled(model, prompts, 8, slots=8)):
        check(model, prompts[index], turns[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="for CPUs")
def test_a_user_may_turn_the_attention_without_copies_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_SDPA_FORCE_GQA", "0")
    load_model(HFSettings(path="pico"))
    assert os.environ.pop("TRANSFORMERS_SDPA_FORCE_GQA") == "0"
    load_model(HFSettings(path="pico"))
    assert os.environ["TRANSFORMERS_SDPA_FORCE_GQA"] == "1"


async def test_later_turns_continue_from_what_is_cached() -> None:
    model, prompts = build(), groups(8)
    for index, turns in enumerate(await sampled(model, prompts, 8, slots=3)):
        context = list(prompts[index])
        for turn, one in enumerate(turns):
            check(model, context, one)
            context += [*(one.token_ids or ()), *prompt(index * 7 + turn, 3 + (index * 11 + turn * 17) % 90)]


PICO_LIKE = {"hidden_size": 128, "intermediate_size": 400, "num_hidden_layers": 2, "num_key_value_heads": 4}


@pytest.mark.parametrize("size", [{}, PICO_LIKE | {"initializer_range": 0.08}], ids=["tiny", "pico-like"])
async def test_what_is_sampled_does_not_depend_on_the_company(size: dict[str, Any]) -> None:
    """The same seeds give the same tokens and bits alone and among others, also where there are too few slots."""
    model, prompts = build(**size), groups(12)
    alone = await sampled(model, prompts, 1, slots=12)
    for slots in (12, 3):
        together = await sampled(model, prompts, 12, slots=slots)
        assert [[one.token_ids for one in turns] for turns in together] == [[o.token_ids for o in t] for t in alone]
        assert [[one.log_probs for one in turns] for turns in together] == [[o.log_probs for o in t] for t in alone]


@pytest.mark.parametrize("length", [30, 150, 200, 330, 520])
async def test_a_longer_neighbour_changes_nothing(length: int) -> None:
    """Rows are computed beside rows of any length, over as many keys as the longest needs."""
    model = build(**PICO_LIKE)
    own, seed = prompt(1, length), 5
    async with opened(model, slots=4) as engine:
        alone = await engine.generate(request(own, seed=seed))
    for other in (250, 700):
        async with opened(model, slots=4) as engine:
            neighbour = asyncio.create_task(engine.generate(request(prompt(2, other), seed=6, max_tokens=40)))
            beside = await engine.generate(request(own, seed=seed))
            assert beside.token_ids == alone.token_ids
            # Over more keys a matrix product may sum in another order: it depends on the processor.
            allowed = 0.0 if length < 180 else 1e-5
            assert beside.log_probs == pytest.approx(alone.log_probs, abs=allowed, rel=0.0)
            check(model, prompt(2, other), await neighbour)


# New weights.


async def test_refresh_forgets_what_was_computed_with_the_old_weights() -> None:
    model, ids = build(), prompt(3, 100)
    async with opened(model, slots=2) as engine:
        before = await engine.generate(request(ids, session="a"))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.2)
        engine.refresh()
        after = await engine.generate(request(ids, session="a"))
        longer = await engine.generate(request([*ids, *(after.token_ids or ()), 7], session="a"))
    assert before.log_probs != after.log_probs
    check(model, ids, after)
    check(model, [*ids, *(after.token_ids or ()), 7], longer)


async def test_refresh_in_the_middle_of_a_turn_continues_with_the_new_weights() -> None:
    model, ids = build(), prompt(3, 100)
    async with opened(model, slots=2) as engine:
        started = [asyncio.create_task(engine.generate(request(ids, max_tokens=400, seed=seed))) for seed in range(4)]
        await engine.generate(request(prompt(4, 5), max_tokens=1))  # the others have begun by now
        await asyncio.to_thread(engine.refresh)
        made = await asyncio.gather(*started)
    for one in made:  # the weights are the same: so must be the numbers
        check(model, ids, one)


def test_refresh_after_close_returns() -> None:
    engine = HFEngine(build(), TOKENIZER, slots=1)
    engine.shutdown()
    engine.shutdown()
    engine.refresh()


async def test_a_training_model_generates_as_in_evaluation_and_is_left_training() -> None:
    model, ids = build(attention_dropout=0.5), prompt(3, 50)
    async with opened(model, slots=2) as engine:
        expected = await engine.generate(request(ids))
        model.train()
        engine.refresh()
        assert (await engine.generate(request(ids))).log_probs == expected.log_probs
        assert model.training


# How a turn ends.


async def test_the_end_token_ends_a_turn_and_is_not_in_the_text() -> None:
    model = build()
    async with opened(model, slots=2) as engine:
        free = await engine.generate(request(prompt(5, 20), max_tokens=30))
    tokens = list(free.token_ids or ())
    position = next(index for index in range(5, 30) if tokens[index] not in tokens[:index])
    async with opened(model, slots=2, end_ids=(tokens[position],)) as engine:
        ended = await engine.generate(request(prompt(5, 20), max_tokens=30))
    assert ended.stop == "end"
    assert list(ended.token_ids or ()) == tokens[: position + 1]
    assert len(ended.log_probs or ()) == position + 1
    assert ended.text == TOKENIZER.decode(tokens[:position])


async def test_a_stop_string_ends_a_turn_and_is_kept() -> None:
    model = build()
    async with opened(model, slots=2) as engine:
        # Letters only, so that the text of a stop string is certain to be in it.
        ids = prompt(6, 20)
        free = await engine.generate(request(ids, max_tokens=60))
        letters = [token for token in free.token_ids or () if TOKENIZER.decode([token]).isalnum()]
        word = TOKENIZER.decode([letters[4]])
        first = (free.token_ids or ()).index(letters[4])
        stopped = await engine.generate(request(ids, max_tokens=60, stop=("never seen", word)))
    assert stopped.stop == "stop"
    assert stopped.token_ids == (free.token_ids or ())[: first + 1]
    assert stopped.text.endswith(word)


async def test_the_length_of_the_context_is_the_last_limit() -> None:
    async with opened(build(), slots=2, max_length=64) as engine:
        made = await engine.generate(request(prompt(7, 50), max_tokens=100))
        assert (made.stop, made.completion_tokens) == ("length", 14)
        for length in (64, 80):
            full = await engine.generate(request(prompt(7, length)))
            assert (full.stop, full.token_ids, full.text) == ("length", (), "")
        last = await engine.generate(request(prompt(7, 63), max_tokens=5))
        assert (last.stop, last.completion_tokens) == ("length", 1)


# Sampling.


async def test_the_seed_decides_and_zero_temperature_takes_the_best() -> None:
    model, ids = build(), prompt(8, 30)
    async with opened(model, slots=4) as engine:
        same = [await engine.generate(request(ids, seed=1)) for _ in range(2)]
        other = await engine.generate(request(ids, seed=2))
        greedy = [await engine.generate(request(ids, seed=seed, temperature=0.0)) for seed in (1, 2)]
    assert same[0] == same[1]
    assert same[0].token_ids != other.token_ids
    assert greedy[0].token_ids == greedy[1].token_ids
    check(model, ids, greedy[0])
    context = list(ids)
    for token in greedy[0].token_ids or ():
        with torch.inference_mode():
            assert int(model(torch.tensor([context])).logits[0, -1].argmax()) == token
        context.append(token)


def test_a_token_is_drawn_by_its_probability() -> None:
    probabilities = torch.tensor([0.1, 0.0, 0.6, 0.3])
    numbers = torch.tensor([0.0, 0.05, 0.1001, 0.5, 0.6999, 0.7001, 0.999, 1.0], dtype=torch.float64)
    logits = probabilities.log().expand(len(numbers), -1)
    chosen, log_probs = sample(logits, [Sampling()] * len(numbers), numbers)
    assert chosen == [0, 0, 2, 2, 2, 3, 3, 3]
    assert log_probs == pytest.approx([float(probabilities[token].log()) for token in chosen])


def test_top_p_leaves_the_least_likely_out_and_keeps_the_log_probability() -> None:
    logits = torch.tensor([0.1, 0.05, 0.6, 0.25]).log().expand(3, -1)
    numbers = torch.tensor([0.0, 0.69, 0.999], dtype=torch.float64)
    chosen, log_probs = sample(logits, [Sampling(top_p=0.8)] * 3, numbers)
    assert chosen == [2, 2, 3]
    assert log_probs == pytest.approx([float(logits[0, token]) for token in chosen])
    assert set(sample(logits, [Sampling(top_p=0.01)] * 3, numbers)[0]) == {2}


def one_row(logits: Any, sampling: Sampling, uniform: float) -> tuple[int, float]:
    """A row sampled by itself, written out: sort everything, leave out what is outside of the nucleus, add up."""
    log_probs = torch.log_softmax(logits / (sampling.temperature or 1.0), dim=-1)
    probs = log_probs.double().exp()
    if sampling.top_p < 1.0:
        ordered, positions = probs.sort(descending=True)
        probs[positions[ordered.cumsum(0) - ordered >= sampling.top_p]] = 0.0
    cumulative = probs.cumsum(dim=-1)
    token = int(torch.searchsorted(cumulative, uniform * cumulative[-1:], right=True)[0])
    token = int(logits.argmax()) if sampling.temperature == 0 else min(token, len(logits) - 1)
    return token, float(log_probs[token])


@pytest.mark.parametrize(("vocabulary", "spread"), [(64, 2.0), (1024, 3.0), (5000, 4.0), (5000, 0.1)])
def test_rows_of_a_batch_are_sampled_as_each_by_itself(vocabulary: int, spread: float) -> None:
    """With a spread of 0.1 the nucleus has thousands of tokens; with 4 it has a few."""
    torch.manual_seed(0)
    settings = [Sampling(temperature=t, top_p=p) for t in (0.0, 0.3, 1.0, 2.0) for p in (0.01, 0.5, 0.9, 0.999, 1.0)]
    for batch in (settings, settings[5:9], settings[9:10], settings[:5]):
        logits = torch.randn(len(batch) * 10, vocabulary) * spread
        samplings, numbers = batch * 10, torch.rand(len(batch) * 10, dtype=torch.float64)
        chosen, log_probs = sample(logits, samplings, numbers)
        expected = [one_row(*row) for row in zip(logits, samplings, numbers.tolist(), strict=True)]
        assert list(zip(chosen, log_probs, strict=True)) == expected


# Trouble.


async def test_a_deadline_ends_one_request_and_the_others_go_on() -> None:
    model = build()
    async with opened(model, slots=2) as engine:
        late = asyncio.create_task(engine.generate(request(prompt(9, 10), max_tokens=100_000, timeout=0.05)))
        fine = await engine.generate(request(prompt(10, 10)))
        with pytest.raises(EngineError, match=r"no answer of tiny within 0\.05 s"):
            await late
        check(model, prompt(10, 10), fine)
        check(model, prompt(11, 90), await engine.generate(request(prompt(11, 90))))


async def test_requests_that_nobody_waits_for_give_their_slots_back() -> None:
    async with opened(build(), slots=1) as engine:
        endless = asyncio.create_task(engine.generate(request(prompt(9, 10), max_tokens=10**6)))
        waiting = asyncio.create_task(engine.generate(request(prompt(9, 11))))
        await asyncio.sleep(0)
        endless.cancel()
        assert (await waiting).stop == "length"
        assert (await engine.generate(request(prompt(9, 12)))).stop == "length"


async def test_closing_ends_what_is_under_way_with_an_error() -> None:
    engine = HFEngine(build(), TOKENIZER, name="tiny", slots=1, end_ids=())
    started = [asyncio.create_task(engine.generate(request(prompt(n, 10), max_tokens=2000))) for n in range(3)]
    await asyncio.sleep(0)
    await engine.close()
    for result in await asyncio.gather(*started, return_exceptions=True):
        assert isinstance(result, EngineError)
        assert "closed" in str(result)
    with pytest.raises(EngineError, match="tiny is closed"):
        await engine.generate(request([1]))


async def test_a_model_that_fails_is_an_error_for_everybody_and_nothing_hangs() -> None:
    async with opened(build(), slots=2) as engine:
        results = await asyncio.gather(
            engine.generate(request([1, 2, len(TOKENIZER) + 5, 3])),
            engine.generate(request([1, 2, 3], max_tokens=1000)),
            return_exceptions=True,
        )
        assert all(isinstance(one, EngineError) for one in results)
        with pytest.raises(EngineError, match="tiny: IndexError"):
            await engine.generate(request([1]))


async def test_a_request_without_tokens_is_refused_and_harms_nobody() -> None:
    async with opened(build(), slots=2) as engine:
        for ids in (None, ()):
            empty = Request(messages=(), tools=(), sampling=Sampling(max_tokens=3), token_ids=ids)
            with pytest.raises(EngineError, match="needs token ids"):
                await engine.generate(empty)
        assert (await engine.generate(request([1, 2]))).completion_tokens == 12


def test_layers_that_the_cache_cannot_hold_are_refused() -> None:
    config = transformers.Qwen2Config(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, use_sliding_window=True, sliding_window=8, max_window_layers=1,
    )  # fmt: skip
    with pytest.raises(InputError, match="sliding_attention, expected full attention in every layer"):
        HFEngine(transformers.Qwen2ForCausalLM(config), TOKENIZER, name="window")


async def test_a_window_in_every_layer_bounds_the_length() -> None:
    """Mistral's configuration has a window and no types of layers."""
    torch.manual_seed(0)
    config = transformers.MistralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=8, max_position_embeddings=64,
    )  # fmt: skip
    model = transformers.MistralForCausalLM(config).eval()
    with pytest.raises(InputError, match=r"a sliding window of 8 tokens, expected model.max_length of at most 8"):
        HFEngine(model, TOKENIZER, name="window")
    engine = HFEngine(model, TOKENIZER, name="window", max_length=8)
    try:
        assert 1 <= (await engine.generate(request([1, 2]))).completion_tokens <= 6
    finally:
        await engine.close()
