"""The data model: everything that Rewright stores, as versioned frozen records.

Nothing here computes rewards or calls a model. Derived values (token sequence, spans, loss mask) are properties and
are not stored. `None` means "not computed"; 0.0 means "computed, and zero".

Invariant: `Trajectory.token_ids` is exactly what the model read and generated: the prompt, then for every turn the
generated tokens followed by the tokens of the tool results. Nothing is tokenised twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from rewright.core.task_records import (
    FollowUp,
    Gold,
    Message,
    MessageUsage,
    Prerequisites,
    Record,
    SimulatedUser,
    Task,
    ToolCall,
    ToolResult,
    ToolSpec,
)

__all__ = [
    "CLUSTER",
    "LIMIT_STOPS",
    "Credit",
    "Failure",
    "FollowUp",
    "Gold",
    "Message",
    "MessageUsage",
    "Prerequisites",
    "Provenance",
    "Quality",
    "Record",
    "Repair",
    "RepairForm",
    "SimulatedUser",
    "Span",
    "StopReason",
    "Task",
    "ToolCall",
    "ToolResult",
    "ToolSpec",
    "Trajectory",
    "Turn",
    "Verdict",
    "label_of",
]

StopReason = Literal[
    "answered", "called", "no_answer", "turn_limit", "token_limit", "tool_limit", "time_limit", "error"
]
"""How a trajectory ended. `no_answer`: the model ended a turn with neither a call nor an answer. `called`: with calls
of declared tools, which nothing executes (see `ToolSpec.kind`)."""

CLUSTER: Final = "cluster"
"""Key of `Task.metadata`: tasks with the same value are variants of one, so that intervals treat them as a group."""


def label_of(metadata: Mapping[str, Any], key: str) -> str:
    """Return the value of a key of `Task.metadata` that groups tasks (`category`, `CLUSTER`) as a text; "": no group.

    The number 0 is a group as any other.
    """
    value = metadata.get(key)
    return "" if value is None else str(value)


LIMIT_STOPS: Final[tuple[StopReason, ...]] = ("token_limit", "turn_limit", "tool_limit", "time_limit")
"""The stop reasons of trajectories that a limit ended."""

RepairMode = Literal["low_quality", "wrong_answer"]

RepairForm = Literal["rewrite", "splice"]
"""`rewrite`: the whole solution is generated again. `splice`: it begins with the turns before the first wrong one."""


class Span(NamedTuple):
    """Half-open token range [start, end) of one turn inside `Trajectory.token_ids`."""

    start: int
    end: int


class Turn(msgspec.Struct, frozen=True):
    """One generation of the model, with its tool calls and their results."""

    text: str
    """The generated text."""
    token_ids: tuple[int, ...] | None = None
    """Generated tokens, the end token included. None if the engine does not return them."""
    log_probs: tuple[float, ...] | None = None
    """Log-probabilities (natural logarithm) of `token_ids` at the sampling temperature, before top-p and top-k."""
    calls: tuple[ToolCall, ...] = ()
    """The calls in the text, malformed ones included."""
    results: tuple[ToolResult, ...] = ()
    """The results of the calls, in order."""
    stop: Literal["end", "length", "stop"] = "end"
    """Why the generation ended: an end token, a limit of tokens, or a stop string."""
    suffix_ids: tuple[int, ...] = ()
    """Tokens appended after the turn: tool results and the generation prompt of the next turn. Never trained on."""
    prompt_tokens: int | None = None
    """Number of prompt tokens of this generation as reported by the engine. None if it does not report them."""
    completion_tokens: int | None = None
    """Number of generated tokens as reported by the engine (hidden reasoning tokens included)."""
    opening: str = ""
    """The part of the turn's text that the generation prompt already contains, such as `<think>`."""
    follow_up: FollowUp | None = None
    """The user message after this turn and its results. None: the next turn is the model's."""
    weights_version: int | None = None
    """Version of the weights that generated the turn: in RL the number of the step, from 0. None: not an RL rollout, or
    stored by an older version."""


class Failure(msgspec.Struct, frozen=True):
    """Why a trajectory ended with stop reason `error`.

    `kind` is the component that failed, `message` one line, and `cause` one word for the cause (None if the component
    does not classify its failures).
    """

    kind: str
    """The component that failed."""
    message: str
    """One line."""
    cause: str | None = None
    """One word for the cause."""

    @property
    def label(self) -> str:
        """The name under which the failure is counted: the component, and the cause if there is one."""
        return self.kind if self.cause is None else f"{self.kind} ({self.cause})"


class Provenance(msgspec.Struct, frozen=True):
    """The origin of a trajectory. `parent` is the id of the trajectory that it repairs."""

    model: str = ""
    """Name of the model."""
    sampling: dict[str, Any] = {}
    """Sampling parameters."""
    seed: int | None = None
    """Seed of the sampling."""
    parent: str | None = None
    """Id of the trajectory that this one repairs."""
    tokenizer: str | None = None
    """Fingerprint of the tokenizer that the token ids belong to (`Renderer.fingerprint`)."""
    form: RepairForm | None = None
    """How it repairs its parent. None: it is no repair, or one of an older version, which is a rewrite."""
    turn: int | None = None
    """The first turn that the repair has generated, from 0: it begins with this number of turns of its parent. None: it
    is no splice."""


class Credit(msgspec.Struct, frozen=True):
    """The credit of one RL rollout: the values that it was trained with and what they were computed from."""

    turn_rewards: tuple[float | None, ...]
    """One per turn. None: the credit signal has no number for the turn."""
    trajectory_reward: float | None
    """None: the rollout has an infrastructure failure, its outcome is unknown, or the credit signal has no number for
    one of its turns."""
    advantages: tuple[float, ...]
    """One per turn."""
    verdict: Verdict | None = None
    """The judgement of the answer."""
    format_problem: str | None = None
    """Why the format is invalid; None if it is valid or not checked."""
    reward_model: float | None = None
    """The reward model's score. None: no reward model was used, or the rollout has an infrastructure failure."""


class Trajectory(Record, frozen=True, kw_only=True):
    """One attempt at a task."""

    id: str
    """Identifier: stage, task, index, and a hash of the settings."""
    task_id: str
    """Id of the task."""
    stage: str
    """The stage that generated it."""
    index: int
    """Number among the attempts of the stage at the task, from 0."""
    turns: tuple[Turn, ...]
    """The generations of the model, in order."""
    stop_reason: StopReason
    """How it ended."""
    prompt_ids: tuple[int, ...] | None = None
    """Token ids of the prompt. None if the engine does not return them."""
    answer: str | None = None
    """The answer. None: there is none."""
    failure: Failure | None = None
    """Set if the stop reason is `error`."""
    provenance: Provenance = Provenance()
    """Model, sampling and parent."""
    seconds: float = 0.0
    """Wall-clock time, in seconds."""
    opening: FollowUp | None = None
    """The simulated user's message before the first turn, which ends the prompt. None: the task has all of it."""
    ending: FollowUp | None = None
    """The simulated user's last message, with which it ended the conversation. The model did not read it."""
    prompt: tuple[Message, ...] | None = None
    """The task's messages as they began, where they depend on its prerequisites. None: those of the task."""
    credit: Credit | None = None
    """The credit assigned by RL. None: not an RL rollout, not scored, or stored by an older version."""

    def began(self, task: Task) -> Task:
        """Return the task as this trajectory began it: with the messages of `prompt`, if there are any."""
        return task if self.prompt is None else msgspec.structs.replace(task, messages=self.prompt)

    @property
    def token_ids(self) -> list[int]:
        """The whole sequence, prompt first. Raises ValueError if the engine returned no token ids."""
        if self.prompt_ids is None:
            raise ValueError(f"trajectory {self.id} has no token ids: its engine did not return them")
        ids = list(self.prompt_ids)
        for turn in self.turns:
            ids.extend(turn.token_ids or ())
            ids.extend(turn.suffix_ids)
        return ids

    @property
    def spans(self) -> list[Span]:
        """The token range of every turn in `token_ids`, generated tokens only."""
        position = len(self.prompt_ids or ())
        spans: list[Span] = []
        for turn in self.turns:
            end = position + len(turn.token_ids or ())
            spans.append(Span(position, end))
            position = end + len(turn.suffix_ids)
        return spans

    @property
    def mask(self) -> list[int]:
        """1 for every generated token of `token_ids`, else 0. Same length as `token_ids`."""
        mask = [0] * len(self.prompt_ids or ())
        for turn in self.turns:
            mask.extend([1] * len(turn.token_ids or ()))
            mask.extend([0] * len(turn.suffix_ids))
        return mask

    @property
    def calls(self) -> list[ToolCall]:
        """All calls in order, malformed ones included."""
        return [call for turn in self.turns for call in turn.calls]

    @property
    def exchanges(self) -> list[list[Turn]]:
        """The turns after each user message: one list for the prompt, and one for every follow-up that was sent."""
        exchanges: list[list[Turn]] = [[]]
        for turn in self.turns:
            exchanges[-1].append(turn)
            if turn.follow_up is not None:
                exchanges.append([])
        return exchanges

    @property
    def results(self) -> list[ToolResult]:
        """All tool results in order."""
        return [result for turn in self.turns for result in turn.results]


class Verdict(Record, frozen=True, kw_only=True):
    """The judgement of an answer. `outcome` is in [0, 1]; `metrics` holds other values of the judge (Solve-F1 …)."""

    trajectory_id: str
    """Id of the judged trajectory."""
    outcome: float
    """How right the answer is, in [0, 1]."""
    reason: str
    """One line."""
    answer: str | None = None
    """The judged answer."""
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    """Other values of the judge, by name."""

    @property
    def correct(self) -> bool:
        """True if the outcome counts as correct (at least 0.5: the QA rule of AutoTraj's evaluation)."""
        return self.outcome >= 0.5


class Quality(Record, frozen=True, kw_only=True):
    """Quality scores: one per dimension, each in [0, 1], and their weighted total (unrounded)."""

    confidence: float
    length: float
    repetition: float
    total: float
    extra: dict[str, float] = msgspec.field(default_factory=dict)
    trajectory_id: str = ""
    selected: Literal["kept", "low", "wrong"] | None = None


class Repair(Record, frozen=True, kw_only=True):
    """A decision of the repair stage: the original, its last repair attempt, and why that was (not) accepted."""

    original_id: str
    repaired_id: str | None
    task_id: str
    mode: RepairMode
    accepted: bool
    reason: str
    attempts: int = 1
    reasons: tuple[str, ...] = ()
    """The reason of every attempt, in order; the last one is `reason`. Empty in records of older versions."""
    tokens: int | None = None
    """Tokens generated by all attempts. None if the engine does not report them."""
    prompt_tokens: int | None = None
    """Prompt tokens of all attempts."""
    form: RepairForm = "rewrite"
    """How the original was repaired."""
    turn: int | None = None
    """The first wrong turn of the original, from 0, where a splice begins. None: not a splice."""
    turn_reason: str | None = None
    """Why this turn is taken for the first wrong one."""
