"""Whether the model that answered is the one that was asked for."""

from __future__ import annotations

import re

from rewright.net.endpoint import Fault

__all__ = ["check_model", "same_model"]


def check_model(answered: str | None, model: str | None) -> None:
    """Raise Fault if another model answered. None, "": not known, or any."""
    if model and answered and answered != model and not same_model(model, answered):
        raise Fault(
            "model", f"model {answered!r} answered, expected {model!r} (check_model=False accepts any)", retry=True
        )


def same_model(requested: str, answered: str) -> bool:
    """Return True if `answered` names the model `requested`. Paths, revisions (`@…`), tags (`:…`) and dates may differ.

    >>> same_model("gpt-4o", "gpt-4o-2024-08-06"), same_model("gpt-4o", "gpt-4o-mini")
    (True, False)
    """
    name = requested.casefold().rstrip("/").removesuffix("-latest")
    other = answered.casefold().rstrip("/").removesuffix("-latest")
    if "/" not in name or "/" not in other:  # one of them names the owner or the directory, the other does not
        name, other = name.rpartition("/")[2], other.rpartition("/")[2]
    rest = other.removeprefix(name)
    return rest == "" or (rest != other and re.match(r"[@:]|-v?\d", rest) is not None)
