"""What generating cost: tokens, seconds and money of each stage, from what the trajectories have recorded.

Counted is every turn that is on disk: as the server reported it, else from the token ids. Not counted is what left no
turn: attempts that failed and were tried again, and generations that an error ended. A prompt is counted whole in every
turn, as providers bill it without their discounts for cached prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from rewright.core.storage import read_jsonl
from rewright.core.usage import PriceSettings, Usage, _Trajectory, usage_of
from rewright.pipeline.run_directory import Run

__all__ = ["run_usage"]


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
