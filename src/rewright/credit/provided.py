"""What a trainer knows of its trajectories, checked before the training: settings that need more are refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rewright.credit.choices import Part, own_settings
from rewright.credit.estimators import READS, find_estimator, reads_of
from rewright.credit.settings import GROUP_KEYS, TurnCredit
from rewright.credit.signals import find_signal

__all__ = ["check_provided", "compares_groups"]


def check_provided(settings: TurnCredit, provided: Collection[str]) -> None:
    """Check settings against what a trainer provides.

    Args:
        settings: the settings.
        provided: keys of `READS`, "tools" (the schemas of the tools) and "own_states" (the environment's states).

    Raises ValueError, which names the key, for functions that cannot be imported or have other settings, and for a
    signal, an estimator or a comparison of calls that needs what is not provided.
    """
    settings.check_functions()
    settings.check_reads(provided)
    for part in settings.signal_parts:
        lacking = [READS[name] for name in reads_of(find_signal(part.name)) if name not in provided]
        if lacking:
            raise ValueError(
                f"{part.key} {part.name!r} reads {' and '.join(lacking)}, which this trainer does not provide: "
                "expected another signal, such as 'matched'"
            )
        if "tools" not in provided and part.name == "matched" and _defaults_of_schemas(settings, part):
            raise ValueError(
                "compare.defaults is true, and this trainer does not provide the schemas of the tools: expected the "
                "defaults, as {tool: {argument: default}}"
            )
    if "own_states" not in provided and "state_keys" in reads_of(find_estimator(settings.estimator_name)):
        own = own_settings("estimator", settings.estimator, shared=GROUP_KEYS)
        if own.get("state_key") == "own":
            raise ValueError(
                "estimator.state_key is 'own', and this trainer does not provide the environment's own states: "
                "expected 'history' or 'last_observation'"
            )


def compares_groups(settings: TurnCredit) -> bool:
    """Whether the advantages of a group depend on the other groups of its batch. Raises ValueError as an estimator."""
    estimator = find_estimator(settings.estimator_name)
    compares = getattr(estimator, "compares_groups", None)
    own = own_settings("estimator", settings.estimator, shared=GROUP_KEYS)
    return hasattr(estimator, "finish") or (compares is not None and bool(compares(**own)))


def _defaults_of_schemas(settings: TurnCredit, part: Part) -> bool:
    """Whether calls are compared with the default values in the schemas of the tools."""
    given = part.settings.get("compare", settings.compare)
    return (given.get("defaults") if isinstance(given, Mapping) else given.defaults) is True
