"""The advantage estimator "rewright", registered with verl on import.

Every setting of `TurnCredit` can be set under `algorithm.rewright` (or, as JSON, in `REWRIGHT_TURN_CREDIT`);
`algorithm.gamma` is not used. The estimator requires turn rewards in `rm_scores`, as written by the agent loops of
`rewright.integrations.verl.agent_loop`. With verl's own loops, which put one score on the last token, only the last
turn has a reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verl.trainer.ppo.core_algos import register_adv_est

from rewright.credit.provided import check_provided
from rewright.credit.settings import TurnCredit
from rewright.credit.token_level import check_settings, token_advantages
from rewright.integrations.verl.names import ESTIMATOR, TOOL_AGENT

__all__ = ["check_algorithm", "check_loop", "compute_rewright_advantage", "settings_of"]


def settings_of(algorithm: Any) -> TurnCredit:
    """Read the settings under `rewright` of verl's algorithm configuration, else those of the environment.

    Raises ValueError if they are not a mapping of known settings.
    """
    section = algorithm.get("rewright", None) if algorithm is not None and hasattr(algorithm, "get") else None
    if section is None:
        return TurnCredit.from_environment()
    if not hasattr(section, "items"):
        raise ValueError(f"algorithm.rewright is {section!r}: expected settings, such as +algorithm.rewright.gamma=1.0")
    return TurnCredit.of(_plain(section))


def _plain(value: Any) -> Any:
    """Return Hydra's own lists and sections as Python's."""
    if hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


@register_adv_est(ESTIMATOR)  # type: ignore[untyped-decorator]
def compute_rewright_advantage(
    token_level_rewards: Any, response_mask: Any, config: Any = None, index: Any = None, **kwargs: Any
) -> tuple[Any, Any]:
    """Advantage estimator with verl's interface.

    Args:
        token_level_rewards: shape (bs, response_length); the reward of a turn is the sum over its tokens.
        response_mask: shape (bs, response_length); each run of ones is a turn.
        config: verl's algorithm configuration (see `settings_of`).
        index: the uid of the prompt of each row; rows with the same uid are a group.

    Returns the advantages twice (as advantages and returns, like verl's critic-free estimators), of shape
    (bs, response_length). Raises ValueError without `index`, and for rejection of single tokens.
    """
    import torch

    settings = check_algorithm(config)
    if index is None:
        raise ValueError("the estimator 'rewright' compares the rollouts of a prompt: expected uids (index), got None")
    with torch.no_grad():
        advantages = token_advantages(
            token_level_rewards.detach().float().cpu().numpy(),
            response_mask.detach().cpu().numpy(),
            [str(uid) for uid in index],
            settings,
        )
        tensor = torch.from_numpy(advantages).to(device=token_level_rewards.device, dtype=token_level_rewards.dtype)
    return tensor, tensor.clone()


def check_algorithm(algorithm: Any) -> TurnCredit:
    """Return the settings (see `settings_of`), and check what the estimator cannot do.

    Raises ValueError for the outcome in the trajectory reward only (`join`), for an estimator that reads more than
    rewards, and if verl removes single tokens from the mask, because its runs are then not turns.
    """
    settings = settings_of(algorithm)
    check_settings(settings)
    correction = algorithm.get("rollout_correction", None) if hasattr(algorithm, "get") else None
    if correction and not correction.get("bypass_mode", False) and "token" in str(correction.get("rollout_rs", None)):
        raise ValueError(
            f"algorithm.rollout_correction.rollout_rs is {correction.get('rollout_rs')!r}: rejecting single tokens "
            "splits turns; expected a rejection of whole sequences, such as 'seq_mean_k3'"
        )
    return settings


def check_loop(credit: TurnCredit, loop: str) -> None:
    """Raise ValueError for settings whose signal the agent loop of this name cannot compute.

    Both loops see one trajectory at a time, and have no model. `rewright_tool_agent` knows neither gold answers and
    scores nor the default values in the schemas of verl's tools.
    """
    credit.check_functions()
    credit.check_alone()
    if loop == TOOL_AGENT:
        check_provided(credit, ("token_ids",))
