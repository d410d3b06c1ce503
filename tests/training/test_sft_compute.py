"""SFT computes no more than its rows need: the output layer where there is a label, and little padding."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import torch
from torch.utils.flop_counter import FlopCounterMode

from rewright.engines.embedded import HFSettings
from rewright.engines.loading import load_model
from rewright.training.settings import SFTSettings
from rewright.training.trl.sft import train_sft
from rewright.training.trl.step_sampler import StepSampler

PICO = HFSettings(path="pico")
LENGTHS = (150, 12, 90, 20, 160, 15, 80, 30, 140, 25, 10, 120)


def rows(labelled: int | None) -> list[dict[str, Any]]:
    """Rows of random tokens, with a label on the last `labelled` ones (None: on all)."""
    generator = random.Random(0)
    texts = [[generator.randrange(5, 200) for _ in range(length)] for length in LENGTHS]
    counts = [len(ids) if labelled is None else labelled for ids in texts]
    return [
        {"input_ids": ids, "mask": [0] * (len(ids) - count) + [1] * count}
        for ids, count in zip(texts, counts, strict=True)
    ]


def trained(tmp_path: Path, name: str, data: list[dict[str, Any]], **settings: Any) -> tuple[int, dict[str, Any]]:
    """Floating-point operations of one step over all rows, and its logged row."""
    chosen = SFTSettings(batch_size=len(data), epochs=1, learning_rate=1e-4, **settings)
    with FlopCounterMode(display=False) as counter:
        history = train_sft(data, PICO, chosen, tmp_path / name, seed=3)
    return counter.get_total_flops(), history[0]


def test_positions_without_a_label_cost_no_output_layer_and_the_step_is_that_of_transformers(tmp_path: Path) -> None:
    few, logged = trained(tmp_path, "few", rows(5))
    everything, _ = trained(tmp_path, "all", rows(None))
    model = load_model(PICO)
    head, hidden = model.get_output_embeddings().weight.shape
    saved = sum(LENGTHS) - len(LENGTHS) * 6  # positions that only `everything` has a label on, the next token's
    assert everything - few > 0.9 * saved * 4 * head * hidden  # at least the two products of the backward pass

    total, labels = 0.0, 0
    for row in rows(5):  # one by one, by transformers alone
        ids = torch.tensor([row["input_ids"]])
        targets = torch.where(torch.tensor([row["mask"]]) == 1, ids, -100)
        loss = model(input_ids=ids, labels=targets).loss * 5
        loss.backward()
        total, labels = total + loss.item(), labels + 5
    norm = torch.sqrt(sum((weight.grad**2).sum() for weight in model.parameters())) / labels
    assert logged["loss"] == pytest.approx(total / labels, rel=1e-4)
    assert logged["grad_norm"] == pytest.approx(norm.item(), rel=1e-3)


def test_micro_batches_have_rows_of_similar_length_and_the_gradient_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    whole, expected = trained(tmp_path, "whole", rows(5))
    divided, logged = trained(tmp_path, "divided", rows(5), micro_batch_size=3)
    assert divided < 0.75 * whole
    assert logged["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert logged["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)


def test_padding_on_the_right_needs_no_mask_and_other_padding_keeps_its_mask(tmp_path: Path) -> None:
    """TRL alone, with the mask of its collator, makes the same step; every attention layer was called without one."""
    from rewright.training.trl.right_padding import causal_mask_alone

    model = load_model(PICO)
    attention = model.base_model.layers[0].self_attn
    masks: list[Any] = []
    attention.register_forward_pre_hook(
        lambda _module, _args, settings: masks.append(settings["attention_mask"]), with_kwargs=True
    )
    ids = torch.randint(5, 200, (3, 12), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([12, 7, 1])
    right = (torch.arange(12) < lengths[:, None]).long()
    left = right.flip(1)
    before = {name: model(input_ids=ids, attention_mask=mask).logits for name, mask in (("r", right), ("l", left))}
    assert all(mask is not None for mask in masks)
    causal_mask_alone(model)
    masks.clear()
    after = {name: model(input_ids=ids, attention_mask=mask).logits for name, mask in (("r", right), ("l", left))}
    assert masks[0] is None
    assert masks[1] is not None
    torch.testing.assert_close(after["r"][right.bool()], before["r"][right.bool()], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after["l"], before["l"])
    for rank in (None, 4):
        _, logged = trained(tmp_path, f"padded-{rank}", rows(5), lora_rank=rank)
        assert logged["loss"] == pytest.approx(plain_loss(rows(5)), rel=1e-4)


def plain_loss(data: list[dict[str, Any]]) -> float:
    """The loss of a batch by transformers alone, row by row."""
    model, total, labels = load_model(PICO), 0.0, 0
    for row in data:
        ids, count = torch.tensor([row["input_ids"]]), sum(row["mask"])
        targets = torch.where(torch.tensor([row["mask"]]) == 1, ids, -100)
        total, labels = total + model(input_ids=ids, labels=targets).loss.item() * count, labels + count
    return total / labels


def test_the_order_is_that_of_its_seed_and_epoch_and_grouping_fills_the_steps_with_similar_lengths() -> None:
    lengths = [20 + (number * 7919) % 880 for number in range(131)]

    def order(epoch: int, **settings: Any) -> list[list[int]]:
        sampler = StepSampler(lengths, len(lengths) + 3, step=8, seed=5, **settings)
        sampler.set_epoch(epoch)
        indices = list(sampler)
        assert sorted(indices[:-3]) == list(range(len(lengths)))
        assert indices[-3:] == [len(lengths), len(lengths) + 1, len(lengths) + 2]
        return [indices[start : start + 8] for start in range(0, len(lengths), 8)]

    def padding(steps: list[list[int]]) -> int:
        real = [[lengths[index] for index in step if index < len(lengths)] for step in steps]
        return sum(max(step) * len(step) - sum(step) for step in real)

    assert order(1, grouped=True) == order(1, grouped=True) != order(2, grouped=True)
    assert order(0, grouped=False) == order(0, grouped=False) != order(1, grouped=False)
    assert padding(order(0, grouped=True)) < 0.4 * padding(order(0, grouped=False))
    longest = [max(lengths[index] for index in step if index < len(lengths)) for step in order(0, grouped=True)]
    assert longest != sorted(longest, reverse=True)  # the steps are shuffled
