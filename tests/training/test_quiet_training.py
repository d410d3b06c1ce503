"""What training hides from standard error: the libraries' own affairs, and nothing else."""

from __future__ import annotations

import warnings

import pytest

from rewright.training.trl.common import quiet


def test_warnings_that_nobody_here_can_act_on_are_hidden_and_all_others_shown() -> None:
    own = "`is_gradient_checkpointing` is deprecated and will be removed in v6."
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet():
            warnings.warn(own, FutureWarning, stacklevel=1)
            warnings.warn("`warmup_ratio` is deprecated", FutureWarning, stacklevel=1)
        warnings.warn(own, FutureWarning, stacklevel=1)
    assert [str(one.message) for one in seen] == ["`warmup_ratio` is deprecated", own]


def test_the_libraries_are_as_loud_as_before_afterwards() -> None:
    transformers = pytest.importorskip("transformers")
    logging = transformers.utils.logging
    logging.enable_progress_bar()
    before = logging.get_verbosity()
    with quiet():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled() and logging.get_verbosity() == before
