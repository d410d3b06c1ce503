"""What a credit signal sees of an attempt at a task: whole trajectories, ours or another project's.

`CreditTrajectory.of` makes one of a stored `rewright.core.records.Trajectory`; `CreditTrajectory.of_calls` makes one
where nothing but the calls and the gold calls is known, as in another trainer or in a chat log. A field that is not
known is None, so that a signal can tell it from an empty one.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from rewright.credit.calls import calls_of, freeze, read_call

if TYPE_CHECKING:
    from rewright.core.records import Message, Span, Task, Trajectory

__all__ = ["CreditTrajectory", "CreditTurn"]


class CreditTurn(NamedTuple):
    """One turn of the model and what followed from it.

    `calls`: in any shape that `rewright.credit` reads, malformed ones included. `results`: what the tools returned, in
    the order of the calls. `text`: what the model wrote. `token_ids`: the tokens that it produced. `suffix_ids`: the
    tokens between this turn and the next. `messages`: what the user said behind the results. `masked`: the turn is not
    trained on; its reward still counts in the returns of the turns before it.
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
    """One attempt at a task, of T turns.

    `id`: for messages. `task_id`: the task, or the label of those that attempt the same. `messages`: the conversation
    before the first turn. `golds`: gold calls. `answers`: gold answers. `outcome`: how right the answer is.
    `prompt_ids`: the tokens before the first turn. `scores`: how good the state is, T + 1 numbers of which the first
    one is that of the task before any turn; None where a state was not scored.
    """

    turns: Sequence[CreditTurn]
    id: str = ""
    task_id: Hashable | None = None
    messages: Sequence[Message] | None = None
    golds: Sequence[Any] | None = None
    answers: Sequence[str] | None = None
    outcome: float | None = None
    prompt_ids: Sequence[int] | None = None
    scores: Sequence[float | None] | None = None

    @classmethod
    def of(
        cls,
        trajectory: Trajectory,
        task: Task | None = None,
        *,
        outcome: float | None = None,
        scores: Sequence[float | None] | None = None,
    ) -> CreditTrajectory:
        """A stored trajectory. `task` adds its messages and what is right; `outcome` is the verdict's.

        Token ids become arrays: of a whole run, tuples would take several times the memory.
        """
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
            messages=None if task is None else task.messages,
            golds=None if task is None else task.gold.calls,
            answers=None if task is None else task.gold.answers,
            outcome=outcome,
            prompt_ids=None if trajectory.prompt_ids is None else array("q", trajectory.prompt_ids),
            scores=scores,
        )

    @classmethod
    def of_calls(
        cls, turns: Sequence[Any] | None, golds: Sequence[Any] | None = None, **known: Any
    ) -> CreditTrajectory:
        """A trajectory of which the calls of each turn are known. `known`: further fields, such as `outcome`.

        A turn that is None has no calls; one that is no list is a turn of that one call.
        """
        return cls(turns=[CreditTurn(calls_of(turn)) for turn in turns or ()], golds=golds, **known)

    @property
    def calls(self) -> list[Sequence[Any]]:
        """The calls of each turn."""
        return [turn.calls for turn in self.turns]

    @property
    def spans(self) -> list[Span] | None:
        """The token range [start, end) of every turn: model tokens only. None where there are no token ids."""
        from rewright.core.records import Span  # needs msgspec, which a program with calls alone does without

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
        """The whole sequence, prompt first. None where there are no token ids."""
        return self.prefix_ids(len(self.turns))

    @property
    def mask(self) -> list[int] | None:
        """1 for every token of `token_ids` that the model produced in a turn that is trained on, else 0; or None."""
        if not self._has_tokens:
            return None
        mask = [0] * len(self.prompt_ids or ())
        for turn in self.turns:
            mask.extend([0 if turn.masked else 1] * len(turn.token_ids or ()))
            mask.extend([0] * len(turn.suffix_ids))
        return mask

    def prefix_ids(self, turn: int) -> list[int] | None:
        """The tokens that turn `turn` was written behind; None where there are no token ids.

        Turn T, behind the last one, is the whole sequence. Raises IndexError for another turn than 0 to T.
        """
        if not 0 <= turn <= len(self.turns):
            raise IndexError(f"turn is {turn}: expected 0 to {len(self.turns)}")
        if not self._has_tokens:
            return None
        ids = list(self.prompt_ids or ())
        for one in self.turns[:turn]:
            ids.extend(one.token_ids or ())
            ids.extend(one.suffix_ids)
        return ids

    def score(self, turn: int) -> float | None:
        """How good the state after turn `turn` is; -1: before the first turn. None: not scored.

        Raises IndexError for another turn than -1 to T - 1, and ValueError where there are not T + 1 scores.
        """
        if not -1 <= turn < len(self.turns):
            raise IndexError(f"turn is {turn}: expected -1 to {len(self.turns) - 1}")
        if self.scores is None:
            return None
        if len(self.scores) != len(self.turns) + 1:
            raise ValueError(
                f"trajectory {self.id} has {len(self.scores)} scores: expected {len(self.turns) + 1}, that before the "
                f"first turn and those after its {len(self.turns)} turns"
            )
        return self.scores[turn + 1]

    @property
    def state_keys(self) -> list[str | None]:
        """For each turn, what equal states before it have in common; None where the state is not known.

        A state is the task, what system and user said, and the calls so far with their results. The order of arguments
        and how a number is written (5, 5.0) make no difference, what the model thought neither. A state is not known
        where the task is not, or the results of an earlier turn that has calls.
        """
        if self.task_id is None:
            return [None] * len(self.turns)
        key: str | None = _digest([repr(self.task_id), *map(_said, self.messages or ())])
        keys: list[str | None] = []
        for turn in self.turns:
            keys.append(key)
            if key is None or (turn.calls and turn.results is None):
                key = None
                continue
            calls, results = map(_written_call, turn.calls), map(repr, turn.results or ())
            key = _digest([key, *calls, "results", *results, "messages", *map(_said, turn.messages)])
        return keys

    def state_key(self, turn: int) -> str | None:
        """The entry of `state_keys` for one turn. Raises IndexError for a turn that there is not."""
        if not 0 <= turn < len(self.turns):
            raise IndexError(f"turn is {turn}: expected 0 to {len(self.turns) - 1}")
        return self.state_keys[turn]

    @property
    def _has_tokens(self) -> bool:
        return self.prompt_ids is not None and all(turn.token_ids is not None for turn in self.turns)


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _said(message: Message) -> str:
    return f"{_written(message.get('role'))} {_written(message.get('content'))}"


def _written_call(call: Any) -> str:
    """A call as text, equal for calls that are equal as JSON."""
    read = read_call(call)
    if read is None:
        return f"malformed {_written(call) if isinstance(call, Mapping) else repr(getattr(call, 'raw', call))}"
    name, values = read
    return f"{name!r} {_written(values)}"


def _written(value: Any) -> str:
    """A value as text in one line, equal for values that are equal as JSON."""
    frozen = freeze(value)
    tokens = frozen if isinstance(frozen, tuple) else (frozen,)
    plain = (int(one) if isinstance(one, float) and one.is_integer() else one for one in tokens)
    return " ".join(map(repr, plain))
