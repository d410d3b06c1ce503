"""`rewright serve-reward`: a trained reward model behind HTTP. Needs the extra `train`.

    POST /score   one of
                  {"token_ids": [1, 2, …]}          a trajectory as it was rolled out: exact
                  {"messages": […], "tools": […]}   a conversation: prompt and trajectory; tools of the prompt
                  {"texts": "…"}                    text that is rendered already
                  or lists of these: [[1, 2, …], […]], [[…], […]], ["…", "…"]
                  -> {"scores": [0.31, …]}          always a list, in the order asked
    GET  /health  {"status": "healthy", "model", "vocabulary", "dialect", …}

Messages are rendered with the template, the dialect and the template options that the model was trained with: they are
stored in its folder. Scores are of the whole sequence, question included, and are the ones that `RewardModel.score`
gives in process: it is what runs here. With "vocabulary", token ids of another vocabulary are refused. What one request
may ask for is bounded: see the constants.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web

from rewright.core.errors import InputError
from rewright.dialects import get_dialect
from rewright.engines.embedded import HFSettings
from rewright.net.batching import Batcher, BusyError
from rewright.net.server import application, read_body
from rewright.rendering.renderer import Renderer
from rewright.serving.conversations import conversation_ids

__all__ = ["LocalScorer", "open_scorer", "reward_application"]

MAX_BODY_BYTES: Final = 32 << 20
MAX_SEQUENCES: Final = 1024
MAX_TOKENS: Final = 1 << 22
"""Of all sequences of a request."""
MAX_TEXT_BYTES: Final = 1 << 22
"""Of all texts or messages, and tools, as JSON: they are tokenised while nobody else is served."""


class LocalScorer(Protocol):
    """The reward model that is served."""

    vocabulary_size: int
    limit: int

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """One number per token sequence."""
        ...


class _Request(msgspec.Struct):
    """What is to be scored: exactly one of the three."""

    token_ids: list[int | list[int]] | None = None
    messages: list[dict[str, Any] | list[dict[str, Any]]] | None = None
    texts: str | list[str] | None = None
    tools: list[dict[str, Any]] = []
    vocabulary: str | None = None


def open_scorer(path: Path, *, dialect: str | None = None) -> tuple[LocalScorer, Renderer]:
    """The reward model in a folder and the renderer that it was trained with. Raises InputError for anything else.

    `dialect`: of a model that was trained elsewhere and does not say it.
    """
    from rewright.engines.loading import load_tokenizer
    from rewright.training.trl.reward_model import RewardModel

    model = RewardModel(path)
    about = model.about
    if dialect is not None and about.get("dialect", dialect) != dialect:
        raise InputError(f"{path} was trained on the dialect {about['dialect']}, not on {dialect}")
    tokenizer = load_tokenizer(HFSettings(path=str(path)))
    spoken = get_dialect(about.get("dialect") or dialect or "hermes")
    return model, Renderer(tokenizer, spoken, template_options=about.get("template_options"))


def reward_application(model: LocalScorer, renderer: Renderer, name: str) -> web.Application:
    """The application that scores with `model`, concurrent requests in one forward pass."""
    batcher = Batcher(model.score)

    async def score(request: web.Request) -> Any:
        asked = await read_body(request, _Request)
        sequences = _sequences(asked, renderer)
        _check(sequences, model.vocabulary_size)
        try:
            return {"scores": await batcher.score(sequences)}
        except BusyError as problem:
            raise web.HTTPServiceUnavailable(reason=str(problem), headers={"Retry-After": "1"}) from None

    async def health(request: web.Request) -> Any:
        return {
            "status": "healthy",
            "model": name,
            "vocabulary": renderer.fingerprint,
            "dialect": renderer.dialect.name,
            "longest": model.limit,
            "rounds": batcher.rounds,
            "scored": batcher.scored,
        }

    async def lifetime(app: web.Application) -> AsyncGenerator[None]:
        async with batcher.running():
            yield

    app = application({"POST /score": score, "GET /health": health}, max_body_bytes=MAX_BODY_BYTES)
    app.cleanup_ctx.append(lifetime)
    return app


def _sequences(asked: _Request, renderer: Renderer) -> list[list[int]]:
    """The token ids of everything that is to be scored."""
    given = [key for key in ("token_ids", "messages", "texts") if getattr(asked, key) is not None]
    if len(given) != 1:
        raise InputError(f"got {' and '.join(given) or 'nothing'}: expected one of token_ids, messages, texts")
    if asked.vocabulary is not None and asked.vocabulary != renderer.fingerprint:
        raise InputError(
            f"token ids of the vocabulary {asked.vocabulary}, the reward model has {renderer.fingerprint}: "
            "expected a reward model that was trained from the policy"
        )
    values: list[Any] = getattr(asked, given[0])
    if given[0] != "token_ids":
        size = len(msgspec.json.encode([values, asked.tools]))
        if size > MAX_TEXT_BYTES:
            raise InputError(f"{given[0]} and tools have {size} bytes as JSON: expected at most {MAX_TEXT_BYTES}")
    if given[0] == "texts":
        texts = [values] if isinstance(values, str) else values
        _check_number(len(texts))
        return [renderer.encode_text(text) for text in texts]
    nested = [isinstance(value, list) for value in values]
    if any(nested) and not all(nested):
        raise InputError(f"{given[0]}: one and many are mixed: expected one trajectory, or a list of trajectories")
    many = values if all(nested) else [values]
    _check_number(len(many))
    if given[0] == "messages":
        return [conversation_ids(renderer, messages, asked.tools) for messages in many]
    return many


def _check_number(count: int) -> None:
    if count > MAX_SEQUENCES:
        raise InputError(f"{count} trajectories: expected at most {MAX_SEQUENCES} in one request")


def _check(sequences: Sequence[Sequence[int]], vocabulary_size: int) -> None:
    """A wrong token would fail everything that shares its forward pass."""
    if not sequences:
        raise InputError("nothing to score: expected at least one trajectory")
    tokens = sum(map(len, sequences))
    if tokens > MAX_TOKENS:
        raise InputError(f"{tokens} tokens: expected at most {MAX_TOKENS} in one request")
    for index, sequence in enumerate(sequences):
        if not sequence:
            raise InputError(f"sequence {index} is empty: expected token ids")
        if min(sequence) < 0 or max(sequence) >= vocabulary_size:
            raise InputError(
                f"sequence {index} holds a token outside the vocabulary: expected 0 to {vocabulary_size - 1}"
            )
