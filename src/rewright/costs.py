"""What generating cost: tokens, seconds and money of each stage, from what the trajectories have recorded.

Counted is every turn that is on disk: as the server reported it, else from the token ids. Not counted is what left no
turn: attempts that failed and were tried again, and generations that an error ended. A prompt is counted whole in every
turn, as providers bill it without their discounts for cached prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from rewright.recipe import PriceSettings
from rewright.records import Provenance, Trajectory
from rewright.runs import Run
from rewright.storage import read_jsonl

__all__ = ["Usage", "generated_tokens", "run_usage", "usage_of"]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of some trajectories. `uncounted`: turns for which nobody knows them. `money`: None without a price."""

    trajectories: int = 0
    turns: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    seconds: float | None = None
    """Of the stage, by the clock; None where it is not finished."""
    money: float | None = None


class _Turn(msgspec.Struct, frozen=True):
    """What counting needs of a turn: its texts, calls and results are skipped."""

    token_ids: tuple[int, ...] | None = None
    suffix_ids: tuple[int, ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Trajectory(msgspec.Struct, frozen=True):
    turns: tuple[_Turn, ...] = ()
    prompt_ids: tuple[int, ...] | None = None
    provenance: Provenance = Provenance()


def usage_of(
    trajectories: Iterable[Trajectory | _Trajectory],
    prices: Mapping[str, PriceSettings],
    *,
    seconds: float | None = None,
) -> Usage:
    """Tokens and money of trajectories. `prices`: by the model's name, per million tokens, in any currency.

    Money is None where a model that wrote a turn has no price.
    """
    total = turns = prompt = completion = uncounted = 0
    money: float | None = 0.0
    for one in trajectories:
        total += 1
        for sent, written in _tokens(one):
            turns += 1
            uncounted += sent is None or written is None
            prompt += sent or 0
            completion += written or 0
            price = prices.get(one.provenance.model)
            if price is None or money is None:
                money = None
            else:
                money += ((sent or 0) * price.input + (written or 0) * price.output) / 1e6
    return Usage(
        trajectories=total, turns=turns, prompt_tokens=prompt, completion_tokens=completion, uncounted=uncounted,
        seconds=seconds, money=money if turns else None,
    )  # fmt: skip


def generated_tokens(trajectories: Iterable[Trajectory]) -> int | None:
    """Tokens that the models wrote; None where some turn's are not known."""
    total = 0
    for one in trajectories:
        for _, written in _tokens(one):
            if written is None:
                return None
            total += written
    return total


def run_usage(run: Run, prices: Mapping[str, PriceSettings]) -> dict[str, Usage]:
    """Usage of the stages of a run that have generated anything, by stage. RL is left out: it runs its own model."""
    state = run.state()
    stages: dict[str, Iterable[_Trajectory]] = {
        "synth": (one for one in _read(run, "trajectories.jsonl") if one.provenance.parent is None),
        "repair": (one for one in _read(run, "trajectories.jsonl") if one.provenance.parent is not None),
        **{f"eval_{label}": _read(run, f"evaluations/{label}.jsonl") for label in ("base", "sft", "rl")},
    }
    found = {
        stage: usage_of(trajectories, prices, seconds=state.get(stage, {}).get("seconds"))
        for stage, trajectories in stages.items()
    }
    return {stage: usage for stage, usage in found.items() if usage.trajectories}


def _read(run: Run, name: str) -> Iterator[_Trajectory]:
    path = run.path / name
    if path.exists():
        yield from (one for _, one in read_jsonl(path, _Trajectory))


def _tokens(trajectory: Trajectory | _Trajectory) -> Iterator[tuple[int | None, int | None]]:
    """(prompt tokens, generated tokens) of every turn; None where neither server nor token ids say."""
    context = None if trajectory.prompt_ids is None else len(trajectory.prompt_ids)
    for turn in trajectory.turns:
        own = None if turn.token_ids is None else len(turn.token_ids)
        sent = turn.prompt_tokens if turn.prompt_tokens is not None else context
        yield sent, turn.completion_tokens if turn.completion_tokens is not None else own
        context = None if context is None or own is None else context + own + len(turn.suffix_ids)
