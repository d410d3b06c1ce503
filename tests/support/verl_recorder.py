"""A plug-in of verl: the estimator "rewright_recorded" is "rewright", and writes down what it was given and gave.

Loaded by `VERL_USE_EXTERNAL_MODULES`; each call writes a file into the folder `REWRIGHT_RECORDS`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, register_adv_est


@register_adv_est("rewright_recorded")
def recorded(token_level_rewards: Any, response_mask: Any, config: Any = None, index: Any = None, **more: Any) -> Any:
    advantages, returns = get_adv_estimator_fn("rewright")(
        token_level_rewards=token_level_rewards, response_mask=response_mask, config=config, index=index, **more
    )
    folder = Path(os.environ["REWRIGHT_RECORDS"])
    np.savez(
        folder / f"{len(list(folder.glob('*.npz')))}.npz",
        rewards=token_level_rewards.double().numpy(),
        mask=response_mask.numpy(),
        uid=np.array([str(uid) for uid in index]),
        advantages=advantages.double().numpy(),
    )
    return advantages, returns
