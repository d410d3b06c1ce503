"""`rewright credit` of a run whose trajectories are a folder of shards (`rewright.pipeline.sharded`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.core.records import Trajectory
from rewright.credit.provided import compares_groups
from rewright.importers.gold_files import GoldCalls, LazyGold
from rewright.pipeline.migration import stored_recipe
from rewright.pipeline.sharded import ShardPass, digest_of
from rewright.reports.credit_stream import can_stream, stream_sources
from rewright.reports.credit_table import Summary
from rewright.reports.run_credit import Source, group_of
from rewright.tasks.stored import StoredTasks
from rewright.training.settings import RLSettings

__all__ = ["CreditPass"]


class CreditPass(ShardPass):
    """Turn rewards and advantages of every trajectory.

    Args:
        run: the run directory.
        gold: path of a file of gold calls, and what reads it; None: those of the tasks.
        settings: the `rl` section.
        recompute, metric, stage: as for `stream_credit`.

    Raises InputError for an estimator that compares trajectories of several shards.
    """

    name, reads, grouped = "credit", "verdicts", True

    def __init__(
        self,
        run: Path,
        settings: RLSettings,
        gold: tuple[Path, Callable[[], GoldCalls]] | None,
        *,
        recompute: bool = False,
        metric: str | None = None,
        stage: str | None = None,
    ) -> None:
        super().__init__(run)
        if compares_groups(settings.credit):
            raise InputError(
                f"{run}: its trajectories are shards, and estimator {settings.credit.estimator_name} compares the "
                "groups of a run: expected another estimator, or for outcome_or_calls another decay"
            )
        self._settings, self._gold = settings, gold
        self._options: dict[str, Any] = {"recompute": recompute, "metric": metric, "stage": stage}
        self._dialect = stored_recipe(self.run).dialect
        tasks = self.run / "tasks.jsonl"
        files = [tasks] if tasks.exists() else []
        files += [gold[0]] if gold is not None and gold[0] != tasks else []
        self._digests = list(map(digest_of, files))

    def settings(self) -> Any:
        """The settings of `rl` that credit reads, and the gold calls."""
        keys = ("credit", "outcome", "trajectory_reward")
        chosen = {key: msgspec.to_builtins(getattr(self._settings, key)) for key in keys}
        return {**chosen, **self._options, "dialect": self._dialect, "gold": self._digests}

    def foreign_code(self) -> str | None:
        """A signal or estimator of another package, or one that needs a model."""
        if can_stream(self._settings):
            return None
        return "a signal or an estimator of another package, or a signal that needs a model"

    def group_of(self, trajectory: Trajectory) -> str | None:
        """The task, and in RL also the step."""
        return group_of(trajectory)

    def lines(self, folder: Path, shard: Path) -> tuple[list[bytes], Any]:
        """Compute the credit of a shard."""
        if "_read" not in self.__dict__:
            self._read = (
                StoredTasks(self.run / "tasks.jsonl"),
                None if self._gold is None else LazyGold(self._gold[1]),
            )
        tasks, gold = self._read
        source = Source(folder / "trajectories.jsonl", tasks, folder / "verdicts.jsonl", held_out=False)
        found = stream_sources(
            [source], self._dialect, gold, self._settings, as_json=True, processes=1, without_gold=True, **self._options
        )
        assert found is not None
        return [line.encode() + b"\n" for line in found.lines()], (found.summary, found.any_known)

    def finish(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add up what notes and warnings say."""
        total = Summary()
        for summary, _ in results.values():
            total.add_all(summary)
        signal = self._settings.credit.signal_name
        if results and self._settings.credit.rewards_matches and not any(known for _, known in results.values()):
            raise InputError(f"{self.run}: no trajectory has gold calls: expected them in the tasks, or --gold FILE")
        if (stage := self._options["stage"]) is not None and not total.count:
            raise InputError(f"--stage {stage}: {self.run} has no trajectory of it")
        total.check(signal)
        for line in (*total.notes(), *total.warnings(signal)):
            say(line)
        return {"trajectories": total.count}
