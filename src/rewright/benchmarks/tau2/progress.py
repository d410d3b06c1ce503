"""Credit signal `tau2_progress`: the share of a task's expected state that is reached after each turn.

    rl: {credit: {signal: tau2_progress}}

It is the value of the state, so a turn is rewarded with what it adds. Right writes, assertions that a call makes true
and information that is told add to it; wrong writes take from it (`rewright.benchmarks.tau2.judge.TurnState`). It is
the official criterion in parts and needs no model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from rewright.benchmarks.tau2.judge import replayed
from rewright.core.errors import InputError
from rewright.credit.estimators import reads
from rewright.credit.messages import arguments_of, name_of
from rewright.credit.signals import TurnSignal
from rewright.credit.trajectories import CreditTrajectory
from rewright.dialects.split import split_turn

__all__ = ["progress"]

_TASK: Final = re.compile(r"(?:.*(?:/|, ))?tau2-(telecom|airline|retail)-(solo|ticket)-(.+)", re.DOTALL)
"""The last such id: that of a task in a mixture has the name of its source before it, which may be like an id."""


@reads("tau2_tasks")
def progress(trajectories: Sequence[CreditTrajectory]) -> TurnSignal:
    """Return the progress after each turn, as values with their start.

    Raises InputError for trajectories of other tasks, and of variants in which the user has tools: their calls are not
    part of a turn.
    """
    values, starts = [], []
    for one in trajectories:
        found = _TASK.fullmatch(str(one.task_id))
        if found is None:
            raise InputError(
                f"signal tau2_progress: task {one.task_id}: expected tasks of the format tau2, of a variant without a "
                "model as the user: telecom-solo, airline-ticket or retail-ticket"
            )
        messages: list[dict[str, Any]] = []
        ends = []
        for turn in one.turns:
            messages += _messages(turn)
            ends.append(len(messages))
        domain, kind, identity = found.groups()
        reply = replayed(domain, identity, solo=kind == "solo", messages=messages, ended=True, task=str(one.task_id))
        states = [state["progress"] for state in reply["states"]] or [np.nan] * (len(messages) + 1)
        values.append(np.array([states[end] for end in ends], dtype=np.float64))
        starts.append(states[0])
    return TurnSignal.of(values, kind="value", initial=np.array(starts, dtype=np.float64))


def _messages(turn: Any) -> list[dict[str, Any]]:
    calls = [call for call in turn.calls if getattr(call, "error", None) is None][: len(turn.results or ())]
    if turn.calls:
        made = [[name_of(call), arguments_of(call)] for call in calls]
        return [{"role": "assistant", "text": None, "calls": made, "malformed": 0, "steps": 2}]
    text = split_turn(turn.text or "")[1].strip()
    return [{"role": "assistant", "text": text, "calls": [], "malformed": 0, "steps": 1}] if text else []
