"""Stop a stage in which every rollout has an infrastructure failure.

A single trajectory with an infrastructure failure is data. If all of them fail (a wrong address, an expired key, a
machine without support for the sandbox, a template that rejects every prompt), the results say nothing about the
model. The stage then stops with an error, and the failed trajectories are not stored, so that `--resume` runs them
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from rewright.core.errors import EngineError, InputError, RewrightError, SandboxError, ToolError
from rewright.core.records import Failure, Trajectory

__all__ = ["Outage", "StepOutages", "failure_error"]

MAX_INITIAL_FAILURES: Final = 32
"""Abort the stage after this many infrastructure failures with no success."""
MAX_FAILING_STEPS: Final = 3
"""Abort RL after more than this many consecutive steps in which most rollouts failed."""
_ERRORS: Final = {error.kind: error for error in (EngineError, InputError, SandboxError, ToolError)}


class Outage:
    """Holds back failed trajectories until one succeeds.

    `label` names the stage in errors. `worked`: a trajectory succeeded in an earlier part of the stage.
    """

    def __init__(self, label: str, *, worked: bool) -> None:
        self._label, self._worked = label, worked
        self._held: list[tuple[Trajectory, Callable[[], None]]] = []

    def record(self, trajectory: Trajectory, store: Callable[[], None]) -> None:
        """Record a trajectory, and call `store` once any trajectory has succeeded.

        Raises as `finish` after `MAX_INITIAL_FAILURES` failures.
        """
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
        """Raise the error of the last failure, in its own class, if no trajectory succeeded."""
        if self._held:
            failure = self._held[-1][0].failure
            assert failure is not None
            count = len(self._held)
            which = "the only trajectory" if count == 1 else f"all of the first {count} trajectories"
            raise failure_error(failure, f"{self._label}: {which} failed")


class StepOutages:
    """Stops RL if all rollouts of a step fail, or most of them in more than MAX_FAILING_STEPS consecutive steps."""

    def __init__(self) -> None:
        self._steps = 0

    def record(self, step: int, rollouts: Sequence[Trajectory]) -> None:
        """Record the rollouts of a step before they are stored. Raises the error of the last failed rollout."""
        failures = [rollout.failure for rollout in rollouts if rollout.failure is not None]
        self._steps = self._steps + 1 if 2 * len(failures) > len(rollouts) else 0
        if failures and len(failures) == len(rollouts):
            raise failure_error(failures[-1], f"rl: all {len(rollouts)} rollouts of step {step} failed")
        if self._steps > MAX_FAILING_STEPS:
            what = f"rl: more than half of the rollouts failed in each of the last {self._steps} steps"
            raise failure_error(failures[-1], what)


def failure_error(failure: Failure, what: str) -> RewrightError:
    """Return the error of a failed trajectory, in its own class. `what` says what failed."""
    return _ERRORS.get(failure.kind, RewrightError)(f"{what}: {failure.message}")
