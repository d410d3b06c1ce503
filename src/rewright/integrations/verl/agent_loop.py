"""verl: the agent loop "rewright_tool_agent", verl's tool agent loop with turn rewards. Written for verl 0.9.1.

Rows of the dataset select it by `agent_name: rewright_tool_agent`. It is configured by
`actor_rollout_ref.rollout.agent.agent_loop_config_path`, a YAML list with::

    - name: rewright_tool_agent
      _target_: rewright.integrations.verl.agent_loop.TurnCreditToolAgentLoop

Gold calls are read from `extra_info.gold_calls` (preferably as JSON text; null if they are unknown; a missing key is an
error). Tools, parser, limits and tokens are verl's. After the rollout, the calls of all turns are matched with the gold
calls. The output's `rm_scores` hold the reward of each turn on its last generated token; the score of the reward
function is added on the last token of the response.

A call that verl did not execute (more than `max_parallel_calls` in a turn, default 1) counts as malformed. verl does
not parse the calls of a turn at which a limit ended the rollout, so these are not counted.
"""

from __future__ import annotations

from typing import Any

import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.tool_agent_loop import AgentData, AgentState, ToolAgentLoop

from rewright.credit.messages import gold_of
from rewright.credit.token_level import turn_to_token_rewards
from rewright.integrations.verl.estimator import settings_of

__all__ = ["TurnCreditOutput", "TurnCreditToolAgentLoop"]

_TURN_CALLS_KEY = "rewright_turns"


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


@register("rewright_tool_agent")
class TurnCreditToolAgentLoop(ToolAgentLoop):  # type: ignore[misc]
    """verl's `ToolAgentLoop`; see the module's docstring."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> TurnCreditOutput:
        """Run verl's rollout and compute its turn rewards."""
        output = await super().run(sampling_params, **kwargs)
        turns = output.extra_fields.pop(_TURN_CALLS_KEY, [])
        golds = gold_of(kwargs.get("extra_info"), "extra_info")
        (rewards,) = settings_of(self.config.algorithm).call_rewards([turns], [golds])
        fields = {name: getattr(output, name) for name in output.model_fields_set}
        fields["extra_fields"] = {**output.extra_fields, "turn_rewards": rewards.tolist()}
        return TurnCreditOutput(**fields, turn_rewards=rewards.tolist())

    async def _handle_generating_state(self, agent_data: AgentData, *args: Any, **kwargs: Any) -> AgentState:
        """verl's method; also records the calls of the turn."""
        agent_data.tool_calls = []  # verl keeps those of the previous turn if a limit ends the rollout
        state = await super()._handle_generating_state(agent_data, *args, **kwargs)
        executed = agent_data.tool_calls[: self.max_parallel_calls]
        ignored = [{"name": call.name, "error": "not executed"} for call in agent_data.tool_calls[len(executed) :]]
        calls = [{"name": call.name, "arguments": call.arguments} for call in executed]
        agent_data.extra_fields.setdefault(_TURN_CALLS_KEY, []).append(calls + ignored)
        return state
