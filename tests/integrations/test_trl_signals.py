"""What signals and estimators are given in a real GRPOTrainer, and the settings that it refuses before the training."""

import json
import math
from collections import defaultdict

import numpy as np
import pytest

pytest.importorskip("trl")

from rewright.core.errors import InputError
from rewright.core.registry import register
from rewright.credit import Resources, advantages, compares_trajectories, spans_from_mask
from support.prompted_trainer import ADA, BEN, lookup
from support.tiny_llama import make_tiny_llama
from support.trl_training import RolloutTrainer, make, rollouts

ONE_PROMPT = {"prompt": [{"role": "user", "content": "How old?"}]}
SEEN = []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


@register("signal", "trl_more_calls")
@compares_trajectories
def more_calls(trajectories):
    """More calls than the mean of the group, for the first turn."""
    SEEN[:] = trajectories
    groups = defaultdict(list)
    for one in trajectories:
        groups[one.task_id].append(sum(map(len, one.calls)))
    return [
        [sum(map(len, one.calls)) - float(np.mean(groups[one.task_id])), *[0.0] * (len(one.turns) - 1)]
        for one in trajectories
    ]


def no_reward(completions, **columns):
    return [0.0] * len(completions)


def test_two_rows_with_one_prompt_are_two_groups(folder, tmp_path):
    calls = [[[ADA] * count, [], []] for count in (1, 1, 1, 1, 3, 3, 3, 3)]
    trainer = make(
        folder, tmp_path, trainer_class=RolloutTrainer, tools=None, rollout_func=rollouts(calls), reward=no_reward,
        rows=[{**ONE_PROMPT, "answer": "1"}] * 2, per_device_train_batch_size=8,
        turn_credit={"signal": "trl_more_calls"},
    )  # fmt: skip
    trainer.train()
    assert [one.task_id for one in SEEN] == [0] * 4 + [1] * 4
    assert list(trainer._logs["extra"]["turn_rewards"]) == [[0.0, 0.0, 0.0]] * 8


class Doors:
    """An environment that tells every rollout something else."""

    opened = 0

    def reset(self, **row):
        Doors.opened += 1
        return f" You are at door {Doors.opened}."

    def lookup(self, name: str) -> str:
        """
        Look up a person's age.

        Args:
            name: The person.
        """
        return lookup(name)


def test_rollouts_that_an_environment_begins_differently_are_one_group(folder, tmp_path):
    credit = {"signal": "trl_more_calls", "estimator": "grpo"}
    make(folder, tmp_path, tools=None, environment_factory=Doors, turn_credit=credit).train()
    assert [one.task_id for one in SEEN] == [0] * 4
    assert len({str(one.messages) for one in SEEN}) == 4


def test_a_judge_compares_the_attempts_of_a_row_and_is_told_outcomes_and_gold(folder, tmp_path):
    prompts = []

    def judge(asked, schema, check=None):
        prompts.extend(asked)
        ids = [prompt.rsplit("The ids are: ", 1)[1].split(", ") for prompt in asked]
        return [{"scores": [{"id": name, "score": 0.5} for name in names]} for names in ids]

    signal = {"name": "judge", "show_outcome": True, "show_gold": True, "twice": 0}
    make(
        folder, tmp_path, rows=[{**ONE_PROMPT, "gold_calls": json.dumps([gold])} for gold in (ADA, BEN)],
        per_device_train_batch_size=8, turn_credit={"signal": signal}, resources=Resources(judge=judge),
    ).train()  # fmt: skip
    assert len(prompts) == 2
    for prompt, gold in zip(prompts, ("Ada", "Ben"), strict=True):
        lines = prompt.splitlines()
        (told,) = [line for line in lines if line.startswith("What is right")]
        assert [name in told for name in ("Ada", "Ben")] == [gold == "Ada", gold == "Ben"]
        outcomes = [line.split("(outcome ")[1].split(")")[0] for line in lines if line.startswith("Attempt")]
        assert sorted(outcomes) == ["0.0", "0.0", "1.0", "1.0"]


@pytest.mark.parametrize("truncated", [False, True])
def test_a_reward_model_reads_the_tokens_of_a_completion(folder, tmp_path, truncated):
    """Truncated completions that TRL masks have tokens as well."""

    asked = []

    def score(prefixes):
        asked.extend(prefixes)
        return [0.1 * len(ids) for ids in prefixes]

    trainer = make(
        folder, tmp_path, trainer_class=RolloutTrainer, tools=None, rollout_func=rollouts([[[], [], []]] * 4),
        rows=[{"answer": "77"}] * 4, reward=no_reward, turn_credit={"signal": "model"},
        resources=Resources(prefix_score=score), mask_truncated_completions=truncated,
    )  # fmt: skip
    trainer.train()
    assert asked == [[5, 6, *range(10, 10 + end)] for end in (0, 4, 6, 8)] * 4
    values = [1 / (1 + math.exp(-0.1 * length)) for length in (2, 6, 8, 10)]
    assert list(trainer._logs["extra"]["turn_rewards"]) == [pytest.approx(np.diff(values), abs=1e-4)] * 4
    assert bool(trainer.batches[0]["tool_mask"].any()) is not truncated


@pytest.mark.parametrize(
    "estimator",
    [
        {"name": "turn_credit", "centre": "token"},
        {"name": "igpo", "normalize": "index"},
        {"name": "gdpo", "whitening": "tokens"},
    ],
)
def test_estimators_are_given_the_numbers_of_tokens(folder, tmp_path, estimator):
    trainer = make(folder, tmp_path, turn_credit={"estimator": estimator})
    trainer.train()
    batch, (name, settings) = trainer.batches[0], (estimator["name"], dict(list(estimator.items())[1:]))
    spans = spans_from_mask((batch["completion_mask"] * batch["tool_mask"]).numpy())
    rewards, outcomes = list(trainer._logs["extra"]["turn_rewards"]), [1.0, 0.0, 1.0, 0.0]
    expected = advantages(
        rewards, [0] * 4, estimator=name, estimator_settings=settings, outcomes=outcomes,
        token_counts=[[end - start for start, end in row] for row in spans],
        components={"right": outcomes, "signal": [sum(row) - one for row, one in zip(rewards, outcomes, strict=True)]},
    )  # fmt: skip
    found = list(trainer._logs["extra"]["turn_advantages"])
    assert len({len(row) for row in found}) > 1 and any(map(any, found))
    for row, values in zip(found, expected, strict=True):
        assert row == pytest.approx(values, abs=2e-4)


@register("signal", "trl_no_numbers")
def no_numbers(trajectories):
    return [[math.nan] * len(one.turns) for one in trajectories]


@pytest.mark.parametrize(
    ("missing", "advice"), [("leave_out", "fewer, or turn_credit.missing: bridge"), ("bridge", "fewer")]
)
def test_a_signal_without_numbers_ends_the_training_with_the_keys_of_the_trainer(folder, tmp_path, missing, advice):
    trainer = make(folder, tmp_path, turn_credit={"signal": "trl_no_numbers", "missing": missing})
    with pytest.raises(InputError, match=r"^turn_credit\.signal trl_no_numbers has no number for 4 of 4 ") as problem:
        trainer.train()
    assert str(problem.value).endswith(f": expected {advice}")


def test_the_mean_reward_has_the_outcome_of_a_last_turn_whose_number_is_missing(folder, tmp_path):
    trainer = make(
        folder, tmp_path, trainer_class=RolloutTrainer, tools=None, rollout_func=rollouts([[[], [], []]] * 4),
        rows=[{"answer": "77"}] * 4, reward=lambda completions, **columns: [1.0, 0.0, 1.0, 0.0],
        turn_credit={"signal": "trl_first_number", "missing": "bridge"},
    )  # fmt: skip
    trainer.train()
    (logged,) = [entry for entry in trainer.state.log_history if "turn_credit/reward_mean" in entry]
    assert logged["turn_credit/missing"] == 4
    assert logged["turn_credit/call_reward_mean"] == pytest.approx(4 * 0.5 / 12)
    assert logged["turn_credit/reward_mean"] == pytest.approx((4 * 0.5 + 2) / 12)


@register("signal", "trl_first_number")
def first_number(trajectories):
    return [[0.5] + [math.nan] * (len(one.turns) - 1) for one in trajectories]


SCORER = Resources(log_prob=lambda pairs: [np.full(len(gold), -1.0) for _, gold in pairs], tokenize=lambda text: [1])


@pytest.mark.parametrize(
    ("credit", "message"),
    [
        ({"signal": "likelihood"}, r"signal 'likelihood' reads the gold answers, which this trainer does not provide"),
        ({"signal": [{"name": "matched"}, {"name": "score"}]}, r"signal\[1\] 'score' reads the scores of the states"),
        ({"signal": "tau2_progress"}, "signal 'tau2_progress' reads the tasks of the format tau2"),
        ({"signal": "no_such_package:f"}, "signal: .*no_such_package"),
        ({"estimator": "no_such_package:f"}, "estimator: .*no_such_package"),
        ({"estimator": {"name": "support.trl_training:right", "x": 1}}, r"estimator\.x must be a setting of"),
        ({"estimator": {"name": "gdpo", "weights": {"rihgt": 1}}}, r"estimator\.weights\.rihgt: .* right, signal$"),
        ({"estimator": {"name": "gigpo", "state_key": "own"}}, "estimator.state_key is 'own', and this trainer does"),
        ({"estimator": {"name": "hgpo", "state_key": "own"}}, "estimator.state_key is 'own', and this trainer does"),
        ({"compare": {"defaults": True}}, "compare.defaults is true, and this trainer does not provide the schemas"),
        (
            {"signal": [{"name": "matched", "scale": 2, "compare": {"defaults": True}}]},
            "compare.defaults is true, and this trainer does not provide the schemas",
        ),
    ],
)
@pytest.mark.parametrize("resources", [SCORER, None])
def test_settings_that_cannot_work_are_refused_before_the_training(folder, tmp_path, credit, message, resources):
    with pytest.raises(ValueError, match=message):
        make(folder, tmp_path, turn_credit=credit, resources=resources)


@pytest.mark.parametrize(
    "estimator",
    ["grpo", "matchtir", "leave_one_out", "lotapo", {"name": "gigpo", "normalisation": "mean_std"}],
)
def test_an_outcome_that_trl_stores_as_float32_makes_no_difference_between_equal_completions(
    folder, tmp_path, estimator
):
    """0.8 for the calls and 0.2 for the outcome, against 1.0 for the calls."""
    gold, other = ({"name": "f", "arguments": {"a": 1, "b": 2, "c": last}} for last in (3, 4))
    calls = [[[], [], [other]], [[], [], [gold]]] * 2
    trainer = make(
        folder, tmp_path, trainer_class=RolloutTrainer, tools=None, rollout_func=rollouts(calls),
        reward=lambda completions, **columns: [0.2, 0.0] * 2, rows=[{"gold_calls": json.dumps([gold])}] * 4,
        turn_credit={"estimator": estimator, "eps": 0.0},
    )  # fmt: skip
    trainer.train()
    rewards = list(trainer._logs["extra"]["turn_rewards"])
    assert rewards == [[0.0, 0.0, 1.0]] * 4
    assert list(trainer._logs["extra"]["turn_advantages"]) == [[0.0] * 3] * 4
    assert not trainer.batches[0]["advantages"].any()
