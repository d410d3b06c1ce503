"""verl: the advantage estimator "rewright". Written for verl 0.9.1 (v1 trainer, its default); no fork needed.

Load it into every process, Ray workers included, in one of two ways::

    export VERL_USE_EXTERNAL_MODULES=rewright.integrations.verl      # by name
    pip install rewright                                         # verl finds the entry point `verl.plugins`

(verl logs a failing entry point at debug level only; `rewright doctor` reports the error.) Then::

    algorithm.adv_estimator=rewright +algorithm.rewright.estimator=matchtir +algorithm.rewright.gamma=0.9

Modules of this package: `estimator` (this registration), `agent_loop` (agent loops with turn rewards) and `sft` (a
dataset for multi-turn SFT). Importing the package does not import verl's agent loops, which require more packages, so
the estimator also loads without them.
"""

from rewright.integrations.verl.compatibility import hide_trl_without_value_heads

hide_trl_without_value_heads()  # before any module of verl that asks for TRL is imported

from rewright.integrations.verl.estimator import compute_rewright_advantage, settings_of  # noqa: E402

__all__ = ["compute_rewright_advantage", "settings_of"]
