"""Trajectories as input of credit signals, independent of where they were recorded.

`CreditTrajectory.of` converts a stored `rewright.core.records.Trajectory`. `CreditTrajectory.of_calls` is for sources
that provide only calls and gold calls, such as other trainers or chat logs. An unknown field is None, which signals
can distinguish from an empty one.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rewright.credit.calls import calls_of, freeze, read_call
from rewright.credit.tokens import spans_from_mask

if TYPE_CHECKING:
    from rewright.core.records import Message, Span, Task, Trajectory

__all__ = ["KEY_KINDS", "CreditTrajectory", "CreditTurn"]

KEY_KINDS: Final = ("history", "last_observation", "own", "action")
"""Kinds of keys of turns, see `CreditTrajectory.keys`."""


class CreditTurn(NamedTuple):
    """One model turn and the environment's response.

    Attributes:
        calls: tool calls in any shape that `rewright.credit` reads, malformed ones included.
        results: tool results, in the order of the calls.
        text: the generated text.
        token_ids: the generated tokens.
        suffix_ids: the tokens between this turn and the next.
        messages: user messages after the tool results.
        masked: the turn is excluded from the loss; its reward still counts in the returns of earlier turns.
    """

    calls: Sequence[Any]
    results: Sequence[str] | None = None
    text: str | None = None
    token_ids: Sequence[int] | None = None
    suffix_ids: Sequence[int] = ()
    messages: Sequence[Message] = ()
    masked: bool = False


@dataclass(frozen=True, slots=True)
class CreditTrajectory:
    """One attempt at a task, with T turns.

    Attributes:
        turns: the T turns.
        id: identifier for error messages.
        task_id: the task, or a label shared by attempts at the same task.
        messages: the conversation before the first turn.
        golds: gold calls.
        answers: gold answers.
        outcome: the outcome reward of the final answer.
        prompt_ids: the tokens before the first turn.
        scores: T + 1 state values, the first one before any turn; None for states that were not scored. Or a function
            that returns them, which is called when a signal reads them.
        tools: the schemas of the tools, for the comparison of calls with `defaults`.
        own_states: the environment's own name of the state before each turn, T; None for an unknown state. Or a
            function that returns them, which is called when an estimator reads them.
    """

    turns: Sequence[CreditTurn]
    id: str = ""
    task_id: Hashable | None = None
    messages: Sequence[Message] | None = None
    golds: Sequence[Any] | None = None
    answers: Sequence[str] | None = None
    outcome: float | None = None
    prompt_ids: Sequence[int] | None = None
    scores: Sequence[float | None] | Callable[[], Sequence[float | None] | None] | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    own_states: Sequence[Hashable] | Callable[[], Sequence[Hashable] | None] | None = None

    @classmethod
    def of(
        cls,
        trajectory: Trajectory,
        task: Task | None = None,
        *,
        outcome: float | None = None,
        scores: Sequence[float | None] | Callable[[], Sequence[float | None] | None] | None = None,
        own_states: Sequence[Hashable] | Callable[[], Sequence[Hashable] | None] | None = None,
    ) -> CreditTrajectory:
        """Convert a stored trajectory. `task` provides messages and gold; `outcome` is the verdict's.

        `scores` and `own_states` come from the environment, see the attributes.
        Token ids are stored as arrays, since tuples would need several times the memory for a whole run.
        """
        opening = trajectory.opening
        turns = [
            CreditTurn(
                calls=turn.calls,
                results=[result.content for result in turn.results],
                text=turn.opening + turn.text,
                token_ids=None if turn.token_ids is None else array("q", turn.token_ids),
                suffix_ids=array("q", turn.suffix_ids),
                messages=() if turn.follow_up is None else turn.follow_up.messages,
            )
            for turn in trajectory.turns
        ]
        return cls(
            turns=turns,
            id=trajectory.id,
            task_id=trajectory.task_id,
            messages=None
            if task is None
            else (*trajectory.began(task).messages, *(opening.messages if opening else ())),
            golds=None if task is None else task.gold.calls,
            answers=None if task is None else task.gold.answers,
            outcome=outcome,
            prompt_ids=None if trajectory.prompt_ids is None else array("q", trajectory.prompt_ids),
            scores=scores,
            own_states=own_states,
            tools=None if task is None else tuple(tool.schema for tool in task.all_tools),
        )

    @classmethod
    def of_calls(
        cls, turns: Sequence[Any] | None, golds: Sequence[Any] | None = None, **known: Any
    ) -> CreditTrajectory:
        """Build a trajectory from the calls of each turn. `known`: further fields, such as `outcome`.

        A turn of None has no calls; a turn that is not a list is read as a single call.
        """
        return cls(turns=[CreditTurn(calls_of(turn)) for turn in turns or ()], golds=golds, **known)

    def with_tokens(
        self, prompt_ids: Sequence[int], token_ids: Sequence[int], mask: Sequence[int] | None
    ) -> CreditTrajectory:
        """Copy the trajectory with its tokens.

        Args:
            prompt_ids: the tokens before the first turn.
            token_ids: the tokens after them, (L,).
            mask: 1 for generated tokens, else 0, (L,); each run of ones is a turn. None: all tokens are one turn.

        A last turn that has no run (truncation removed it) has no tokens. With more runs than turns the tokens of a
        turn are unknown, and the copy has none.
        """
        ids = list(token_ids)
        (spans,) = spans_from_mask([[1] * len(ids) if mask is None else list(mask)[: len(ids)]])
        if len(spans) > len(self.turns):
            return self
        starts = [*(start for start, _ in spans), len(ids)]
        turns = [
            turn._replace(token_ids=ids[start:end], suffix_ids=ids[end:following])
            for turn, (start, end), following in zip(self.turns, spans, starts[1:], strict=False)
        ]
        turns += [turn._replace(token_ids=[], suffix_ids=[]) for turn in self.turns[len(spans) :]]
        return replace(self, turns=turns, prompt_ids=[*prompt_ids, *ids[: starts[0]]])

    @property
    def calls(self) -> list[Sequence[Any]]:
        """The calls of each turn."""
        return [turn.calls for turn in self.turns]

    @property
    def spans(self) -> list[Span] | None:
        """The range [start, end) of each turn's generated tokens. None without token ids."""
        from rewright.core.records import Span  # imported lazily: credit from calls alone does not need msgspec

        if not self._has_tokens:
            return None
        position, spans = len(self.prompt_ids or ()), []
        for turn in self.turns:
            end = position + len(turn.token_ids or ())
            spans.append(Span(position, end))
            position = end + len(turn.suffix_ids)
        return spans

    @property
    def token_ids(self) -> list[int] | None:
        """The whole sequence, prompt included. None without token ids."""
        return self.prefix_ids(len(self.turns))

    @property
    def mask(self) -> list[int] | None:
        """Loss mask over `token_ids`: 1 for generated tokens of turns that are not masked, else 0. None without ids."""
        if not self._has_tokens:
            return None
        mask = [0] * len(self.prompt_ids or ())
        for turn in self.turns:
            mask.extend([0 if turn.masked else 1] * len(turn.token_ids or ()))
            mask.extend([0] * len(turn.suffix_ids))
        return mask

    def prefix_ids(self, turn: int) -> list[int] | None:
        """The tokens before turn `turn`, 0 <= turn <= T; turn T gives the whole sequence. None without token ids.

        Raises IndexError for a turn outside that range.
        """
        if not 0 <= turn <= len(self.turns):
            raise IndexError(f"turn is {turn}: expected 0 to {len(self.turns)}")
        if not self._has_tokens:
            return None
        ids = list(self.prompt_ids or ())
        for earlier in self.turns[:turn]:
            ids.extend(earlier.token_ids or ())
            ids.extend(earlier.suffix_ids)
        return ids

    def score(self, turn: int) -> float | None:
        """The value of the state after turn `turn`, -1 <= turn < T; -1 is before the first turn. None if not scored.

        Raises IndexError for a turn outside that range, and as `state_scores` does.
        """
        if not -1 <= turn < len(self.turns):
            raise IndexError(f"turn is {turn}: expected -1 to {len(self.turns) - 1}")
        scores = self.state_scores()
        return None if scores is None else scores[turn + 1]

    def state_scores(self) -> Sequence[float | None] | None:
        """The T + 1 state values; None if there are none. Raises ValueError unless there are T + 1."""
        scores = self.scores() if callable(self.scores) else self.scores
        if scores is not None and len(scores) != len(self.turns) + 1:
            raise ValueError(
                f"trajectory {self.id} has {len(scores)} scores: expected {len(self.turns) + 1}, that before the "
                f"first turn and those after its {len(self.turns)} turns"
            )
        return scores

    @property
    def state_keys(self) -> list[str | None]:
        """A hash of the state before each turn, (T,); equal states have equal keys, unknown states None.

        A state consists of the task, the system and user messages, and the calls so far with their results. Argument
        order, number format (5, 5.0) and the model's other text are ignored. A state is unknown if the task or the
        results of an earlier turn with calls are unknown.
        """
        if self.task_id is None:
            return [None] * len(self.turns)
        key: str | None = _digest([repr(self.task_id), *map(_message_text, self.messages or ())])
        keys: list[str | None] = []
        for turn in self.turns:
            keys.append(key)
            if key is None or (turn.calls and turn.results is None):
                key = None
                continue
            calls, results = map(_call_text, turn.calls), map(repr, turn.results or ())
            key = _digest([key, *calls, "results", *results, "messages", *map(_message_text, turn.messages)])
        return keys

    def keys(self, kind: str) -> list[Hashable]:
        """A key of each turn, (T,); equal keys mean equal states (or actions), None is unknown.

        Args:
            kind: "history": `state_keys`. "last_observation": the task and what the environment said last before the
                turn (results and user messages; before the first turn: the conversation), whatever came before.
                "own": the task and the environment's own state, `own_states`. "action": the calls of the turn itself,
                or its text if it has none.

        Raises ValueError for another kind, and for `own_states` that are not T.
        """
        if kind not in KEY_KINDS:
            raise ValueError(f"the kind of keys is {kind!r}: expected one of {', '.join(KEY_KINDS)}")
        if kind == "history":
            return list(self.state_keys)
        if kind == "action":
            return [
                _digest(["calls", *map(_call_text, turn.calls)]) if turn.calls else turn.text and f"text {turn.text}"
                for turn in self.turns
            ]
        if kind == "own":
            given = self.own_states() if callable(self.own_states) else self.own_states
            states: Sequence[Hashable] = [None] * len(self.turns) if given is None else given
            if len(states) != len(self.turns):
                raise ValueError(f"trajectory {self.id} has {len(states)} own_states: expected {len(self.turns)}")
        else:
            opening = _digest(["opening", *map(_message_text, self.messages or ())])
            states = [opening, *map(_observation, self.turns)][: len(self.turns)]
        task = self.task_id
        return [None if task is None or state is None else (task, state) for state in states]

    def state_key(self, turn: int) -> str | None:
        """The entry of `state_keys` for one turn. Raises IndexError for a turn out of range."""
        if not 0 <= turn < len(self.turns):
            raise IndexError(f"turn is {turn}: expected 0 to {len(self.turns) - 1}")
        return self.state_keys[turn]

    @property
    def _has_tokens(self) -> bool:
        return self.prompt_ids is not None and all(turn.token_ids is not None for turn in self.turns)


def _observation(turn: CreditTurn) -> str | None:
    """What the environment said after a turn; None if that is unknown."""
    if turn.calls and turn.results is None:
        return None
    return _digest(["results", *map(repr, turn.results or ()), "messages", *map(_message_text, turn.messages)])


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _message_text(message: Message) -> str:
    return f"{_canonical_text(message.get('role'))} {_canonical_text(message.get('content'))}"


def _call_text(call: Any) -> str:
    """Serialize a call; the text is equal for calls that are equal as JSON."""
    read = read_call(call)
    if read is None:
        return f"malformed {_canonical_text(call) if isinstance(call, Mapping) else repr(getattr(call, 'raw', call))}"
    name, values = read
    return f"{name!r} {_canonical_text(values)}"


def _canonical_text(value: Any) -> str:
    """Serialize a value to one line; the text is equal for values that are equal as JSON."""
    frozen = freeze(value)
    tokens = frozen if isinstance(frozen, tuple) else (frozen,)
    plain = (int(token) if isinstance(token, float) and token.is_integer() else token for token in tokens)
    return " ".join(map(repr, plain))
