"""verifiers / prime-rl: write `trace.info["turn_rewards"]`, one number for each turn. Written for verifiers 0.4.

Two readings of that field exist. prime-rl's proposed turn-credit algorithm takes *states of the world*, credits a turn
with the change since the turn before, and takes the first scored turn as the starting point (its own progress is not
counted). Others take the turn's reward. So::

    write_turn_rewards(trace, gold_calls)                      # "progress": share of the gold calls matched so far
    write_turn_rewards(trace, gold_calls, kind="rewards")      # the turn rewards themselves

A turn is a message that the model produced (`trace.assistant_messages`); what a prompt or a tool holds is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from rewright.credit.messages import gold_calls as read_gold_calls
from rewright.credit.settings import TurnCredit

__all__ = ["turn_calls", "write_turn_rewards"]


def write_turn_rewards(
    trace: Any,
    gold_calls: Any,
    *,
    outcome: float | None = None,
    kind: Literal["progress", "rewards"] = "progress",
    settings: TurnCredit | Mapping[str, Any] | None = None,
) -> list[float | None]:
    """Write and return `trace.info["turn_rewards"]`: one entry for each turn of the model.

    `kind` "progress": the matched similarity up to and including the turn, divided by the number of gold calls, from 0
    to 1 (with `aggregate` "sum", whatever the settings say). "rewards": the turn rewards, `outcome` on the last turn.
    Without gold calls (None) every entry is None: not computed.
    """
    if kind not in ("progress", "rewards"):
        raise ValueError(f"kind is {kind!r}: expected 'progress' or 'rewards'")
    credit = TurnCredit.of(settings)
    golds = read_gold_calls(gold_calls)
    turns = turn_calls(trace)
    entries: list[float | None] = [None] * len(turns)
    if golds is not None and kind == "rewards":
        (rewards,) = credit.with_outcomes(credit.call_rewards([turns], [golds]), [outcome])
        entries = [float(value) for value in rewards]
    elif golds is not None:
        summed = TurnCredit.of({**credit.as_mapping(), "aggregate": "sum"})
        (rewards,) = summed.call_rewards([turns], [golds])
        entries = [float(value) for value in np.cumsum(rewards) / max(len(golds), 1)]
    trace.info["turn_rewards"] = entries
    return entries


def turn_calls(trace: Any) -> list[list[Any]]:
    """The calls of each turn of a trace, in turn order. Calls of custom (non-JSON) tools count as malformed."""
    return [list(message.tool_calls or []) for message in trace.assistant_messages]
