"""verl: agent loops with turn rewards. Written for verl 0.9.1 (v1 trainer, its default).

`rewright_task_agent` (`TaskAgentLoop`) plays a row's own task: its tools run in Rewright's sandbox, its calls are
parsed by Rewright's dialects, and its answer is judged by its own judge. `rewright_tool_agent`
(`TurnCreditToolAgentLoop`) is verl's tool agent loop with turn rewards; tools, parser, limits and the reward function
are verl's.

Rows of the dataset select a loop by `agent_name`. `actor_rollout_ref.rollout.agent.agent_loop_config_path` is a YAML
list of them::

    - name: rewright_task_agent
      _target_: rewright.integrations.verl.agent_loop.TaskAgentLoop
      settings: {dialect: hermes, limits: {turns: 8}}
    - name: rewright_tool_agent
      _target_: rewright.integrations.verl.agent_loop.TurnCreditToolAgentLoop

In both, `rm_scores` of the output hold the reward of each turn on its last generated token, and the outcome is added on
the last token of the response. Settings of the turn rewards are those of the estimator (`algorithm.rewright`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final
from uuid import uuid4

import msgspec
import numpy as np
import torch
from omegaconf import OmegaConf
from verl.experimental.agent_loop import agent_loop as verl_loops
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
from verl.experimental.agent_loop.tool_agent_loop import AgentData, AgentState, ToolAgentLoop
from verl.utils.fs import copy_to_local
from verl.utils.model import get_generation_config

from rewright.core.errors import InputError
from rewright.credit import CreditTrajectory, CreditTurn, spans_from_mask
from rewright.credit.messages import credit_turns, gold_of
from rewright.credit.settings import TurnCredit
from rewright.credit.token_level import turn_to_token_rewards
from rewright.dialects import get_dialect
from rewright.engines.base import Sampling
from rewright.integrations.verl.engine import VerlEngine
from rewright.integrations.verl.estimator import check_algorithm, check_loop
from rewright.integrations.verl.names import TASK_AGENT, TOOL_AGENT
from rewright.rollout.episodes import Episode, Episodes, read_settings, to_text
from rewright.rollout.loop import Plan, derive_seed

__all__ = ["TaskAgentLoop", "TurnCreditOutput", "TurnCreditToolAgentLoop"]

_LOG: Final = logging.getLogger(__name__)
_TURN_CALLS_KEY: Final = "rewright_turns"
_MESSAGES_KEY: Final = "rewright_messages"
_NOT_EXECUTED: Final = "error: not executed"
"""The result of a call that verl did not execute."""
DIALECTS: Final = {"hermes": "hermes", "qwen3_coder": "qwen-xml"}
"""Our dialects of verl's parsers (`multi_turn.format`), which find the malformed calls that verl's parsers drop."""
_LEFT_OUT: Final = (
    "signal %s has no number for %d of %d turns of a rollout, which is not trained on (missing: leave_out)"
)
SEEDED_SERVERS: Final = ("hf_cpu",)
"""Rollout servers that are always given a seed per request. vLLM is with `rollout.full_determinism` only: it is slower
with seeds."""


def _register(name: str, loop: type[AgentLoopBase]) -> None:
    """Register a loop, unless the user's configuration has mapped the name to a class of their own.

    verl reads that configuration first, and imports this module when a rollout needs the class.
    """
    if name not in verl_loops._agent_loop_registry:
        verl_loops.register(name)(loop)


class TurnCreditOutput(AgentLoopOutput):  # type: ignore[misc]
    """verl's output with one reward per turn. verl's v1 trainer reads its fields with `as_dict`."""

    turn_rewards: list[float]
    """Rewards of the calls, one per turn, without the outcome."""

    def as_dict(self) -> dict[str, Any]:
        """Return verl's fields, with the turn rewards and the reward function's score in `rm_scores`.

        `rm_scores` has shape (response_length,).
        """
        fields: dict[str, Any] = super().as_dict()
        fields.pop("turn_rewards", None)
        mask = fields["response_mask"].tolist()
        fields["rm_scores"] = torch.tensor(
            turn_to_token_rewards(self.turn_rewards, mask, self.reward_score), dtype=torch.float32
        )
        return fields


class TurnCreditToolAgentLoop(ToolAgentLoop):  # type: ignore[misc]
    """verl's `ToolAgentLoop` with turn rewards: the calls of all turns are matched with the gold calls.

    Gold calls are read from `extra_info.gold_calls` (preferably as JSON text; null if they are unknown; a missing key
    is an error). A call that verl did not execute counts as malformed: one that its parser cannot read, an unknown
    tool, and those beyond `max_parallel_calls` in a turn (default 1). verl does not parse the calls of a turn at which
    a limit ended the rollout, so these are not counted.

    A signal is given the calls with their results, the messages, the texts and the token ids. A call that was not
    executed has the result "error: not executed".

    Raises ValueError before anything is generated for settings that are wrong, gold calls that cannot be read, and a
    row whose `tool_selection` names tools that are not configured; after the rollout, if the signal has no number for
    any of its turns.
    """

    tools: dict[str, Any]
    tool_schemas: list[dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._credit = check_algorithm(self.config.algorithm)
        check_loop(self._credit, TOOL_AGENT)
        name = DIALECTS.get(self.tool_parser_name)
        self._dialect = None if name is None else get_dialect(name)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> TurnCreditOutput:
        """Run verl's rollout and compute its turn rewards."""
        info = kwargs.get("extra_info")
        golds = gold_of(info, "extra_info")
        self._select_tools((info or {}).get("tool_selection"))
        output = await super().run(sampling_params, **kwargs)
        calls = output.extra_fields.pop(_TURN_CALLS_KEY, [])
        messages = output.extra_fields.pop(_MESSAGES_KEY, [])
        prompt = list(kwargs["raw_prompt"])
        turns = self._turns(calls, messages[len(prompt) :])
        trajectory = CreditTrajectory(turns, id="rollout", messages=prompt, golds=golds).with_tokens(
            output.prompt_ids, output.response_ids, output.response_mask
        )
        trajectory = self._with_texts(trajectory)
        (rewards,) = self._credit.rewards_of([trajectory])
        if len(rewards) and np.isnan(rewards).all():
            raise ValueError(f"signal {self._credit.signal_name} has no number for any turn of this rollout")
        if self._credit.is_left_out(rewards):  # without a token in the mask it is in no group and is not trained on
            _LOG.warning(_LEFT_OUT, self._credit.signal_name, int(np.isnan(rewards).sum()), len(rewards))
            output.response_mask = [0] * len(output.response_mask)
        rewards = np.nan_to_num(rewards)
        fields = {name: getattr(output, name) for name in output.model_fields_set}
        fields["extra_fields"] = {**output.extra_fields, "turn_rewards": rewards.tolist()}
        return TurnCreditOutput(**fields, turn_rewards=rewards.tolist())

    def _turns(self, calls: Sequence[Sequence[Any]], messages: Sequence[dict[str, Any]]) -> list[CreditTurn]:
        """The turns of a rollout from their calls and from verl's messages after the prompt.

        A last turn at which a limit ended the rollout has no message.
        """
        parsed = sum(message["role"] == "assistant" for message in messages)
        turns = []
        for turn in credit_turns(messages, calls[:parsed]):
            results = list(turn.results or ())
            turns.append(turn._replace(results=[*results, *[_NOT_EXECUTED] * (len(turn.calls) - len(results))]))
        return [*turns, *(CreditTurn(one, results=[]) for one in calls[parsed:])]

    def _with_texts(self, trajectory: CreditTrajectory) -> CreditTrajectory:
        """The trajectory with the texts of turns that have no message."""
        turns = [
            turn._replace(text=self.tokenizer.decode(list(turn.token_ids), skip_special_tokens=True))
            if turn.text is None and turn.token_ids is not None
            else turn
            for turn in trajectory.turns
        ]
        return replace(trajectory, turns=turns)

    def _select_tools(self, names: Sequence[str] | None) -> None:
        """Check the tools of the row. verl drops unknown ones, and takes an empty selection for all tools."""
        if names is None:
            return
        missing = [name for name in names if name not in self.tools]
        if missing:
            known = ", ".join(self.tools) or "none"
            raise ValueError(
                f"extra_info.tool_selection names {', '.join(missing)}, which verl is not configured with: expected "
                f"tools of multi_turn.function_tool_path or tool_config_path ({known}), or agent_name: {TASK_AGENT}"
            )
        if not len(names):
            self.tools, self.tool_schemas = {}, []

    async def _handle_generating_state(self, agent_data: AgentData, *args: Any, **kwargs: Any) -> AgentState:
        """verl's method; also records the calls of the turn."""
        agent_data.tool_calls = []  # verl keeps those of the previous turn if a limit ends the rollout
        messages = len(agent_data.messages)
        state = await super()._handle_generating_state(agent_data, *args, **kwargs)
        tools = getattr(agent_data, "_active_tools", self.tools)
        calls: list[dict[str, Any]] = []
        for number, call in enumerate(agent_data.tool_calls):
            executed = number < self.max_parallel_calls and call.name in tools
            calls.append(
                {"name": call.name, "arguments": call.arguments}
                if executed
                else {"name": call.name, "error": "not executed"}
            )
        if len(agent_data.messages) > messages:  # verl has parsed the turn
            calls += [{"name": "", "error": "malformed"}] * self._malformed(agent_data, len(calls))
        agent_data.extra_fields.setdefault(_TURN_CALLS_KEY, []).append(calls)
        agent_data.extra_fields[_MESSAGES_KEY] = agent_data.messages  # verl appends the results to it
        return state

    def _malformed(self, agent_data: AgentData, parsed: int) -> int:
        """Number of calls in the turn beyond those that verl has parsed."""
        if self._dialect is None:
            return 0
        text = self.tokenizer.decode(agent_data.response_ids)
        return max(0, len(self._dialect.parse(text).calls) - parsed)


class TaskAgentLoop(AgentLoopBase):  # type: ignore[misc]
    """Plays the task in `extra_info.task` (JSON text of a `rewright.core.records.Task`), as Rewright's own RL does.

    The prompt is rendered from the task. The reward is that of the task's judge, so a reward function is not called.
    `reward_extra_info.acc` is the outcome.

    Args:
        trainer_config, server_manager, tokenizer: verl's.
        settings: settings of the episodes (`rewright.rollout.episodes.EpisodeSettings`): a mapping or JSON text.
        others: verl's further arguments, which are not used.

    Raises InputError, before anything is generated, for wrong settings and for a row whose task cannot be played. `run`
    raises the error of a rollout with an infrastructure failure; verl then leaves it out of the batch.
    """

    def __init__(
        self, trainer_config: Any, server_manager: Any, tokenizer: Any, *, settings: Any = "{}", **others: Any
    ) -> None:
        # The constructor of verl's base prepares its own rendering, and warns in every rollout if it does not know the
        # model. Here the prompt is rendered by Rewright.
        self.config, self.server_manager, self.tokenizer = trainer_config.config, server_manager, tokenizer
        self.rollout_config = self.config.actor_rollout_ref.rollout
        given = settings if isinstance(settings, str) else OmegaConf.to_container(settings, resolve=True)
        read = read_settings(given, f"agent loop {TASK_AGENT}: settings")
        self._path = str(self.config.actor_rollout_ref.model.path)
        turn_credit = check_algorithm(self.config.algorithm)
        check_loop(turn_credit, TASK_AGENT)
        self._signal_name = turn_credit.signal_name
        credit = msgspec.json.encode(turn_credit).decode()
        self._episodes = _episodes(to_text(read), self.tokenizer, credit, self._response_length)

    @property
    def _response_length(self) -> int:
        return int(self.rollout_config.response_length)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> TurnCreditOutput:
        """Play the row's task."""
        info = kwargs.get("extra_info") or {}
        if "task" not in info:
            raise InputError(
                f"extra_info has no 'task', which {TASK_AGENT} plays: expected rows of `rewright export --format verl`"
            )
        episodes = self._episodes
        plan = self._plan(episodes, info, kwargs)
        rollout = self.rollout_config
        engine = VerlEngine(
            self.server_manager,
            self.tokenizer,
            sampling_params,
            name=self._path,
            end_ids=_end_ids(self._path, self.tokenizer),
            prompt_length=int(rollout.prompt_length),
            context=int(rollout.prompt_length) + self._response_length,
            request_id=plan.id if rollout.full_determinism else uuid4().hex,
            seeded=bool(rollout.full_determinism) or rollout.name in SEEDED_SERVERS,
            extra={"priority": kwargs["priority"]} if "priority" in kwargs else None,
        )
        sampling = Sampling(temperature=sampling_params["temperature"], top_p=sampling_params["top_p"])
        episode = await episodes.run(plan, engine, sampling)
        # verl needs the version of the weights, also for a rollout that ended before its first request.
        version = max(0, int(kwargs.get("global_steps", 1)) - 1)
        return self._output(episode, engine, {"min_global_steps": version, "max_global_steps": version})

    def _plan(self, episodes: Episodes, info: dict[str, Any], row: dict[str, Any]) -> Plan:
        task = episodes.task(info["task"], f"row {info.get('index', '?')}: extra_info.task")
        stage = str(info.get("stage") or "rl")
        # verl counts steps from 1, and validates before the first with 0.
        step, index = max(0, int(row.get("global_steps", 1)) - 1), int(row.get("session_id", 0))
        seed = derive_seed(episodes.settings.seed, stage, task.id, step, index)
        return Plan(id=f"{stage}/{task.id}/{step}/{index}", task=task, stage=stage, index=index, seed=seed)

    def _output(self, episode: Episode, engine: VerlEngine, versions: dict[str, Any]) -> TurnCreditOutput:
        trajectory = episode.trajectory
        start = len(trajectory.prompt_ids or ())
        ids, mask = trajectory.token_ids[start:], trajectory.mask[start:]
        log_probs: list[float] | None = []
        for turn in trajectory.turns:
            if log_probs is None or turn.log_probs is None:
                log_probs = None
                break
            log_probs += [*turn.log_probs, *([0.0] * len(turn.suffix_ids))]
        if episode.left_out:
            missing = [reward is None for reward in trajectory.credit.turn_rewards] if trajectory.credit else []
            _LOG.warning(_LEFT_OUT, self._signal_name, sum(missing), len(missing))
            mask = [0] * len(mask)  # without a token in the mask it is in no group and is not trained on
        if not ids:  # verl takes no empty response; without a token in the mask it is in no group
            ids, mask = [int(self.tokenizer.eos_token_id)], [0]
            log_probs = None if log_probs is None else [0.0]
        rewards = [
            reward for reward, turn in zip(episode.call_rewards, trajectory.turns, strict=True) if turn.token_ids
        ]
        (spans,) = spans_from_mask([mask])
        if episode.left_out:
            rewards = []
        if len(spans) != len(rewards):
            raise ValueError(
                f"trajectory {trajectory.id} has {len(rewards)} turns and {len(spans)} runs of generated tokens: "
                "expected tokens between the turns"
            )
        tool_seconds = sum(result.seconds for result in trajectory.results)
        information = {
            "turn_rewards": rewards,
            "turn_scores": rewards,
            "tool_rewards": [],
            "stop_reason": trajectory.stop_reason,
            "trajectory_id": trajectory.id,
            "reward_extra_info": {"acc": episode.verdict.outcome},
        }
        fields: dict[str, Any] = {} if log_probs is None else {"response_logprobs": log_probs}
        if engine.routed_experts is not None:
            fields["routed_experts"] = engine.routed_experts[: start + self._response_length]
        return TurnCreditOutput(
            prompt_ids=list(trajectory.prompt_ids or ()),
            response_ids=ids,
            response_mask=mask,
            reward_score=episode.rest,
            num_turns=len(trajectory.turns) + sum(bool(turn.suffix_ids) for turn in trajectory.turns) + 1,
            metrics=AgentLoopMetrics(
                generate_sequences=engine.seconds,
                tool_calls=tool_seconds,
                num_preempted=-1 if engine.preempted is None else engine.preempted,
            ),
            extra_fields=versions | engine.fields | information,
            turn_rewards=rewards,
            **fields,
        )


@lru_cache(maxsize=8)
def _episodes(settings: str, tokenizer: Any, credit: str, max_tokens: int) -> Episodes:
    """The episodes of this worker process, with one sandbox for all of its rollouts."""
    turn_credit = TurnCredit.of(msgspec.json.decode(credit))
    return Episodes(read_settings(settings, "settings"), tokenizer, turn_credit, max_tokens=max_tokens)


@lru_cache(maxsize=8)
def _end_ids(path: str, tokenizer: Any) -> tuple[int, ...]:
    """The token ids at which the rollout servers end a turn: those of the tokenizer and of the model's generation."""
    configuration = get_generation_config(copy_to_local(path))
    found: set[int] = set()
    for value in (tokenizer.eos_token_id, getattr(configuration, "eos_token_id", None)):
        found.update([value] if isinstance(value, int) else value or ())
    return tuple(sorted(found))


_register(TASK_AGENT, TaskAgentLoop)
_register(TOOL_AGENT, TurnCreditToolAgentLoop)
