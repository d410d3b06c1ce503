"""The method in one file earns what the library earns: same rewards, same advantages, same tokens."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rewright import credit
from rewright.core.records import ToolCall, ToolResult
from rewright.dialects import get_dialect
from rewright.engines.pico import pico_path
from rewright.rendering.renderer import Renderer
from rewright.tasks.worlds.town import generate

EXAMPLE = Path(__file__).parents[2] / "examples" / "whole_method.py"
ROLLOUTS = 4
BROKEN = ToolCall("", {}, error="malformed")


@pytest.fixture(scope="module")
def method() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(EXAMPLE), run_name="whole_method"))


@pytest.fixture(scope="module")
def pico() -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(pico_path("pico"), dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(pico_path("pico"))


Calls = list[dict[str, Any]]


def drawn(rng: np.random.Generator, *, once: bool) -> tuple[list[list[Calls]], Calls, list[float]]:
    """Trajectories, a gold list, and outcomes. `once`: every tool is called once, so that no match is a tie."""

    def call(name: str) -> dict[str, Any]:
        values: list[Any] = [1, 1.0, "1", True, [1, 2], None]
        arguments = rng.choice(["a", "b", "c"], size=rng.integers(0, 4), replace=False)
        return {"name": name, "arguments": {str(one): values[rng.integers(len(values))] for one in arguments}}

    def calls() -> Calls:
        names = [f"tool_{number}" for number in range(8)] if once else [*"fg"] * 4
        return [call(names[index]) for index in rng.permutation(8)[: rng.integers(1, 8)]]

    def turns() -> list[Calls]:
        every = calls()
        ends = sorted(rng.integers(0, len(every) + 1, size=rng.integers(0, 4)).tolist())
        return [every[start:end] for start, end in zip([0, *ends], [*ends, len(every)], strict=True)]

    trajectories = [turns() for _ in range(rng.integers(2, 6))]
    return trajectories, calls()[:6], [float(rng.random()) for _ in trajectories]


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_rewards_and_advantages_equal_the_library_s(method: SimpleNamespace, seed: int, once: bool) -> None:
    trajectories, gold, outcomes = drawn(np.random.default_rng(seed), once=once)
    theirs = [
        credit.turn_rewards(turns, gold, outcome=outcome) for turns, outcome in zip(trajectories, outcomes, strict=True)
    ]
    for turns, outcome, expected in zip(trajectories, outcomes, theirs, strict=True):
        made = method.Trajectory([], [method.Turn(0, 0, calls) for calls in turns])
        found = method.turn_rewards(made, gold, outcome)
        if once:
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        else:  # equal matches may go to calls of different turns: what all calls earn is the same
            counts = np.array([len(calls) for calls in turns])
            final = np.append(np.zeros(len(turns) - 1), outcome)
            np.testing.assert_allclose(
                ((found - final) * counts).sum(), ((expected - final) * counts).sum(), rtol=0, atol=1e-6
            )
    for one, other in zip(
        method.advantages(theirs),
        credit.advantages(theirs, ["task"] * len(theirs), singleton_turn="zero"),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_what_it_rolls_out_is_what_the_library_renders_and_credits(
    method: SimpleNamespace, pico: tuple[Any, Any]
) -> None:
    model, tokenizer = pico
    (task,) = generate("train", 1, seed=3, profile="short")
    found = method.roll_out(model, tokenizer, task, ROLLOUTS, torch.Generator().manual_seed(0))
    dialect = get_dialect("hermes")
    renderer = Renderer(tokenizer, dialect)
    gold = [{"name": call.name, "arguments": dict(call.arguments)} for call in task.gold.calls]
    rewards, expected = [], []
    for one in found:
        assert one.ids[: one.turns[0].start] == renderer.task_prompt_ids(task)
        for turn, following in zip(one.turns, one.turns[1:], strict=False):
            text = tokenizer.decode(one.ids[turn.start : turn.end], skip_special_tokens=True)
            parsed = dialect.parse(text)
            assert [call and call["name"] for call in turn.calls] == [
                call.name if call.error is None else None for call in parsed.calls
            ]
            calls = [ToolCall(call["name"], call["arguments"]) if call else BROKEN for call in turn.calls]
            results = [ToolResult(method.execute(task, call)) for call in turn.calls]
            assert one.ids[turn.end : following.start] == list(renderer.suffix_ids(calls, results, ended=True))
        rewards.append(method.turn_rewards(one, gold, 1.0))
        calls = [[call or BROKEN for call in turn.calls] for turn in one.turns]
        expected.append(credit.turn_rewards(calls, gold, outcome=1.0))
    for mine, other in zip(rewards, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-6)
    advantages = method.advantages(rewards)
    for one, row in zip(found, advantages, strict=True):
        values, mask = method.token_advantages(one, row)
        spans = [(turn.start, turn.end) for turn in one.turns]
        (wanted,) = credit.per_token([row], [spans], len(one.ids))
        np.testing.assert_allclose(values.numpy(), wanted[1:], rtol=0, atol=1e-6)
        assert int(mask.sum()) == sum(end - start for start, end in spans)


def test_it_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["whole_method.py", "--steps", "1", "--tasks", "1", "--group", "2"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "step 1: success" in capsys.readouterr().out
