"""A test engine that says what a script says: real tokens and real limits, no model."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from rewright.engines.base import Generation, Request

Line = str | Generation | Exception | asyncio.Event
Script = Sequence[Line] | Callable[[Request, int], Line]


class ScriptedEngine:
    """Says `script[turn]` in every session, the last line again and again.

    With a tokenizer it is a token engine: it checks that it is given token ids, ends its turns behind the first stop
    string, else with the end token, and keeps to `max_tokens`. A line may be an exception to raise, or an event to wait
    for.
    """

    def __init__(self, script: Script, *, tokenizer: Any = None, name: str = "scripted") -> None:
        self.name, self.tokens = name, tokenizer is not None
        self.tokenizer, self.script = tokenizer, script
        self.requests: list[Request] = []
        self.released: list[str] = []
        self.busy = self.most_busy = 0
        self._turns: dict[str, int] = defaultdict(int)

    async def generate(self, request: Request) -> Generation:
        self.requests.append(request)
        turn = self._turns[request.session]
        self._turns[request.session] += 1
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await asyncio.sleep(0)  # others may run, as with a real model
            line = self._line(request, turn)
            if isinstance(line, Exception):
                raise line
            if isinstance(line, asyncio.Event):
                await line.wait()
                line = "woken"
        finally:
            self.busy -= 1
        if isinstance(line, Generation):
            return line
        return self._with_tokens(line, request) if self.tokens else Generation(text=line)

    async def release(self, session: str) -> None:
        self.released.append(session)

    async def close(self) -> None:
        """Nothing is held."""

    def _line(self, request: Request, turn: int) -> Line:
        if callable(self.script):
            return self.script(request, turn)
        return self.script[min(turn, len(self.script) - 1)]

    def _with_tokens(self, text: str, request: Request) -> Generation:
        assert request.token_ids is not None
        ends = [text.index(word) + len(word) for word in request.sampling.stop if word in text]
        ids = self.tokenizer.encode(text[: min(ends)] if ends else text, add_special_tokens=False)
        if not ends:
            ids = [*ids, self.tokenizer.eos_token_id]
        most = request.sampling.max_tokens
        cut = ids[:most]
        whole = len(ids) <= most
        return Generation(
            text=self.tokenizer.decode(cut[:-1] if whole and not ends else cut),
            token_ids=tuple(cut),
            log_probs=tuple(-0.5 - index for index in range(len(cut))),
            stop="length" if not whole else "stop" if ends else "end",
        )
