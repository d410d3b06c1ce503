"""TRL: turn credit for a `GRPOTrainer` script with `tools=` or `environment_factory=`. Written for TRL 1.16.

Change two lines of an existing script::

    from rewright.integrations.trl import TurnCreditTrainer                      # instead of trl.GRPOTrainer
    trainer = TurnCreditTrainer(..., turn_credit={"estimator": "matchtir"})  # everything else unchanged

and add a column `gold_calls` to the dataset (a list of `{"name", "arguments"}`, or its JSON text; None if unknown).
With another signal than `matched`, such as `outcome`, no such column is needed.
With your own trainer class, put the mixin first: `class Mine(TurnCreditMixin, MyGRPOTrainer)`.

Every assistant message of a completion is a turn. Its tool calls are matched with the gold calls, and the weighted sum
of the reward functions is the outcome. The advantage of a turn is assigned to the tokens that the model generated in
it, and replaces TRL's single advantage per completion. All loss types of TRL accept (B, L) advantages with token-level
importance ratios. `importance_sampling_level="sequence"` raises ValueError, because the advantage of a turn would be
applied to the tokens of all turns. A completion that no reward function could score (all None) gets advantage 0 and is
excluded from its group, as in TRL. A call that TRL cannot parse is text: it has no reward and does not lower a mean.

A `rollout_func` must return the calls as an extra field `turn_calls` (for each completion the list of its turns, each
a list of calls) beside `env_mask`, since its completions are plain text.

Estimators that compare states are given the calls, the results and the messages; of a `rollout_func`, the calls alone.
`gdpo` is given the reward functions by name, with `reward_weights`, and the sum of the turn rewards as `signal`.

Logged: `turn_credit/reward_mean` (per turn), `turn_credit/call_reward_mean`, `turn_credit/turns_mean`,
`turn_credit/calls_mean`, `turn_credit/advantage_std` and, in the completions table, `turn_rewards` and
`turn_advantages`. (Its column `advantage` is still TRL's own.)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from rewright.credit import CreditTrajectory, CreditTurn, Resources, per_token, spans_from_mask
from rewright.credit.estimators import FLOAT32_TOLERANCE
from rewright.credit.messages import (
    credit_turns,
    gold_calls,
    turn_scores,
    turns_of_messages,
    warn_about_malformed_calls,
)
from rewright.credit.missing import bridged, check_missing
from rewright.credit.provided import check_provided
from rewright.credit.settings import Array, TurnCredit

__all__ = ["TurnCreditMixin", "TurnCreditTrainer"]  # noqa: F822  (made by __getattr__)


class TurnCreditMixin:
    """Mixin for a `GRPOTrainer`: advantages of shape (B, L) with one value per turn.

    `turn_credit`: a `TurnCredit`, a mapping of its settings, or None for MatchTIR's defaults. `resources`: the models
    that its signals need. Raises ValueError for the Liger loss, for sequence-level importance ratios, for an evaluation
    set without `gold_calls`, for a signal without the model that it needs, for settings that need what TRL does not
    provide (gold answers, the environment's own states, the schemas of the tools, and without a `rollout_func` the
    scores of turns), and with several processes for a signal that compares the completions of a group, which TRL
    divides over them.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raise TypeError if a trainer class precedes the mixin, since its methods would override the mixin's."""
        super().__init_subclass__(**kwargs)
        for base in cls.__mro__[: cls.__mro__.index(TurnCreditMixin)]:
            if hasattr(base, "train") and hasattr(base, "evaluate") and not issubclass(base, TurnCreditMixin):
                raise TypeError(
                    f"{cls.__name__}: after {base.__name__}, TurnCreditMixin has no effect: put it first, "
                    f"class {cls.__name__}(TurnCreditMixin, {base.__name__})"
                )

    def __init__(
        self,
        *args: Any,
        turn_credit: TurnCredit | Mapping[str, Any] | None = None,
        resources: Resources | None = None,
        **kwargs: Any,
    ) -> None:
        self.turn_credit, self.resources = TurnCredit.of(turn_credit), resources
        check_provided(self.turn_credit, [*PROVIDED, "scores"])  # before the models are loaded
        self.turn_credit.check_resources(resources)
        super().__init__(*args, **kwargs)
        self._check_settings()
        if self.accelerator.num_processes > 1:  # type: ignore[attr-defined]
            self.turn_credit.check_alone()
        if getattr(self.args, "use_liger_kernel", False) or getattr(self, "use_liger_loss", False):  # type: ignore[attr-defined]
            raise ValueError(
                "turn credit has advantages of shape (B, L), the Liger loss requires (B,): set use_liger_kernel=False"
            )
        if getattr(self, "importance_sampling_level", "token") != "token":
            raise ValueError(
                "a sequence-level importance ratio applies each turn's advantage to the tokens of all turns: set "
                "importance_sampling_level='token'"
            )
        if self.turn_credit.match_scale and _has_no_gold(self.train_dataset):  # type: ignore[attr-defined]
            warnings.warn("turn credit: gold_calls is None in every row: all call rewards are 0", stacklevel=2)
        if self.turn_credit.match_scale:
            _check_evaluation(self.train_dataset, self.eval_dataset)  # type: ignore[attr-defined]

    def _check_settings(self) -> None:
        """Raise ValueError for settings that need what this trainer, with its data, does not provide."""
        trainer: Any = self
        columns = getattr(trainer.train_dataset, "column_names", None)
        scores = getattr(trainer, "rollout_func", None) is not None or columns is None or "turn_scores" in columns
        check_provided(self.turn_credit, [*PROVIDED, *(["scores"] if scores else [])])
        self.turn_credit.check_components([*_unique(trainer.reward_func_names), SIGNAL_PART])

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        """TRL's method, with advantages of shape (B, L) instead of (B,)."""
        import torch
        from accelerate.utils import gather_object

        trainer: Any = self
        generate, score = trainer._generate, trainer._calculate_rewards
        generated: list[tuple[Any, ...]] = []
        scored: list[tuple[list[CreditTrajectory], Any]] = []
        needs_gold = self.turn_credit.match_scale != 0

        def generate_and_keep(*args: Any, **kwargs: Any) -> Any:
            """Generate, and record the tokens of this process's completions before TRL pads them."""
            result = generate(*args, **kwargs)
            generated.append(result)
            return result

        def score_and_keep(rows: Any, prompts: Any, completions: Any, completion_ids: Any) -> Any:
            """Compute TRL's rewards, and record this process's completions as trajectories."""
            rewards = score(rows, prompts, completions, completion_ids)
            scored.append((_trajectories(rows, prompts, completions, needs_gold=needs_gold), rewards))
            return rewards

        # An instance attribute overrides the methods of all classes, so this also sees the rewards of a subclass with
        # its own `_calculate_rewards`.
        trainer._generate, trainer._calculate_rewards = generate_and_keep, score_and_keep
        try:
            output = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        finally:
            del trainer._generate, trainer._calculate_rewards
        assert scored, "TRL scores every batch that it generates"
        trajectories, rewards_per_function = scored[-1]
        if generated:
            prompt_ids, completion_ids, masks = generated[-1][:3]
            trajectories = [
                one.with_tokens(prompt_ids[index], completion_ids[index], None if masks is None else masks[index])
                for index, one in enumerate(trajectories)
            ]
        turns, golds = [one.calls for one in trajectories], [one.golds for one in trajectories]

        mode = "train" if trainer.model.training else "eval"
        group_size = trainer.num_generations if mode == "train" else trainer.num_generations_eval
        weights = trainer.reward_weights.to(rewards_per_function.device)
        unscorable = torch.isnan(rewards_per_function).all(dim=1)
        outcome_B = (rewards_per_function * weights).nansum(dim=1)
        outcome_B[unscorable] = torch.nan
        outcomes = outcome_B.tolist()  # of all processes, in TRL's order: the completions of a group are adjacent

        first_row = trainer.accelerator.process_index * len(turns)
        local = slice(first_row, first_row + len(turns))
        groups = [index // group_size for index in range(len(outcomes))]
        trajectories = [
            replace(one, task_id=group, outcome=None if np.isnan(outcome) else outcome)
            for one, group, outcome in zip(trajectories, groups[local], outcomes[local], strict=True)
        ]
        signal = self.turn_credit.signal_of(trajectories, resources=self.resources)
        call_rewards = gather_object(signal.marked_rewards)
        causes = gather_object([signal.causes.get(index) for index in range(len(trajectories))])
        left_out = [self.turn_credit.is_left_out(row) for row in call_rewards]
        named = [(f"completion {index}", causes[index]) for index, out in enumerate(left_out) if out]
        bridges = self.turn_credit.missing == "bridge"
        check_missing(self.turn_credit.signal_name, named, len(left_out), key="turn_credit", bridged=bridges)
        rewards = self.turn_credit.with_outcomes(call_rewards, outcomes)
        metrics: dict[str, float] = {}
        names = _unique(trainer.reward_func_names)
        parts = {name: rewards_per_function[:, column].tolist() for column, name in enumerate(names)}
        advantages = self.turn_credit.advantages(
            rewards,
            groups,
            outcomes,
            trajectories=gather_object(trajectories),
            components={**parts, SIGNAL_PART: [float(np.nansum(row)) for row in call_rewards]},
            component_weights=dict(zip(names, weights.tolist(), strict=True)),
            metrics=metrics,
            tolerance=FLOAT32_TOLERANCE,  # TRL's rewards are float32
        )
        for name, value in metrics.items():
            trainer._metrics[mode][f"turn_credit/{name}"].append(value)
        if signal.advantages is not None:
            added = gather_object(signal.advantages)
            for place, (out, outcome) in enumerate(zip(left_out, outcomes, strict=True)):
                if not out and not np.isnan(outcome):
                    advantages[place] = advantages[place] + added[place]
        self._log_turn_credit(
            mode,
            calls=gather_object([sum(len(calls) for calls in row) for row in turns]),
            call_rewards=call_rewards,
            rewards=rewards,
            outcomes=outcomes,
            left_out=left_out,
            advantages=advantages,
        )

        mask = output["completion_mask"]
        if "tool_mask" in output:
            mask = mask * output["tool_mask"]
        elif any(golds) and not any(map(any, turns)):
            warnings.warn(_NO_TOOLS, stacklevel=2)
        warn_about_malformed_calls(turns, golds)
        spans = spans_from_mask(mask.cpu().numpy())
        for index, (row, turn_spans) in enumerate(zip(turns, spans, strict=True)):
            if len(turn_spans) > len(row) or (len(row) > 1 and "tool_mask" not in output):
                raise ValueError(
                    f"completion {index} has {len(row)} turns, but {len(turn_spans)} runs of generated tokens: "
                    "expected from a rollout_func an entry of turn_calls for each run of ones in its env_mask"
                )
        # A truncated completion may lack its last turns, and a masked one all of them.
        pairs = [
            (values[: len(turn_spans)], turn_spans[: len(values)])
            for values, turn_spans in zip(advantages[local], spans, strict=True)
        ]
        tokens = per_token([values for values, _ in pairs], [turn_spans for _, turn_spans in pairs], mask.shape[1])
        output["advantages"] = torch.from_numpy(tokens).to(mask.device)
        if any(left_out[local]):  # not trained on, also not by the terms of the loss that have no advantage
            kept = ~torch.tensor(left_out[local], device=mask.device)
            output["completion_mask"] = output["completion_mask"] * kept[:, None].to(output["completion_mask"].dtype)
        return output

    def _log_turn_credit(
        self,
        mode: str,
        *,
        calls: list[int],
        call_rewards: list[Array],
        rewards: list[Array],
        outcomes: list[float],
        left_out: list[bool],
        advantages: list[Array],
    ) -> None:
        """Log the turn metrics of all processes, and two columns of the completions table.

        The means of rewards are those of the completions that are not left out, with 0 for a reward that is bridged,
        plus the outcome on a last turn.
        """
        trainer: Any = self
        metrics = trainer._metrics[mode]
        kept = [index for index, out in enumerate(left_out) if not out]
        turns = max(sum(len(rewards[index]) for index in kept), 1)
        added = outcomes if self.turn_credit.join == "last_turn" else [math.nan] * len(outcomes)
        total = sum(float(bridged(rewards[index], added[index]).sum()) for index in kept)
        metrics["turn_credit/reward_mean"].append(total / turns)
        metrics["turn_credit/call_reward_mean"].append(
            sum(float(np.nansum(call_rewards[index])) for index in kept) / turns
        )
        metrics["turn_credit/missing"].append(float(sum(bool(np.isnan(row).any()) for row in rewards)))
        metrics["turn_credit/turns_mean"].append(sum(len(row) for row in rewards) / len(rewards))
        metrics["turn_credit/calls_mean"].append(sum(calls) / len(rewards))
        values = np.concatenate([np.zeros(0), *advantages])
        metrics["turn_credit/advantage_std"].append(float(values.std()) if values.size else 0.0)
        shown = [[None if np.isnan(value) else value for value in row.round(4).tolist()] for row in rewards]
        trainer._logs["extra"]["turn_rewards"].extend(shown)
        trainer._logs["extra"]["turn_advantages"].extend([row.round(4).tolist() for row in advantages])


PROVIDED: Final = ("state_keys", "components", "outcomes", "token_ids")
"""What every trainer provides to signals and estimators (`rewright.credit.provided`)."""
SIGNAL_PART: Final = "signal"
"""The name of the turn rewards among the parts of the trajectory reward."""
_NO_TOOLS = (
    "turn credit: the trainer has neither tools= nor environment_factory=, so TRL reads no tool calls and every turn's "
    "call reward is 0, though the dataset has gold calls"
)


def _has_no_gold(train: Any) -> bool:
    """Return True if gold_calls is None in every row of a dataset. (Streaming datasets are not read.)"""
    if "gold_calls" not in (getattr(train, "column_names", None) or ()) or not hasattr(train, "__len__"):
        return False
    return len(train) > 0 and all(calls is None for calls in train["gold_calls"])


def _check_evaluation(train: Any, evaluation: Any) -> None:
    """Raise ValueError for an evaluation set without gold_calls, before training instead of at the first evaluation."""
    if "gold_calls" not in (getattr(train, "column_names", None) or ()):
        return
    for name, rows in (evaluation if isinstance(evaluation, Mapping) else {"eval_dataset": evaluation}).items():
        if "gold_calls" not in (getattr(rows, "column_names", None) or ("gold_calls",)):
            raise ValueError(f"{name} has no column gold_calls: expected a list of calls (or None) in every row")


def _trajectories(
    rows: Sequence[Mapping[str, Any]], prompts: Sequence[Any], completions: Sequence[Any], *, needs_gold: bool
) -> list[CreditTrajectory]:
    """Return the completions as trajectories. Raises ValueError for invalid input."""
    if needs_gold and not any("gold_calls" in row for row in rows):
        raise ValueError("the dataset has no column gold_calls: expected a list of calls (or None) in every row")
    golds = [gold_calls(row.get("gold_calls"), f"gold_calls of row {index}") for index, row in enumerate(rows)]
    trajectories = []
    for index, (row, prompt, completion) in enumerate(zip(rows, prompts, completions, strict=True)):
        turn_calls = row.get("turn_calls")
        if turn_calls is not None:
            if not isinstance(turn_calls, (list, tuple)) or not all(
                isinstance(calls, (list, tuple)) for calls in turn_calls
            ):
                raise ValueError(
                    f"turn_calls of completion {index} is {turn_calls!r:.200}: expected a list of turns, "
                    "each a list of calls"
                )
            turns = [CreditTurn(list(calls)) for calls in turn_calls]
        elif isinstance(completion, str):
            raise ValueError("turn credit reads tool calls from messages: expected conversational prompts, got text")
        else:
            turns = credit_turns(completion, turns_of_messages(completion))
        trajectories.append(
            CreditTrajectory(
                turns,
                id=f"completion {index}",
                messages=prompt if isinstance(prompt, list) else None,
                golds=golds[index],
                scores=_scores(row.get("turn_scores"), len(turns), index),
            )
        )
    return trajectories


def _scores(given: Any, turns: int, index: int) -> list[float | None] | None:
    """The scores after each turn (and before the first one), for the signal `score`."""
    return turn_scores(given, turns, f"turn_scores of completion {index}")


def _unique(names: Sequence[str]) -> list[str]:
    """Names of reward functions, with the position appended where several have one name, or that of the signal."""
    return [
        name if names.count(name) == 1 and name != SIGNAL_PART else f"{name}_{position}"
        for position, name in enumerate(names)
    ]


def __getattr__(name: str) -> Any:
    """Create `TurnCreditTrainer` on first use, so that importing this module does not import TRL."""
    if name != "TurnCreditTrainer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trl import GRPOTrainer

    class TurnCreditTrainer(TurnCreditMixin, GRPOTrainer):  # type: ignore[misc]
        """TRL's `GRPOTrainer` with turn credit."""

    globals()[name] = TurnCreditTrainer
    return TurnCreditTrainer
