"""Summarise the results of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from rewright.core.errors import InputError
from rewright.pipeline.rounds import all_rounds
from rewright.pipeline.run_directory import Run
from rewright.reports.costs import FileTally, run_usage, tallies
from rewright.reports.mixture import candidates_by_source
from rewright.training.pair_accuracy import length_rule

__all__ = ["report"]


def report(run: Run, *, parallel: bool = False) -> dict[str, Any]:
    """Return the results of a run: evaluations, counts, reward-model accuracy, costs, engine errors, seconds.

    `sources` holds the candidates by source, for a run whose tasks are a mixture. `sets` holds the numbers of rows of
    the SFT set, of its kept and repaired trajectories, and of those removed, and the duplicates among the pairs.
    `rounds` has a row for each round of a run with several; the counts are those of all rounds. A candidate with an
    infrastructure failure does not measure the model. It counts as `broken` instead of `wrong`, by component and cause
    in `broke`. `parallel`: divide large files among forked processes.

    Raises InputError if records of a finished stage are missing.
    """
    table = run.stages()
    run.require(stage for stage in table if stage.trains is None)
    metrics = run.metrics()
    state = run.state()
    evaluated = []
    for stage in (stage for stage in table if stage.evaluates is not None):
        row = next((row for row in metrics if row["stage"] == stage.name), None)
        if row is not None:
            keys = ("success", "low", "high", "tasks", "solve_f1", "calls", "seconds")
            evaluated.append({**row, "stage": stage.evaluates, **{key: row.get(key) for key in keys}})
    files = tallies(run, parallel=parallel)
    found = [_round(one, files) for one in all_rounds(run)]
    failures = sum((one.broke for one in found), Counter[str]())
    counts = {name: sum(one.counts[name] for one in found) for name in found[0].counts}
    # The sets of a round include those of the rounds before; an unfinished round has none yet.
    counts["pairs"] = next((one.counts["pairs"] for one in reversed(found) if one.is_built), 0)
    # RL with a served reward model has measured its accuracy.
    dpo = state.get("dpo", {}).get("accuracies") or {}
    accuracies = state.get("rl", {}).get("accuracies") or state.get("reward", {}).get("accuracies", {})
    length = length_rule(accuracies)
    try:
        prices = run.recipe().prices
    except InputError:  # a recipe of another version; the results can still be shown
        prices = {}
    return {
        "run": str(run.path),
        "stages": evaluated,
        "counts": counts,
        **({"sources": sources} if (sources := candidates_by_source(run)) else {}),
        **({"sets": sets} if (sets := _sets(run, found)) else {}),
        **({"rounds": [one.row(number) for number, one in enumerate(found, 1)]} if len(found) > 1 else {}),
        "broke": dict(failures),
        "repaired_by_mode": dict(sum((one.modes for one in found), Counter[str]())),
        "reward_model_accuracy": accuracies.get("accuracy"),
        "reward_model_accuracy_matched_format": accuracies.get("accuracy_matched_format"),
        "reward_model_held_out_pairs": int(accuracies.get("held_out_pairs") or 0),
        "reward_model_matched_format_pairs": int(accuracies.get("matched_format_pairs") or 0),
        **({"reward_model_prefix_auc": accuracies["prefix_auc"]} if "prefix_auc" in accuracies else {}),
        **({"dpo_accuracy": dpo["accuracy"], "dpo_held_out_pairs": dpo["held_out_pairs"]} if dpo else {}),
        "length_rule": length[0] if length else None,
        "length_rule_accuracy": length[1] if length else None,
        "length_rule_accuracy_matched_format": length[2] if length else None,
        "costs": {stage: msgspec.structs.asdict(usage) for stage, usage in run_usage(run, prices, files).items()},
        "skipped": {name: row.get("reason", "") for name, row in state.items() if row.get("skipped")},
        "faults": {name: row["faults"] for name, row in state.items() if row.get("faults")},
        "stage_seconds": {name: row["seconds"] for name, row in state.items()},
        "seconds": round(sum(float(row["seconds"]) for row in state.values()), 1),
    }


class _Round(NamedTuple):
    """What one round has made."""

    counts: dict[str, int]
    broke: Counter[str]
    modes: Counter[str]
    about: dict[str, Any]
    """Tasks of a later round, how many of them no round before has solved, and the rows of its SFT set."""

    @property
    def is_built(self) -> bool:
        """Whether its sets are built."""
        return self.about["sft"] is not None

    def row(self, number: int) -> dict[str, Any]:
        """The row of the report. `pairs` and `sft` are None before the sets are built."""
        return {"round": number, **self.about, **self.counts, **({} if self.is_built else {"pairs": None})}


def _round(run: Run, files: Mapping[str, FileTally]) -> _Round:
    tally = files.get(run.trajectories.path.relative_to(run.outer.path).as_posix())
    failed = {} if tally is None else tally.failures
    selected: Counter[str] = Counter()
    wrong: set[str] = set()
    for quality in run.qualities:
        selected[str(quality.selected)] += 1
        if quality.selected == "wrong" and quality.trajectory_id in failed:
            wrong.add(quality.trajectory_id)
    # The unsolved candidates with an infrastructure failure, by component and cause.
    failures = Counter(label for identity, label in failed.items() if identity in wrong)
    repairs = list(run.repairs)
    accepted = sum(repair.accepted for repair in repairs)
    state = run.state()
    built, made = state.get("build", {}), state.get("synth", {})
    counts = {
        "candidates": sum(selected.values()),
        "kept": selected["kept"],
        "low": selected["low"],
        "wrong": selected["wrong"] - failures.total(),
        "broken": failures.total(),
        "repaired": accepted,
        "hard": len(repairs) - accepted,
        "pairs": int(built.get("pairs", 0)),
    }
    about = {key: made[key] for key in ("tasks", "unsolved") if key in made} | {"sft": built.get("sft")}
    return _Round(counts, failures, Counter(str(repair.mode) for repair in repairs if repair.accepted), about)


def _sets(run: Run, rounds: Sequence[_Round]) -> dict[str, int]:
    """The rows of the sets, and why; empty before the stage build, and for runs that did not count duplicates."""
    states = [one.state().get("build", {}) for one in all_rounds(run)]
    built = [(one, entry) for one, entry in zip(rounds, states, strict=True) if "duplicates" in entry]
    if not built:
        return {}
    made = {name: sum(one.counts[name] for one, _ in built) for name in ("kept", "repaired")}
    removed = {
        name: sum(int(entry[name]) for _, entry in built) for name in ("duplicates", "held_out", "duplicate_pairs")
    }
    return {"sft": int(built[-1][1]["sft"]), **made, **removed}
