"""A budget of generated turns that continuations share which run at the same time."""

from __future__ import annotations

import asyncio
import random

import pytest

from rewright.rollout.budget import Budget, BudgetError


async def spend(budget: Budget, plans: list[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Run steps of (expected, most, made) at once. Returns what each made (0: refused), and the most at one time."""
    running = highest = 0

    async def step(expected: int, most: int, made: int) -> int:
        nonlocal running, highest
        try:
            async with budget.reserved(expected, most) as cost:
                running += 1
                highest = max(highest, running)
                for _ in range(made):
                    await asyncio.sleep(0)
                cost.made = made
                running -= 1
        except BudgetError:
            return 0
        return made

    return list(await asyncio.gather(*(step(*plan) for plan in plans))), highest


@pytest.mark.parametrize("seed", range(5))
def test_the_limit_is_exceeded_by_no_more_than_one_step_beyond_its_expectation(seed: int) -> None:
    chance = random.Random(seed)
    plans = [(3, 9, chance.randint(1, 9)) for _ in range(300)]
    budget = Budget(900)
    made, highest = asyncio.run(spend(budget, plans))
    assert budget.spent == sum(made)
    assert 900 - 3 < budget.spent <= 900 + 6
    assert highest >= 64
    with pytest.raises(BudgetError, match=r"--resume goes on"):
        asyncio.run(refused(budget))


async def refused(budget: Budget) -> None:
    async with budget.reserved(3, 9):
        pass


def test_without_a_limit_nothing_waits() -> None:
    budget = Budget(None)
    made, highest = asyncio.run(spend(budget, [(1, 5, 4)] * 100))
    assert (sum(made), highest, budget.spent) == (400, 100, 400)


def test_a_step_that_fails_gives_its_reservation_back() -> None:
    async def run() -> int:
        budget = Budget(10)
        with pytest.raises(KeyError):
            async with budget.reserved(5, 10) as cost:
                cost.made = 2
                raise KeyError
        async with budget.reserved(8, 10):
            pass
        return budget.spent

    assert asyncio.run(run()) == 2
