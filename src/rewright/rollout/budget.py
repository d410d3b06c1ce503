"""A limit on generated turns that continuations share which run at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from rewright.core.errors import RewrightError

__all__ = ["Budget", "BudgetError", "Cost"]


class BudgetError(RewrightError, RuntimeError):
    """The budget does not suffice for the next continuation."""


class Cost:
    """What was generated in a reservation: its user sets `made`, the number of turns."""

    made = 0


class Budget:
    """A number of generated turns.

    A continuation reserves the most turns that it can take before it begins, and settles what it took. When that does
    not fit any more, continuations run one at a time, as long as what the next one is expected to take is left. So the
    limit is exceeded by no more than what one continuation takes beyond its expectation.

    Args:
        limit: largest number of turns; None: no limit.
        spent: number of turns that were generated before.
    """

    def __init__(self, limit: int | None, spent: int = 0) -> None:
        self.limit, self.spent = limit, spent
        self._reserved = 0
        self._over = False
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def reserved(self, expected: int, most: int | None = None) -> AsyncGenerator[Cost]:
        """Reserve turns for a block; yields the `Cost`, which the block sets.

        Waits while others have reserved what is left. Raises BudgetError if the budget does not suffice, and from then
        on always.

        Args:
            expected: number of turns that the block is expected to generate.
            most: largest possible number; None: unknown, the expected one is reserved.
        """
        most = expected if most is None else max(expected, most)
        cost = Cost()
        async with self._changed:
            await self._changed.wait_for(lambda: self._decided(expected, most))
            if self._over:
                raise BudgetError(
                    f"--budget: {self.spent} generations were made, and the next step is expected to need {expected} "
                    f"more: expected a budget above {self.limit}; what was drawn is stored, and --resume goes on"
                )
            self._reserved += most
        try:
            yield cost
        finally:
            self._reserved -= most
            self.spent += cost.made
            async with self._changed:
                self._changed.notify_all()

    def _decided(self, expected: int, most: int) -> bool:
        """Whether a block can begin now, or never."""
        if self._over or self.limit is None or self.spent + self._reserved + most <= self.limit:
            return True
        if self._reserved:
            return False  # others may take less than they have reserved
        if self.spent + expected > self.limit:
            self._over = True
            self._changed.notify_all()
        return True
