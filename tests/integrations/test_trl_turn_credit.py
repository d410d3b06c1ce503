"""The TRL plug-in inside a real GRPOTrainer with tools: a tiny random Llama whose lines are put into its mouth.

Only the sampling is replaced (random weights never call a tool); prompts, tool execution, masks, rewards, loss and
optimiser are TRL's.
"""

import json
import math

import numpy as np
import pandas
import pytest

pytest.importorskip("trl")
import torch
from datasets import Dataset
from trl import GRPOTrainer

from rewright.core.errors import InputError
from rewright.core.registry import register
from rewright.credit import Resources, TurnSignal, advantages, needs, per_token, spans_from_mask, turn_rewards
from rewright.credit.messages import gold_calls
from rewright.credit.settings import TurnCredit
from rewright.integrations.trl import TurnCreditMixin, TurnCreditTrainer
from rewright.pipeline.imports import LogOptions, import_trajectories
from rewright.pipeline.run_directory import Run
from rewright.reports.stored_credit import credit, read_gold, read_stored
from support.prompted_trainer import ADA, BEN, LINES, Prompted, lookup
from support.tiny_llama import make_tiny_llama
from support.trl_training import MASK, RolloutTrainer, make, right

CALLS = [[[ADA], [BEN], []], [[ADA, {"name": "lookup", "arguments": {"name": "Zoe"}}], []], [[]], [[ADA], []]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


def expected_advantages(**settings):
    rewards = [turn_rewards(turns, [ADA, BEN], outcome=right([[{"content": lines[-1]}]])[0])
               for turns, lines in zip(CALLS, LINES, strict=True)]  # fmt: skip
    return rewards, advantages(rewards, [0] * 4, **settings)


def test_every_turn_s_tokens_get_its_advantage_and_tool_tokens_none(folder, tmp_path):
    trainer = make(folder, tmp_path)
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer.train()
    batch = trainer.batches[0]
    tokens, own = batch["advantages"], (batch["completion_mask"] * batch["tool_mask"]).bool()
    assert tokens.shape == batch["completion_ids"].shape
    assert (tokens[~own] == 0).all()
    rewards, expected = expected_advantages()
    assert [row.round(4).tolist() for row in rewards] == [[1.0, 1.0, 1.0], [0.8333, 0.0], [1.0], [1.0, 0.0]]
    spans = spans_from_mask(own.numpy())
    assert [len(row) for row in spans] == [3, 2, 1, 2]
    np.testing.assert_allclose(tokens.numpy(), per_token(expected, spans, tokens.shape[1]), atol=1e-6)
    decoded = trainer.processing_class.decode(batch["completion_ids"][0][tokens[0] == tokens[0][spans[0][1][0]]])
    assert "Ben" in decoded
    assert any((parameter != old).any() for parameter, old in zip(trainer.model.parameters(), before, strict=True))


def test_turn_metrics_are_logged(folder, tmp_path):
    trainer = make(folder, tmp_path)
    trainer.train()
    (logged,) = [entry for entry in trainer.state.log_history if "turn_credit/reward_mean" in entry]
    rewards, expected = expected_advantages()
    assert logged["turn_credit/turns_mean"] == 8 / 4
    assert logged["turn_credit/calls_mean"] == 5 / 4
    assert logged["turn_credit/reward_mean"] == pytest.approx(sum(row.sum() for row in rewards) / 8)
    assert logged["turn_credit/call_reward_mean"] == pytest.approx((2 + 5 / 6 + 1) / 8)
    assert logged["turn_credit/advantage_std"] == pytest.approx(np.concatenate(expected).std(), abs=1e-4)
    assert list(trainer._logs["extra"]["turn_rewards"]) == [row.round(4).tolist() for row in rewards]


class AgeBook:
    """A TRL environment: its public methods are the tools of one rollout."""

    def reset(self, **row):
        self.asked = []

    def lookup(self, name: str) -> str:
        """
        Look up a person's age.

        Args:
            name: The person.
        """
        self.asked.append(name)
        return lookup(name)


def test_calls_of_an_environment_are_credited_like_those_of_tools(folder, tmp_path):
    trainer = make(folder, tmp_path, tools=None, environment_factory=AgeBook)
    trainer.train()
    assert [book.asked for book in trainer.environments] == [["Ada", "Ben"], ["Ada", "Zoe"], [], ["Ada"]]
    rewards, expected = expected_advantages()
    assert list(trainer._logs["extra"]["turn_rewards"]) == [row.round(4).tolist() for row in rewards]
    batch = trainer.batches[0]
    spans = spans_from_mask((batch["completion_mask"] * batch["tool_mask"]).numpy())
    tokens = per_token(expected, spans, batch["completion_ids"].shape[1])
    np.testing.assert_allclose(batch["advantages"].numpy(), tokens, atol=1e-6)


LOSS_TYPES = ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"]


def gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("estimator", ["grpo", "matchtir", "fixed_horizon", "delta", "leave_one_out"])
def test_each_turn_s_advantage_weighs_its_tokens_in_every_loss(folder, tmp_path, estimator):
    """On policy, every loss is a weighted sum of log-probabilities: ours, written out, has the same gradient."""
    trainer = make(folder, tmp_path, turn_credit={"estimator": estimator}, epsilon_high=5.0)  # CISPO's bound of a ratio
    trainer.train()
    batch, model = trainer.batches[0], trainer.model
    mask = batch["completion_mask"] * batch["tool_mask"]
    _, expected = expected_advantages(estimator=estimator)
    tokens = torch.from_numpy(per_token(expected, spans_from_mask(mask.numpy()), mask.shape[1]))
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    seen = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    rows = len(mask)
    tokens_in = {
        "grpo": mask.sum(dim=1, keepdim=True) * rows, "sapo": mask.sum(dim=1, keepdim=True) * rows,
        "dr_grpo": rows * trainer.max_completion_length, "luspo": rows,
    }  # fmt: skip
    for loss_type in LOSS_TYPES:
        trainer.loss_type = loss_type
        found = gradient(model, trainer._compute_loss(model, batch))
        log_probs = trainer._get_per_token_logps_and_entropies(model, ids, seen, mask.shape[1])[0]
        own = gradient(model, -(tokens * log_probs / tokens_in.get(loss_type, mask.sum())).sum())
        assert own.norm() > 0
        torch.testing.assert_close(found, own, rtol=1e-3, atol=1e-6, msg=loss_type)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_every_loss_type_takes_turn_advantages(folder, tmp_path, loss_type):
    trainer = make(folder, tmp_path, loss_type=loss_type, turn_credit={"estimator": "fixed_horizon", "gamma": 1.0})
    trainer.train()
    assert np.isfinite(trainer.state.log_history[0]["grad_norm"])
    assert trainer.state.log_history[0]["grad_norm"] > 0


def test_generation_batches_split_into_steps_keep_rows_together(folder, tmp_path):
    trainer = make(folder, tmp_path, max_steps=2, steps_per_generation=2, per_device_train_batch_size=4)
    trainer.train()
    assert trainer.batches[0]["advantages"].shape[0] == 8
    assert np.isfinite([entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]).all()


def test_without_gold_calls_only_the_outcome_counts(folder, tmp_path):
    with pytest.warns(UserWarning, match="gold_calls is None in every row: all call rewards are 0"):
        trainer = make(folder, tmp_path, rows=[{"gold_calls": None}] * 4)
    trainer.train()
    assert list(trainer._logs["extra"]["turn_rewards"]) == [[0.0, 0.0, 1.0], [0.0, 0.0], [1.0], [0.0, 0.0]]


def test_the_outcome_may_join_at_trajectory_level_only(folder, tmp_path):
    trainer = make(folder, tmp_path, turn_credit={"join": "trajectory"})
    trainer.train()
    calls = [turn_rewards(turns, [ADA, BEN]) for turns in CALLS]
    assert list(trainer._logs["extra"]["turn_rewards"]) == [row.round(4).tolist() for row in calls]
    totals = [row.sum() + outcome for row, outcome in zip(calls, [1.0, 0.0, 1.0, 0.0], strict=True)]
    expected = advantages(calls, [0] * 4, trajectory_rewards=totals)
    assert list(trainer._logs["extra"]["turn_advantages"]) == [row.round(4).tolist() for row in expected]


def unscored(completions, **columns):
    """No score for the third completion of each prompt."""
    return [None if index % 4 == 2 else score for index, score in enumerate(right(completions))]


def test_a_completion_that_nobody_scored_is_in_no_group(folder, tmp_path):
    trainer = make(folder, tmp_path, reward=unscored)
    trainer.train()
    rewards, _ = expected_advantages()
    expected = advantages([rewards[index] for index in (0, 1, 3)], [0] * 3)
    found = list(trainer._logs["extra"]["turn_advantages"])
    assert found[2] == [0.0]
    assert [found[index] for index in (0, 1, 3)] == [row.round(4).tolist() for row in expected]


def length(completions, **columns):
    return [float(sum(len(message.get("content", "")) for message in completion)) for completion in completions]


def unscored_some(completions, **columns):
    """Nothing for the second prompt's first completion, and for the third of every prompt."""
    return [None if index in (2, 4, 6) else float(index) for index in range(len(completions))]


def unscored_third(function):
    """The same function, with no score for the third completion of the first prompt."""

    def score(completions, **columns):
        return [None if index == 2 else value for index, value in enumerate(function(completions))]

    score.__name__ = function.__name__
    return score


def test_gdpo_is_trl_s_own_normalisation_of_reward_functions(folder, tmp_path):
    rewards = [unscored_third(function) for function in (right, length, unscored_some)]
    trainer = make(
        folder,
        tmp_path,
        reward=rewards,
        rows=[{"gold_calls": None}] * 2,
        per_device_train_batch_size=8,
        reward_weights=[1.0, 0.5, 2.0],
        multi_objective_aggregation="normalize_then_sum",
        turn_credit={"estimator": {"name": "gdpo"}, "signal": "outcome", "eps": 1e-4},
    )
    trainer.train()
    batch = trainer.batches[0]
    own = (batch["completion_mask"] * batch["tool_mask"]).bool()
    found = [row[mask].unique().tolist() for row, mask in zip(batch["advantages"], own, strict=True)]
    expected = list(trainer._logs["advantages"])  # TRL computes its own beside ours
    assert len(expected) == 8 and expected[2] == 0.0 and len(set(expected)) > 5
    # One advantage for all turns; TRL's are float32.
    assert found == [pytest.approx([value], abs=2e-6) for value in expected]


def test_gigpo_compares_the_states_of_a_real_trainer(folder, tmp_path):
    settings = {"estimator": "gigpo", "signal": "outcome", "gamma": 1.0}
    trainer = make(folder, tmp_path, rows=[{}] * 4, turn_credit=settings)
    trainer.train()
    # All begin in one state; the first and the last have both found Ada's age then. 1, 0, 1 and 0 are the outcomes.
    keys = [["s", "ada", "a"], ["s", "b"], ["s"], ["s", "ada"]]
    rewards = [[0.0, 0.0, 1.0], [0.0, 0.0], [1.0], [0.0, 0.0]]
    expected = advantages(rewards, [0] * 4, estimator="gigpo", state_keys=keys, gamma=1.0)
    assert list(trainer._logs["extra"]["turn_advantages"]) == [row.round(4).tolist() for row in expected]
    (logged,) = [entry for entry in trainer.state.log_history if "turn_credit/state_groups/compared" in entry]
    assert logged["turn_credit/state_groups/compared"] == 6 / 8
    assert logged["turn_credit/state_groups/with_choice"] == 6 / 8
    assert logged["turn_credit/state_groups/unknown"] == 0.0


def test_columns_that_datasets_filled_with_nulls_mean_what_was_written(folder, tmp_path):
    """Two tools with different arguments: `datasets` gives every call every argument, null where it had none."""
    rows = [{"gold_calls": [ADA, BEN]}, {"gold_calls": [{"name": "add", "arguments": {"a": 1, "b": 2}}]}] * 2
    dataset = Dataset.from_list(rows)
    assert dataset[0]["gold_calls"][0]["arguments"] == {"name": "Ada", "a": None, "b": None}
    trainer = make(folder, tmp_path, rows=[dataset[0]] * 4)
    trainer.train()
    rewards, _ = expected_advantages()
    assert list(trainer._logs["extra"]["turn_rewards"]) == [row.round(4).tolist() for row in rewards]


def test_nulls_inside_arguments_are_absent_too(folder, tmp_path):
    """A nested object gets the fields of every other row's, null where it had none."""
    paris, monday = {"name": "lookup", "arguments": {"name": {"city": "Paris"}}}, {"name": {"day": "Monday"}}
    dataset = Dataset.from_list([{"gold_calls": [paris]}, {"gold_calls": [{"name": "lookup", "arguments": monday}]}])
    assert dataset[0]["gold_calls"][0]["arguments"] == {"name": {"city": "Paris", "day": None}}
    assert gold_calls(dataset[0]["gold_calls"]) == [paris]
    dataset.to_parquet(tmp_path / "gold.parquet")
    assert gold_calls(pandas.read_parquet(tmp_path / "gold.parquet")["gold_calls"][0]) == [paris]


class Doubled(Prompted, TurnCreditTrainer):
    """A user's trainer that was derived from GRPOTrainer, and is now derived from ours."""

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        return 2 * super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)


class Replaced(Prompted, TurnCreditTrainer):
    """The same, with rewards of its own."""

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        return torch.tensor([[2 * value] for value in right(completions)])


@pytest.mark.parametrize("trainer_class", [Doubled, Replaced])
def test_a_derived_trainer_s_rewards_are_the_outcome(folder, tmp_path, trainer_class):
    trainer = make(folder, tmp_path, trainer_class=trainer_class)
    trainer.train()
    calls = [turn_rewards(turns, [ADA, BEN]) for turns in CALLS]
    for row, outcome in zip(calls, trainer._logs["rewards"]["right"], strict=True):
        row[-1] += outcome
    assert max(trainer._logs["rewards"]["right"]) == 2.0
    assert list(trainer._logs["extra"]["turn_rewards"]) == [row.round(4).tolist() for row in calls]


def test_a_mixin_behind_the_trainer_is_refused():
    with pytest.raises(TypeError, match="after GRPOTrainer, TurnCreditMixin has no effect"):
        type("Mine", (GRPOTrainer, TurnCreditMixin), {})
    type("Mine", (Prompted, TurnCreditMixin, GRPOTrainer), {})


def test_evaluation_rows_without_gold_calls_are_refused_before_the_training(folder, tmp_path):
    trainer = make(folder, tmp_path)
    arguments = {"model": trainer.model, "processing_class": trainer.processing_class, "reward_funcs": [right],
                 "train_dataset": trainer.train_dataset, "tools": [lookup], "args": trainer.args}  # fmt: skip
    bare = trainer.train_dataset.remove_columns("gold_calls")
    with pytest.raises(ValueError, match="eval_dataset has no column gold_calls"):
        TurnCreditTrainer(**arguments, eval_dataset=bare)
    with pytest.raises(ValueError, match="hard has no column gold_calls"):
        TurnCreditTrainer(**arguments, eval_dataset={"easy": trainer.train_dataset, "hard": bare})


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"env_mask": [MASK] * 4, "turn_calls": [[[ADA], [BEN], []], [[], [], []]] * 2}, None),
        ({"env_mask": [MASK] * 4}, r"completion 0 has 1 turns, but 3 runs of generated tokens"),
        ({"env_mask": [MASK] * 4, "turn_calls": [[[ADA], [BEN]]] * 4}, "completion 0 has 2 turns, but 3 runs"),
        ({"turn_calls": [[[ADA], [BEN], []]] * 4}, "completion 0 has 3 turns, but 1 runs"),
        ({"env_mask": [MASK] * 4, "turn_calls": [[ADA, BEN, ADA]] * 4}, "a list of turns, each a list of calls"),
    ],
)
def test_rollouts_of_a_user_s_own_are_credited_turn_by_turn_or_refused(folder, tmp_path, fields, problem):
    def rollout(prompts, trainer):
        count = len(prompts)
        ids = {"prompt_ids": [[5, 6]] * count, "completion_ids": [list(range(10, 18))] * count}
        return {**ids, "logprobs": [[0.0] * 8] * count, **fields}

    trainer = make(folder, tmp_path, trainer_class=RolloutTrainer, tools=None, rollout_func=rollout)
    if problem is not None:
        with pytest.raises(ValueError, match=problem):
            trainer.train()
        return
    trainer.train()
    rewards = [turn_rewards([[ADA], [BEN], []], [ADA, BEN]), np.zeros(3)] * 2
    expected = per_token(advantages(rewards, [0] * 4), spans_from_mask([MASK] * 4), 8)
    np.testing.assert_allclose(trainer.batches[0]["advantages"].numpy(), expected, atol=1e-6)


def test_a_batch_without_one_readable_call_is_a_warning(folder, tmp_path):
    def rollout(prompts, trainer):
        ids = {"prompt_ids": [[5, 6]] * len(prompts), "completion_ids": [[10, 11]] * len(prompts)}
        calls = [[[{"tool": "lookup", "args": {}}]]] * len(prompts)
        return {**ids, "logprobs": [[0.0] * 2] * len(prompts), "env_mask": [[1, 1]] * len(prompts), "turn_calls": calls}

    trainer = make(folder, tmp_path, trainer_class=RolloutTrainer, tools=None, rollout_func=rollout)
    with pytest.warns(UserWarning, match=r"none of the 4 calls of a batch has a name and arguments.*{'tool': 'lookup'"):
        trainer.train()


MISTAKEN_GOLD = [
    [{"tool": "lookup", "arguments": {"name": "Ada"}}],
    [{"name": "lookup"}],
    [{"name": "lookup", "arguments": ["Ada"]}],
    [{"name": "lookup", "arguments": "name=Ada"}],
]


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("mistaken", MISTAKEN_GOLD)
def test_gold_calls_that_nothing_could_match_are_refused(mistaken, as_text):
    with pytest.raises(ValueError, match=r"gold_calls of row 3: call 1 is .*: expected a name, and arguments"):
        gold_calls(json.dumps([ADA, *mistaken]) if as_text else [ADA, *mistaken], "gold_calls of row 3")


def test_mistakes_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match="gold_calls of row 0: call 0 is"):
        make(folder, tmp_path, rows=[{"gold_calls": json.dumps(MISTAKEN_GOLD[0])}] * 4).train()
    with pytest.raises(ValueError, match="turn credit settings are 'matchtir': expected a mapping"):
        make(folder, tmp_path, turn_credit="matchtir")
    with pytest.raises(ValueError, match="no column gold_calls"):
        make(folder, tmp_path, rows=[{"answer": "77"}] * 4).train()
    with pytest.raises(ValueError, match=r"gold_calls of row 0 is not JSON"):
        make(folder, tmp_path, rows=[{"gold_calls": "lookup(Ada)"}] * 4).train()
    with pytest.raises(ValueError, match=r"turn credit settings: .*gama"):
        make(folder, tmp_path, turn_credit={"gama": 1.0})
    with pytest.raises(ValueError, match="set importance_sampling_level='token'"):
        make(folder, tmp_path, importance_sampling_level="sequence", loss_type="luspo")
    with pytest.raises(ValueError, match="unknown estimator 'gspo'"):
        make(folder, tmp_path, turn_credit=TurnCredit(estimator="gspo")).train()


def test_the_ready_made_trainer_is_trl_s_with_the_mixin():
    assert issubclass(TurnCreditTrainer, GRPOTrainer)
    assert TurnCreditTrainer.__mro__[1] is TurnCreditMixin


def test_trl_s_completions_table_can_be_credited_afterwards(folder, tmp_path):
    trainer = make(folder, tmp_path, log_completions=True)
    trainer.train()
    (table,) = (tmp_path / "completions").glob("*.parquet")
    gold = tmp_path / "gold.json"
    gold.write_text(json.dumps([ADA, BEN]), encoding="utf-8")
    found = credit(read_stored(table, outcome="right"), read_gold(gold))
    assert [row.rewards.round(4).tolist() for row in found] == list(trainer._logs["extra"]["turn_rewards"])
    assert [row.advantages.round(4).tolist() for row in found] == list(trainer._logs["extra"]["turn_advantages"])
    imported = import_trajectories(tmp_path, tmp_path / "run", options=LogOptions(outcome=["right"]))
    trajectories = list(Run.open(tmp_path / "run").trajectories)
    assert imported.trajectories == len(found) == len(trajectories)
    assert [len(one.turns) for one in trajectories] == [len(row.stored.turns) for row in found]


def test_a_trainer_without_tools_is_told_that_nothing_can_match(folder, tmp_path):
    class Silent(Prompted, TurnCreditMixin, GRPOTrainer):
        def _generate_single_turn(self, prompt_ids, *others, **options):
            line = self.processing_class(LINES[0][0] + "<|im_end|>", add_special_tokens=False)["input_ids"]
            return [line for _ in prompt_ids], None

    with pytest.warns(UserWarning, match="neither tools= nor environment_factory="):
        make(folder, tmp_path, trainer_class=Silent, tools=None).train()


@register("signal", "trl_told")
def told(trajectories):
    """What a turn's tools told, as a number; NaN in completions that are UNKNOWN."""
    rows = []
    for one in trajectories:
        texts = [" ".join(turn.results or ()) for turn in one.turns]
        rows.append([math.nan if one.id in UNKNOWN else float("36" in text) + 2 * ("41" in text) for text in texts])
    return rows


UNKNOWN = set()


@register("signal", "trl_better")
def better(trajectories):
    return TurnSignal.of([[0.5] * len(one.turns) for one in trajectories], kind="advantage")


def test_a_signal_of_one_s_own_sees_the_results_of_tools_and_needs_no_gold_calls(folder, tmp_path):
    signal = [{"name": "trl_told", "scale": 2}, "trl_better"]
    trainer = make(folder, tmp_path, rows=[{"answer": "77"}] * 4, turn_credit={"signal": signal})
    trainer.train()
    calls = [[2.0, 4.0, 0.0], [2.0, 0.0], [0.0], [2.0, 0.0]]
    paid = [[*row[:-1], row[-1] + outcome] for row, outcome in zip(calls, [1.0, 0.0, 1.0, 0.0], strict=True)]
    assert list(trainer._logs["extra"]["turn_rewards"]) == paid
    expected = [row + 0.5 for row in advantages(paid, [0] * 4)]
    assert list(trainer._logs["extra"]["turn_advantages"]) == [row.round(4).tolist() for row in expected]


def test_a_completion_with_a_missing_number_is_in_no_group_and_not_trained_on(folder, tmp_path):
    UNKNOWN.add("completion 3")
    try:
        settings = {"rows": [{"answer": "77"}] * 3, "per_device_train_batch_size": 12}
        trainer = make(folder, tmp_path, turn_credit={"signal": "trl_told"}, **settings)
        trainer.train()
        UNKNOWN.add("completion 7")
        with pytest.raises(InputError, match=r"trl_told has no number for 2 of 12 trajectories, more than a tenth"):
            make(folder, tmp_path, turn_credit={"signal": "trl_told"}, **settings).train()
    finally:
        UNKNOWN.clear()
    batch, extra = trainer.batches[0], trainer._logs["extra"]
    assert batch["completion_mask"][3].sum() == 0 and (batch["advantages"][3] == 0).all()
    assert (batch["completion_mask"][[0, 1, 2, *range(4, 12)]].sum(dim=1) > 0).all()
    assert list(extra["turn_rewards"])[3] == [None, None]
    paid = [[1.0, 2.0, 1.0], [1.0, 0.0], [1.0], [1.0, 0.0]]
    alone = advantages(paid[:3], [0] * 3)
    assert list(extra["turn_advantages"])[:4] == [*(row.round(4).tolist() for row in alone), [0.0, 0.0]]
    assert trainer.state.log_history[0]["turn_credit/missing"] == 1.0


def test_scores_of_a_rollout_are_paid_as_what_a_turn_adds(folder, tmp_path):
    def rollout(prompts, trainer):
        count = len(prompts)
        ids = {"prompt_ids": [[5, 6]] * count, "completion_ids": [list(range(10, 18))] * count}
        calls = {"env_mask": [MASK] * count, "turn_calls": [[[], [], []]] * count}
        return {
            **ids,
            **calls,
            "logprobs": [[0.0] * 8] * count,
            "turn_scores": [[0.0, 0.5, 0.25, 1.0], [0.5, 1.0, 0.0]] * 2,
        }

    credit = {"signal": {"name": "score", "start": 0.25}}
    trainer = make(
        folder, tmp_path, trainer_class=RolloutTrainer, tools=None, rollout_func=rollout, turn_credit=credit,
        rows=[{"answer": "77"}] * 4,
    )  # fmt: skip
    trainer.train()
    assert list(trainer._logs["extra"]["turn_rewards"]) == [[0.5, -0.25, 0.75], [0.25, 0.5, -1.0]] * 2


def test_a_model_that_a_signal_needs_is_asked_for_before_the_training(folder, tmp_path):
    @register("signal", "trl_scored")
    @needs("log_prob")
    def scored(trajectories, *, log_prob):
        return [[float(log_prob([([], [1])])[0][0])] * len(one.turns) for one in trajectories]

    with pytest.raises(ValueError, match="signal 'trl_scored' needs a model that scores tokens: there is none here"):
        make(folder, tmp_path, turn_credit={"signal": "trl_scored"})
    trainer = make(folder, tmp_path, turn_credit={"signal": "trl_scored"},
                   resources=Resources(log_prob=lambda pairs: [np.array([-1.5]) for _ in pairs]))  # fmt: skip
    trainer.train()
    assert list(trainer._logs["extra"]["turn_rewards"])[1] == [-1.5, -1.5]
