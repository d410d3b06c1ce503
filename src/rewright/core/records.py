"""The vocabulary: every noun that Rewright stores, as versioned frozen records.

Nothing here computes rewards or talks to a model. Derived values (token sequence, spans, loss mask) are properties,
not stored. `None` means "not computed"; 0.0 means "computed, and zero".

Invariant: `Trajectory.token_ids` is exactly what the model saw and wrote: the prompt, then for every turn the tokens
that the model produced followed by the tokens of the tools' results. Nothing is ever tokenised a second time.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

__all__ = [
    "Credit",
    "Failure",
    "FollowUp",
    "Gold",
    "Message",
    "Provenance",
    "Quality",
    "Record",
    "Repair",
    "Span",
    "StopReason",
    "Task",
    "ToolCall",
    "ToolResult",
    "ToolSpec",
    "Trajectory",
    "Turn",
    "Verdict",
]

Message = dict[str, Any]
"""One chat message in the Hugging Face convention: `tool_calls[].function.arguments` is a dict."""

StopReason = Literal["answered", "no_answer", "turn_limit", "token_limit", "tool_limit", "time_limit", "error"]
"""How a trajectory ended. `no_answer`: the model ended a turn with neither a call nor an answer."""

RepairMode = Literal["low_quality", "wrong_answer"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the stored records. `version` is the version of the format, raised when a field changes meaning."""

    version: Literal[1] = 1


class ToolCall(msgspec.Struct, frozen=True):
    """A call that a model wrote. A malformed call is a call with an `error`; `raw` is the text as written."""

    name: str
    arguments: dict[str, Any]
    raw: str = ""
    error: str | None = None


class ToolResult(msgspec.Struct, frozen=True):
    """What a tool returned. `error` is None for a success; `content` is what the model is shown either way."""

    content: str
    error: str | None = None
    seconds: float = 0.0


class Span(NamedTuple):
    """Half-open token range [start, end) of one turn inside `Trajectory.token_ids`."""

    start: int
    end: int


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool: an OpenAI function schema, and what executes it.

    Exactly one of `source` (Python source text that defines a function of the schema's name) and `target`
    (`"package.module:function"`) is set for Python tools. A `target` is called as `function(**arguments)`, or with
    `data` as `function(data, **arguments)`. `kind` names another executor (`"python"`, `"search"`,
    `"mcp"`), configured by the recipe.
    """

    schema: dict[str, Any]
    source: str | None = None
    target: str | None = None
    data: Any = None
    kind: str = "function"

    @property
    def name(self) -> str:
        """The function name in the schema."""
        return str(self.schema["function"]["name"])


class Gold(msgspec.Struct, frozen=True):
    """What is right. Any part may be unknown (None)."""

    answers: tuple[str, ...] | None = None
    calls: tuple[ToolCall, ...] | None = None
    outputs: dict[str, list[str]] | None = None
    """Expected sub-answers of each tool, in hop order (FTRL's `unsolved_set`)."""


class FollowUp(msgspec.Struct, frozen=True):
    """What the user says when the model has ended its turn: with an answer, or without a call."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    """Tools that the model is told of from here on (they can be called all along)."""


class Task(Record, frozen=True, kw_only=True):
    """What is asked: in `messages`, then in one follow-up after the other."""

    id: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    follow_ups: tuple[FollowUp, ...] = ()
    gold: Gold = Gold()
    source: str = ""
    split: str = ""
    judge: str = "exact"
    metadata: dict[str, Any] = {}

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """The OpenAI function schemas of the tools, in order."""
        return [tool.schema for tool in self.tools]

    @property
    def all_tools(self) -> tuple[ToolSpec, ...]:
        """The tools, and those of the follow-ups."""
        return (*self.tools, *(tool for follow_up in self.follow_ups for tool in follow_up.tools))


class Turn(msgspec.Struct, frozen=True):
    """One generation of the model and what followed from it."""

    text: str
    token_ids: tuple[int, ...] | None = None
    """Tokens that the model produced, its end token included. None where the engine does not give them."""
    log_probs: tuple[float, ...] | None = None
    """Natural log-probabilities of `token_ids` at the sampling temperature, before top-p and top-k."""
    calls: tuple[ToolCall, ...] = ()
    results: tuple[ToolResult, ...] = ()
    stop: Literal["end", "length", "stop"] = "end"
    suffix_ids: tuple[int, ...] = ()
    """Tokens appended after the turn: tool results and the opening of the next turn. Never trained on."""
    prompt_tokens: int | None = None
    """Tokens of the prompt that this turn was generated from, as the engine counts them. None where it does not say."""
    completion_tokens: int | None = None
    """Tokens generated, as the engine counts them (thoughts that a server hides included)."""
    opening: str = ""
    """What the prompt had written of this turn's text already: the `<think>` of a template that opens a thought."""
    follow_up: FollowUp | None = None
    """What the user said after this turn, behind its results. None: the next turn is the model's again."""


class Failure(msgspec.Struct, frozen=True):
    """Why a trajectory ended with stop reason `error`: the part that failed, one line, and one word for what happened.

    `cause` is None where the part has no such words.
    """

    kind: str
    message: str
    cause: str | None = None

    @property
    def label(self) -> str:
        """What it is counted under: the part, and the cause where there is one."""
        return self.kind if self.cause is None else f"{self.kind} ({self.cause})"


class Provenance(msgspec.Struct, frozen=True):
    """Where a trajectory comes from. `parent` is the id of the trajectory that it repairs."""

    model: str = ""
    sampling: dict[str, Any] = {}
    seed: int | None = None
    parent: str | None = None
    tokenizer: str | None = None
    """Fingerprint of the tokenizer that the token ids belong to (`Renderer.fingerprint`)."""


class Credit(msgspec.Struct, frozen=True):
    """What RL made of one rollout: the numbers that it trained on, and what they were computed from."""

    turn_rewards: tuple[float, ...]
    trajectory_reward: float | None
    """None: the rollout broke, or nobody knows its outcome."""
    advantages: tuple[float, ...]
    """Of every turn."""
    verdict: Verdict | None = None
    format_problem: str | None = None
    reward_model: float | None = None
    """The reward model's score. None: RL had no reward model, or the rollout broke."""


class Trajectory(Record, frozen=True, kw_only=True):
    """One attempt at a task."""

    id: str
    task_id: str
    stage: str
    index: int
    turns: tuple[Turn, ...]
    stop_reason: StopReason
    prompt_ids: tuple[int, ...] | None = None
    answer: str | None = None
    failure: Failure | None = None
    provenance: Provenance = Provenance()
    seconds: float = 0.0
    credit: Credit | None = None
    """What RL used. None: no rollout of RL, one that was not scored, or one of an older version."""

    @property
    def token_ids(self) -> list[int]:
        """The whole sequence, prompt first. Raises ValueError where the engine gave no token ids."""
        if self.prompt_ids is None:
            raise ValueError(f"trajectory {self.id} has no token ids: its engine did not return them")
        ids = list(self.prompt_ids)
        for turn in self.turns:
            ids.extend(turn.token_ids or ())
            ids.extend(turn.suffix_ids)
        return ids

    @property
    def spans(self) -> list[Span]:
        """The token range of every turn in `token_ids`: model tokens only."""
        position = len(self.prompt_ids or ())
        spans: list[Span] = []
        for turn in self.turns:
            end = position + len(turn.token_ids or ())
            spans.append(Span(position, end))
            position = end + len(turn.suffix_ids)
        return spans

    @property
    def mask(self) -> list[int]:
        """1 for every token of `token_ids` that the model produced, else 0. Same length as `token_ids`."""
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
        """The turns after each message of the user: one list, and one for every follow-up that was given."""
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
    """Is the answer right? `outcome` lies in [0, 1]; `metrics` holds the judge's other numbers (Solve-F1 …)."""

    trajectory_id: str
    outcome: float
    reason: str
    answer: str | None = None
    metrics: dict[str, float] = {}

    @property
    def correct(self) -> bool:
        """True where the outcome counts as right (at least 0.5: the QA rule of AutoTraj's evaluation)."""
        return self.outcome >= 0.5


class Quality(Record, frozen=True, kw_only=True):
    """The scores of the evaluation dimensions, each in [0, 1], and their weighted total (unrounded)."""

    confidence: float
    length: float
    repetition: float
    total: float
    extra: dict[str, float] = {}
    trajectory_id: str = ""
    selected: Literal["kept", "low", "wrong"] | None = None


class Repair(Record, frozen=True, kw_only=True):
    """One decision of the repair stage: an original, the last attempt at repairing it, and why it was (not) taken."""

    original_id: str
    repaired_id: str | None
    task_id: str
    mode: RepairMode
    accepted: bool
    reason: str
    attempts: int = 1
    reasons: tuple[str, ...] = ()
    """Of every attempt, in order; the last one is `reason`. Empty in records of older versions."""
    tokens: int | None = None
    """Tokens that all attempts have generated. None where the engine does not say."""
    prompt_tokens: int | None = None
    """Tokens of all prompts that were sent for them."""
