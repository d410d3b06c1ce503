"""An estimator in one file: a turn's return, compared with those of the turns of its group that began in its state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rewright.core.settings import Settings
from rewright.credit import Group, with_settings


class SameState(Settings, frozen=True):
    """What a recipe can set."""

    normalised: bool = False
    """Divide by the standard deviation."""


@with_settings(SameState)
def same_state(group: Group, *, normalised: bool = False) -> NDArray[np.float64]:
    """D_t minus the mean of the D of equal states; 0 for a state of one turn alone, and without state keys."""
    advantage_nT = np.zeros_like(group.returns_nT)
    if group.keys_nT is None:
        return advantage_nT
    for key in {key for key in group.keys_nT.ravel().tolist() if key is not None}:
        members = group.keys_nT == key
        returns = group.returns_nT[members]
        advantage_nT[members] = group.normalised(returns) if normalised else returns - returns.mean()
    return advantage_nT
