"""The verl plug-in against the installed verl: registry, advantage computation, agent loop, output. CPU only.

verl wants another transformers than TRL, so it lies in a folder of its own, and `make tests` runs these a second time
with that folder on the path (docs/plugins.md); without verl they are skipped.
"""

import asyncio
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("verl", reason="verl is not on the path: `make tests` runs this with it (docs/plugins.md)")
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap, _agent_loop_registry
from verl.protocol import DataProto
from verl.tools.function_tool import FunctionTool
from verl.trainer.config import AlgoConfig, RolloutCorrectionConfig
from verl.trainer.ppo.core_algos import compute_gdpo_outcome_advantage
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories
from verl.workers.rollout.replica import TokenOutput

from rewright.core.errors import InputError
from rewright.core.registry import register
from rewright.credit import advantages, per_token, turn_rewards
from rewright.credit.token_level import turn_to_token_rewards
from rewright.dialects import Hermes
from rewright.integrations.verl.agent_loop import TurnCreditOutput, TurnCreditToolAgentLoop
from rewright.integrations.verl.check import check_rows
from rewright.integrations.verl.check import main as check
from rewright.rollout.episodes import EpisodeSettings
from support.tiny_llama import make_tokenizer

MASK = [[1, 1, 0, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0], [1, 0, 1, 1, 0, 0, 1, 0]]
SPANS = [[(0, 2), (3, 6)], [(0, 3)], [(0, 1), (2, 4), (6, 7)]]
TURNS = [[0.5, 1.0], [0.25], [0.0, 0.75, 1.0]]
UIDS = np.array(["a", "a", "a"], dtype=object)


def batch():
    paid = torch.tensor(
        [turn_to_token_rewards(turns, mask) for turns, mask in zip(TURNS, MASK, strict=True)], dtype=torch.float32
    )
    return DataProto.from_dict(
        tensors={
            "responses": torch.zeros(3, 8, dtype=torch.long),
            "response_mask": torch.tensor(MASK),
            "token_level_rewards": paid,
        },
        non_tensors={"uid": UIDS},
    )


@pytest.mark.parametrize(
    "settings",
    [None, {"estimator": "fixed_horizon", "gamma": 1.0}, {"singleton_turn": "zero", "weights": [1.0, 1.0, 2.0]}],
)
def test_verl_computes_turn_advantages_by_name(settings):
    algorithm = OmegaConf.create(
        {"adv_estimator": "rewright", "gamma": 1.0} | ({"rewright": settings} if settings else {})
    )
    found = compute_advantage(batch(), adv_estimator="rewright", config=algorithm)
    known = {key: value for key, value in (settings or {}).items() if key != "weights"}
    expected = per_token(advantages(TURNS, [0, 0, 0], **known), SPANS, 8)
    for name in ("advantages", "returns"):
        assert found.batch[name].dtype == torch.float32
        np.testing.assert_allclose(found.batch[name].numpy(), expected, atol=1e-6)


def test_gdpo_whitened_over_tokens_is_verl_s_own():
    """verl computes in float32. Its agent loops give our estimator no parts: this is for `rewright credit` and TRL."""
    draw = np.random.default_rng(0)
    lengths, uids = [3, 5, 1, 4, 2, 5], np.array(["a", "a", "a", "b", "b", "b"], dtype=object)
    mask = torch.tensor([[1] * length + [0] * (5 - length) for length in lengths])
    parts = {name: draw.normal(size=6).round(3) for name in ("right", "brief")}
    found, _ = compute_gdpo_outcome_advantage(
        torch.zeros(6, 5),
        mask,
        uids,
        config=OmegaConf.create({"gdpo_reward_keys": ["right", "brief"], "gdpo_reward_weights": [1.0, 0.5]}),
        non_tensor_batch=parts,
        batch={
            "prompts": torch.zeros(6, 2),
            "attention_mask": torch.cat([torch.ones(6, 2, dtype=torch.long), mask], dim=1),
        },
    )
    rows = advantages(
        [[0.0]] * 6,
        uids,
        estimator="gdpo",
        estimator_settings={"whitening": "tokens", "weights": {"brief": 0.5}},
        components=parts,
        token_counts=[[length] for length in lengths],
    )
    expected = mask.numpy() * np.array(rows)
    np.testing.assert_allclose(found.numpy(), expected, atol=5e-6)


def test_an_estimator_that_reads_more_than_rewards_is_refused():
    algorithm = OmegaConf.create({"adv_estimator": "rewright", "rewright": {"estimator": "gigpo"}})
    with pytest.raises(
        ValueError, match="estimator 'gigpo' reads the states of the turns, which this trainer does not"
    ):
        compute_advantage(batch(), adv_estimator="rewright", config=algorithm)


def test_the_v1_trainer_s_computation_calls_the_estimator_too():
    keys = ["a_0_0", "a_1_0", "a_2_0"]
    found = compute_advantage_for_multi_trajectories(
        batch(), batch_keys=keys, adv_estimator="rewright", config=OmegaConf.create({})
    )
    np.testing.assert_allclose(
        found.batch["advantages"].numpy(), per_token(advantages(TURNS, [0, 0, 0]), SPANS, 8), atol=1e-6
    )


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        ({"rewright": {"gama": 1.0}}, "gama"),
        ({"rewright": {"gamma": None}}, "Expected `float`, got `null`"),
        ({"rewright": "matchtir"}, "algorithm.rewright is 'matchtir': expected settings"),
        ({"rewright": {"join": "trajectory"}}, "join is 'trajectory'"),
        ({"rollout_correction": {"rollout_rs": "seq_mean_k3,token_k1"}}, "rollout_rs is .* rejecting single tokens"),
    ],
)
def test_a_wrong_setting_is_named(algorithm, message):
    with pytest.raises(ValueError, match=message):
        compute_advantage(batch(), "rewright", config=OmegaConf.create(algorithm))


@pytest.mark.parametrize(
    "correction",
    [None, RolloutCorrectionConfig(rollout_rs="seq_mean_k3"), RolloutCorrectionConfig("token", rollout_rs="token_k1")],
)
def test_the_algorithm_may_be_verl_s_dataclass(correction):
    algorithm = AlgoConfig(adv_estimator="rewright", rollout_correction=correction)
    if correction is not None and correction.rollout_rs == "token_k1":
        with pytest.raises(ValueError, match="rejecting single tokens"):
            compute_advantage(batch(), "rewright", config=algorithm)
        return
    found = compute_advantage(batch(), "rewright", config=algorithm).batch["advantages"].numpy()
    np.testing.assert_allclose(found, per_token(advantages(TURNS, [0, 0, 0]), SPANS, 8), atol=1e-6)


@pytest.mark.parametrize("variable", ["VERL_USE_EXTERNAL_MODULES"])
def test_verl_loads_the_estimator_by_module_name(variable):
    code = (
        "import verl, sys\n"
        "from verl.trainer.ppo.core_algos import get_adv_estimator_fn\n"
        "assert get_adv_estimator_fn('rewright').__module__ == 'rewright.integrations.verl.estimator'\n"
        "assert 'verl.experimental.agent_loop' not in sys.modules\n"
    )
    environment = os.environ | {variable: "rewright.integrations.verl"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


ADA, BEN = {"name": "lookup", "arguments": {"name": "Ada"}}, {"name": "lookup", "arguments": {"name": "Ben"}}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def written(*calls):
    return "".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls)


def lookup(name: str) -> str:
    """Look up a person's age.

    Args:
        name: The person.
    """
    return {"Ada": "36", "Ben": "41"}.get(name, "unknown")


class Recital:
    """An LLM server that says its lines."""

    def __init__(self, tokenizer, lines):
        self.tokenizer, self.lines = tokenizer, list(lines)

    async def generate(self, **request):
        line = self.lines.pop(0)
        return TokenOutput(token_ids=self.tokenizer.encode(line + "<|im_end|>", add_special_tokens=False))


def run_loop(lines, extra_info=None, settings=None, **rollout):
    from verl.tools.schemas import OpenAIFunctionToolSchema

    tokenizer = make_tokenizer(TEMPLATE)
    multi_turn = {
        "max_user_turns": None, "max_assistant_turns": None, "max_parallel_calls": 2, "max_tool_response_length": 256,
        "tool_response_truncate_side": "middle", "format": "hermes",
    }  # fmt: skip
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {
                "rollout": {
                    "prompt_length": 512, "response_length": rollout.pop("response_length", 2048),
                    "full_determinism": False, "multi_turn": multi_turn | rollout,
                }
            },
            "algorithm": {"rewright": {"aggregate": "mean"} if settings is None else settings},
            "data": {},
        }
    )  # fmt: skip
    schema = OpenAIFunctionToolSchema.model_validate(
        {
            "type": "function",
            "function": {
                "name": "lookup", "description": "Look up a person's age.",
                "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            },
        }
    )  # fmt: skip

    async def play():
        loop = TurnCreditToolAgentLoop(
            trainer_config=DictConfigWrap(config), server_manager=Recital(tokenizer, lines), tokenizer=tokenizer,
            processor=None, dataset_cls=None, data_config=DictConfigWrap(config.data),
            tools=ToolListWrap([FunctionTool(name="lookup", fn=lookup, tool_schema=schema)]),
        )  # fmt: skip
        return await loop.run(
            {}, raw_prompt=[{"role": "user", "content": "How old together?"}],
            extra_info={"gold_calls": json.dumps([ADA, BEN])} if extra_info is None else extra_info,
        )  # fmt: skip

    return tokenizer, asyncio.run(play())


def test_the_agent_loop_puts_turn_rewards_on_each_turn_s_last_token():
    tokenizer, output = run_loop([written(ADA), written(BEN), "77"])
    assert isinstance(output, TurnCreditOutput)
    assert output.turn_rewards == [1.0, 1.0, 0.0]
    output.reward_score = 1.0  # as verl's worker does after its reward function
    fields = output.as_dict()
    scores, mask = fields["rm_scores"], fields["response_mask"]
    assert scores.shape == mask.shape == fields["responses"].shape
    places = torch.nonzero(scores).flatten().tolist()
    assert len(places) == 3
    assert scores[places].tolist() == [1.0, 1.0, 1.0]
    assert all(mask[place] == 1 and (place + 1 == len(mask) or mask[place + 1] == 0) for place in places)
    assert all(tokenizer.decode([fields["responses"][place]]) == "<|im_end|>" for place in places)
    assert fields["extra_fields"]["turn_rewards"] == [1.0, 1.0, 0.0]
    assert "turn_rewards" not in fields


def test_the_rewards_survive_the_way_to_the_estimator():
    """as_dict -> padded batch -> advantage, for a group of three rollouts: what the v1 trainer does with them."""
    lines = [[written(ADA), written(BEN), "77"], [written(ADA, {"name": "lookup", "arguments": {}}), "36"], ["77"]]
    outputs = [run_loop(row)[1] for row in lines]
    fields = []
    for output, outcome in zip(outputs, [1.0, 0.0, 1.0], strict=True):
        output.reward_score = outcome
        fields.append(output.as_dict())
    pad = torch.nn.utils.rnn.pad_sequence
    tensors = {
        "responses": pad([row["responses"] for row in fields], batch_first=True),
        "response_mask": pad([row["response_mask"] for row in fields], batch_first=True),
        "token_level_rewards": pad([row["rm_scores"] for row in fields], batch_first=True),
    }
    data = DataProto(batch=TensorDict(tensors, batch_size=3), non_tensor_batch={"uid": UIDS})
    found = compute_advantage(data, "rewright", config=OmegaConf.create({})).batch["advantages"].numpy()
    calls = [[[ADA], [BEN], []], [[ADA, {"name": "lookup", "arguments": {}}], []], [[]]]
    rewards = [turn_rewards(turns, [ADA, BEN], outcome=o) for turns, o in zip(calls, [1.0, 0.0, 1.0], strict=True)]
    expected = advantages(rewards, [0, 0, 0])
    for row, mask, values in zip(found, tensors["response_mask"].numpy(), expected, strict=True):
        starts = np.flatnonzero(np.diff([0, *mask]) == 1)
        np.testing.assert_allclose(row[starts], values, atol=1e-6)


def test_calls_that_verl_does_not_execute_earn_nothing():
    _, output = run_loop([written(ADA, BEN), "77"], max_parallel_calls=1)
    assert output.turn_rewards == [0.5, 0.0]
    _, output = run_loop([written(ADA, BEN), "77"], max_parallel_calls=2)
    assert output.turn_rewards == [1.0, 0.0]


HEIGHT = {"name": "height", "arguments": {"name": "Ada"}}


def test_a_call_of_a_tool_that_verl_does_not_have_earns_nothing_even_if_it_is_a_gold_call():
    gold = {"gold_calls": json.dumps([ADA, HEIGHT])}
    _, output = run_loop([written(ADA, HEIGHT), "77"], gold)
    assert output.turn_rewards == [0.5, 0.0]


@pytest.mark.parametrize(
    "broken", ['<tool_call>{"name": "lookup", </tool_call>', "<tool_call>[]</tool_call>", '<tool_call>{"name": "look']
)
def test_a_call_that_verl_s_parser_drops_counts_as_in_rewright_s_own_rl(broken):
    _, output = run_loop([written(ADA) + broken, "77"])
    own = turn_rewards([Hermes().parse(written(ADA) + broken).calls, ()], [ADA, BEN], outcome=None)
    assert output.turn_rewards == list(own) == [0.5, 0.0]


def test_tools_that_verl_does_not_have_are_an_error_before_anything_is_generated():
    row = {"gold_calls": None, "tool_selection": ["lookup", "height"]}
    with pytest.raises(ValueError, match=r"tool_selection names height, which verl is not configured with.*lookup"):
        run_loop([], row)


def test_a_row_without_tools_is_offered_none_where_verl_would_offer_all():
    _, output = run_loop([written(ADA), "77"], {"gold_calls": json.dumps([ADA]), "tool_selection": []})
    assert output.turn_rewards == [0.0, 0.0]


@pytest.mark.parametrize("gold", ["[", '[{"arguments": {}}]', "7"])
def test_gold_calls_that_cannot_be_read_are_an_error_before_anything_is_generated(gold):
    with pytest.raises(ValueError, match=r"extra_info\.gold_calls"):
        run_loop([], {"gold_calls": gold})


def test_a_wrong_setting_is_an_error_before_anything_is_generated():
    with pytest.raises(ValueError, match="gama"):
        run_loop([], settings={"gama": 1.0})


def test_a_class_that_the_user_mapped_to_the_name_stays_mapped():
    code = (
        "from verl.experimental.agent_loop import agent_loop\n"
        "agent_loop._agent_loop_registry['rewright_tool_agent'] = {'_target_': 'mine.Loop'}\n"
        "import rewright.integrations.verl.agent_loop\n"
        "found = agent_loop._agent_loop_registry\n"
        "assert found['rewright_tool_agent'] == {'_target_': 'mine.Loop'}\n"
        "assert found['rewright_task_agent']['_target_'].endswith('agent_loop.TaskAgentLoop')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def table(folder, *rows):
    path = folder / "rows.parquet"
    rows = [{"data_source": "ages", "agent_name": "rewright_tool_agent", "prompt": [], **row} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return [f"data.train_files={path}", f"data.val_files={path}"]


def test_a_run_is_checked_before_it_starts(tmp_path, capfd):
    good = {"extra_info": {"gold_calls": "[]", "tool_selection": []}}
    base = ["algorithm.adv_estimator=rewright", *table(tmp_path, good)]

    def error(*more):
        code = check([*base, *more])
        (line,) = capfd.readouterr().err.splitlines()[-1:] or [""]
        return code, line

    assert error("+algorithm.rewright.gamma=1.0")[0] == error("--cfg", "job")[0] == 0
    (tmp_path / "loop.yaml").write_text(
        "- name: rewright_task_agent\n"
        "  _target_: rewright.integrations.verl.agent_loop.TaskAgentLoop\n"
        "  settings: {dialekt: hermes}\n"
    )
    loop = f"actor_rollout_ref.rollout.agent.agent_loop_config_path={tmp_path / 'loop.yaml'}"
    code, line = error(loop)
    assert (code, line.startswith("rewright: agent loop rewright_task_agent: settings: ")) == (2, True)
    assert "dialekt" in line
    assert error("trainer.use_v1=false")[1].startswith("rewright: trainer.use_v1 is false: expected true")
    assert error("trainer.no_such=1")[0] == 2
    code, line = error(*table(tmp_path, good, {"extra_info": {"gold_calls": "[", "tool_selection": []}}))
    assert (code, "rows.parquet: row 1: extra_info.gold_calls is not JSON" in line) == (2, True)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "signal=judge",
            "signal 'judge' needs a language model that judges: this trainer gives one trajectory at a time",
        ),
        ("signal=score", "signal 'score' reads the scores of the states, which this trainer does not provide"),
        (
            "compare.defaults=true",
            "compare.defaults is true, and this trainer does not provide the schemas of the tools",
        ),
        ("signal=no_such_package:f", "signal: "),
    ],
)
def test_the_check_refuses_signals_that_the_agent_loop_of_a_row_cannot_compute(tmp_path, capfd, setting, message):
    rows = table(tmp_path, {"extra_info": {"gold_calls": "[]", "tool_selection": []}})
    more = f"+algorithm.rewright.{setting}"
    assert check(["algorithm.adv_estimator=rewright", *rows, more]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith(f"rewright: algorithm.rewright: {message}")
    with pytest.raises(ValueError, match=message.split(":")[0]):
        run_loop([], settings=OmegaConf.from_dotlist([more.removeprefix("+")]).algorithm.rewright)


def test_the_check_is_a_command(tmp_path):
    settings = [*table(tmp_path, {"extra_info": {"gold_calls": None}}), "+algorithm.rewright.gama=1"]
    command = [sys.executable, "-m", "rewright.integrations.verl.check", "algorithm.adv_estimator=rewright", *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "rewright: algorithm.rewright: turn credit settings: " in done.stderr.splitlines()[-1]
    assert "gama" in done.stderr


def test_the_check_names_the_row_whose_tools_are_missing_or_whose_task_cannot_be_played():
    row = {"agent_name": "rewright_tool_agent", "extra_info": {"gold_calls": None, "tool_selection": ["age"]}}
    with pytest.raises(InputError, match=r"^t\.parquet: row 0: tool_selection names age, .*\(lookup\), or agent_name"):
        check_rows(iter([row]), "t.parquet", EpisodeSettings(), {"lookup"})
    check_rows(iter([row]), "t.parquet", EpisodeSettings(), {"age"})
    row = {"extra_info": {"task": '{"id": "a"}'}}
    with pytest.raises(InputError, match=r"^t\.parquet: row 0: extra_info\.task: .*messages"):
        check_rows(iter([row]), "t.parquet", EpisodeSettings(), set(), default="rewright_task_agent")
    check_rows(iter([row]), "t.parquet", EpisodeSettings(), set(), default="single_turn_agent")


def test_a_limit_ends_the_rollout_without_counting_the_turn_before_twice():
    _, output = run_loop([written(ADA), written(BEN)], max_assistant_turns=2)
    assert output.turn_rewards == [1.0, 0.0]
    _, output = run_loop([written(ADA), "a" * 300], response_length=120)
    assert output.turn_rewards == [1.0, 0.0]
    assert len(output.response_mask) == 120
    output.reward_score = 0.5
    assert output.as_dict()["rm_scores"].sum() == pytest.approx(1.5)


def test_the_agent_loop_is_registered_by_name():
    assert "rewright_tool_agent" in _agent_loop_registry


def test_a_row_that_does_not_say_its_gold_calls_is_refused():
    with pytest.raises(ValueError, match=r"extra_info has no 'gold_calls': expected a list of calls.*it has 'index'"):
        run_loop([written(ADA), "77"], extra_info={"index": 0})
    _, output = run_loop([written(ADA), "77"], extra_info={"gold_calls": None})
    assert output.turn_rewards == [0.0, 0.0]


def test_rows_without_gold_calls_are_rewarded_by_the_outcome_only():
    output = TurnCreditOutput(
        prompt_ids=[1], response_ids=[2, 3], response_mask=[1, 1], metrics={}, turn_rewards=[0.0], reward_score=0.75
    )
    assert output.as_dict()["rm_scores"].tolist() == [0.0, 0.75]
    assert SimpleNamespace(**output.as_dict()).responses.tolist() == [2, 3]


@register("signal", "verl_worked")
def worked(trajectories):
    """The first example of docs/signals.md; what it is given is kept."""

    def value(turn):
        results = turn.results
        return math.nan if turn.calls and results is None else float(not any("error" in one for one in results or ()))

    SEEN[:] = trajectories
    return [[value(turn) for turn in one.turns] for one in trajectories]


@register("signal", "verl_unknown")
def unknown(trajectories):
    """NaN for turns whose text says so."""
    return [[math.nan if "unsure" in turn.text else 1.0 for turn in one.turns] for one in trajectories]


SEEN = []


def test_a_signal_sees_results_texts_and_tokens():
    lines = [written(ADA, BEN) + written(ADA), "That is 77, " + "a" * 300]
    tokenizer, output = run_loop(lines, settings={"signal": "verl_worked"}, response_length=250)
    (seen,) = SEEN
    assert output.turn_rewards == [0.0, 1.0]  # the third call of the turn is more than verl executes
    assert [turn.results for turn in seen.turns] == [["36", "41", "error: not executed"], []]
    assert seen.turns[1].text.startswith("That is 77, a")  # verl has no message of a turn that a limit ended
    assert [message["content"] for message in seen.messages] == ["How old together?"]
    assert seen.golds == [ADA, BEN] and sum(output.response_mask) > 0
    assert seen.token_ids == output.prompt_ids + output.response_ids
    assert seen.mask == [0] * len(output.prompt_ids) + output.response_mask
    assert lines[0] in tokenizer.decode(seen.turns[0].token_ids)
    _, output = run_loop([written(ADA), written(ADA) + '<tool_call>{"name": </tool_call>', "77"],
                         settings={"signal": "verl_worked"})  # fmt: skip
    assert output.turn_rewards == [1.0, 0.0, 1.0]


def test_a_rollout_without_numbers_is_an_error_and_one_with_a_gap_is_left_out_with_a_warning(caplog):
    lines = [written(ADA), "I am unsure"]
    _, output = run_loop(lines, settings={"signal": "verl_unknown"})
    assert sum(output.response_mask) == 0
    assert "signal verl_unknown has no number for 1 of 2 turns of a rollout" in caplog.text
    _, output = run_loop(lines, settings={"signal": "verl_unknown", "missing": "bridge"})
    assert sum(output.response_mask) > 0 and output.turn_rewards == [1.0, 0.0]
    with pytest.raises(ValueError, match="signal verl_unknown has no number for any turn of this rollout"):
        run_loop(["unsure"], settings={"signal": "verl_unknown", "missing": "bridge"})


@pytest.mark.parametrize(
    "estimator", [{"name": "turn_credit", "centre": "token"}, {"name": "igpo", "normalize": "index"}]
)
def test_estimators_are_given_the_numbers_of_tokens(estimator):
    algorithm = OmegaConf.create({"adv_estimator": "rewright", "rewright": {"estimator": estimator}})
    found = compute_advantage(batch(), adv_estimator="rewright", config=algorithm).batch["advantages"].numpy()
    own = {key: value for key, value in estimator.items() if key != "name"}
    counts = [[end - start for start, end in row] for row in SPANS]
    expected = advantages(TURNS, [0] * 3, estimator=estimator["name"], estimator_settings=own, token_counts=counts)
    np.testing.assert_allclose(found, per_token(expected, SPANS, 8), atol=1e-6)


@pytest.mark.parametrize("estimator", ["grpo", "matchtir", "fixed_horizon", "igpo", "turn_credit"])
@pytest.mark.parametrize("turns", [[[0.8, 0.2], [1.0, 0.0]], [[1 / 3, 2 / 3], [0.9, 0.1]]])
def test_equal_rewards_that_were_float32_give_exactly_what_the_functions_give(turns, estimator):
    rows = [turn_to_token_rewards(row, mask) for row, mask in zip(turns, MASK[:1] * 2, strict=True)]
    tensors = {
        "responses": torch.zeros(2, 8, dtype=torch.long), "response_mask": torch.tensor(MASK[:1] * 2),
        "token_level_rewards": torch.tensor(rows, dtype=torch.float32),
    }  # fmt: skip
    data = DataProto.from_dict(tensors=tensors, non_tensors={"uid": UIDS[:2]})
    settings = {"estimator": estimator, "eps": 0.0, "gamma": 1.0}
    algorithm = OmegaConf.create({"adv_estimator": "rewright", "rewright": settings})
    found = compute_advantage(data, adv_estimator="rewright", config=algorithm).batch["advantages"].numpy()
    expected = advantages(turns, [0, 0], estimator=estimator, eps=0.0, gamma=1.0)
    np.testing.assert_allclose(found, per_token(expected, SPANS[:1] * 2, 8), atol=2e-6)
