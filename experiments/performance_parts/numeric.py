"""Turn rewards beside scipy's assignment alone, and advantages beside writing their array."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import numpy as np
from credit_speed import GROUP, cpu_seconds, draw_call, reference_advantages, reference_rewards
from scipy.optimize import linear_sum_assignment

from performance_parts.rows import Figure, Row, rounded
from rewright.credit import advantages, per_token, similarity_matrix, turn_rewards_many

COMMAND = "python experiments/credit_speed.py"


def credit(*, tiny: bool) -> list[Row]:
    """Microseconds of CPU per trajectory: matching of all calls and turn rewards."""
    return [rewards(calls, tools, tiny=tiny) for calls, tools in ((10, 5), (100, 20))]


def rewards(calls: int, tools: int, *, tiny: bool) -> Row:
    generator = random.Random(calls)
    groups = 1 if tiny or calls == 100 else 4
    golds = []
    for _ in range(groups):
        golds += [[draw_call(generator, tools) for _ in range(calls)]] * GROUP
    turns = [[[draw_call(generator, tools)] for _ in range(calls)] for _ in golds]
    matrices = [
        -similarity_matrix([call for turn in one for call in turn], gold)
        for one, gold in zip(turns, golds, strict=True)
    ]
    repeats = 2 if tiny else max(15, 150 // calls)

    def timed(function: Callable[[], object]) -> float:
        return rounded(cpu_seconds(function, repeats) * 1e6 / len(golds))

    ours = turn_rewards_many(turns, golds)
    plain = [reference_rewards(one, gold) for one, gold in zip(turns, golds, strict=True)]
    assert all(np.isclose(one.sum(), sum(other)) for one, other in zip(ours, plain, strict=True))
    return Row(
        what=f"credit: turn rewards, {calls} calls of {tools} tools",
        command=COMMAND,
        unit="µs",
        today=timed(lambda: turn_rewards_many(turns, golds)),
        peer=Figure(
            timed(lambda: [reference_rewards(one, gold) for one, gold in zip(turns, golds, strict=True)]),
            "plain Python and scipy",
        ),
        limit=Figure(timed(lambda: [linear_sum_assignment(one) for one in matrices]), "scipy's assignment alone"),
    )


def advantages_of_a_step(*, tiny: bool) -> list[Row]:
    """Seconds of CPU: the turn advantages of a step and the float32 array of all its tokens."""
    rows, length = (GROUP, 200) if tiny else (1024, 23_000)
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(rows // GROUP), GROUP).tolist()
    spans, turn_rewards = [], []
    for _ in range(rows):
        turns = int(generator.integers(3, 11))
        cuts: list[int] = np.sort(generator.choice(np.arange(1, length), size=2 * turns - 1, replace=False)).tolist()
        edges = [0, *cuts]
        spans.append([(edges[2 * turn], edges[2 * turn + 1]) for turn in range(turns)])
        turn_rewards.append(generator.random(turns))
    tokens = per_token(advantages(turn_rewards, groups), spans, length)
    mask, token_rewards = [], []
    for row in range(GROUP):
        own, paid = [0] * length, [0.0] * length
        for (first, last), reward in zip(spans[row], turn_rewards[row].tolist(), strict=True):
            own[first:last] = [1] * (last - first)
            paid[last - 1] = reward
        mask.append(own)
        token_rewards.append(paid)
    started = time.process_time()
    expected = reference_advantages(token_rewards, mask)
    reference = (time.process_time() - started) * rows / GROUP
    np.testing.assert_allclose(tokens[:GROUP], np.array(expected), atol=1e-5)
    repeats = 2 if tiny else 5
    return [
        Row(
            what=f"advantages of {rows:,} rollouts of {length:,} tokens, for every token",
            command=COMMAND,
            unit="s",
            today=rounded(cpu_seconds(lambda: per_token(advantages(turn_rewards, groups), spans, length), repeats)),
            peer=Figure(rounded(reference), f"Python lists ({GROUP} rollouts, extrapolated)"),
            limit=Figure(
                rounded(cpu_seconds(lambda: np.full((rows, length), 1.0, np.float32), repeats)),
                "numpy writes the array once",
            ),
        )
    ]
