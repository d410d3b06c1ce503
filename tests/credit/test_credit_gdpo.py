"""GDPO: against loops written from its description; TRL's and verl's own functions are in tests/integrations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rewright.credit import advantages


def slow(parts: dict[str, list[float]], groups: list[int], weights: dict[str, float], eps: float) -> list[float]:
    sums = []
    for index, group in enumerate(groups):
        total = 0.0
        for name, values in parts.items():
            own = [value for value, other in zip(values, groups, strict=True) if other == group and value == value]
            if values[index] != values[index] or len(own) < 2:
                continue
            mean = math.fsum(own) / len(own)
            sd = math.sqrt(math.fsum((value - mean) ** 2 for value in own) / (len(own) - 1))
            total += weights.get(name, 1.0) * (values[index] - mean) / (sd + eps)
        sums.append(total)
    return sums


def whiten(sums: list[float], counts: list[int], eps: float, *, by_tokens: bool) -> list[float]:
    pool = [value for value, count in zip(sums, counts, strict=True) for _ in range(count if by_tokens else 1)]
    mean = math.fsum(pool) / len(pool)
    variance = math.fsum((value - mean) ** 2 for value in pool) / (len(pool) - 1)
    scale = math.sqrt(variance + 1e-8) if by_tokens else math.sqrt(variance) + eps
    return [(value - mean) / scale for value in sums]


@pytest.mark.parametrize("whitening", ["none", "sequences", "tokens"])
def test_it_is_what_loops_compute(whitening: str) -> None:
    draw = np.random.default_rng(1)
    for _ in range(20):
        groups = draw.integers(3, size=9).tolist()
        parts = {name: draw.normal(size=9).tolist() for name in ("outcome", "format", "signal")}
        parts["format"][2] = math.nan
        tokens = [[int(count) for count in draw.integers(1, 5, size=draw.integers(1, 4))] for _ in groups]
        found = advantages(
            [[0.0] * len(row) for row in tokens],
            groups,
            estimator="gdpo",
            estimator_settings={"whitening": whitening, "weights": {"format": 0.5}},
            eps=1e-4,
            components=parts,
            component_weights={"format": 9.0, "signal": 2.0},
            token_counts=tokens,
        )
        expected = slow(parts, groups, {"format": 0.5, "signal": 2.0}, 1e-4)
        if whitening != "none":
            expected = whiten(expected, list(map(sum, tokens)), 1e-4, by_tokens=whitening == "tokens")
        for row, value, counts in zip(found, expected, tokens, strict=True):
            np.testing.assert_allclose(row, [value] * len(counts), atol=1e-9)


def gdpo(parts: dict[str, Any], groups: list[int], **settings: Any) -> list[list[float]]:
    rows = advantages(
        [[0.0]] * len(groups), groups, estimator="gdpo", estimator_settings=settings, components=parts, eps=1e-4
    )
    return [row.tolist() for row in rows]


def test_what_is_unknown_equal_or_alone() -> None:
    nan = math.nan
    # Nothing is known of the last: 0, and it is not in the batch's mean.
    found = gdpo({"a": [1.0, 0.0, nan], "b": [nan, nan, nan]}, [0, 0, 0])
    assert found == [[pytest.approx(0.7071, abs=1e-3)], [pytest.approx(-0.7071, abs=1e-3)], [0.0]]
    assert gdpo({"a": [0.1 + 0.2, 0.3, 0.3]}, [0, 0, 0]) == [[0.0]] * 3
    assert gdpo({"a": [5.0, 1.0, 0.0]}, [0, 1, 1], whitening="none")[0] == [0.0]
    assert gdpo({"a": []}, []) == []


def test_a_rare_part_is_not_drowned_by_a_frequent_one() -> None:
    """GDPO's example: with the sum, (0, 2) and (1, 1) are equal; here they are not."""
    found = gdpo({"a": [0.0, 1.0, 1.0, 1.0], "b": [2.0, 1.0, 0.0, 1.0]}, [0] * 4, whitening="none")
    assert found[0] != found[1]
    assert advantages([[2.0], [2.0], [1.0], [2.0]], [0] * 4, estimator="grpo")[0] == pytest.approx([0.5], abs=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "the parts of the trajectory reward are added, and there are none here"),
        ({"components": {"a": [1.0, 2.0]}}, r"components\['a'\] has shape \(2,\): expected \(1,\)"),
        ({"components": {"a": [math.inf]}}, r"components\['a'\] is \[inf\]: expected finite numbers"),
        ({"components": {"a": ["x"]}}, r"components\['a'\] is \['x'\]: expected numbers"),
        (
            {"components": {"a": [1.0]}, "estimator_settings": {"weights": {"b": 1.0}}},
            "weights.b: expected one of the par",
        ),
        (
            {"components": {"a": [1.0]}, "estimator_settings": {"whitening": "tokens"}},
            "whitening is 'tokens', and the num",
        ),
    ],
)
def test_what_cannot_be_added(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        advantages([[1.0]], [0], estimator="gdpo", **given)


def test_a_weight_of_an_unknown_part_is_refused() -> None:
    for settings in ({"component_weights": {"fromat": 2.0}}, {"estimator_settings": {"weights": {"fromat": 2.0}}}):
        with pytest.raises(ValueError, match="fromat"):
            advantages([[1.0], [0.0]], [0, 0], estimator="gdpo", components={"format": [0.0, 1.0]}, **settings)
