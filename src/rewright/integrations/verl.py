"""verl: the advantage estimator "rewright". Written for verl 0.9.1 (v1 trainer, its default); no fork needed.

Load it into every process, Ray workers too, in one of two ways::

    export VERL_USE_EXTERNAL_MODULES=rewright.integrations.verl      # by name
    pip install rewright                                         # verl finds the entry point `verl.plugins` by itself

(verl logs a failing entry point at debug level only: `rewright doctor` imports it and says what is wrong.) Then::

    algorithm.adv_estimator=rewright +algorithm.rewright.estimator=matchtir +algorithm.rewright.gamma=0.9

Every setting of `TurnCredit` may stand under `algorithm.rewright` (or, as JSON, in `REWRIGHT_TURN_CREDIT`);
`algorithm.gamma` is not read. The estimator needs turn rewards in `rm_scores`: the agent loop of
`rewright.integrations.verl_agent_loop` puts them there. With stock loops, which put one score on the last token, it
sees turns of which only the last was paid.

This module imports nothing of verl's agent loops, which need more packages: estimators load in trainers without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verl.trainer.ppo.core_algos import register_adv_est

from rewright.credit.settings import TurnCredit
from rewright.credit.token_level import token_advantages

__all__ = ["compute_rewright_advantage", "settings_of"]


def settings_of(algorithm: Any) -> TurnCredit:
    """Settings under `rewright` of verl's algorithm configuration, else those of the environment."""
    given = algorithm.get("rewright", None) if algorithm is not None and hasattr(algorithm, "get") else None
    if given is None:
        return TurnCredit.from_environment()
    if not hasattr(given, "items"):
        raise ValueError(f"algorithm.rewright is {given!r}: expected settings, such as +algorithm.rewright.gamma=1.0")
    # Hydra's lists are not Python's.
    return TurnCredit.of(
        {
            str(key): list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
            for key, value in given.items()
        }
    )


@register_adv_est("rewright")  # type: ignore[untyped-decorator]
def compute_rewright_advantage(
    token_level_rewards: Any, response_mask: Any, config: Any = None, index: Any = None, **kwargs: Any
) -> tuple[Any, Any]:
    """verl's contract: tensors (bs, response_length) and uids in; advantages and returns of that shape out.

    Turns are the runs of `response_mask`, their rewards what `token_level_rewards` pays in them, groups the equal
    entries of `index`. Returns the advantages twice, as verl's critic-free estimators do.
    """
    import torch

    _check_mask(config)
    if index is None:
        raise ValueError("the estimator 'rewright' compares the rollouts of a prompt: expected uids (index), got None")
    with torch.no_grad():
        advantages = token_advantages(
            token_level_rewards.detach().float().cpu().numpy(),
            response_mask.detach().cpu().numpy(),
            [str(uid) for uid in index],
            settings_of(config),
        )
        tensor = torch.from_numpy(advantages).to(device=token_level_rewards.device, dtype=token_level_rewards.dtype)
    return tensor, tensor.clone()


def _check_mask(algorithm: Any) -> None:
    """Raise ValueError where verl has taken tokens out of the mask, so that its runs are turns no longer."""
    correction = algorithm.get("rollout_correction", None) if hasattr(algorithm, "get") else None
    if not correction or correction.get("bypass_mode", False):
        return
    if "token" in str(correction.get("rollout_rs", None)):
        raise ValueError(
            f"algorithm.rollout_correction.rollout_rs is {correction.get('rollout_rs')!r}: it rejects single tokens, "
            "which splits turns; expected a rejection of whole sequences, such as 'seq_mean_k3'"
        )
