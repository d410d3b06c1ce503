"""A real GRPOTrainer with turn credit, its rewards, and rollouts of a user's own. Imports TRL."""

import json

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from rewright.integrations.trl import TurnCreditMixin, TurnCreditTrainer
from support.prompted_trainer import ADA, BEN, Kept, Prompted, lookup

__all__ = ["MASK", "PromptedTrainer", "RolloutTrainer", "make", "right", "rollouts"]

MASK = [1, 1, 0, 0, 1, 0, 1, 1]
"""A completion of three turns."""


def right(completions, **columns):
    """The outcome: does the last message hold the sum?"""
    return [1.0 if "77" in completion[-1].get("content", "") else 0.0 for completion in completions]


class PromptedTrainer(Prompted, TurnCreditMixin, GRPOTrainer):
    """The trainer under test."""


class RolloutTrainer(Kept, TurnCreditTrainer):
    """Its rollouts come from a `rollout_func`."""


def make(folder, tmp_path, trainer_class=PromptedTrainer, rows=None, **settings):
    credit, reward = settings.pop("turn_credit", None), settings.pop("reward", right)
    resources = settings.pop("resources", None)
    tools, environment = settings.pop("tools", [lookup]), settings.pop("environment_factory", None)
    rows = rows or [{"gold_calls": json.dumps([ADA, BEN])}] * 4
    dataset = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": f"How old together? {i}"}], **row} for i, row in enumerate(rows)]
    )
    defaults = {
        "output_dir": str(tmp_path), "max_steps": 1, "per_device_train_batch_size": 4, "num_generations": 4,
        "max_completion_length": 400, "report_to": "none", "save_strategy": "no", "logging_steps": 1, "use_cpu": True,
        "learning_rate": 1e-2, "beta": 0.0, "bf16": False,
    }  # fmt: skip
    return trainer_class(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(folder),
        reward_funcs=reward if isinstance(reward, list) else [reward],
        train_dataset=dataset,
        tools=tools,
        environment_factory=environment,
        rollout_func=settings.pop("rollout_func", None),
        args=GRPOConfig(**defaults | settings),
        turn_credit=credit,
        resources=resources,
    )


def rollouts(calls, **fields):
    """A `rollout_func` whose completions are eight tokens in three turns, with these calls; `fields`: further ones."""

    def rollout(prompts, trainer):
        count = len(prompts)
        return {
            "prompt_ids": [[5, 6]] * count, "completion_ids": [list(range(10, 18))] * count,
            "logprobs": [[0.0] * 8] * count, "env_mask": [MASK] * count, "turn_calls": calls, **fields,
        }  # fmt: skip

    return rollout
