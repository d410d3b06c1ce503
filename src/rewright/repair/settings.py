"""Settings of the `repair` section of a recipe."""

from __future__ import annotations

from typing import Literal

from rewright.core.settings import NonNegativeFloat, NonNegativeInt, PositiveFraction, PositiveInt, Settings
from rewright.engines.settings import ModelSettings
from rewright.repair.references import DEFAULT, compiled

__all__ = ["RepairSettings"]


class RepairSettings(Settings, frozen=True):
    """LLM-as-Repairer (AutoTraj section 3.3). The default thresholds are the paper's."""

    model: ModelSettings | None = None
    """The repairer; default: the policy repairs its own trajectories."""
    attempts: PositiveInt = 1
    """Maximum number of attempts per trajectory; the first accepted one is kept."""
    temperature: NonNegativeFloat = 0.0
    """Sampling temperature."""
    top_p: PositiveFraction = 1.0
    """Nucleus sampling probability."""
    calls: NonNegativeInt = 3
    """Number of calls that the prompt allows the repairer to make."""
    show_gold: bool = False
    """Show the gold answer to the repairer."""
    rules: str | None = None
    """The end of the repairer's prompt, with `{calls}`; default: `rewright.repair.decision.RULES`."""
    refused_phrases: tuple[str, ...] = (DEFAULT,)
    """Regular expressions. A repair that contains a match is refused: it refers to text that the student never
    sees. `default` stands for the standard ones (`rewright.repair.references`)."""
    refused_first_phrases: tuple[str, ...] = (DEFAULT,)
    """Same as `refused_phrases`, for the first turn of a repair only."""
    modes: tuple[Literal["wrong_answer", "low_quality"], ...] = ("wrong_answer", "low_quality")
    """Which candidates are repaired."""
    low_quality_threshold: NonNegativeFloat = 0.86
    """Total quality that the repair of a low-quality candidate must exceed, besides that of the candidate itself."""
    wrong_answer_threshold: NonNegativeFloat = 0.8
    """Total quality that the repair of a wrong candidate must exceed."""
    concurrency: PositiveInt = 96
    """Maximum number of concurrent repairs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("refused_phrases", "refused_first_phrases"):
            try:
                compiled(getattr(self, name), ())
            except ValueError as problem:
                raise ValueError(f"{name}: {problem}") from problem
