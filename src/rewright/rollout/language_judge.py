"""A language model that answers with JSON: the resource `judge` of credit signals (`rewright.credit.resources.Judge`).

It asks the model of any engine at temperature 0. An answer that is not JSON, does not fit the schema, or is refused by
the signal's check is sent back with the problem, twice at most; then the prompt has no answer (None), never a default.
A server that does not answer is no answer of the model: the engine's error is raised after its own retries.

Every request is stored, if a file is given, with its prompt, answer, tokens and what was wrong with it. Accepted
answers are used again for the same model and prompt, also by a later process.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from rewright.core.progress import Bar
from rewright.core.records import Message
from rewright.core.storage import RecordFile
from rewright.core.strict_json import STRICT, json_problem
from rewright.dialects import get_dialect
from rewright.engines.base import Engine, Generation, Request, Sampling
from rewright.engines.served import OpenAISettings
from rewright.engines.settings import ModelSettings
from rewright.rendering.renderer import Renderer

__all__ = ["JUDGEMENTS", "RETRIES", "Judgement", "LanguageJudge"]

JUDGEMENTS: Final = "judgements.jsonl"
"""The file of the requests in a run directory."""
RETRIES: Final = 2
"""Requests that follow an answer that was refused."""
ANSWER_TOKENS: Final = 4096
RETRY: Final = "That answer was not used: {}. Answer again, with one JSON object that fits the schema and nothing else."

Check = Callable[[int, Any], Any]
Result = TypeVar("Result")


class Judgement(msgspec.Struct, frozen=True):
    """One request to the judge.

    Attributes:
        id: sha256 of the model's name and the prompt.
        model: name of the model.
        prompt: the prompt, without the earlier answers that a retry quotes.
        answer: the generated text.
        attempt: number of the request for this prompt, from 0.
        problem: why the answer was not used; None: it was.
        prompt_tokens, completion_tokens: None if the engine does not report them.
        seconds: duration of the request, its wait for the engine included.
    """

    id: str
    model: str
    prompt: str
    answer: str
    attempt: int = 0
    problem: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float = 0.0


class LanguageJudge:
    """Asks a language model for JSON.

    Args:
        model: the model.
        file: where requests are stored and answers are found; None: in memory, for the life of this object.
        answer_tokens: maximum number of tokens of an answer.

    Raises InputError for a model that cannot be opened, when it is first asked.
    """

    def __init__(self, model: ModelSettings, file: Path | None = None, *, answer_tokens: int = ANSWER_TOKENS) -> None:
        if isinstance(model, OpenAISettings) and model.mode == "auto":  # the server has the template
            model = msgspec.structs.replace(model, mode="chat")
        self._model, self._answer_tokens = model, answer_tokens
        self._file = None if file is None else RecordFile(file, Judgement, lambda one: f"{one.id} {one.attempt}")
        self._accepted: dict[str, str] | None = None
        self._runner: asyncio.Runner | None = None
        self._opened: tuple[Engine, Renderer | None] | None = None
        self._opening = asyncio.Lock()

    def __call__(
        self, prompts: Sequence[str], schema: Mapping[str, Any], /, *, check: Check | None = None
    ) -> list[Any | None]:
        """Answer N prompts, which state the schema, with values that fit it; None where no valid answer came.

        `check`: a function of (index, value) that raises ValueError for an answer that is not to be used. Raises
        EngineError if the model does not answer, and StorageError if a request cannot be stored.
        """
        from jsonschema import Draft202012Validator

        validator = Draft202012Validator(dict(schema))
        first: dict[str, int] = {}
        for index, prompt in enumerate(prompts):
            first.setdefault(prompt, index)

        def accept(text: str, index: int) -> Any:
            value = _json_in(text)
            problem = next(iter(sorted(validator.iter_errors(value), key=lambda one: list(map(str, one.path)))), None)
            if problem is not None:
                raise ValueError(f"{problem.json_path}: {problem.message:.200}")
            if check is not None:
                check(index, value)
            return value

        async def ask_all() -> list[Any | None]:
            with Bar("judge requests", len(first), brief=True) as bar:

                async def answer(prompt: str, index: int) -> Any | None:
                    value = await self._answer(prompt, index, accept)
                    bar.step()
                    return value

                tasks = [asyncio.create_task(answer(prompt, index)) for prompt, index in first.items()]
                try:
                    return await asyncio.gather(*tasks)
                finally:
                    for task in tasks:
                        task.cancel()

        answers = dict(zip(first, self._run(ask_all()), strict=True)) if first else {}
        return [answers[prompt] for prompt in prompts]

    def close(self) -> None:
        """Close the model and the file."""
        if self._file is not None:
            self._file.close()
        if self._runner is not None:
            self._run(self._end())
            _without_loop(self._runner.close)
            self._runner, self._opened = None, None

    async def _end(self) -> None:
        # A signal may have left requests behind, whose errors nobody would look at.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._opened is not None:
            await self._opened[0].close()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        if self._runner is None:
            self._runner = asyncio.Runner()
        return _without_loop(partial(self._runner.run, work))

    async def _answer(self, prompt: str, index: int, accept: Callable[[str, int], Any]) -> Any | None:
        """The answer to a prompt: a stored one, or that of the model."""
        key = hashlib.sha256(f"{self._model.path}\n{prompt}".encode()).hexdigest()
        stored = self._stored().get(key)
        if stored is not None:
            try:
                return accept(stored, index)
            except ValueError:  # it was accepted by another check
                pass
        messages: list[Message] = [{"role": "user", "content": prompt}]
        for attempt in range(1 + RETRIES):
            started = time.monotonic()
            made = await self._generate(messages, f"judge/{key}")
            value, problem = None, None
            try:
                value = accept(made.text, index)
            except ValueError as refused:
                problem = _problem_of(made, refused)
            self._store(
                Judgement(
                    id=key,
                    model=self._model.path,
                    prompt=prompt,
                    answer=made.text,
                    attempt=attempt,
                    problem=problem,
                    prompt_tokens=made.prompt_tokens,
                    completion_tokens=made.completion_tokens,
                    seconds=time.monotonic() - started,
                )
            )
            if problem is None:
                return value
            messages += [
                {"role": "assistant", "content": made.text},
                {"role": "user", "content": RETRY.format(problem)},
            ]
        return None

    async def _generate(self, messages: Sequence[Message], session: str) -> Generation:
        engine, renderer = await self._engine()
        ids = None if renderer is None else tuple(renderer.prompt_ids(messages, []))
        sampling = Sampling(temperature=0.0, max_tokens=self._answer_tokens)
        made = await engine.generate(Request(tuple(messages), (), sampling, token_ids=ids, session=session))
        await engine.release(session)
        if ids is None or made.token_ids is None:
            return made
        return msgspec.structs.replace(made, prompt_tokens=len(ids), completion_tokens=len(made.token_ids))

    async def _engine(self) -> tuple[Engine, Renderer | None]:
        async with self._opening:
            if self._opened is None:
                engine, tokenizer = await self._model.open()
                options = self._model.template_options
                renderer = Renderer(tokenizer, get_dialect("hermes"), template_options=options) if tokenizer else None
                self._opened = engine, renderer
            return self._opened

    def _stored(self) -> dict[str, str]:
        """The accepted answers, by the key of their prompt."""
        if self._accepted is None:
            records = () if self._file is None else self._file
            self._accepted = {one.id: one.answer for one in records if one.problem is None}
        return self._accepted

    def _store(self, made: Judgement) -> None:
        if self._file is not None:
            self._file.append(made)
        if made.problem is None:
            self._stored()[made.id] = made.answer


def _without_loop(function: Callable[[], Result]) -> Result:
    """Call a function in this thread, or in another one if an event loop runs here, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return function()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def _json_in(text: str) -> Any:
    """The first JSON object of an answer, after thoughts; a fence around it is ignored. Raises ValueError."""
    said = text.rpartition("</think>")[2]
    start = said.find("{")
    if start < 0:
        raise ValueError("it holds no JSON object")
    try:
        return STRICT.raw_decode(said, start)[0]
    except ValueError as problem:
        raise ValueError(f"it is not JSON: {json_problem(problem)}") from None


def _problem_of(made: Generation, refused: ValueError) -> str:
    """What was wrong with an answer, in one line."""
    if made.refused:
        return "the model refused to answer"
    cut = " (it was cut off at the limit of tokens)" if made.stop == "length" else ""
    return " ".join(str(refused).split())[:300] + cut
