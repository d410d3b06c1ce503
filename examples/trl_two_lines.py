"""Turn credit in a plain TRL script: two lines are not TRL's own, they are marked.

    python examples/trl_two_lines.py                        # Qwen3-0.6B, a GPU is advisable
    python examples/trl_two_lines.py --model path/or/hub-id --steps 20 --cpu

The dataset has one column more than usual: `gold_calls`, the calls that a right solution makes, as JSON text.
Watch `turn_credit/*` among the metrics.
"""

import argparse
import json
import re

from datasets import Dataset
from trl import GRPOConfig

from rewright.integrations.trl import TurnCreditTrainer as GRPOTrainer  # line 1, was: from trl import GRPOTrainer

AGES = {"Ada": 36, "Ben": 41, "Cleo": 29, "Dan": 58}


def lookup_age(name: str) -> int:
    """
    Look up how old a person is.

    Args:
        name: The person's first name.
    """
    return AGES[name]


def add(a: int, b: int) -> int:
    """
    Add two whole numbers.

    Args:
        a: The first number.
        b: The second number.
    """
    return a + b


def right(completions, answer, **columns):
    """1 where the last message holds the right number, else 0."""
    numbers = [re.findall(r"\d+", completion[-1].get("content") or "") for completion in completions]
    return [float(str(gold) in found[-1:]) for found, gold in zip(numbers, answer, strict=True)]


def tasks() -> Dataset:
    """Every pair of people: a question, its answer, and the calls that lead there."""
    rows = []
    for first, age in AGES.items():
        for second, other in AGES.items():
            if first < second:
                calls = [
                    {"name": "lookup_age", "arguments": {"name": first}},
                    {"name": "lookup_age", "arguments": {"name": second}},
                    {"name": "add", "arguments": {"a": age, "b": other}},
                ]
                question = f"How old are {first} and {second} together? Use the tools."
                row = {"prompt": [{"role": "user", "content": question}], "answer": age + other}
                rows.append({**row, "gold_calls": json.dumps(calls)})
    return Dataset.from_list(rows)


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="Qwen/Qwen3-0.6B")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=1024, help="tokens of a completion, tool results included")
    parser.add_argument("--cpu", action="store_true", help="for a machine without a GPU and a tiny model")
    parser.add_argument("--output", default="runs/trl-two-lines")
    options = parser.parse_args()
    trainer = GRPOTrainer(
        model=options.model,
        reward_funcs=[right],
        train_dataset=tasks(),
        tools=[lookup_age, add],
        args=GRPOConfig(
            output_dir=options.output,
            max_steps=options.steps,
            max_completion_length=options.tokens,
            num_generations=8,
            per_device_train_batch_size=8,
            logging_steps=1,
            use_cpu=options.cpu,
            bf16=not options.cpu,
            report_to="none",
            save_strategy="no",
        ),
        turn_credit={"estimator": "matchtir", "singleton_turn": "zero"},  # line 2; leave it out for MatchTIR's defaults
    )
    trainer.train()


if __name__ == "__main__":
    main()
