"""SkyRL, slime and verifiers: what signals are given, and settings that cannot work there or have no effect."""

import importlib
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from rewright.core.errors import InputError
from rewright.core.registry import register
from rewright.credit import advantages, compares_trajectories, needs
from rewright.credit.signals import TurnSignal
from rewright.integrations import doctor, slime
from rewright.integrations.verifiers import write_turn_rewards

ADA = {"name": "lookup", "arguments": {"name": "Ada"}}
BEN = {"name": "lookup", "arguments": {"name": "Ben"}}


@register("signal", "plugin_ranks")
@compares_trajectories
def ranks(trajectories):
    """The calls of a trajectory minus the mean of its task, on every turn."""
    counts = {}
    for one in trajectories:
        counts.setdefault(one.task_id, []).append(sum(map(len, one.calls)))
    return [[sum(map(len, one.calls)) - float(np.mean(counts[one.task_id]))] * len(one.turns) for one in trajectories]


@register("signal", "plugin_outcome_twice")
def outcome_twice(trajectories):
    return [[2.0 * one.outcome] * len(one.turns) for one in trajectories]


@register("signal", "plugin_steps_up")
def steps_up(trajectories):
    return TurnSignal.of([np.arange(len(one.turns)) for one in trajectories], kind="advantage")


@register("signal", "plugin_gaps")
def gaps(trajectories):
    """1 for a turn with calls, unknown for the others."""
    return [[1.0 if calls else float("nan") for calls in one.calls] for one in trajectories]


@register("signal", "plugin_model")
@needs("log_prob")
def model(trajectories, *, log_prob):
    return [[0.0] * len(one.turns) for one in trajectories]


def sample(turn_calls, group, reward=0.0, **metadata):
    return SimpleNamespace(
        metadata={"turn_calls": turn_calls, "gold_calls": None, **metadata},
        train_metadata=None, group_index=group, remove_sample=False, get_reward_value=lambda args: reward,
    )  # fmt: skip


@pytest.fixture
def by_slime(monkeypatch):
    """The turn advantages that slime gets for samples."""

    def run(samples, **settings):
        monkeypatch.setenv("REWRIGHT_TURN_CREDIT", json.dumps(settings))
        slime.post_process_rewards(SimpleNamespace(n_samples_per_prompt=2), samples)
        return [one.train_metadata["rewright_turn_advantages"] for one in samples]

    return run


def test_slime_s_signals_are_told_the_groups_and_the_outcomes(by_slime):
    counts = [[[ADA]], [[]], [[ADA, BEN, ADA]], [[ADA, BEN]]]
    found = by_slime([sample(calls, index // 2) for index, calls in enumerate(counts)], signal="plugin_ranks")
    expected = advantages([[0.5], [-0.5], [0.5], [-0.5]], [0, 0, 1, 1])
    np.testing.assert_allclose(found, expected, atol=1e-9)
    same = by_slime([sample([[ADA] * (1 + index // 2)], index // 2) for index in range(4)], signal="plugin_ranks")
    assert same == [[0.0]] * 4  # no attempt differs from those of its own group
    by_reward = by_slime([sample([[], []], 0, 1.0), sample([[]], 0, 0.0)], signal="plugin_outcome_twice")
    np.testing.assert_allclose(np.concatenate(by_reward), np.concatenate(advantages([[2, 3], [0]], [0, 0])), atol=1e-9)


def test_slime_adds_the_advantages_of_a_signal(by_slime):
    plain = by_slime([sample([[], []], 0, 1.0), sample([[]], 0, 0.0)], signal="outcome")
    added = by_slime([sample([[], []], 0, 1.0), sample([[]], 0, 0.0)], signal="plugin_steps_up")
    np.testing.assert_allclose(np.concatenate(added), np.concatenate(plain) + np.array([0.0, 1.0, 0.0]), atol=1e-9)


def test_slime_s_estimators_know_the_tokens_of_the_turns(by_slime):
    """A prompt of 2 tokens; the turns have 3 and 1 of them, and 2; between the turns are those of the tool."""
    samples = [sample([[], []], 0, 1.0), sample([[]], 0, 0.0)]
    for one, mask in zip(samples, ([1, 1, 1, 0, 0, 1], [1, 1]), strict=True):
        one.tokens, one.response_length, one.loss_mask = list(range(2 + len(mask))), len(mask), mask
    centred = {"name": "turn_credit", "centre": "token"}
    found = by_slime(samples, signal="outcome", estimator=centred)
    expected = advantages(
        [[0, 1], [0]], [0, 0], estimator="turn_credit", estimator_settings={"centre": "token"},
        token_counts=[[3, 1], [2]],
    )  # fmt: skip
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-9)
    samples[1].loss_mask = None  # slime's word for: all tokens are the model's
    assert by_slime(samples, signal="outcome", estimator=centred) == found


@pytest.mark.parametrize("start", [[0.25], []])
def test_slime_s_scores_are_those_of_the_generate_function(by_slime, start):
    """Without a score before the first turn, the first score is where the trajectory starts."""
    samples = [
        sample([[ADA], []], 0, turn_scores=[*start, 0.5, 1.0]),
        sample([[ADA], []], 0, turn_scores=(*start, 0.5, 0.0)),
    ]
    for one in samples:
        del one.metadata["gold_calls"]  # not read by this signal
    found = by_slime(samples, signal={"name": "score", "start": "given" if start else "first"})
    first = 0.25 if start else 0.0
    np.testing.assert_allclose(found, advantages([[first, 0.5], [first, -0.5]], [0, 0]), atol=1e-9)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, r"sample 1 has no metadata\['turn_scores'\]: expected the score of each turn, set by the generate"),
        ({"turn_scores": [0.5]}, r"turn_scores of sample 1 is \[0.5\]: expected 2 numbers"),
        ({"turn_scores": 1.0}, r"turn_scores of sample 1 is 1.0: expected 2 numbers"),
        ({"turn_scores": [0.0, "1", 1.0]}, "trajectory sample 1: score 1 is '1': expected a finite number"),
    ],
)
def test_slime_s_scores_are_checked(by_slime, metadata, message):
    with pytest.raises(ValueError, match=message):
        by_slime([sample([[], []], 0, turn_scores=[0, 0, 1]), sample([[], []], 0, **metadata)], signal="score")


def test_slime_does_not_train_on_a_sample_without_scores(by_slime):
    samples = [sample([[], []], 0, turn_scores=[0, 0, index % 2]) for index in range(11)]
    samples.append(sample([[], []], 0, 1.0, turn_scores=None))
    found = by_slime(samples, signal="score")
    assert [one.remove_sample for one in samples] == [False] * 11 + [True]
    assert found[11] == [0.0, 0.0] != found[10]
    with pytest.raises(
        InputError, match=r"signal score has no number for 1 of 2 .*the first is sample 1: it has no sc"
    ):
        by_slime(samples[10:], signal="score")
    with pytest.raises(InputError, match=r"expected fewer, or REWRIGHT_TURN_CREDIT\.missing: bridge"):
        by_slime(samples[10:], signal="score")


BOTH = {
    "no function": ({"estimator": "no_such_package:function"}, "estimator: .*No module named 'no_such_package'"),
    "states": ({"estimator": "gigpo"}, "estimator 'gigpo' reads the states of the turns"),
    "history": ({"estimator": "hgpo"}, "estimator 'hgpo' reads the states of the turns"),
    "parts": ({"estimator": "gdpo"}, "estimator 'gdpo' reads the parts of the trajectory reward"),
    "a setting": ({"estimator": {"name": "turn_credit", "beta": -1}}, "estimator.beta must not be negative"),
}
SLIME = BOTH | {
    "judge": ({"signal": "judge"}, "signal 'judge' needs a language model that judges: there is none here"),
    "likelihood": ({"signal": ["matched", "likelihood"]}, "signal 'likelihood' needs a model that scores tokens"),
    "model": ({"signal": "model"}, "signal 'model' needs a reward model"),
    "tau2": ({"signal": "tau2_progress"}, "signal 'tau2_progress' reads the tasks of the format tau2"),
    "no signal": ({"signal": ["matched", "no_such_package:function"]}, r"signal\[1\]: .*No module named"),
    "schemas": ({"compare": {"defaults": True}}, "compare.defaults is true, and this trainer does not provide the sch"),
    "schemas of a part": (
        {"signal": [{"name": "matched", "scale": 0.5, "compare": {"defaults": True}}]},
        "compare.defaults is true",
    ),
}
SKYRL = BOTH | {
    "outcome": ({"signal": "outcome"}, "signal has no effect here: the environment's `step` returns the turn rewards"),
    "score": ({"signal": "score"}, "signal has no effect"),
    "a scale": ({"signal": [{"name": "matched", "scale": -1}]}, "signal has no effect"),
    "a signal's function": ({"signal": "no_such_package:function"}, "signal has no effect"),
    "missing": ({"missing": "bridge"}, "missing has no effect"),
    "matching": (
        {"assignment": "ot", "aggregate": "sum", "unmatched": -1.0, "weights": [0, 1, 1]},
        "assignment, unmatched, weights, aggregate have no effect here",
    ),
    "inside": ({"signal": {"name": "matched", "unmatched": -1.0}}, "unmatched has no effect"),
    "comparison": ({"compare": {"unordered_lists": True}}, "compare has no effect"),
    "outcomes": ({"estimator": "outcome_or_calls"}, "estimator 'outcome_or_calls' reads the outcomes"),
    "join": ({"join": "trajectory"}, "join is 'trajectory', but this trainer adds the outcome to the last token"),
}


@pytest.mark.parametrize("name", SLIME)
def test_slime_cannot_load_the_function_with_settings_that_cannot_work(monkeypatch, name):
    """slime imports its functions by path before it generates anything."""
    settings, message = SLIME[name]
    monkeypatch.setenv("REWRIGHT_TURN_CREDIT", json.dumps(settings))
    monkeypatch.delitem(sys.modules, "rewright.integrations.slime")
    with pytest.raises(ValueError, match=message) as problem:
        importlib.import_module("rewright.integrations.slime")
    assert "REWRIGHT_TURN_CREDIT" in str(problem.value) or "turn credit settings" in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.fixture
def ppo_utils(monkeypatch, tmp_path):
    """An installed SkyRL of the old name whose module of estimators only keeps what is registered."""
    folder = tmp_path / "skyrl_train" / "utils"
    folder.mkdir(parents=True)
    for package in (folder.parent, folder):
        (package / "__init__.py").touch()
    (folder / "ppo_utils.py").write_text(
        "functions = {}\n"
        "def register_advantage_estimator(name):\n"
        "    return lambda function: functions.setdefault(name, function)\n"
    )
    about = tmp_path / "skyrl-0.4.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: skyrl\nVersion: 0.4\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("skyrl", "skyrl_train")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "skyrl", None)  # one of the new name is not asked
    monkeypatch.delitem(sys.modules, "rewright.integrations.skyrl", raising=False)
    yield importlib.import_module("skyrl_train.utils.ppo_utils")
    sys.modules.pop("rewright.integrations.skyrl", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "skyrl_train"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", SKYRL)
def test_skyrl_registers_no_estimator_with_settings_that_have_no_effect(monkeypatch, ppo_utils, name):
    settings, message = SKYRL[name]
    monkeypatch.setenv("REWRIGHT_TURN_CREDIT", json.dumps(settings))
    with pytest.raises(ValueError, match=message) as problem:
        importlib.import_module("rewright.integrations.skyrl")
    assert "REWRIGHT_TURN_CREDIT" in str(problem.value) or "turn credit settings" in str(problem.value)
    assert ppo_utils.functions == {}
    (state,) = [state for state in doctor.check_plugins() if state.trainer == "skyrl"]
    assert state.problem.startswith("rewright.integrations.skyrl does not load: ValueError: ")


def test_skyrl_takes_settings_that_have_their_defaults(monkeypatch, ppo_utils):
    """One set of settings may be meant for several programs."""
    given = {"signal": [{"name": "matched"}], "missing": "leave_out", "unmatched": 0, "estimator": "fixed_horizon"}
    monkeypatch.setenv("REWRIGHT_TURN_CREDIT", json.dumps(given))
    importlib.import_module("rewright.integrations.skyrl")
    assert set(ppo_utils.functions) == {"rewright"}


def trace(*turns):
    return SimpleNamespace(info={}, assistant_messages=[SimpleNamespace(tool_calls=list(calls)) for calls in turns])


@pytest.mark.parametrize(
    "settings", [{"unmatched": -1.0}, {"aggregate": "mean"}, {"assignment": "greedy"}, {"signal": ["matched"]}, {}]
)
def test_progress_is_the_share_of_the_gold_calls_whatever_the_settings(settings):
    other = {"name": "other", "arguments": {"a": 1}}
    assert write_turn_rewards(trace([ADA, other], [other], [BEN]), [ADA, BEN], settings=settings) == [0.5, 0.5, 1.0]
    assert write_turn_rewards(trace([other], []), [ADA], settings=settings) == [0.0, 0.0]
    assert write_turn_rewards(trace([other]), [], settings=settings) == [0.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"signal": "outcome"}, "signal is outcome, and kind 'progress' is the share of the gold calls"),
        ({"signal": "score"}, "signal is score, and kind 'progress'"),
        ({"signal": [{"name": "matched", "scale": -3}]}, "signal is -3 matched, and kind 'progress'"),
        ({"signal": ["matched", "outcome"]}, "signal is matched [+] outcome"),
        ({"assignment": "ot"}, "assignment is ot.*: expected optimal or greedy"),
        ({"compare": {"defaults": True}}, "compare.defaults is true"),
        ({"join": "trajectory"}, "join has no effect here"),
        ({"estimator": "grpo", "gamma": 1.0}, "estimator, gamma have no effect here: the trainer that reads the trace"),
    ],
)
def test_progress_of_anything_else_is_refused(settings, message):
    given = trace([ADA])
    with pytest.raises(ValueError, match=message):
        write_turn_rewards(given, [ADA], settings=settings)
    assert given.info == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"signal": "plugin_ranks"}, "signal 'plugin_ranks' compares the trajectories of a task: this trainer gives"),
        ({"signal": ["matched", "plugin_ranks"]}, r"signal\[1\] 'plugin_ranks' compares"),
        ({"signal": "plugin_model"}, "signal 'plugin_model' needs a model that scores tokens"),
        ({"signal": "judge"}, "signal 'judge' needs a language model that judges"),
        ({"signal": "score"}, "signal 'score' reads the scores of the states, which this trainer does not provide"),
        ({"signal": "tau2_progress"}, "signal 'tau2_progress' reads the tasks of the format tau2"),
        ({"signal": "no_such_package:function"}, "No module named 'no_such_package'"),
        ({"compare": {"defaults": True}}, "compare.defaults is true"),
        ({"join": "trajectory"}, "join has no effect here: a trace has turn rewards only: expected last_turn"),
        ({"singleton_turn": "zero"}, "singleton_turn has no effect here"),
    ],
)
def test_rewards_that_cannot_be_computed_for_a_trace_are_refused(settings, message):
    given = trace([ADA])
    with pytest.raises(ValueError, match=message):
        write_turn_rewards(given, [ADA], kind="rewards", outcome=1.0, settings=settings)
    assert given.info == {}


def test_rewards_of_a_signal_that_matches_no_calls_need_no_gold_calls():
    assert write_turn_rewards(trace([ADA], []), None, kind="rewards", outcome=1.0, settings={"signal": "outcome"}) == [
        0.0,
        1.0,
    ]
    twice = {"signal": "plugin_outcome_twice"}
    assert write_turn_rewards(trace([ADA], []), None, kind="rewards", outcome=1.0, settings=twice) == [2.0, 3.0]
    assert write_turn_rewards(trace([ADA], []), None, kind="rewards", outcome=1.0) == [None, None]


def test_a_missing_number_is_none_or_bridged():
    settings = {"signal": "plugin_gaps"}
    assert write_turn_rewards(trace([ADA], []), None, kind="rewards", outcome=1.0, settings=settings) == [1.0, None]
    settings["missing"] = "bridge"
    assert write_turn_rewards(trace([ADA], []), None, kind="rewards", outcome=1.0, settings=settings) == [1.0, 1.0]
    assert write_turn_rewards(trace([], []), None, kind="rewards", outcome=1.0, settings=settings) == [None, None]
