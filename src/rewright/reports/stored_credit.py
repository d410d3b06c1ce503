"""Turn credit for stored trajectories from any source. Implements `rewright credit FILE --gold …`.

Sources, detected by the keys of a row: Rewright's `trajectories.jsonl` (or a run directory), and the logs of other
projects (`rewright.importers.log_files`). Every assistant message is a turn; messages of tools and users are not
searched for calls. Files are streamed.

Not here: the command line, its output (`rewright.reports.credit_table`) and the figure
(`rewright.reports.credit_picture`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rewright.core.errors import InputError
from rewright.core.records import Credit, Trajectory
from rewright.core.storage import read_strict
from rewright.credit import CreditTrajectory, CreditTurn, Match
from rewright.credit.resources import Resources
from rewright.credit.settings import TurnCredit
from rewright.importers.base import find_importer
from rewright.importers.chat_logs import check_read, prompt_text, read_logs
from rewright.importers.conversation import name_some
from rewright.importers.gold_files import GoldCalls, LazyGold, read_gold
from rewright.importers.own import OWN, is_own
from rewright.pipeline.migration import stored_recipe
from rewright.pipeline.run_directory import Run
from rewright.pipeline.signal_resources import ResourceSources, open_resources
from rewright.pipeline.stages.policy import policy_of
from rewright.recipe.loader import load_recipe
from rewright.recipe.schema import Recipe
from rewright.rollout.rewards import call_factor
from rewright.training.group_credit import CreditInput, CreditResult, credit_groups
from rewright.training.settings import RLSettings

__all__ = [
    "Credited",
    "GoldCalls",
    "Stored",
    "credit",
    "credited",
    "is_known",
    "prompt_text",
    "read_gold",
    "read_stored",
    "recipe_for",
    "rl_settings",
    "settings_for",
    "signal_resources",
    "with_gold",
]


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored trajectory, as input of the credit computation.

    `group`: label of the trajectories that it is compared with; None without a group. `turns`: calls of each turn.
    `texts`: text of each turn. `golds`: gold calls; None if unknown. `outcome`: None if the file has none. `prompt`:
    text of the last message before the first turn.

    Only set for Rewright's own trajectories: `stage` and `task_id` of the record; whether it is `broken` (has an
    infrastructure failure) and whether its format is valid; the `reward_model`'s score; and `kept`, the values that RL
    used.
    """

    id: str
    group: str | None
    turns: list[list[Any]]
    texts: list[str]
    prompt: str = ""
    golds: Sequence[Any] | None = None
    outcome: float | None = None
    stage: str = ""
    task_id: str | None = None
    broken: bool = False
    format_ok: bool = True
    reward_model: float | None = None
    kept: Credit | None = None
    is_repair: bool = False
    """Whether it is the repair of another trajectory, which is compared with nothing."""
    seen: str = ""
    """Description of a row of another project's log for error messages; empty for Rewright's own trajectories."""
    whole: CreditTrajectory | None = None
    """Full trajectory, for signals that use more than calls; None if the fields of this class are all there is."""

    def credit_trajectory(self) -> CreditTrajectory:
        """Return the trajectory as input of a credit signal, with these gold calls and this outcome."""
        if self.whole is not None:
            return replace(self.whole, golds=self.golds, outcome=self.outcome)
        turns = [CreditTurn(calls, text=text) for calls, text in zip(self.turns, self.texts, strict=True)]
        return CreditTrajectory(
            turns, id=self.id, task_id=self.task_id or self.group, golds=self.golds, outcome=self.outcome
        )


@dataclass(frozen=True, slots=True)
class Credited:
    """A trajectory with its credit: match of all calls, turn rewards (T,), turn advantages (T,), trajectory reward.

    `rewards` is NaN where the signal has no number, and `missing` says why; they are NaN, too, after an infrastructure
    failure. `advantages` is None without a group, and
    for a trajectory that is left out of it because of that (`left_out`). `trajectory_reward` is None after an
    infrastructure failure, if it needs an unknown outcome, and if the trajectory is left out. `used_by_rl` is True if
    the values are those stored by RL and not recomputed. `signal`: its name. `stats`: its metrics, of all trajectories
    that were computed together.
    """

    stored: Stored
    match: Match
    rewards: NDArray[np.float64]
    advantages: NDArray[np.float64] | None
    trajectory_reward: float | None
    used_by_rl: bool = False
    missing: str | None = None
    left_out: bool = False
    signal: str = "matched"
    stats: Mapping[str, float] = field(default_factory=dict)


def recipe_for(
    path: Path,
    changes: Sequence[str] = (),
    *,
    models: Sequence[str] = (),
    recipe: Path | None = None,
    trusted: Sequence[str] = (),
) -> Recipe:
    """Return the settings for a file: the run's recipe, else MatchTIR's credit and trajectory reward.

    Args:
        path: a run directory, or a file.
        changes: `key=value` overrides of `rl.credit`.
        models: `key=value` overrides of `signals`.
        recipe: a recipe whose sections `rl` and `signals` are used for a file.
        trusted: packages whose code in a run's recipe may run.

    Raises InputError for an invalid recipe or key, for a key without effect, and if the estimator, a signal or a model
    of the run's recipe is code from a package that is not `trusted`.
    """
    own = path / "recipe.yaml" if path.is_dir() else None
    overrides = [*(f"rl.credit.{change}" for change in changes), *(f"signals.{model}" for model in models)]
    if own is not None and own.exists():
        if recipe is not None:
            raise InputError(f"--recipe {recipe}: {path} is a run with a recipe of its own: expected no --recipe")
        given = {change.partition("=")[0].strip() for change in changes}
        named = [f"rl.credit.{key}" for key in ("estimator", "signal", "compare") if key not in given]
        set_here = {model.partition("=")[0].partition(".")[0] for model in models}
        named += [f"signals.{key}.trust_remote_code" for key in ("scorer", "judge") if key not in set_here]
        Run.open(path, trusted=trusted).check_code(*named)
        return stored_recipe(path, overrides, trusted=trusted)
    if recipe is not None:
        return load_recipe(recipe, overrides)
    parity = [] if any(change.startswith("singleton_turn=") for change in changes) else ["singleton_turn"]
    loaded = load_recipe(None, ["rl.trajectory_reward=matchtir", *overrides])
    credit = msgspec.structs.replace(loaded.rl.credit, **{key: getattr(TurnCredit(), key) for key in parity})
    return msgspec.structs.replace(loaded, rl=msgspec.structs.replace(loaded.rl, credit=credit))


def settings_for(path: Path, changes: Sequence[str] = (), *, trusted: Sequence[str] = ()) -> RLSettings:
    """Return the section `rl` of `recipe_for`."""
    return recipe_for(path, changes, trusted=trusted).rl


@contextmanager
def signal_resources(path: Path, recipe: Recipe) -> Iterator[Resources | None]:
    """Open the models that the signals of `recipe_for` need, for the trajectories of a run or a file."""
    needs = recipe.rl.credit.needs()
    # A scorer or a reward model of another vocabulary would score the policy's token ids as other words.
    reads_tokens = not {"log_prob", "tokenize", "prefix_score"}.isdisjoint(needs)
    vocabulary = _vocabulary(path) if reads_tokens else None
    sources = ResourceSources(recipe=recipe, vocabulary=vocabulary)
    if needs and path.is_dir() and (path / "recipe.yaml").exists():
        asks_policy = recipe.signals.scorer is None and not {"log_prob", "tokenize"}.isdisjoint(needs)
        policy = policy_of(Run.open(path), recipe, "sft") if asks_policy else None
        sources = ResourceSources(recipe=recipe, run=path, policy=policy, vocabulary=vocabulary)
    with open_resources(recipe.rl.credit, sources) as resources:
        yield resources


def _vocabulary(path: Path) -> str | None:
    """The vocabulary of the policy's token ids in a run or a file: that of the first trajectory that is no repair."""
    if not is_own(path):
        return None
    from rewright.reports.run_credit import run_sources  # lazy: only needed for runs

    for source in run_sources(path)[1]:
        for _, one in read_strict(source.file, Trajectory):
            if one.prompt_ids is not None and one.provenance.parent is None and one.provenance.tokenizer is not None:
                return one.provenance.tokenizer
    return None


def read_stored(
    path: Path | str,
    *,
    outcome: str | Sequence[str] | None = None,
    file_format: str | None = None,
    prefixes: Sequence[str] = (),
) -> Iterator[Stored]:
    """Yield the trajectories of a file or a run directory, in order.

    `outcome` names the source of the outcome. The default is the verdict for Rewright's own files, and the column
    `reward` for others (see `rewright.importers.chat_logs.read_logs`, which also accepts several columns and "none").
    `file_format` is an importer (a registered name or an import path); None detects the format from the rows.
    `prefixes` are removed from the names of tools in logs. Raises InputError with file and row for invalid input.
    """
    path = Path(path)
    if file_format is not None and file_format != OWN:
        importer = find_importer(file_format, "logs")
        if importer.logs is not None:
            if path.is_dir():
                raise InputError(f"--format {file_format}: {path} is a folder, expected a file")
            yield from (Stored(**log._asdict()) for log in importer.logs(path, outcome))
            return
        logs = read_logs(path, outcome, prefixes=prefixes, reader=importer.conversations)
    elif file_format != OWN and not is_own(path):
        logs = read_logs(path, outcome, prefixes=prefixes)
    else:
        if prefixes:
            raise InputError(f"--strip-prefix is for logs of other projects: {path} has Rewright's own trajectories")
        metrics = [outcome] if isinstance(outcome, str) else list(outcome or ())
        if len(metrics) > 1:
            raise InputError(f"{path}: the outcomes are {', '.join(metrics)}: expected one metric of the verdicts")
        yield from _own(path, *metrics)
        return
    for log in logs:
        yield Stored(**log._asdict())


def credit(
    trajectories: Iterable[Stored],
    gold: GoldCalls | None = None,
    settings: TurnCredit | RLSettings | None = None,
    *,
    recompute: bool = False,
    metrics: dict[str, float] | None = None,
    resources: Resources | None = None,
) -> list[Credited]:
    """Compute turn rewards, trajectory rewards and advantages of trajectories, grouped by `Stored.group`.

    `gold` provides gold calls for trajectories without their own. `settings` is a recipe's `rl` section, or credit
    settings alone (with MatchTIR's trajectory reward). Rollouts keep the values stored by RL, unless `recompute` is
    set. `metrics`: a mapping to which the shares are added that the estimator reports. `resources`: models that the
    signal may use. Raises InputError if the signal is "matched" and no trajectory has gold calls.
    """
    settings = rl_settings(settings)
    filled = [with_gold(stored, gold) for stored in trajectories]
    if settings.credit.rewards_matches and filled and not any(is_known(stored) for stored in filled):
        if gold is None:
            seen = f"; {filled[0].seen}" if filled[0].seen else ""
            raise InputError(f"no trajectory has gold calls: give a file of them with --gold{seen}")
        known = name_some(sorted([*gold.by_id, *gold.by_prompt])[:3])
        have = name_some(sorted({stored.task_id or stored.group or "" for stored in filled})[:3])
        raise InputError(f"no trajectory has gold calls: the trajectories' tasks are {have}, the gold file's {known}")
    if all(stored.seen for stored in filled):
        check_read(filled)
    return credited(filled, settings, recompute=recompute, metrics=metrics, resources=resources)


def rl_settings(settings: TurnCredit | RLSettings | None) -> RLSettings:
    """Return the settings that `credit` uses."""
    if isinstance(settings, RLSettings):
        return settings
    return RLSettings(credit=settings or TurnCredit(), trajectory_reward="matchtir")


def with_gold(stored: Stored, gold: GoldCalls | LazyGold | None) -> Stored:
    """Return the trajectory with its own gold calls, else with those of the file."""
    return stored if stored.golds is not None or gold is None else replace(stored, golds=gold.of(stored))


def credited(
    filled: Sequence[Stored],
    settings: RLSettings,
    *,
    recompute: bool,
    metrics: dict[str, float] | None = None,
    resources: Resources | None = None,
) -> list[Credited]:
    """Compute the credit of trajectories with their gold calls: `credit` without its checks."""
    attempted = [
        CreditInput(
            trajectory=stored.credit_trajectory(),
            group=stored.group,
            failed=stored.broken,
            format_ok=stored.format_ok,
            reward_model=stored.reward_model,
        )
        for stored in filled
    ]
    if settings.credit.needs() and not recompute:  # values that RL stored are not computed again with a model
        fresh = [one for one, stored in zip(attempted, filled, strict=True) if stored.kept is None]
        computed = iter(credit_groups(fresh, settings, metrics=metrics, resources=resources))
        earned = [_UNUSED if stored.kept is not None else next(computed) for stored in filled]
    else:
        earned = credit_groups(attempted, settings, details=True, metrics=metrics, resources=resources)
    factor = call_factor(settings) * settings.credit.match_scale
    matches: list[Match] = [group_credit.details for group_credit in earned]
    lacking = [index for index, match in enumerate(matches) if match is None or not settings.credit.match_scale]
    if lacking:
        # They are shown for information: of a signal that rewards turns and not calls, and of failed trajectories.
        plain = msgspec.structs.replace(settings.credit, signal="matched")
        shown = plain.signal_of([attempted[index].trajectory for index in lacking], details=True).details or ()
        for index, match in zip(lacking, shown, strict=True):
            matches[index] = match
    if factor != 1.0:
        matches = [replace(matched, rewards_P=factor * matched.rewards_P) for matched in matches]
    results, signal = [], settings.credit.signal_name
    for stored, match, group_credit in zip(filled, matches, earned, strict=True):
        rewards, advantages, total = group_credit.turn_rewards, group_credit.advantages, group_credit.trajectory_reward
        used = stored.kept is not None and not recompute
        if stored.kept is not None and used:
            rewards, advantages = np.array(stored.kept.turn_rewards, np.float64), np.array(stored.kept.advantages)
            total = stored.kept.trajectory_reward
            gaps = bool(np.isnan(rewards).any()) and not stored.broken
            left_out = total is None and gaps
            results.append(
                Credited(
                    stored,
                    match,
                    rewards,
                    None if left_out else advantages,
                    total,
                    used,
                    missing="RL had no number" if gaps else None,
                    left_out=left_out,
                    signal=signal,
                )
            )
            continue
        results.append(
            Credited(
                stored,
                match,
                rewards,
                advantages,
                total,
                missing=group_credit.missing,
                left_out=group_credit.left_out,
                signal=signal,
                stats=group_credit.stats,
            )
        )
    return results


_UNUSED = CreditResult(np.zeros(0), None, None)


def is_known(stored: Stored) -> bool:
    """Return True if credit can be computed. Logs of other projects need gold calls for that."""
    return stored.golds is not None or stored.kept is not None or (bool(stored.stage) and stored.outcome is not None)


def _own(path: Path, outcome: str | None = None) -> Iterator[Stored]:
    from rewright.reports.run_credit import read_run  # lazy: only needed for runs

    return read_run(path, metric=outcome)
