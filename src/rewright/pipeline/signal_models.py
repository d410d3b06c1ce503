"""Open the models that credit signals need: a frozen scorer of tokens, and a reward model that scores prefixes.

scorer = open_log_prob(HFSettings(path="pico"), get_dialect("hermes"))
prefix_score = open_prefix_score(Path("runs/mine/models/reward"))
resources = Resources(log_prob=scorer, tokenize=scorer.tokenize, prefix_score=prefix_score)
turn_signal(trajectories, "likelihood", resources=resources)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from rewright.core.errors import InputError
from rewright.credit.resources import LogProb
from rewright.dialects import get_dialect
from rewright.dialects.base import Dialect, answer_form
from rewright.engines.served import OpenAISettings
from rewright.engines.settings import ModelSettings
from rewright.engines.text_tokens import TextTokens
from rewright.rendering.renderer import Renderer
from rewright.serving.reward import LocalScorer, open_scorer

__all__ = [
    "PrefixScorer",
    "Scorer",
    "log_prob_resource",
    "open_log_prob",
    "open_prefix_score",
    "open_tokenize",
    "prefix_score_resource",
    "tokenize_resource",
]

TAIL_TOKENS: Final = 16
"""Number of last tokens that are decoded to see whether an answer ends a sequence."""


class Scorer(LogProb, Protocol):
    """An opened model that scores tokens: the resource `log_prob`.

    Attributes:
        tokenize: the resource `tokenize`.
        counts: numbers of scored pairs (`scorings`), of their tokens (`scored_tokens`), of tokens that the model
            processed (`computed_tokens`), and of pairs longer than the context (`too_long`).
    """

    tokenize: TextTokens
    counts: dict[str, int]

    def close(self) -> None:
        """Close connections."""


def open_log_prob(model: ModelSettings, dialect: Dialect, *, vocabulary: str | None = None) -> Scorer:
    """Open a model that scores tokens: the resources `log_prob` and, as its attribute, `tokenize`.

    Args:
        model: settings of the engine `hf`, whose weights are loaded in this process, or of `openai`: a server that
            returns log-probabilities of the prompt, with `tokenizer`.
        dialect: the trajectories' dialect, for the form of an answer.
        vocabulary: `Renderer.fingerprint` of the policy, whose token ids are scored; None: not checked.

    Raises InputError for a model that cannot be loaded, a served one without `tokenizer`, and another vocabulary.
    """
    from rewright.engines.loading import load_model, load_tokenizer

    tokenizer = load_tokenizer(_with_tokenizer(model))
    renderer = Renderer(tokenizer, dialect, template_options=model.template_options)
    _check_vocabulary(model, renderer, vocabulary)
    form = answer_form(dialect, in_thought=renderer.opens_thought)
    if isinstance(model, OpenAISettings):
        from rewright.engines.served_scorer import ServedScorer

        return ServedScorer(model, tokenizer, answer_form=form)
    from rewright.engines.scorer import TokenScorer

    limit = getattr(model, "max_length", None)
    return TokenScorer(load_model(model), tokenizer, max_length=limit, answer_form=form)


def open_prefix_score(path: Path, *, dialect: str | None = None, vocabulary: str | None = None) -> PrefixScorer:
    """Load a reward model of this program: the resource `prefix_score`.

    Args:
        path: the model's folder, such as `models/reward` of a run.
        dialect: for a model whose folder does not name its dialect.
        vocabulary: as of `open_log_prob`.

    Raises InputError for a folder without a reward model, and for one of another vocabulary.
    """
    model, renderer = open_scorer(path, dialect=dialect)
    if vocabulary is not None and renderer.fingerprint != vocabulary:
        raise InputError(
            f"{path} has the vocabulary {renderer.fingerprint}, the policy {vocabulary}: expected a reward model that "
            "was trained from the policy"
        )
    return PrefixScorer(model, renderer)


def open_tokenize(model: ModelSettings, dialect: Dialect, *, vocabulary: str | None = None) -> TextTokens:
    """Load the tokenizer of a model that scores tokens: the resource `tokenize` alone. Raises InputError.

    Arguments as of `open_log_prob`.
    """
    from rewright.engines.loading import load_tokenizer

    tokenizer = load_tokenizer(_with_tokenizer(model))
    renderer = Renderer(tokenizer, dialect, template_options=model.template_options)
    _check_vocabulary(model, renderer, vocabulary)
    return TextTokens(tokenizer, answer_form(dialect, in_thought=renderer.opens_thought))


def log_prob_resource(sources: Any) -> Scorer:
    """Open `log_prob` for a recipe: `signals.scorer`, else the policy before RL.

    `sources` has the attributes `recipe`, `run` (a folder or None), `policy` (settings of a model or None) and, if it
    is known, `vocabulary` (see `rewright.pipeline.signal_resources.ResourceSources`). Raises InputError as
    `open_log_prob` does.
    """
    scorer, dialect = sources.recipe.signals.scorer, get_dialect(sources.recipe.dialect)
    vocabulary = None if scorer is None else _vocabulary(sources, dialect)
    return open_log_prob(scorer or sources.policy, dialect, vocabulary=vocabulary)


def tokenize_resource(sources: Any) -> TextTokens:
    """Open `tokenize` for a recipe. Arguments as of `log_prob_resource`."""
    scorer, dialect = sources.recipe.signals.scorer, get_dialect(sources.recipe.dialect)
    vocabulary = None if scorer is None else _vocabulary(sources, dialect)
    return open_tokenize(scorer or sources.policy, dialect, vocabulary=vocabulary)


def prefix_score_resource(sources: Any) -> PrefixScorer:
    """Open `prefix_score` for a recipe: `signals.reward_model`, else the run's. Arguments as of `log_prob_resource`."""
    named, dialect = sources.recipe.signals.reward_model, sources.recipe.dialect
    path = Path(named) if named is not None else sources.run / "models" / "reward"
    return open_prefix_score(path, dialect=dialect, vocabulary=_vocabulary(sources, get_dialect(dialect)))


def _with_tokenizer(model: ModelSettings) -> ModelSettings:
    """The settings unchanged. Raises InputError for a served model whose tokenizer is on its server only."""
    if model.tokenizer_path is None:
        raise InputError(
            f"the model {model.path} that scores tokens is on a server: expected tokenizer, the folder or Hugging Face "
            "id of its tokenizer"
        )
    return model


def _check_vocabulary(model: ModelSettings, renderer: Renderer, vocabulary: str | None) -> None:
    if vocabulary is not None and renderer.fingerprint != vocabulary:
        raise InputError(
            f"the model {model.path} that scores tokens has the vocabulary {renderer.fingerprint}, the policy "
            f"{vocabulary}: expected a model with the policy's tokenizer"
        )


def _vocabulary(sources: Any, dialect: Dialect) -> str | None:
    """The fingerprint of the tokenizer of the trajectories' token ids: as stored, else the policy's.

    None without a policy, and if only its server has the tokenizer.
    """
    from rewright.engines.loading import load_tokenizer

    stored: str | None = getattr(sources, "vocabulary", None)
    policy: ModelSettings | None = sources.policy
    if stored is not None or policy is None or policy.tokenizer_path is None:
        return stored
    return Renderer(load_tokenizer(policy), dialect).fingerprint


class PrefixScorer:
    """Scores sequences with a reward model (see `rewright.credit.resources.PrefixScore`).

    A sequence that ends with an answer at which a stop string ended the generation gets its end token, as in training.
    `counts` has the numbers of scored sequences (`scorings`), of their tokens (`computed_tokens`), and of sequences
    that were longer than the context (`too_long`).
    """

    def __init__(self, model: LocalScorer, renderer: Renderer) -> None:
        self._model, self._renderer = model, renderer
        self._closing = [word for word in renderer.dialect.stop if word in answer_form(renderer.dialect)[1]]
        self.counts = {"scorings": 0, "computed_tokens": 0, "too_long": 0}

    def __call__(self, sequences: Sequence[Sequence[int]], /) -> list[float | None]:
        """Return the score of N token sequences; None for one that is longer than the model's context."""
        complete = [self._ended(sequence) for sequence in sequences]
        scored = [index for index, ids in enumerate(complete) if 0 < len(ids) <= self._model.limit]
        results: list[float | None] = [None] * len(complete)
        for index, score in zip(scored, self._model.score_prefixes([complete[index] for index in scored]), strict=True):
            results[index] = score
        self.counts["scorings"] += len(scored)
        self.counts["computed_tokens"] += sum(len(complete[index]) for index in scored)
        self.counts["too_long"] += sum(len(ids) > self._model.limit for ids in complete)
        return results

    def _ended(self, sequence: Sequence[int]) -> list[int]:
        ids = list(sequence)
        if self._closing and ids:
            tail: Any = self._renderer.tokenizer.decode(ids[-TAIL_TOKENS:])
            if str(tail).endswith(tuple(self._closing)):
                ids += self._renderer.end_ids()
        return ids
