"""verl: the agent loop "rewright_tool_agent", verl's tool agent loop with turn rewards. Written for verl 0.9.1.

Rows of the dataset choose it by `agent_name: rewright_tool_agent`; it is found through
`actor_rollout_ref.rollout.agent.agent_loop_config_path`, a YAML list with::

    - name: rewright_tool_agent
      _target_: rewright.integrations.verl_agent_loop.TurnCreditToolAgentLoop

Gold calls come from `extra_info.gold_calls` (best as JSON text; null where they are unknown, while a missing key is an
error). Tools, parser, limits and tokens are verl's own; after the rollout the calls of all turns are matched with the
gold calls, and the output's `rm_scores` hold each turn's reward on its last model token, and the reward function's
score, added, on the very last.

A call that verl did not execute (more than `max_parallel_calls` in a turn, default 1) counts as malformed. Calls of a
turn at which a limit ended the rollout are not parsed by verl and not counted.
"""

from __future__ import annotations

from typing import Any

import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput, register
from verl.experimental.agent_loop.tool_agent_loop import AgentData, AgentState, ToolAgentLoop

from rewright.credit.messages import gold_of
from rewright.credit.token_level import turn_to_token_rewards
from rewright.integrations.verl import settings_of

__all__ = ["TurnCreditOutput", "TurnCreditToolAgentLoop"]

_TURNS = "rewright_turns"


class TurnCreditOutput(AgentLoopOutput):  # type: ignore[misc]
    """verl's output, with a reward for each turn. verl's v1 trainer asks it for its fields by `as_dict`."""

    turn_rewards: list[float]
    """From the calls alone, one for each turn of the model."""

    def as_dict(self) -> dict[str, Any]:
        """verl's fields; `rm_scores` (response_length,) with the turn rewards and the reward function's score."""
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
        """One rollout of verl's, then its turn rewards."""
        output = await super().run(sampling_params, **kwargs)
        turns = output.extra_fields.pop(_TURNS, [])
        golds = gold_of(kwargs.get("extra_info"), "extra_info")
        (rewards,) = settings_of(self.config.algorithm).call_rewards([turns], [golds])
        fields = {name: getattr(output, name) for name in output.model_fields_set}
        fields["extra_fields"] = {**output.extra_fields, "turn_rewards": rewards.tolist()}
        return TurnCreditOutput(**fields, turn_rewards=rewards.tolist())

    async def _handle_generating_state(self, agent_data: AgentData, *args: Any, **kwargs: Any) -> AgentState:
        """verl's step, after which the turn's calls are noted down."""
        agent_data.tool_calls = []  # verl leaves those of the turn before where a limit ends the rollout
        state = await super()._handle_generating_state(agent_data, *args, **kwargs)
        executed = agent_data.tool_calls[: self.max_parallel_calls]
        ignored = [{"name": call.name, "error": "not executed"} for call in agent_data.tool_calls[len(executed) :]]
        calls = [{"name": call.name, "arguments": call.arguments} for call in executed]
        agent_data.extra_fields.setdefault(_TURNS, []).append(calls + ignored)
        return state
