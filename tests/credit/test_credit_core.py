"""The core formulas of the credit package against the golden numbers of the method's description."""

import subprocess
import sys

import numpy as np
import pytest

from rewright.core.records import ToolCall
from rewright.credit import advantages, match, match_many, per_token, similarity, turn_rewards


def call(name="f", **arguments):
    return {"name": name, "arguments": arguments}


@pytest.mark.parametrize(
    ("pred", "gold", "expected"),
    [
        (call(a=1), call(a=2), 2 / 3),  # one wrong value of one parameter
        (call(), call(a=1, b=2, c=3), 0.2),  # empty arguments against three
        (call(a=1, b=2), call(a=1, b=2, c=3), 11 / 15),  # one of three missing
        (call(a=1, b=2, c=9), call(a=1, b=2, c=3), 0.8),  # one of three wrong
        (call(a=1, b=2, c=3), call(a=1, b=2), 11 / 12),  # one extra on two
        (call(a=1), call(), 0.5),  # any arguments against a gold call without parameters
        (call(), call(), 1.0),
        (call("g", a=1), call("f", a=1), 0.0),
        (call("F", a=1), call("f", a=1), 1.0),
    ],
)
def test_similarity_has_the_published_values(pred, gold, expected):
    assert similarity(pred, gold) == pytest.approx(expected, abs=1e-12)


def test_optimal_beats_greedy_where_one_tool_is_called_twice():
    golds = [call(a=1, b=2), call(a=1)]
    preds = [call(a=1), call(a=1, b=2, c=3)]
    optimal, greedy = match(preds, golds), match(preds, golds, assignment="greedy")
    assert optimal.rewards_P.sum() >= greedy.rewards_P.sum()
    assert optimal.pairs == [(0, 1), (1, 0)]


def test_turn_rewards_take_the_mean_of_a_turn_and_add_the_outcome_last():
    turns = [[call(a=1), call("unknown")], [], [ToolCall("f", {"a": 2})]]
    golds = [call(a=1), call(a=2)]
    assert turn_rewards(turns, golds, outcome=0.25).tolist() == [0.5, 0.0, 1.25]
    assert turn_rewards(turns, golds, outcome=0.25, aggregate="sum").tolist() == [1.0, 0.0, 1.25]


def test_transport_gives_uniform_marginals():
    found = match_many([([call(a=1), call(a=2)], [call(a=1), call(a=2), call(a=3)])], assignment="ot")[0]
    assert found.plan_PG.sum(axis=1) == pytest.approx([0.5, 0.5], abs=1e-9)
    assert found.plan_PG.sum(axis=0) == pytest.approx([1 / 3] * 3, abs=1e-9)


def test_matchtir_advantages_by_hand():
    rewards = [[1.0, 1.0], [0.0]]
    first, second = advantages(rewards, ["a", "a"])
    spread = np.std([2.0, 0.0], ddof=1) + 1e-6
    turn = np.std([1.9, 0.0], ddof=1) + 1e-6
    assert first == pytest.approx([(1 / spread + 0.95 / turn) / 2, (1 / spread + 1.0) / 2])
    assert second == pytest.approx([(-1 / spread - 0.95 / turn) / 2])


def test_per_token_fills_the_spans():
    tokens = per_token([np.array([0.5, -1.0])], [[(1, 3), (5, 9)]], 7)
    assert tokens.dtype == np.float32
    assert tokens.tolist() == [[0, 0.5, 0.5, 0, 0, -1, -1]]


def test_importing_the_package_is_light():
    """Other people's trainers import it: numpy and the standard library, scipy on first use, never torch."""
    code = "import sys, rewright.credit; print({'torch', 'scipy', 'transformers', 'msgspec'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
