"""Credit of a log file: which turns of stored conversations earned what.

    python examples/credit_logs.py                               # the log beside this file
    python examples/credit_logs.py my_logs.jsonl --estimator fixed_horizon

Each line of the log is one conversation in OpenAI's format, with what it was to call and whether it succeeded:
{"id", "task_id", "reward", "gold_calls", "messages"}. Conversations of one task are a group. Needs numpy and scipy.
`rewright credit examples/credit_logs.jsonl` prints the same advantages without a line of Python.
"""

import argparse
import json
from pathlib import Path

from rewright.credit import advantages, estimator_names, match, turn_rewards


def turns_of(messages: list[dict]) -> list[list[dict]]:
    """The calls of each turn: every assistant message is a turn."""
    return [message.get("tool_calls") or [] for message in messages if message["role"] == "assistant"]


def main() -> None:
    """Print a line for every turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", nargs="?", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--estimator", default="matchtir", choices=estimator_names())
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.log.read_text(encoding="utf-8").splitlines()]
    rewards = [turn_rewards(turns_of(row["messages"]), row["gold_calls"], outcome=row["reward"]) for row in rows]
    credit = advantages(rewards, [row["task_id"] for row in rows], estimator=options.estimator)
    print(f"{'trajectory':<12}{'turn':>5}{'reward':>9}{'advantage':>11}  calls, and the gold call that each matches")
    for row, row_rewards, row_credit in zip(rows, rewards, credit, strict=True):
        turns = turns_of(row["messages"])
        calls = [call for turn in turns for call in turn]
        gold_of = dict(match(calls, row["gold_calls"]).pairs)
        position = 0
        for number, (turn, reward, advantage) in enumerate(zip(turns, row_rewards, row_credit, strict=True)):
            found = [f"{call['function']['name']} -> {gold_of.get(position + at, '-')}" for at, call in enumerate(turn)]
            position += len(turn)
            print(f"{row['id']:<12}{number:>5}{reward:>9.3f}{advantage:>+11.3f}  {', '.join(found)}".rstrip())


if __name__ == "__main__":
    main()
