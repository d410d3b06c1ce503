"""SkyRL: the advantage estimator "rewright" over its token-level rewards. Written for skyrl 0.4 (and skyrl-train 0.3).

Import this module in the entry point, in the training process::

    import rewright.integrations.skyrl                                # trainer.algorithm.advantage_estimator=rewright

SkyRL's environments return a reward per step, and its generator puts it on the last token of the turn. So let the
environment's `step` return the turn reward (`rewright.credit.turn_rewards` of the calls so far). Settings, `gamma`
included, are read from `REWRIGHT_TURN_CREDIT` (JSON); `trainer.algorithm.gamma` is not used. They are checked when this
module is imported, so an estimator of your own is given as an import path, "package.module:function". The turn rewards
are the environment's: the settings of signals (`signal`, `missing`, those of the matching) are refused.

Turn boundaries: SkyRL passes a mask of the whole response, tool text included, so a turn is assumed to end at every
non-zero reward, and a turn with reward 0 is merged with the next one. Per-token penalties among the rewards are not
supported (`use_kl_in_reward` raises ValueError). With `TurnCreditMixin` before the trainer class, estimators get the
loss mask instead, and turn boundaries are exact::

    class Trainer(TurnCreditMixin, RayPPOTrainer): ...           # returned by your BasePPOExp.get_trainer

Step-wise training (`generator.step_wise_trajectories`) broadcasts one value per trajectory and must be off.
"""

from __future__ import annotations

import importlib
from typing import Any

from rewright.credit.settings import CALL_KEYS, TurnCredit
from rewright.credit.token_level import check_settings, token_advantages
from rewright.credit.unused import check_unread

__all__ = ["TurnCreditMixin", "compute_rewright_advantage", "register"]

_PPO_UTILS_MODULES = ("skyrl.backends.skyrl_train.utils.ppo_utils", "skyrl_train.utils.ppo_utils")


def compute_rewright_advantage(
    token_level_rewards: Any, response_mask: Any, index: Any = None, **kwargs: Any
) -> tuple[Any, Any]:
    """Advantage estimator with SkyRL's interface.

    Args:
        token_level_rewards: shape (batch, response_len); turn rewards on the last token of each turn.
        response_mask: shape (batch, response_len); 1 for response tokens, or for generated tokens with the mixin.
        index: the uid of the prompt of each row; rows with the same uid are a group.

    Returns advantages and returns, equal tensors of shape (batch, response_len). Raises ValueError without `index`, for
    `use_kl_in_reward`, and as `register` does.
    """
    import torch

    if index is None:
        raise ValueError("the estimator 'rewright' compares the rollouts of a prompt: expected uids (index), got None")
    if getattr(kwargs.get("config"), "use_kl_in_reward", False):
        raise ValueError(
            "trainer.algorithm.use_kl_in_reward gives every token a reward, so every token would be a turn: set it to "
            "false and use_kl_loss to true"
        )
    advantages = token_advantages(
        token_level_rewards.detach().float().cpu().numpy(),
        response_mask.detach().cpu().numpy(),
        [str(uid) for uid in index],
        _settings(),
        ends_from_rewards=True,
    )
    tensor = torch.from_numpy(advantages).to(device=token_level_rewards.device, dtype=torch.float32)
    return tensor, tensor.clone()


def register(ppo_utils: Any) -> None:
    """Register the estimator in SkyRL's module of estimators.

    Raises ValueError for settings that cannot work in SkyRL or have no effect there, and registers nothing then.
    """
    _settings()
    ppo_utils.register_advantage_estimator("rewright")(compute_rewright_advantage)


def _settings() -> TurnCredit:
    """The settings of the environment. Raises ValueError for those that cannot work or have no effect in SkyRL."""
    settings = TurnCredit.from_environment()
    try:
        check_unread(settings, ("signal", "missing", *CALL_KEYS), "the environment's `step` returns the turn rewards")
        settings.check_functions()
        check_settings(settings)
    except ValueError as problem:
        raise ValueError(f"REWRIGHT_TURN_CREDIT: {problem}") from None
    return settings


class TurnCreditMixin:
    """Mixin for SkyRL's trainer: passes the loss mask to estimators, which marks the turn boundaries."""

    def compute_advantages_and_returns(self, data: Any) -> Any:
        """SkyRL's method, with `loss_mask` as `response_mask`. Raises ValueError for step-wise training."""
        trainer: Any = self
        if trainer.cfg.generator.step_wise_trajectories:
            raise ValueError("turn credit needs whole trajectories: set generator.step_wise_trajectories=false")
        response_mask = data["response_mask"]
        data["response_mask"] = (data["loss_mask"] != 0).to(response_mask.dtype)
        try:
            return super().compute_advantages_and_returns(data)  # type: ignore[misc]
        finally:
            data["response_mask"] = response_mask


def _find_ppo_utils() -> Any:
    """Import SkyRL's module of estimators from the new or the old package; None if SkyRL is not installed."""
    for name in _PPO_UTILS_MODULES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as problem:
            if problem.name is None or not name.startswith(problem.name):
                raise
    return None


if (_ppo_utils := _find_ppo_utils()) is not None:
    register(_ppo_utils)
