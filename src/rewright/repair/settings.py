"""Settings of the `quality` and `repair` sections of a recipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from msgspec import Meta

from rewright.core.errors import InputError
from rewright.core.import_paths import load_function
from rewright.core.records import RepairForm
from rewright.core.registry import find, known
from rewright.core.settings import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveFraction,
    PositiveInt,
    Settings,
    UnusedKey,
)
from rewright.core.trust import is_builtin_path
from rewright.engines.settings import ModelSettings
from rewright.repair.references import DEFAULT, compiled

if TYPE_CHECKING:  # quality imports this module
    from rewright.repair.quality import Sample

MAX_ROUNDS: Final = 100
"""Maximum number of rounds; each has files of its own that reports open."""

MODES: Final = ("wrong_answer", "low_quality")
_PLACEHOLDER: Final = re.compile(r"(?<![\w\\{}^<>$])\{(\w+)\}(?!\})")
"""A placeholder that stands alone: none of LaTeX (`\\boxed{x}`), JSON or `{{x}}`."""

__all__ = ["MAX_ROUNDS", "Dimension", "QualitySettings", "RepairSettings", "unused_keys"]


def unused_keys(section: Mapping[str, Any]) -> Iterator[UnusedKey]:
    """Yield the keys that a `repair:` section ignores."""
    if section.get("by") == "self" and section.get("model") is not None:
        yield UnusedKey("model", "by", "self", ": the model that has made the candidates repairs them")
    if section.get("rounds", 1) == 1:
        yield from (UnusedKey(key, "rounds", 1) for key in ("round_tasks", "round_start"))
    modes, rules = section.get("modes"), section.get("rules")
    if isinstance(modes, list | tuple) and modes:
        shown = f"[{', '.join(map(str, modes))}]"
        yield from (UnusedKey(f"{mode}_threshold", "modes", shown) for mode in MODES if mode not in modes)
        if "wrong_answer" not in modes and section.get("show_error") is True:
            yield UnusedKey("show_error", "modes", shown, ": the checker says nothing of right attempts")
    if isinstance(rules, str) and "{calls}" not in rules:
        yield UnusedKey("calls", "rules", "a text without {calls}")


class Dimension(Settings, frozen=True):
    """A dimension of quality."""

    name: str
    """Name in the records."""
    function: str
    """Name of a registered dimension, or the import path of your own, "package.module:function"."""
    weight: NonNegativeFloat = 0.0
    """Weight in the total; 0: recorded only."""

    def load(self, where: str = "") -> Callable[[Sample], float]:
        """Return the function. Raises InputError for an unknown function, and for an import path into Rewright.

        `where` precedes the dimension's name in the message.
        """
        what = f"{where}dimension {self.name}"
        if ":" not in self.function:
            found: Callable[[Sample], float] = find("dimension", self.function, setting=what)
            return found
        if is_builtin_path(self.function):
            raise InputError(
                f"{what} {self.function!r} is a function of Rewright: expected one of {', '.join(known('dimension'))} "
                "or your own"
            )
        return load_function(self.function, what)


class QualitySettings(Settings, frozen=True):
    """Settings of scoring and selection. The defaults are the paper's values.

    `total` is the weighted mean of the dimensions (the paper's weights sum to 1), so thresholds remain valid when a
    dimension is added.
    """

    dimensions: tuple[Dimension, ...] = (
        Dimension("confidence", "confidence", 0.4),
        Dimension("length", "length", 0.3),
        Dimension("repetition", "repetition", 0.3),
        Dimension("tool_errors", "tool_errors"),
        Dimension("redundant_calls", "redundant_calls"),
        Dimension("format", "format"),
    )
    """The dimensions that are recorded and weighed."""
    uncertain_words: tuple[str, ...] = (
        "maybe", "unsure", "guess", "seems", "perhaps", "probably", "might", "likely", "recheck",
    )  # fmt: skip
    """Words in a think block that set `confidence` to 0."""
    length_deviation: PositiveFloat = 0.5
    """Standard deviation of the length score, relative to the shortest length."""
    all_high: Fraction = 0.9
    """All correct candidates of a task are kept if the total of each reaches this value."""
    best_high: Fraction = 0.86
    """Otherwise the best candidate is kept if its total reaches this value."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [dimension.name for dimension in self.dimensions]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"dimensions must have different names, got {twice[:80]!r} twice")
        if not all(name.strip() for name in names):
            raise ValueError("dimensions must have names, got an empty one")
        if not all(word.strip() for word in self.uncertain_words):
            raise ValueError("uncertain_words must be words, got an empty one, which every thought has")


Threshold = Annotated[float, Meta(ge=0, lt=1)]
"""A total quality that must be exceeded; none is above 1."""


class RepairSettings(Settings, frozen=True):
    """LLM-as-Repairer (AutoTraj section 3.3). The default thresholds are the paper's."""

    by: Literal["model", "self"] = "model"
    """Who repairs. `model`: `repair.model`. `self`: the model that has made the candidates, which is `model`, and in
    later rounds the policy of the round before."""
    model: ModelSettings | None = None
    """The repairer of `by: model`; default: the model that has made the candidates."""
    form: RepairForm = "rewrite"
    """`rewrite`: the task is solved again from the start. `splice`: the turns before the first wrong one are kept, and
    their calls are executed again; the rest is generated."""
    show_error: bool | None = None
    """Show the repairer what the checker says of a wrong attempt. A text with a gold answer is shown only with
    `show_gold`. Default: true with `by: self`, else false."""
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
    modes: tuple[Literal["wrong_answer", "low_quality"], ...] = MODES
    """Which candidates are repaired."""
    low_quality_threshold: Threshold = 0.86
    """Total quality that the repair of a low-quality candidate must exceed, besides that of the candidate itself."""
    wrong_answer_threshold: Threshold = 0.8
    """Total quality that the repair of a wrong candidate must exceed."""
    concurrency: PositiveInt = 96
    """Maximum number of concurrent repairs."""
    rounds: Annotated[int, Meta(ge=1, le=MAX_ROUNDS)] = 1
    """Number of rounds. Each samples candidates with the policy of the round before it, repairs them, and trains on the
    sets of all rounds so far."""
    round_tasks: PositiveInt | None = None
    """Maximum number of tasks of round 2 and later. Tasks that no earlier round has solved come first. Default: all."""
    round_start: Literal["base", "previous"] = "base"
    """What SFT of round 2 and later starts from: `model`, or the policy of the round before."""

    @property
    def shows_error(self) -> bool:
        """Whether the repairer sees what the checker says."""
        return self.by == "self" if self.show_error is None else self.show_error

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("refused_phrases", "refused_first_phrases"):
            try:
                compiled(getattr(self, name), ())
            except ValueError as problem:
                raise ValueError(f"{name}: {problem}") from problem
        if not self.modes:
            raise ValueError("modes must name what is repaired, got none (for no repair: stages without repair)")
        if len({*self.modes}) < len(self.modes):
            raise ValueError(f"modes must name each mode once, got {', '.join(self.modes)}")
        if self.rules is not None:
            if not self.rules.strip():
                raise ValueError("rules must not be empty: null stands for the default text")
            unknown = next((name for name in _PLACEHOLDER.findall(self.rules) if name not in ("calls", "kept")), None)
            if unknown is not None:
                raise ValueError(f"rules must have no placeholder but {{calls}} and {{kept}}, got {{{unknown[:60]}}}")
