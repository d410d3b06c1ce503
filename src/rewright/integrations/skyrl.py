"""SkyRL: the advantage estimator "rewright" over its token-level rewards. Written for skyrl 0.4 (and skyrl-train 0.3).

Import this module in the entry point, in the process that trains::

    import rewright.integrations.skyrl                                # trainer.algorithm.advantage_estimator=rewright

SkyRL's environments return a reward for each step, and its generator puts it on the turn's last token, so turn rewards
are there already: let the environment's `step` return the turn's reward (`rewright.credit.turn_rewards` of the calls
so far). Settings come from `REWRIGHT_TURN_CREDIT` (JSON); `gamma` there, not `trainer.algorithm.gamma`.

Where turns end: SkyRL gives estimators a mask of the whole response, tool text included, so a turn is taken to end at
every reward that is not 0, and a turn paid exactly 0 runs on into the next (so no penalty per token may be among the
rewards: `use_kl_in_reward` is refused). With `TurnCreditMixin` in front of the trainer class, the loss mask is given
instead, and turns are exact::

    class Trainer(TurnCreditMixin, RayPPOTrainer): ...           # returned by your BasePPOExp.get_trainer

Step-wise training (`generator.step_wise_trajectories`) broadcasts one number per trajectory: turn credit needs it off.
"""

from __future__ import annotations

import importlib
from typing import Any

from rewright.credit.settings import TurnCredit
from rewright.credit.token_level import token_advantages

__all__ = ["TurnCreditMixin", "compute_rewright_advantage", "register"]

_HOMES = ("skyrl.backends.skyrl_train.utils.ppo_utils", "skyrl_train.utils.ppo_utils")


def compute_rewright_advantage(
    token_level_rewards: Any, response_mask: Any, index: Any = None, **kwargs: Any
) -> tuple[Any, Any]:
    """SkyRL's contract: tensors (batch, response_len) and uids in; advantages and returns of that shape out."""
    import torch

    if index is None:
        raise ValueError("the estimator 'rewright' compares the rollouts of a prompt: expected uids (index), got None")
    if getattr(kwargs.get("config"), "use_kl_in_reward", False):
        raise ValueError(
            "trainer.algorithm.use_kl_in_reward pays every token, so every token would be a turn: set it to false and "
            "use_kl_loss to true"
        )
    advantages = token_advantages(
        token_level_rewards.detach().float().cpu().numpy(),
        response_mask.detach().cpu().numpy(),
        [str(uid) for uid in index],
        TurnCredit.from_environment(),
        ends_from_rewards=True,
    )
    tensor = torch.from_numpy(advantages).to(device=token_level_rewards.device, dtype=torch.float32)
    return tensor, tensor.clone()


def register(ppo_utils: Any) -> None:
    """Register the estimator with SkyRL's module of estimators."""
    ppo_utils.register_advantage_estimator("rewright")(compute_rewright_advantage)


class TurnCreditMixin:
    """Put in front of SkyRL's trainer: estimators are given the loss mask, in which the gaps between turns show."""

    def compute_advantages_and_returns(self, data: Any) -> Any:
        """SkyRL's step, with `loss_mask` in the place of `response_mask`."""
        trainer: Any = self
        if trainer.cfg.generator.step_wise_trajectories:
            raise ValueError("turn credit needs whole trajectories: set generator.step_wise_trajectories=false")
        whole = data["response_mask"]
        data["response_mask"] = (data["loss_mask"] != 0).to(whole.dtype)
        try:
            return super().compute_advantages_and_returns(data)  # type: ignore[misc]
        finally:
            data["response_mask"] = whole


def _find() -> Any:
    """SkyRL's module of estimators, in the new or the old package, or None where SkyRL is not installed."""
    for name in _HOMES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as problem:
            if problem.name is None or not name.startswith(problem.name):
                raise
    return None


if (_ppo_utils := _find()) is not None:
    register(_ppo_utils)
