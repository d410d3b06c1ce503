"""The signal `likelihood`, and the advantages of the released codes against transcriptions of their formulas."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rewright.credit import CreditTrajectory, CreditTurn, Resources, advantages, turn_signal
from rewright.credit.settings import TurnCredit

CALL = {"name": "look_up", "arguments": {}}


class Table:
    """A scorer whose log-probabilities are a function of the tokens: reproducible, and different for every pair."""

    def __init__(self, longest: int = 1000) -> None:
        self.longest = longest
        self.pairs: list[tuple[list[int], list[int]]] = []

    def __call__(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], /) -> list[np.ndarray | None]:
        self.pairs += [(list(prefix), list(continuation)) for prefix, continuation in pairs]
        return [
            None if len(prefix) + len(continuation) > self.longest else self.of(prefix, continuation)
            for prefix, continuation in pairs
        ]

    @staticmethod
    def of(prefix: Sequence[int], continuation: Sequence[int]) -> np.ndarray:
        seed = sum((place + 1) * token for place, token in enumerate(prefix))
        return np.array([-0.05 - ((seed + 7 * token + place) % 97) / 40 for place, token in enumerate(continuation)])


def tokenize(text: str, /) -> list[int]:
    """One token for each character; `>` and a capital A are one token (a merge at the border)."""
    return [ord(character) for character in text.replace(">A", "\u2200")]


def trajectory(
    prompt: str, *turns: tuple[str, str], answers: Sequence[str] | None = ("Rome",), **known: Any
) -> CreditTrajectory:
    """Turns of (text, results); a turn with results has a call."""
    made = [
        CreditTurn(calls=[CALL] if results else [], token_ids=tokenize(text), suffix_ids=tokenize(results), text=text)
        for text, results in turns
    ]
    return CreditTrajectory(turns=made, answers=answers, prompt_ids=tokenize(prompt), **known)


def batch(tasks: int = 3, members: int = 4, seed: int = 0) -> list[CreditTrajectory]:
    random = np.random.default_rng(seed)
    rows = []
    for task in range(tasks):
        for member in range(members):
            turns = [
                (
                    "t" * int(random.integers(1, 5)) + str(turn),
                    "r" * int(random.integers(1, 5)) if random.random() < 0.8 else "",
                )
                for turn in range(int(random.integers(0, 4)))
            ]
            rows.append(trajectory(f"task {task}", *turns, (f"answer {member}", ""), task_id=task))
    return rows


def signal_of(rows: Sequence[CreditTrajectory], scorer: Any = None, **settings: Any) -> Any:
    resources = Resources(log_prob=scorer or Table(), tokenize=tokenize)
    return turn_signal(rows, "likelihood", resources=resources, **settings)


def mean(prefix: str, answer: str) -> float:
    return float(np.mean(Table.of(tokenize(prefix), tokenize(answer))))


def test_values_of_every_form_by_hand() -> None:
    row = trajectory("q", ("a", "1"), ("b", "22"), ("c", ""))
    before = [mean(prefix, "Rome") for prefix in ("q", "qa1", "qa1b22")]
    for form, value in (
        ("log_prob", lambda score: score),
        ("prob", math.exp),
        ("log_ratio", lambda score: math.log((0.1 - before[0]) / (0.1 - score))),
    ):
        found = signal_of([row], form=form)
        assert found.kind == "value"
        states = [value(score) for score in before]
        assert found.initial.tolist() == pytest.approx(states[:1], abs=1e-12)
        assert found.values[0].tolist() == pytest.approx([states[1], states[2], states[2]], abs=1e-12)
        rewards = [states[1] - states[0], states[2] - states[1], 0.0]
        assert found.rewards[0].tolist() == pytest.approx(rewards, abs=1e-12), "the last turn has only its outcome"
    assert signal_of([row]).values[0].tolist() == signal_of([row], form="log_ratio").values[0].tolist()
    margin = signal_of([row], margin=0.5).values[0][0]
    assert margin == pytest.approx(math.log((0.5 - before[0]) / (0.5 - before[1])))


def test_several_answers() -> None:
    row = trajectory("q", ("a", "1"), ("c", ""), answers=["Rome", "Roma!", "Rome"])
    one, other = mean("qa1", "Rome"), mean("qa1", "Roma!")
    assert one != other

    def value(**settings: Any) -> float:
        return float(signal_of([row], form="log_prob", **settings).values[0][0])

    assert value() == pytest.approx(max(one, other))
    assert value(answers="first") == pytest.approx(one)
    assert value(answers="logsumexp") == pytest.approx(math.log((math.exp(one) + math.exp(other)) / 2))


def test_the_answer_is_tokenized_together_with_its_opening() -> None:
    class Known:
        answer_form = ("<answer>", "</answer>")

        def __call__(self, text: str, /) -> list[int]:
            return tokenize(text)

    for answers, opening, head, gold in (
        (["Rome"], None, "<answer>", "Rome"),
        (["Athens"], None, "<answer", ">Athens"),  # one token holds the border: it is scored
        (["Athens"], "It is ", "It is ", "Athens"),
        (["Rome"], "", "", "Rome"),
    ):
        scorer = Table()
        resources = Resources(log_prob=scorer, tokenize=Known())
        turn_signal([trajectory("q", ("c", ""), answers=answers)], "likelihood", resources=resources, opening=opening)
        assert scorer.pairs == [(tokenize("q") + tokenize(head), tokenize(gold))]


def test_what_cannot_be_computed_is_missing_and_counted() -> None:
    turns = (("a", "1"), ("b", "22"), ("c", ""))
    rows = [
        trajectory("q", *turns),
        trajectory("q", *turns, answers=()),
        trajectory("q", *turns, answers=None),
        trajectory("q", *turns, answers=[""]),
        CreditTrajectory.of_calls([[CALL], []], answers=["Rome"]),
        trajectory("q"),
    ]
    found = signal_of(rows, Table(longest=7))  # "qa1" + "Rome" fits
    assert [mask.tolist() for mask in found.missing] == [[False, True, True], *[[True] * 3] * 3, [True] * 2, []]
    assert found.stats == {
        "likelihood/scorings": 3.0,
        "likelihood/answer_tokens": 8.0,
        "likelihood/too_long": 1.0,
        "likelihood/without_answer": 3.0,
        "likelihood/without_tokens": 1.0,
    }
    assert dict(found.causes) == {
        0: "a context is too long for the scorer",
        **dict.fromkeys((1, 2, 3), "it has no gold answers"),
        4: "it has no token ids",
    }
    removed = signal_of(rows[:1], Table(longest=7), form="delete")
    assert removed.missing[0].tolist() == [True, True, False], "a signal that is an advantage has zeros for the last"


def test_a_signal_without_a_scorer_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="'likelihood' needs a model that scores tokens and a tokenizer"):
        turn_signal(batch(), "likelihood")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"form": "ratio"}, "signal.form"),
        ({"margin": 0}, "signal.margin must be"),
        ({"answers": "last"}, "signal.answers"),
        ({"marginal": 1}, "signal.marginal must be a setting of likelihood: did you mean margin?"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        TurnCredit.of({"signal": {"name": "likelihood", **settings}})


# The transcriptions.


def lotapo_released(gains: list[list[float]], outcomes: list[float]) -> list[list[float]]:
    """One question: A_out + 0.5 z of each eligible turn (`lotapo/algorithm.py`)."""
    eps = 1e-6
    flat = [gain for row in gains for gain in row]
    large = [abs(gain) for gain in flat if abs(gain) > eps]
    scale = statistics.median(large) + eps if large else eps
    squashed = [math.tanh(gain / scale) for gain in flat]
    centre, spread = statistics.fmean(squashed), statistics.pstdev(squashed)
    z = [(value - centre) / (spread + eps) for value in squashed]
    kept = iter([0.5 * value if gain * value > 0 else 0.0 for gain, value in zip(flat, z, strict=True)])
    middle, sd = statistics.fmean(outcomes), statistics.pstdev(outcomes)
    return [
        [(outcome - middle) / (sd + eps) + next(kept) for _ in row]
        for row, outcome in zip(gains, outcomes, strict=True)
    ]


def test_delete_is_lotapo() -> None:
    rows = batch(seed=3)
    outcomes = [float(index % 3 == 0) for index in range(len(rows))]
    gains: list[list[float]] = []
    for row in rows:
        texts = [(turn.text or "", "".join(map(chr, turn.suffix_ids))) for turn in row.turns]
        full = f"task {row.task_id}" + "".join(text + results for text, results in texts[:-1])
        gains.append([])
        for turn in range(len(texts) - 1):
            if row.turns[turn].calls:
                rest = "".join(
                    "[DELETE]" if place == turn else text + results for place, (text, results) in enumerate(texts[:-1])
                )
                gains[-1].append(mean(full, "Rome") - mean(f"task {row.task_id}{rest}", "Rome"))
    expected: list[list[float]] = []
    for task in range(3):
        members = [index for index, row in enumerate(rows) if row.task_id == task]
        released = lotapo_released([gains[index] for index in members], [outcomes[index] for index in members])
        empty = lotapo_released([[0.0] for _ in members], [outcomes[index] for index in members])
        for index, eligible, level in zip(members, released, empty, strict=True):
            values = iter(eligible)
            expected.append([next(values) if turn.calls else level[0] for turn in rows[index].turns[:-1]] + [level[0]])
    assert sum(map(len, gains)) > 10
    signal = signal_of(rows, form="delete")
    assert signal.kind == "advantage"
    labels = [row.task_id for row in rows]
    found = advantages(signal, labels, estimator="lotapo", trajectory_rewards=outcomes)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9, rtol=0)


def test_delete_without_an_eligible_turn_is_zero_where_the_release_fails() -> None:
    rows = [trajectory("q", ("b", ""), ("c", ""), task_id="q"), trajectory("q", ("d", ""), task_id="q")]
    assert [row.tolist() for row in signal_of(rows, form="delete").values] == [[0.0, 0.0], [0.0]]


def test_delete_never_compares_tasks() -> None:
    rows = batch(seed=5)
    together = signal_of(rows, form="delete").values
    alone = [
        value
        for task in range(3)
        for value in signal_of([row for row in rows if row.task_id == task], form="delete").values
    ]
    assert [row.tolist() for row in together] == [row.tolist() for row in alone]


def igpo_v2_released(rewards: list[list[float]], gamma: float, *, separate: bool) -> list[list[float]]:
    """One group: turn rewards, the last one the outcome (v2 `core_algos.py:182`)."""
    stored = [[gain if gain != 0 else 1e-10 for gain in row[:-1]] + [row[-1]] for row in rewards]

    def scores(values: list[float]) -> dict[int, float]:
        if len(values) == 1:
            return {0: 0.0}
        centre = sum(values) / len(values)
        spread = math.sqrt(sum((value - centre) ** 2 for value in values) / len(values) + 1e-8) + 1e-6
        return {place: (value - centre) / spread for place, value in enumerate(values)}

    places = [(index, turn) for index, row in enumerate(stored) for turn in range(len(row))]
    z: dict[tuple[int, int], float] = {}
    is_last = {(index, len(row) - 1) for index, row in enumerate(stored)}
    parts = [[p for p in places if p not in is_last], [p for p in places if p in is_last]] if separate else [places]
    for part in parts:
        if part:
            found = scores([stored[index][turn] for index, turn in part])
            z |= {place: found[number] for number, place in enumerate(part)}
    results = []
    for index, row in enumerate(stored):
        values = [0.0] * len(row)
        running = 0.0
        for turn in reversed(range(len(row))):
            if z[index, turn] != 0:  # a z-score of 0 looks like a token that ends no turn
                running = z[index, turn] + gamma * running
            values[turn] = running
        results.append(values)
    return results


def igpo_v1_released(rewards: list[list[float]], tokens: list[list[int]]) -> list[list[float]]:
    """One group, token by token: the return minus its mean at the same token index (v1 `core_algos.py:193`)."""
    rows = []
    for row, counts in zip(rewards, tokens, strict=True):
        line = [0.0] * sum(counts)
        end = 0
        for reward, count in zip(row, counts, strict=True):
            end += count
            line[end - 1] += reward
        for place in reversed(range(len(line) - 1)):
            line[place] += line[place + 1]
        rows.append(line)
    longest = max(map(len, rows))
    means = [sum(row[place] if place < len(row) else 0.0 for row in rows) / len(rows) for place in range(longest)]
    return [[value - means[place] for place, value in enumerate(row)] for row in rows]


GROUPS = [
    [[0.2, -0.1, 0.0, 1.0], [0.3, 0.0], [0.05, 0.4, 0.0], [1.0]],
    [[0.0, 0.0, 0.0], [0.0]],
    [[1.0]],
    [[0.5, 0.5], [0.25, 0.75]],
]


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_igpo_second_release(separate: bool, gamma: float) -> None:
    settings = {"normalize": "separate" if separate else "joint"}
    for group in GROUPS:
        expected = igpo_v2_released(group, gamma, separate=separate)
        found = advantages(
            group, [0] * len(group), estimator="igpo", gamma=gamma, estimator_settings={**settings, "parity": True}
        )
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-9, rtol=0)


def test_igpo_without_its_faults_discounts_every_turn() -> None:
    group = [[0.5, 1.0], [0.25, 0.25]]  # the mean of all is 0.5: the first z-score is 0
    z = 0.5 / (math.sqrt(0.09375 + 1e-8) + 1e-6)
    found = advantages(group, [0, 0], estimator="igpo", gamma=0.5)
    np.testing.assert_allclose(found, [[0.5 * z, z], [-0.75 * z, -0.5 * z]], atol=1e-9)
    released = advantages(group, [0, 0], estimator="igpo", gamma=0.5, estimator_settings={"parity": True})
    np.testing.assert_allclose(released, [[z, z], [-0.75 * z, -0.5 * z]], atol=1e-9)
    equal = advantages([[0.1, 0.1], [0.1]], [0, 0], estimator="igpo")
    assert [row.tolist() for row in equal] == [[0.0, 0.0], [0.0]]


def test_igpo_first_release() -> None:
    random = np.random.default_rng(0)
    for group in GROUPS:
        for counts in (
            [[1] * len(row) for row in group],
            [random.integers(0 + 1, 5, len(row)).tolist() for row in group],
        ):
            expected = igpo_v1_released(group, counts)
            found = advantages(
                group,
                [0] * len(group),
                estimator="igpo",
                estimator_settings={"normalize": "index"},
                token_counts=counts,
            )
            for ours, tokens, sizes in zip(found, expected, counts, strict=True):
                parts = np.split(np.array(tokens), np.cumsum(sizes)[:-1])
                np.testing.assert_allclose(ours, [part.mean() for part in parts], atol=1e-9, rtol=0)
    with pytest.raises(ValueError, match="number of tokens of each turn"):
        advantages(GROUPS[0], [0] * 4, estimator="igpo", estimator_settings={"normalize": "index"})


def test_likelihood_with_outcomes_through_the_settings_of_a_recipe() -> None:
    rows = batch(tasks=1, members=3, seed=2)
    outcomes = [1.0, 0.0, 0.0]
    credit = TurnCredit.of(
        {
            "signal": {"name": "likelihood", "form": "prob"},
            "estimator": {"name": "igpo", "normalize": "separate"},
            "gamma": 1,
        }
    )
    settings = {"form": "prob"}
    signal = turn_signal(rows, "likelihood", resources=Resources(log_prob=Table(), tokenize=tokenize), **settings)
    rewards = credit.with_outcomes(signal.rewards, outcomes)
    found = credit.advantages(rewards, ["q"] * 3, outcomes)
    expected = igpo_v2_released([row.tolist() for row in rewards], 1.0, separate=True)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6, rtol=0)
