"""Multi-dimensional quality of trajectories, and which correct ones of a task are good enough (AutoTraj, section 4).

Everything is data: dimensions, weights, words and thresholds are fields of `QualitySettings`, with the paper's values
as defaults. A dimension is a function `Sample -> float in [0, 1]`, registered under a name (kind `dimension`) or named
by its import path, so a recipe can add one.

What a trajectory's text is: the model's turns and the tools' results in order, joined by line breaks, without the
prompt and without any tag that the dialect puts around results. Words are whitespace-separated. Confidence reads think
blocks of the model's own turns only; tool output can't lower it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Literal

import msgspec

from rewright.core.errors import InputError
from rewright.core.import_paths import load_function
from rewright.core.records import Quality, Trajectory
from rewright.core.registry import find, known
from rewright.core.settings import NonNegativeFloat, PositiveFloat, Settings
from rewright.core.trust import is_builtin_path

__all__ = [
    "PARITY",
    "Dimension",
    "QualitySettings",
    "Sample",
    "confidence",
    "length",
    "model_text",
    "repetition",
    "score",
    "score_group",
    "score_trajectory",
    "select",
    "surface",
    "think_blocks",
    "trajectory_text",
    "word_count",
]


class Dimension(Settings, frozen=True):
    """A dimension of quality."""

    name: str
    """Name in the records."""
    function: str
    """Name of a registered dimension, or the import path of your own, "package.module:function"."""
    weight: NonNegativeFloat = 0.0
    """Weight in the total; 0: recorded only."""

    def load(self, where: str = "") -> Callable[[Sample], float]:
        """The function. Raises `InputError` where there is none, and for a path to a function of Rewright.

        `where` comes before the dimension's name in the message.
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
    """How trajectories are scored and selected. The defaults are the paper's values.

    `total` is the weighted mean of the dimensions (parity weights sum to 1), so thresholds keep their meaning when a
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
    all_high: NonNegativeFloat = 0.9
    """All correct candidates of a task are kept if the total of each reaches this value."""
    best_high: NonNegativeFloat = 0.86
    """Otherwise the best candidate is kept if its total reaches this value."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [dimension.name for dimension in self.dimensions]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"dimensions must have different names, got {twice[:80]!r} twice")


PARITY = QualitySettings()


class Sample(msgspec.Struct, frozen=True, dict=True):
    """What a dimension is given. `trajectory` is None where only a text is scored."""

    text: str
    model_text: str
    shortest: int
    settings: QualitySettings
    trajectory: Trajectory | None = None
    dialect: str = "tags"

    @cached_property
    def words(self) -> list[str]:
        """The whitespace-separated words of `text`."""
        return self.text.split()


_TAGS = re.compile(r"<(/?)(think|search|code|python|result|answer|tool_call|tool_response)>", re.IGNORECASE)


def think_blocks(text: str) -> list[str]:
    """The think blocks of a text, by their tags, in linear time.

    An unclosed block ends at the next tag of any kind or at the end; a closing tag alone ends a block that the prompt
    had opened, which began after the tag before it (or at the start).
    """
    blocks: list[str] = []
    start: int | None = None
    boundary = 0
    for tag in _TAGS.finditer(text):
        closing, name = bool(tag[1]), tag[2].lower()
        if name == "think" and closing:
            blocks.append(text[boundary if start is None else start : tag.start()])
            start = None
        elif start is None and name == "think":
            start = tag.end()
        boundary = tag.end()
    if start is not None:
        following = _TAGS.search(text, start)
        blocks.append(text[start : following.start() if following else len(text)])
    return blocks


@lru_cache(maxsize=16)
def _word_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(re.escape(word) for word in words)})\b", re.IGNORECASE)


def confidence(sample: Sample) -> float:
    """0 if any think block holds an uncertain word as a whole word (any case), else 1."""
    words = sample.settings.uncertain_words
    if not words:
        return 1.0
    pattern = _word_pattern(words)
    return 0.0 if any(pattern.search(block) for block in think_blocks(sample.model_text)) else 1.0


def length(sample: Sample) -> float:
    """exp(-(L - L*)^2 / (2 (d L*)^2)) for L words and L* = `shortest`; 1 for L* <= 0."""
    if sample.shortest <= 0:
        return 1.0
    deviation = (len(sample.words) - sample.shortest) / (sample.settings.length_deviation * sample.shortest)
    return math.exp(-0.5 * deviation * deviation)


def repetition(sample: Sample) -> float:
    """1 - (occurrences of word 3-grams that occur more than once) / (number of 3-grams); 1 for fewer than 6 words."""
    words = sample.words
    if len(words) < 6:
        return 1.0
    counts = Counter(zip(words, words[1:], words[2:], strict=False))
    return max(0.0, 1.0 - sum(count for count in counts.values() if count > 1) / (len(words) - 2))


def _evaluate(sample: Sample, trajectory_id: str = "") -> Quality:
    scores: dict[str, float] = {}
    total = weights = 0.0
    for dimension in sample.settings.dimensions:
        if sample.trajectory is None and dimension.weight == 0:
            continue  # dimensions of calls and results have nothing to look at in a bare text
        value = float(dimension.load()(sample))
        if not 0.0 <= value <= 1.0:
            raise InputError(f"dimension {dimension.name} returned {value}: expected a number in [0, 1]")
        scores[dimension.name] = value
        total += dimension.weight * value
        weights += dimension.weight
    if weights <= 0:
        raise InputError("quality: the weights of the dimensions sum to 0, expected a positive sum")
    # The three parity dimensions are in every record, also where the settings leave one out of the total.
    return Quality(
        confidence=scores.pop("confidence") if "confidence" in scores else confidence(sample),
        length=scores.pop("length") if "length" in scores else length(sample),
        repetition=scores.pop("repetition") if "repetition" in scores else repetition(sample),
        total=total / weights,
        extra=scores,
        trajectory_id=trajectory_id,
    )


def score(text: str, shortest: int, settings: QualitySettings = PARITY) -> Quality:
    """The quality of one trajectory's whole `text`, with `shortest` = L*, the words of the shortest correct candidate.

    Scores lie in [0, 1] and are not rounded. A dimension with weight 0 that needs calls and results is left out.
    """
    return _evaluate(Sample(text, text, shortest, settings))


def model_text(trajectory: Trajectory) -> str:
    """What the model wrote: its turns, joined by line breaks."""
    return "\n".join(turn.opening + turn.text for turn in trajectory.turns)


def trajectory_text(trajectory: Trajectory) -> str:
    """The model's turns and the tools' results in order, joined by line breaks."""
    return "\n".join(
        part
        for turn in trajectory.turns
        for part in (turn.opening + turn.text, *(result.content for result in turn.results))
    )


def word_count(trajectory: Trajectory) -> int:
    """L: the whitespace-separated words of `trajectory_text`."""
    return len(trajectory_text(trajectory).split())


def score_trajectory(
    trajectory: Trajectory, shortest: int, settings: QualitySettings = PARITY, *, dialect: str = "tags"
) -> Quality:
    """The quality of one trajectory of a dialect, with every dimension of the settings."""
    text = trajectory_text(trajectory)
    return _evaluate(Sample(text, model_text(trajectory), shortest, settings, trajectory, dialect), trajectory.id)


def select(totals: Sequence[float], settings: QualitySettings = PARITY) -> list[bool]:
    """Which correct candidates of one task are of high quality, from their totals (order kept; ties: the first).

    All, if each reaches `all_high`; else the best one, if it reaches `best_high`; else none.
    """
    if not totals:
        return []
    tolerance = 1e-12  # 0.4 + 0.3 + 0.3 * 2/3 must reach 0.9
    if min(totals) >= settings.all_high - tolerance:
        return [True] * len(totals)
    best = max(range(len(totals)), key=totals.__getitem__)
    high = totals[best] >= settings.best_high - tolerance
    return [high and position == best for position in range(len(totals))]


def score_group(
    trajectories: Sequence[Trajectory],
    correct: Sequence[bool],
    settings: QualitySettings = PARITY,
    *,
    dialect: str = "tags",
) -> list[Quality]:
    """Qualities of all candidates of one task, `selected` set: kept or low for correct ones, wrong for the others.

    L* is the length of the shortest correct candidate; without one, each is measured against its own length.
    """
    if len(trajectories) != len(correct):
        raise ValueError(f"{len(correct)} verdicts, but {len(trajectories)} trajectories: give exactly one each")
    lengths = [word_count(trajectory) for trajectory in trajectories]
    right = [position for position, is_correct in enumerate(correct) if is_correct]
    shortest = min((lengths[position] for position in right), default=None)
    qualities = [
        score_trajectory(trajectory, words if shortest is None else shortest, settings, dialect=dialect)
        for trajectory, words in zip(trajectories, lengths, strict=True)
    ]
    selected: list[Literal["kept", "low", "wrong"]] = ["wrong"] * len(qualities)
    kept = select([qualities[position].total for position in right], settings)
    for position, is_kept in zip(right, kept, strict=True):
        selected[position] = "kept" if is_kept else "low"
    return [
        msgspec.structs.replace(quality, selected=choice) for quality, choice in zip(qualities, selected, strict=True)
    ]


def surface(
    trajectories: Iterable[Trajectory],
    correct: Collection[str],
    settings: QualitySettings = PARITY,
    *,
    dialect: str = "tags",
) -> dict[str, float | None]:
    """Means over trajectories of any tasks: `quality` (the total) and `words` (the length); None without any.

    `correct` holds the ids of the right ones: each trajectory is measured against the shortest right one of its task.
    Trajectories that an engine or a tool server broke say nothing about the model and are left out.
    """
    groups: dict[str, list[Trajectory]] = {}
    for one in trajectories:
        if one.failure is None:
            groups.setdefault(one.task_id, []).append(one)
    totals = [
        quality.total
        for group in groups.values()
        for quality in score_group(group, [one.id in correct for one in group], settings, dialect=dialect)
    ]
    words = [word_count(one) for group in groups.values() for one in group]
    if not totals:
        return {"quality": None, "words": None}
    return {"quality": sum(totals) / len(totals), "words": sum(words) / len(words)}
