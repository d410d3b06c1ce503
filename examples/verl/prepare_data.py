"""Writes the example's data in verl's row format: python prepare_data.py FOLDER."""

import itertools
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

AGES = {"Ada": 36, "Ben": 41, "Cleo": 29, "Dan": 58}


def row(first, second):
    """One task: prompt, outcome, gold calls, and the agent loop that plays it."""
    calls = [
        {"name": "lookup_age", "arguments": {"name": first}},
        {"name": "lookup_age", "arguments": {"name": second}},
        {"name": "add", "arguments": {"a": AGES[first], "b": AGES[second]}},
    ]
    return {
        "data_source": "ages",
        "agent_name": "rewright_tool_agent",
        "prompt": [{"role": "user", "content": f"How old are {first} and {second} together? Use the tools."}],
        "ability": "tool use",
        "reward_model": {"style": "rule", "ground_truth": str(AGES[first] + AGES[second])},
        # As JSON text: in a table every row has every column, and arguments that a call lacks would become null.
        "extra_info": {"gold_calls": json.dumps(calls)},
    }


def main():
    """Every ordered pair of people; those that begin with Dan are held out."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    pairs = list(itertools.permutations(AGES, 2))
    for name, held_out in (("train", False), ("test", True)):
        rows = [row(*pair) for pair in pairs if (pair[0] == "Dan") is held_out]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
        print(f"{folder / name}.parquet: {len(rows)} rows")


if __name__ == "__main__":
    main()
