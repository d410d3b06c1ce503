"""A stage in which nothing works is an error, not a result of zero.

One trajectory that an engine, a tool or a sandbox broke is data. Where all of them break (a wrong address, an expired
key, a machine that refuses the sandbox, a template that refuses every prompt) nothing has been learned of the model:
the stage stops, and what broke is not stored, so that `--resume` makes it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from rewright.core.errors import EngineError, InputError, RewrightError, SandboxError, ToolError
from rewright.core.records import Failure, Trajectory

__all__ = ["Outage", "StepOutages"]

MAX_INITIAL_FAILURES: Final = 32
"""So many that broke before anything worked are enough to stop."""
MAX_FAILING_STEPS: Final = 3
"""In so many steps of RL in a row most rollouts may break, not in more."""
_ERRORS: Final = {error.kind: error for error in (EngineError, InputError, SandboxError, ToolError)}


class Outage:
    """Holds back what broke until something works. `worked`: something has, in an earlier part of the stage."""

    def __init__(self, label: str, *, worked: bool) -> None:
        self._label, self._worked = label, worked
        self._held: list[tuple[Trajectory, Callable[[], None]]] = []

    def record(self, trajectory: Trajectory, store: Callable[[], None]) -> None:
        """Call `store` now, or when it is known that not everything breaks. Raises as `finish` where enough broke."""
        if trajectory.failure is not None and not self._worked:
            self._held.append((trajectory, store))
            if len(self._held) == MAX_INITIAL_FAILURES:
                self.finish()
            return
        self._worked = True
        for _, held in self._held:
            held()
        self._held.clear()
        store()

    def finish(self) -> None:
        """Raise the error that broke all of them (of its own class), if nothing worked."""
        if self._held:
            failure = self._held[-1][0].failure
            assert failure is not None
            count = len(self._held)
            which = "the only trajectory" if count == 1 else f"all of the first {count} trajectories"
            raise _error(failure, f"{self._label}: {which} broke")


class StepOutages:
    """Stops RL where a step's rollouts all break, or most of them in more than MAX_FAILING_STEPS steps in a row."""

    def __init__(self) -> None:
        self._steps = 0

    def record(self, step: int, rollouts: Sequence[Trajectory]) -> None:
        """Look at the rollouts of a step, before they are stored. Raises the error of the last one that broke."""
        failures = [one.failure for one in rollouts if one.failure is not None]
        self._steps = self._steps + 1 if 2 * len(failures) > len(rollouts) else 0
        if failures and len(failures) == len(rollouts):
            raise _error(failures[-1], f"rl: all {len(rollouts)} rollouts of step {step} broke")
        if self._steps > MAX_FAILING_STEPS:
            what = f"rl: more than half of the rollouts broke in each of the last {self._steps} steps"
            raise _error(failures[-1], what)


def _error(failure: Failure, what: str) -> RewrightError:
    return _ERRORS.get(failure.kind, RewrightError)(f"{what}: {failure.message}")
