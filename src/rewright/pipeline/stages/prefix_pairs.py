"""Pairs of turn prefixes, on which a reward model learns to score trajectories that have not ended (`reward.prefixes`).

Each pair of a repaired and an original trajectory gives one more pair for every turn that both have after it: the
tokens of both up to the end of turn t, results included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rewright.core.progress import say
from rewright.core.records import Trajectory
from rewright.credit.tokens import spans_from_mask
from rewright.pipeline.context import Context
from rewright.pipeline.rounds import all_rounds
from rewright.rendering.renderer import Renderer

__all__ = ["prefix_pairs"]

SIDES = ("chosen", "rejected")


def prefix_pairs(context: Context, pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the prefix pairs of rows of preferences.jsonl, with the number of turns as `turns`.

    Left out are prefixes that both sides share, and pairs whose trajectories are not in the run (their number is
    printed).
    """
    renderer = context.policy_renderer()
    if renderer is None:  # pairs without token ids were refused
        return []
    trajectories = {one.id: one for run in all_rounds(context.run) for one in run.trajectories}
    made: list[dict[str, Any]] = []
    unknown = 0
    for pair in pairs:
        sides = _sides(str(pair.get("id", "")), trajectories)
        ends = None if sides is None else [_ends(context, renderer, one) for one in sides]
        if ends is None or any(ids != list(pair[f"{side}_ids"]) for side, (ids, _) in zip(SIDES, ends, strict=True)):
            unknown += 1
            continue
        made += _prefixes(pair, [turn_ends for _, turn_ends in ends])
    if unknown:
        say(
            f"reward: {unknown} of {len(pairs)} pairs give no prefixes: expected their trajectories, with the same "
            "tokens, in trajectories.jsonl"
        )
    return made


def _sides(pair_id: str, trajectories: Mapping[str, Trajectory]) -> list[Trajectory] | None:
    """The two trajectories of a pair, whose id is `CHOSEN>REJECTED`. Ids of tasks may have a `>`."""
    parts = pair_id.split(">")
    for cut in range(1, len(parts)):
        names = (">".join(parts[:cut]), ">".join(parts[cut:]))
        if all(name in trajectories for name in names):
            return [trajectories[name] for name in names]
    return None


def _ends(context: Context, renderer: Renderer, trajectory: Trajectory) -> tuple[list[int], list[int]]:
    """The tokens of a trajectory as for training, and the end of each turn but the last, results included."""
    ids, mask = renderer.training_ids(context.task(trajectory.task_id), trajectory)
    (spans,) = spans_from_mask([mask])
    return ids, [start for start, _ in spans[1:]]


def _prefixes(pair: Mapping[str, Any], ends: Sequence[Sequence[int]]) -> Iterator[dict[str, Any]]:
    for turns, (chosen_end, rejected_end) in enumerate(zip(*ends, strict=False), 1):
        chosen, rejected = list(pair["chosen_ids"][:chosen_end]), list(pair["rejected_ids"][:rejected_end])
        if chosen != rejected:
            yield {
                "id": f"{pair['id']}/{turns}",
                "task_id": pair.get("task_id"),
                "split": pair["split"],
                "matched_format": pair["matched_format"],
                "turns": turns,
                "chosen_ids": chosen,
                "rejected_ids": rejected,
            }
