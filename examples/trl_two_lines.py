"""Turn credit in a plain TRL script: two lines are not TRL's own, they are marked.

    python examples/trl_two_lines.py                                  # the pico model that ships, minutes on a CPU
    python examples/trl_two_lines.py --model Qwen/Qwen3-0.6B --learning-rate 1e-6 --tokens 1024    # a GPU is advisable

The dataset has one column more than usual: `gold_calls`, the calls that a right solution makes, as JSON text. At the
end you see the rewards of turns and calls (`turn_credit/*`) over the steps, and what each turn of two attempts earned.
"""

import argparse
import json
import re
from importlib.resources import files

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig

import rewright.credit
from rewright.integrations.trl import TurnCreditTrainer as GRPOTrainer  # line 1, was: from trl import GRPOTrainer

PICO = files("rewright") / "engines" / "models" / "pico"
PROMPT = "Answer with the tools. Think before each call. Put the final answer in <answer></answer>."
AGES = {"Bera": 36, "Dodan": 41, "Fudi": 29, "Leras": 58, "Nesin": 17, "Popo": 64, "Rifes": 52, "Zurin": 23}
last_batch = []  # (completion, gold calls, reward) of every attempt of the last step


def get_age(person: str) -> int:
    """
    The age of a person.

    Args:
        person: The person's first name.
    """
    return AGES[person]


def add(a: int, b: int) -> int:
    """
    Add two numbers.

    Args:
        a: The first number.
        b: The second number.
    """
    return a + b


def subtract(a: int, b: int) -> int:
    """
    Subtract two numbers.

    Args:
        a: The first number.
        b: The number to subtract.
    """
    return a - b


def right(completions, answer, gold_calls, **columns):
    """1 where the last number of the last message is the right one, else 0."""
    numbers = [re.findall(r"-?\d+", completion[-1].get("content") or "") for completion in completions]
    rewards = [float(str(gold) in found[-1:]) for found, gold in zip(numbers, answer, strict=True)]
    last_batch[:] = zip(completions, gold_calls, rewards, strict=True)
    return rewards


def tasks() -> Dataset:
    """Every pair of people: two questions, their answers, and the calls that lead there."""
    rows = []
    for first, age in AGES.items():
        for second, other in AGES.items():
            if first == second:
                continue
            lookups = [{"name": "get_age", "arguments": {"person": person}} for person in (first, second)]
            for name, question, answer in (
                ("add", f"Add the age of {first} and the age of {second}.", age + other),
                ("subtract", f"Take the age of {second} from the age of {first}.", age - other),
            ):
                calls = [*lookups, {"name": name, "arguments": {"a": age, "b": other}}]
                prompt = [{"role": "system", "content": PROMPT}, {"role": "user", "content": question}]
                rows.append({"prompt": prompt, "answer": answer, "gold_calls": json.dumps(calls)})
    return Dataset.from_list(rows).shuffle(seed=0)


def main() -> None:
    """Train, then show what was learned and what the turns of two attempts earned."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(PICO), help="a folder or a Hugging Face id (default: the pico model)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=2, help="tasks of a step, with 8 attempts each")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="for pico; 1e-6 for a model of billions")
    parser.add_argument("--tokens", type=int, default=160, help="tokens of a completion, tool results included")
    parser.add_argument("--cpu", action="store_true", help="do not use the GPU")
    parser.add_argument("--output", default="runs/trl-two-lines")
    options = parser.parse_args()
    cpu = options.cpu or not torch.cuda.is_available()
    trainer = GRPOTrainer(
        model=options.model,
        reward_funcs=[right],
        train_dataset=tasks(),
        tools=[get_age, add, subtract],
        args=GRPOConfig(
            output_dir=options.output,
            max_steps=options.steps,
            max_completion_length=options.tokens,
            max_tool_calling_iterations=4,
            num_generations=8,
            per_device_train_batch_size=8 * options.tasks,
            learning_rate=options.learning_rate,
            lr_scheduler_type="constant",
            logging_steps=1,
            use_cpu=cpu,
            bf16=not cpu,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        turn_credit={"estimator": "matchtir", "singleton_turn": "zero"},  # line 2; leave it out for MatchTIR's defaults
    )
    trainer.remove_callback(PrinterCallback)  # it prints every metric of every step; `show` prints four of them
    trainer.train()
    show(trainer.state.log_history)


def show(history) -> None:
    """Print the metrics of the steps, and for one task of the last step its best and its worst attempt."""
    print(f"\n{'step':>4}  {'right answers':>13}  {'reward per turn':>15}  {'reward of calls':>15}  {'calls':>5}")
    rows = [row for row in history if "turn_credit/reward_mean" in row]
    for row in rows[:: max(1, len(rows) // 10)]:
        print(
            f"{row['step']:>4}  {row['rewards/right/mean']:>12.0%}   {row['turn_credit/reward_mean']:>14.2f}   "
            f"{row['turn_credit/call_reward_mean']:>14.2f}  {row['turn_credit/calls_mean']:>5.1f}"
        )
    groups = [last_batch[start : start + 8] for start in range(0, len(last_batch), 8)]
    scored = [sorted(map(credited, group), key=lambda one: one[1].sum()) for group in groups]
    worst, *_, best = max(scored, key=lambda group: group[-1][1].sum() - group[0][1].sum())
    for title, (turns, rewards) in (("best", best), ("worst", worst)):
        print(f"\nthe {title} attempt at one task, and the reward of each turn:")
        for turn, reward in zip(turns, rewards, strict=True):
            calls = [call["function"] for call in turn.get("tool_calls") or []]
            words = ", ".join(f"{call['name']}({json.dumps(call['arguments'])})" for call in calls)
            print(f"  {reward:5.2f}  {words or turn.get('content', '').strip()!r}")


def credited(attempt):
    """The turns of an attempt, and their rewards: the calls matched with the gold calls, the outcome at the end."""
    completion, gold, outcome = attempt
    turns = [message for message in completion if message["role"] == "assistant"]
    calls = [[call["function"] for call in turn.get("tool_calls") or []] for turn in turns]
    return turns, rewright.credit.turn_rewards(calls, json.loads(gold), outcome=outcome)


if __name__ == "__main__":
    main()
