"""Your own signal and your own estimator: what a turn earns, and what that is worth beside the group's other rollouts.

    python examples/own_signal.py
    PYTHONPATH=examples rewright credit examples/credit_logs.jsonl estimator=own_signal:median_baseline
    PYTHONPATH=examples rewright quickstart rl.credit.estimator=own_signal:median_baseline

The signal here needs no gold calls: a turn earns 1 if it made a call that was new and none of its calls failed, -0.5 if
one failed, else 0; the outcome comes on the last turn. The estimator compares a turn with the median of the group's
rollouts. Both are plain functions on numpy arrays. An import path names the estimator in a command or a recipe.
"""

import json
from pathlib import Path

import numpy as np

from rewright.credit import Group, advantages

LOG = Path(__file__).with_name("credit_logs.jsonl")


def progress(messages: list[dict], outcome: float) -> np.ndarray:
    """The signal: one number for each turn of a conversation, float64 (T,)."""
    results = {}  # by the turn in which they were asked for
    turn = -1
    calls = []
    for message in messages:
        if message["role"] == "assistant":
            turn += 1
            calls.append([json.dumps(call["function"], sort_keys=True) for call in message.get("tool_calls") or []])
        elif message["role"] == "tool":
            results.setdefault(turn, []).append(message["content"])
    made, rewards = set(), []
    for number, written in enumerate(calls):
        failed = any(result.startswith("error") for result in results.get(number, []))
        rewards.append(-0.5 if failed else float(not made.issuperset(written)))
        made.update(written)
    rewards[-1] += outcome
    return np.array(rewards)


def median_baseline(group: Group) -> np.ndarray:
    """The estimator: each return minus the median return of the rollouts that have this turn, (n, T).

    `group.returns_nT` are discounted sums of turn rewards; `group.present_nT` says which turns there are. A median is
    moved less than a mean by one lucky rollout; a turn that one rollout alone has gets 0.
    """
    returns = np.where(group.present_nT, group.returns_nT, np.nan)
    return np.where(group.present_nT, returns - np.nanmedian(returns, axis=0), 0.0)


def main() -> None:
    """Print what the turns of the log earn, and their advantages by two estimators."""
    rows = [json.loads(line) for line in LOG.read_text(encoding="utf-8").splitlines()]
    rewards = [progress(row["messages"], row["reward"]) for row in rows]
    groups = [row["task_id"] for row in rows]
    mine = advantages(rewards, groups, estimator=median_baseline, gamma=1.0)
    known = advantages(rewards, groups, estimator="matchtir", gamma=1.0)
    for row, *values in zip(rows, rewards, mine, known, strict=True):
        shown = [" ".join(f"{value:+.2f}" for value in one) for one in values]
        print(f"{row['id']:<11} signal {shown[0]:<24} median_baseline {shown[1]:<24} matchtir {shown[2]}")


if __name__ == "__main__":
    main()
