"""Say in one line, while a stage is running, that most of its trajectories fail for one and the same reason.

A single trajectory without an answer is data. If most of them have none, something does not fit the model: the dialect,
the server's parsers, the chat template, a limit. Unsaid, all that is seen of it is a score of 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from rewright.core.progress import say
from rewright.core.records import LIMIT_STOPS, Task, Trajectory
from rewright.dialects import Dialect
from rewright.dialects.base import answers_in_prose
from rewright.dialects.hermes import split_thought
from rewright.rollout.settings import Limits
from rewright.sandbox.errors import error_kind

__all__ = ["MIN_TRAJECTORIES", "StepWatch", "Watch"]

MIN_TRAJECTORIES: Final = 8
"""Number of finished trajectories from which on a stage is judged. A smaller stage is judged at its end."""
_CALL_MARKS: Final = (
    "<tool_call", "<function=", "<function_call", "<invoke", "<|python_tag|>", "[TOOL_CALLS]", "<|tool_call", "<｜tool",
    "<|channel|>commentary", "```tool_c", "<search>", "<code>", "<python>", '"arguments":', '"parameters":',
)  # fmt: skip
"""Starts of calls in the formats of other models and dialects."""
_LONGEST: Final = 100
_PARSER: Final = (
    "the server has no parser for this model's calls (vLLM: --enable-auto-tool-choice --tool-call-parser NAME), or the "
    "dialect is that of another model"
)


class Watch:
    """Counts how the trajectories of a stage end, and says each problem once.

    Args:
        label: name of the stage in the messages.
        dialect: dialect of the run.
        limits: limits of a trajectory.
        total: number of trajectories that the whole stage has; None if it is not known.
        tell: prints a line.
    """

    def __init__(
        self,
        label: str,
        dialect: Dialect,
        limits: Limits,
        *,
        total: int | None = None,
        tell: Callable[[str], None] = say,
    ) -> None:
        self._label, self._dialect, self._limits, self._total, self._tell = label, dialect, limits, total, tell
        self._said: set[str] = set()
        self._reset()

    def _reset(self) -> None:
        self._count = self._calls = self._malformed = self._offered = self._called = 0
        self._stops: Counter[str] = Counter()
        self._no_answer: Counter[str] = Counter()
        self._cut_off: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._marks: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def record(self, trajectory: Trajectory, *, tools: bool) -> None:
        """Count a finished trajectory, and say what is wrong with most of them.

        `tools`: tools were offered. Trajectories with an infrastructure failure are not counted (see `Outage`).
        """
        self._add(trajectory, tools=tools)
        if trajectory.failure is None and self._count >= MIN_TRAJECTORIES:
            self._check(f"of the first {self._count} trajectories")

    def _add(self, trajectory: Trajectory, *, tools: bool) -> None:
        if trajectory.failure is not None:
            return
        self._count += 1
        # A conversation that its simulated user ended needs no answer.
        stopped = trajectory.stop_reason if trajectory.ending is None else "answered"
        self._stops[stopped] += 1
        calls = trajectory.calls
        self._calls += len(calls)
        for turn in trajectory.turns:
            for call in turn.calls:
                if call.error is not None:
                    self._malformed += 1
                    self._errors["" if turn.stop == "length" else call.error] += 1
            for call, result in zip(turn.calls, turn.results, strict=False):
                kind = error_kind(result)
                if kind == "unknown_tool":
                    self._unknown[call.name] += 1
                elif result.error is not None and kind not in ("malformed", "not_recorded"):  # said elsewhere
                    self._failed[result.error] += 1
        if tools:
            self._offered += 1
            self._called += bool(calls)
            if not calls and (mark := _call_mark(trajectory)):
                self._marks[mark] += 1
        if stopped == "no_answer":
            self._no_answer[self._why_no_answer(trajectory)] += 1
        elif stopped in LIMIT_STOPS:
            self._cut_off[self._why_cut_off(trajectory)] += 1

    def finish(self) -> None:
        """Judge a stage with fewer trajectories than `MIN_TRAJECTORIES`."""
        if 0 < self._count < MIN_TRAJECTORIES and (self._total is None or self._total < MIN_TRAJECTORIES):
            self._check(f"of {self._count} trajectories" if self._count > 1 else "of 1 trajectory")

    def _check(self, which: str) -> None:
        stopped = self._stops["no_answer"]
        if 2 * stopped > self._count:
            self._say("no_answer", f"{stopped} {which} end without an answer (no_answer)", _most(self._no_answer))
        if 2 * self._malformed > self._calls:
            error = _most(self._errors)
            cause = (
                f"{error[:_LONGEST]!r}; likely {_PARSER}" if error else f"the token limit cuts them off: {self._turn}"
            )
            self._say("malformed", f"{self._malformed} of {self._calls} calls {which} are malformed", cause)
        unknown, failed = self._unknown.total(), self._failed.total()
        if 2 * unknown > self._calls:
            cause = (
                f"{_most(self._unknown)[:_LONGEST]!r}; likely the model or the server writes names in another form, "
                "such as with a prefix, or the model was trained with other tools"
            )
            self._say("unknown_tool", f"{unknown} of {self._calls} calls {which} name no tool that is offered", cause)
        elif failed and failed == self._calls:
            error = _most(self._failed)
            arguments = "the model does not see or follow the schemas of the tools"
            why = arguments if error.startswith("arguments:") else "something that the tools need is missing"
            self._say("failed", f"all {failed} calls {which} fail", f"{error[:_LONGEST]!r}; likely {why}")
        if self._offered == self._count and not self._called:
            mark = _most(self._marks)
            cause = (
                f"replies contain calls as plain text ({mark}): likely {_PARSER}"
                if mark
                else "likely the server or the model's chat template does not show the tools to the model, or the "
                "questions can be answered without them"
            )
            self._say("no_call", f"none {which} calls a tool, though tools are offered", cause)
        cut_off = sum(self._cut_off.values())
        if 2 * cut_off > self._count:
            self._say("cut_off", f"{cut_off} {which} are cut off by a limit", _most(self._cut_off))

    def _say(self, kind: str, what: str, cause: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self._tell(f"warning: {self._label}: {what}: {cause}")

    def _why_no_answer(self, trajectory: Trajectory) -> str:
        thought, rest = _last(trajectory)
        if not rest.strip():
            if thought.strip():
                return (
                    "their last message holds only reasoning; likely the server's reasoning parser takes the answer "
                    "for reasoning, or the model ends its turn after its thoughts"
                )
            return "their last message is empty; likely the server's parsers or the chat template drop its text"
        if answers_in_prose(self._dialect):
            return "the server marks their last message as a refusal"
        if mark := _call_mark(trajectory):
            return f"their last message looks like a call in another format ({mark}); likely {_PARSER}"
        return (
            f"their last message has no <answer>, which dialect {self._dialect.name} expects; likely the model answers "
            "in prose, which dialect chat reads"
        )

    @property
    def _turn(self) -> str:
        return f"limits.turn_tokens is {self._limits.turn_tokens}"

    def _why_cut_off(self, trajectory: Trajectory) -> str:
        limits, reason = self._limits, trajectory.stop_reason
        if reason == "turn_limit":
            return f"limits.turns is {limits.turns}"
        if reason == "tool_limit":
            return f"limits.tool_calls is {limits.tool_calls}"
        if reason == "time_limit":
            return f"limits.trajectory_seconds is {limits.trajectory_seconds:g}"
        last = trajectory.turns[-1] if trajectory.turns else None
        if last is None or last.stop != "length":
            return f"limits.trajectory_tokens is {limits.trajectory_tokens}"
        written = last.completion_tokens if last.token_ids is None else len(last.token_ids)
        if written is not None and written < limits.turn_tokens:
            return (
                f"they end below limits.turn_tokens ({limits.turn_tokens}); likely limits.trajectory_tokens "
                f"({limits.trajectory_tokens}), or the server's context length"
            )
        inside = "" if _last(trajectory)[1].strip() else ", and most end inside their thoughts"
        return f"{self._turn}{inside}"


class StepWatch(Watch):
    """As `Watch`, for RL: each step is judged alone, since training changes the model.

    Steps with fewer rollouts than `MIN_TRAJECTORIES` are judged together with the following ones.
    """

    def __init__(self, label: str, dialect: Dialect, limits: Limits, *, tell: Callable[[str], None] = say) -> None:
        super().__init__(label, dialect, limits, tell=tell)
        self._first = self._last = 0
        self._judged = False

    def record_step(self, step: int, rollouts: Iterable[Trajectory], tasks: Mapping[str, Task]) -> None:
        """Count the rollouts of `step`, and say what is wrong with most of them. `tasks`: all tasks by their ids."""
        if not self._count:
            self._first = step
        self._last = step
        for trajectory in rollouts:
            self._add(trajectory, tools=bool(tasks[trajectory.task_id].all_tools))
        if self._count >= MIN_TRAJECTORIES:
            self._check_steps()

    def finish(self) -> None:
        """Judge a training that had fewer rollouts than `MIN_TRAJECTORIES`."""
        if self._count and not self._judged:
            self._check_steps()

    def _check_steps(self) -> None:
        steps = f"step {self._last}" if self._first == self._last else f"steps {self._first} to {self._last}"
        self._check(f"of the {self._count} rollouts of {steps}" if self._count > 1 else f"of the rollout of {steps}")
        self._judged = True
        self._reset()


def _last(trajectory: Trajectory) -> tuple[str, str]:
    """Return (thought, rest) of the last turn."""
    last = trajectory.turns[-1] if trajectory.turns else None
    return ("", "") if last is None else split_thought(last.opening + last.text)


def _call_mark(trajectory: Trajectory) -> str:
    """Return the start of a call in the text of the last turn; "" if there is none."""
    text = _last(trajectory)[1]
    return next((mark for mark in _CALL_MARKS if mark in text), "")


def _most(counts: Counter[str]) -> str:
    return counts.most_common(1)[0][0] if counts else ""
