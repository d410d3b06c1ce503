"""What our exports to ATIF and verifiers keep of a trajectory beside the visible fields, and its restoration.

Visible fields are those of the format: messages, thoughts, calls, results and token ids. Beside them is an object
(`extra.rewright` in ATIF, `info.rewright` in verifiers) with what a trajectory has and the format has not: the text of
a turn as the model wrote it, malformed calls, errors and durations of results, opening, stop reason, failure, credit,
seed and the fingerprint of the tokenizer; and of a simulated user its calls, what it heard, and its last message.

What is kept is used only where it agrees with the visible fields. If another program has edited these, they win: the
edited turn is read as that of any log, the end of the trajectory (stop reason, answer, failure) is derived anew, and
token ids, which are no longer those of the text, are left out.

Nothing in a file is trusted or executed: values of another type are ignored, and tools of a follow-up are restored
without an implementation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec

from rewright.core.records import (
    Credit,
    Failure,
    FollowUp,
    Message,
    Provenance,
    RepairForm,
    StopReason,
    ToolCall,
    ToolResult,
    ToolSpec,
    Trajectory,
    Turn,
)
from rewright.dialects import Dialect
from rewright.importers.conversation import Conversation, Kept, TurnTokens
from rewright.importers.own_users import KeptCall, KeptUser, arguments_of, kept_calls, kept_user, said_more, user_said

__all__ = ["Restored", "keep", "kept_in", "restored", "text_of", "thought_and_text"]

T = TypeVar("T")
_PARTS: Final = ("text", "input_text", "output_text")


class _KeptResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A result without its content, which is visible."""

    error: str | None = None
    seconds: float = 0.0


class _KeptTurn(msgspec.Struct, frozen=True, omit_defaults=True):
    """A turn. `digest` is that of the contents of its results and follow-up.

    `generated` is the number of generated tokens (None: unknown), `scored` whether they have log-probabilities. Token
    ids are here only where the format has no place for them.
    """

    text: str
    digest: str
    stop: Literal["end", "length", "stop"] = "end"
    opening: str = ""
    calls: tuple[KeptCall, ...] = ()
    results: tuple[_KeptResult, ...] = ()
    follow_up: list[Message] | None = None
    new_tools: list[dict[str, Any]] = []
    user: KeptUser | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    generated: int | None = None
    scored: bool = False
    token_ids: tuple[int, ...] | None = None
    log_probs: tuple[float, ...] | None = None
    suffix_ids: tuple[int, ...] = ()
    weights_version: int | None = None


class _KeptEnd(msgspec.Struct, frozen=True):
    """What is kept of a whole trajectory. `prompt` is the digest of the messages before the first turn."""

    dialect: str
    prompt: str
    stage: str
    index: int
    stop_reason: StopReason
    prompt_count: int | None = None
    answer: str | None = None
    failure: Failure | None = None
    parent: str | None = None
    form: RepairForm | None = None
    turn: int | None = None
    sampling: dict[str, Any] = {}
    seed: int | None = None
    tokenizer: str | None = None
    seconds: float = 0.0
    credit: Credit | None = None
    opening: KeptUser | None = None
    ending: KeptUser | None = None
    own_prompt: list[Message] | None = None


class Restored(NamedTuple):
    """Turns of a trajectory, and all of it if nothing visible was edited."""

    turns: tuple[Turn, ...]
    whole: Trajectory | None = None
    edited: bool = False
    """Whether it is our export, and was edited."""


@dataclass(frozen=True, slots=True)
class _Visible:
    """A turn as the visible fields have it, with the text and the thought of its message."""

    turn: Turn
    text: str
    thought: str


def keep(one: Trajectory, dialect: Dialect, prompt: Sequence[Message], *, tokens: bool = False) -> dict[str, Any]:
    """Return what an export keeps beside the visible fields, as JSON (`stage`, `stop_reason` … are not among it).

    Args:
        one: the trajectory.
        dialect: dialect of the run.
        prompt: the messages before the first turn.
        tokens: whether token ids are among it, for a format without a place for them.
    """
    count = {} if one.prompt_ids is None else {"prompt_count": len(one.prompt_ids)}
    digest = _digest(text_of(message.get("content")) for message in prompt)
    turns = [msgspec.to_builtins(_kept_turn(turn, tokens=tokens)) for turn in one.turns]
    spoken = {
        "opening": None if one.opening is None else kept_user(one.opening, messages=True),
        "ending": None if one.ending is None else kept_user(one.ending, messages=True),
        "own_prompt": one.prompt,
    }
    spoken = {key: msgspec.to_builtins(value) for key, value in spoken.items() if value is not None}
    return {"dialect": dialect.name, "prompt": digest, **count, **spoken, "turns": turns}


def _kept_turn(turn: Turn, *, tokens: bool) -> _KeptTurn:
    after = None if turn.follow_up is None else list(turn.follow_up.messages)
    return _KeptTurn(
        text=turn.text,
        digest=_digest_of(turn),
        stop=turn.stop,
        opening=turn.opening,
        calls=kept_calls(turn.calls),
        results=tuple(_KeptResult(result.error, result.seconds) for result in turn.results),
        follow_up=after,
        new_tools=[tool.schema for tool in turn.follow_up.tools] if turn.follow_up is not None else [],
        user=None if turn.follow_up is None else said_more(turn.follow_up),
        prompt_tokens=turn.prompt_tokens,
        completion_tokens=turn.completion_tokens,
        generated=None if turn.token_ids is None else len(turn.token_ids),
        scored=turn.log_probs is not None,
        token_ids=turn.token_ids if tokens else None,
        log_probs=turn.log_probs if tokens else None,
        suffix_ids=turn.suffix_ids if tokens else (),
        weights_version=turn.weights_version,
    )


def kept_in(
    about: Any, prompt_ids: tuple[int, ...] | None = None, tokens: Sequence[TurnTokens] | None = None
) -> Kept | None:
    """Return what our export has kept under `rewright`, or None for a trace of another program.

    `prompt_ids` and `tokens` are the token ids that the format has, of which some may be unknown.
    """
    if not isinstance(about, Mapping) or not isinstance(about.get("turns"), list):
        return None
    dialect = about.get("dialect")
    return Kept(about, dialect if isinstance(dialect, str) else "", prompt_ids, tokens)


def restored(found: Conversation, turns: Sequence[Turn], dialect: Dialect, identity: str, task: str) -> Restored:
    """Restore a trajectory from what our export has kept.

    Args:
        found: the attempt, with what is kept.
        turns: its turns as the visible fields have them.
        dialect: dialect of the run. With another dialect than the export's, the visible fields alone are read.
        identity, task: id of the trajectory, id of its task.
    """
    kept = found.kept
    if kept is None or kept.dialect != dialect.name:
        return Restored(tuple(turns))
    messages = [message for message in found.turns if message["role"] == "assistant"]
    given = kept.about["turns"]
    seen = [
        _turn(value, _Visible(turn, str(message["content"]), str(message.get("reasoning") or "")), dialect)
        for value, message, turn in zip(given, messages, turns, strict=False)
    ]
    partly = tuple(
        msgspec.structs.replace(one or turn, token_ids=None, log_probs=None, suffix_ids=())
        for one, turn in zip([*seen, *[None] * len(turns)], turns, strict=False)
    )
    end = _converted(kept.about, _KeptEnd)
    if end is None or not len(given) == len(turns) == len(seen) or None in seen:
        return Restored(partly, edited=True)
    if end.prompt != _digest(str(message["content"]) for message in found.prompt):
        return Restored(partly, edited=True)
    tokens = kept.tokens if kept.tokens is not None and len(kept.tokens) == len(turns) else [None] * len(turns)
    with_tokens = [
        _with_tokens(turn, value, visible) for turn, value, visible in zip(partly, given, tokens, strict=True)
    ]
    if None in with_tokens or (end.prompt_count is not None and len(kept.prompt_ids or ()) != end.prompt_count):
        return Restored(partly, edited=True)
    whole = tuple(turn for turn in with_tokens if turn is not None)
    trajectory = Trajectory(
        id=identity,
        task_id=task,
        stage=end.stage,
        index=end.index,
        turns=whole,
        stop_reason=end.stop_reason,
        prompt_ids=None if end.prompt_count is None else kept.prompt_ids or (),
        answer=end.answer,
        failure=end.failure,
        provenance=Provenance(found.model, end.sampling, end.seed, end.parent, end.tokenizer, end.form, end.turn),
        seconds=end.seconds,
        credit=end.credit,
        opening=user_said(end.opening),
        ending=user_said(end.ending),
        prompt=None if end.own_prompt is None else tuple(end.own_prompt),
    )
    return Restored(whole, trajectory)


def _turn(value: Any, seen: _Visible, dialect: Dialect) -> Turn | None:
    """Return a turn without token ids; None if what is kept of it does not agree with what is visible."""
    kept = _converted(value, _KeptTurn)
    visible = seen.turn
    if kept is None or len(kept.calls) != len(visible.calls) or len(kept.results) != len(visible.results):
        return None
    calls = [_call(one, call) for one, call in zip(kept.calls, visible.calls, strict=True)]
    given = None if visible.follow_up is None else visible.follow_up.messages
    if (
        None in calls
        or kept.digest != _digest_of(visible)
        or (given is None and any(map(_shown, kept.follow_up or ())))
    ):
        return None
    follow_up = None
    if kept.follow_up is not None:
        tools = tuple(ToolSpec(schema=schema) for schema in kept.new_tools if _is_schema(schema))
        said = user_said(kept.user) or FollowUp(())
        follow_up = msgspec.structs.replace(said, messages=tuple(kept.follow_up), tools=tools)
    turn = Turn(
        text=kept.text,
        calls=tuple(call for call in calls if call is not None),
        results=tuple(
            ToolResult(result.content, one.error, one.seconds)
            for one, result in zip(kept.results, visible.results, strict=True)
        ),
        stop=kept.stop,
        prompt_tokens=kept.prompt_tokens,
        completion_tokens=kept.completion_tokens,
        opening=kept.opening,
        follow_up=follow_up,
        weights_version=kept.weights_version,
    )
    thought, text = thought_and_text(dialect, turn)
    agrees = thought.strip() == seen.thought.strip() and text.strip() == seen.text.strip()
    return turn if agrees and _digest_of(turn) == kept.digest else None


def _call(kept: KeptCall, visible: ToolCall) -> ToolCall | None:
    arguments = arguments_of(kept)
    if arguments is None:
        return None
    if kept.error is None:
        agrees = visible.error is None and (kept.name, arguments) == (visible.name, visible.arguments)
        return ToolCall(visible.name, visible.arguments, kept.raw) if agrees else None
    # Formats have no malformed calls: an export writes them with their text as arguments, or without arguments.
    agrees = visible.error is not None and visible.raw in (kept.raw, "{}") and visible.name in (kept.name, "")
    return ToolCall(kept.name, arguments, kept.raw, kept.error) if agrees else None


def _with_tokens(turn: Turn, value: Any, visible: TurnTokens | None) -> Turn | None:
    """Add the token ids: those of the format, else those that are kept. None if they are not as many as there were."""
    kept = _converted(value, _KeptTurn)
    assert kept is not None
    if kept.token_ids is not None or kept.suffix_ids:
        found = TurnTokens(kept.token_ids or (), kept.log_probs, kept.suffix_ids)
    else:
        found = visible or TurnTokens((), None)
    if len(found.token_ids) != (kept.generated or 0) or (kept.scored and found.log_probs is None):
        return None
    return msgspec.structs.replace(
        turn,
        token_ids=None if kept.generated is None else found.token_ids,
        log_probs=found.log_probs if kept.scored else None,
        suffix_ids=found.suffix_ids,
    )


def _converted(value: Any, kind: type[T]) -> T | None:
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError):
        return None


def _is_schema(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("function"), Mapping) and isinstance(value["function"].get("name"), str)


def _digest_of(turn: Turn) -> str:
    after = () if turn.follow_up is None else turn.follow_up.messages
    return _digest([*(result.content for result in turn.results), *map(_shown, after)])


def _shown(message: Message) -> str:
    return text_of(message.get("content"))


def _digest(texts: Iterable[str]) -> str:
    """Digest of the texts that are not empty: readers leave out some empty messages."""
    content = msgspec.json.encode([text for text in texts if text])
    return hashlib.sha256(content).hexdigest()[:16]


def text_of(content: Any) -> str:
    """Return the content of a message as text; a part that is not text is `[type]`."""
    if isinstance(content, list):
        return "".join(
            str(part.get("text") or "") if part.get("type", "text") in _PARTS else f"[{part.get('type')}]"
            for part in content
            if isinstance(part, dict)
        )
    return "" if content is None else str(content)


def thought_and_text(dialect: Dialect, turn: Turn) -> tuple[str, str]:
    """Return the thought of a turn, and its text without the calls, malformed ones included."""
    written = turn.opening + turn.text
    read = dialect.parse(written)
    if not turn.calls:
        return read.thought, read.rest
    if not dialect.inline:
        content = dialect.assistant_message(written, turn.calls, malformed=True)["content"]
        return read.thought, dialect.parse(str(content or "")).rest
    text = read.rest  # calls are part of the message
    for call in read.calls:  # as they are in the text: calls of another origin have no `raw`
        text = re.sub(rf"<(\w+)>{re.escape(call.raw)}(?:</\w+>|$)", "", text, count=1)
    return read.thought, text
