"""The tokens of a trajectory with advantage, log-probability and loss mask, for the colours of the page.

The texts of tokens need a tokenizer: that of the recipe's model, if it is one of the package or in a local folder. It
is never downloaded. Without one, tokens are shown as their ids.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from rewright.core.errors import InputError, RewrightError
from rewright.core.records import Trajectory
from rewright.pipeline.run_directory import Run

__all__ = ["MAX_TOKENS", "Tokenizers", "tokens_json"]

MAX_TOKENS: Final = 20_000
"""Tokens of one trajectory that are shown."""


class Tokenizers:
    """The tokenizer of a run, loaded when it is first needed."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._loaded: Any = None
        self._problem = ""

    def texts(self, ids: list[int]) -> tuple[list[str] | None, str]:
        """Return the text of every token, or None and the reason."""
        if self._loaded is None and not self._problem:
            try:
                self._loaded = self._load()
            except (RewrightError, ImportError, OSError) as problem:
                self._problem = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        if self._loaded is None:
            return None, self._problem
        size = self._loaded.get_vocab_size()
        return [
            self._loaded.decode([one], skip_special_tokens=False) if 0 <= one < size else f"⟨{one}⟩" for one in ids
        ], ""

    def _load(self) -> Any:
        from tokenizers import Tokenizer

        from rewright.engines.pico import PICO_MODELS, pico_path

        model = self._run.recipe().model
        name = str(getattr(model, "tokenizer", None) or getattr(model, "path", None) or "")
        folder = pico_path(name) if name in PICO_MODELS else Path(name or ".").expanduser()
        file = folder / "tokenizer.json"
        if not name or not file.is_file():
            raise InputError(f"the tokenizer of {name or 'the model'} is not here, so tokens are shown as their ids")
        try:
            return Tokenizer.from_file(str(file))
        except Exception as problem:  # the library raises plain exceptions
            raise InputError(f"{file}: cannot be read: {problem}") from None


def tokens_json(trajectory: Trajectory, advantages: list[float] | None, tokenizers: Tokenizers) -> dict[str, Any]:
    """Return the tokens of a trajectory, the prompt first, in segments.

    A segment has `kind` (prompt, turn or result), `turn` (from 0), `ids`, `texts` (None without a tokenizer),
    `log_probs`, `mask` (1: trained on) and `advantage`. Raises InputError for a trajectory without token ids.
    """
    if trajectory.prompt_ids is None:
        raise InputError(f"{trajectory.id} has no token ids: its engine did not return them")
    parts: list[tuple[str, int, list[int], Any]] = [("prompt", -1, list(trajectory.prompt_ids), None)]
    for number, turn in enumerate(trajectory.turns):
        parts.append(("turn", number, list(turn.token_ids or ()), turn.log_probs))
        parts.append(("result", number, list(turn.suffix_ids), None))
    left, segments, problem = MAX_TOKENS, [], ""
    for kind, number, ids, log_probs in parts:
        shown = ids[:left]
        if not shown:
            continue
        left -= len(shown)
        texts, problem = tokenizers.texts(shown)
        advantage = advantages[number] if kind == "turn" and advantages is not None else None
        segments.append(
            {
                "kind": kind,
                "turn": number,
                "ids": shown,
                "texts": texts,
                "log_probs": None if log_probs is None else list(log_probs[: len(shown)]),
                "mask": int(kind == "turn"),
                "advantage": advantage,
            }
        )
    total = sum(len(ids) for _, _, ids, _ in parts)
    return {"segments": segments, "problem": problem, "left_out": total - (MAX_TOKENS - left)}
