"""Which tokens of a response the model generated, as far as a dump shows it.

Sources, the first that a row has: the token ids that open and close a turn, `turns`, `turn_ids`, the texts of tokens
and turns, and the sampler's log-probabilities, which are below 0 only where something was sampled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rewright.credit.batch_checks.rows import Batch, BatchRow, Flags, Spans, runs

__all__ = ["CONTENT", "NEEDS", "Generated", "by_text", "generated", "marked_turns"]

CONTENT = "turn_ids, tokens and turn_texts, or --turn-start and --turn-end"
"""What shows the generated tokens themselves."""
NEEDS = f"turns, log_probs of the sampler, {CONTENT}"

_CERTAIN = 3
"""First tokens of a turn, such as `<think>`, that are taken for tokens with probability 1. More are another turn."""


class Generated(NamedTuple):
    """The generated tokens of a row.

    Attributes:
        turns: their ranges, one per turn.
        exact: every other token was not generated. False: the others are unknown.
    """

    turns: Spans
    exact: bool

    def flags(self, length: int) -> Flags:
        """The generated tokens as (length,)."""
        flags = np.zeros(length, dtype=bool)
        for start, end in self.turns:
            flags[start:end] = True
        return flags


def generated(batch: Batch, row: BatchRow) -> Generated | None:
    """Return what is known of a row, or None if nothing is."""
    length = len(row.ids)
    if batch.turn_start and batch.turn_end:
        starts, ends = marked_turns(batch, row)
        return Generated(list(zip(starts, [*ends, row.end], strict=False)), True) if len(starts) >= len(ends) else None
    if (turns := _paired(row)) is not None:
        return Generated([(start, min(end, length)) for start, end in turns if start < min(end, length)], True)
    if row.turn_ids is not None and (turns := _on_mask(row, row.turn_ids)) is not None:
        return Generated(turns, True)  # a short turn may be a part of a result, too
    if row.turn_ids is not None and (turns := _located(row.ids[: row.end].tolist(), row.turn_ids)) is not None:
        return Generated(turns, True)
    if row.tokens is not None and row.turn_texts is not None:
        return by_text(row)
    if row.log_probs is not None:
        return _by_log_probs(batch, row)
    return None


def _paired(row: BatchRow) -> Spans | None:
    """The given turns, also where starts and ends are kept apart. None: they do not pair up, or the dump has none."""
    starts, ends = row.turn_starts, row.turn_ends
    if row.turns is not None or starts is None or ends is None:
        return row.turns
    edges = [at for turn in zip(starts, ends, strict=False) for at in turn]
    return list(zip(starts, ends, strict=True)) if len(starts) == len(ends) and edges == sorted(edges) else None


def marked_turns(batch: Batch, row: BatchRow) -> tuple[list[int], list[int]]:
    """Return the first token of each turn of the model and the token after its end, by the given token ids.

    The first turn of a response is opened by its prompt. A closing marker outside of a turn belongs to another message.
    """
    ids = row.ids[row.real].tolist()
    first, last = list(batch.turn_start), list(batch.turn_end)
    starts, ends = ([0] if _opened_by_prompt(batch, row, ids) else []), []
    is_open, position, begin = bool(starts), 0, row.start
    while position < len(ids):
        if ids[position : position + len(first)] == first:
            position += len(first)
            starts.append(position)
            is_open = True
        elif is_open and ids[position : position + len(last)] == last:
            position += len(last)
            ends.append(position)
            is_open = False
        else:
            position += 1
    return [begin + start for start in starts], [begin + end for end in ends]


def _opened_by_prompt(batch: Batch, row: BatchRow, ids: list[int]) -> bool:
    """Whether a response begins within a turn.

    Without `prompt_ids`, a turn is known to begin there, or a token is trained or sampled up to the first marker.
    """
    first, last = list(batch.turn_start), list(batch.turn_end)
    if row.whole or not ids or ids[: len(first)] == first:
        return False
    if row.prompt_ids is not None or (row.turns and row.turns[0][0] <= row.start):
        return True
    markers = (
        position
        for position in range(len(ids))
        if ids[position : position + len(first)] == first or ids[position : position + len(last)] == last
    )
    begin = row.real & (np.cumsum(row.real) <= next(markers, len(ids)) + 1)
    if row.log_probs is not None and not batch.log_probs_of_all and bool((row.log_probs[begin] < 0).any()):
        return True
    return bool(row.mask[begin].any())


def _on_mask(row: BatchRow, turn_ids: list[list[int]]) -> Spans | None:
    """The turns at the runs of the mask, if these are their ids; the end marker may be untrained."""
    spans = runs(row.mask)
    turns = [(start, start + len(ids)) for (start, _), ids in zip(spans, turn_ids, strict=False)]
    if len(spans) != len(turn_ids) or [row.ids[slice(*turn)].tolist() for turn in turns] != turn_ids:
        return None
    return turns if all(end - 1 <= last <= end for (_, last), (_, end) in zip(spans, turns, strict=True)) else None


def _located(ids: list[int], turn_ids: list[list[int]]) -> Spans | None:
    """Find each turn's ids in the response, in order. The last one may be cut off at the end. None: not there."""
    position = 0
    found: Spans = []
    for turn in turn_ids:
        while position < len(ids) and ids[position : position + len(turn)] != turn[: len(ids) - position]:
            position += 1
        if position >= len(ids) and turn:
            return found if found and position == len(ids) and turn is turn_ids[-1] else None
        found.append((position, min(position + len(turn), len(ids))))
        position += len(turn)
    return found


def by_text(row: BatchRow) -> Generated | None:
    """Return the tokens that hold the texts of the turns. None: a text is not there, or the dump has none.

    A text may lack the end marker of its turn, one token that is trained after every turn.
    """
    tokens, texts = (row.tokens or [])[: row.end], row.turn_texts or []
    if not tokens or not texts:
        return None
    spans = runs(row.mask)
    whole, position = "".join(tokens), 0
    found: Spans = []
    with_end = [(start, min(end + 1, row.end)) for start, end in spans]  # which the texts may have, unlike the mask
    for turns in (spans, with_end):
        if _are_texts(row, turns):
            return Generated(turns, True)  # a short turn may be a part of a result, too
    ends = np.cumsum([len(token) for token in tokens])
    for number, text in enumerate(texts):
        start = whole.find(text, position)
        if start < 0 and found and number == len(texts) - 1:
            start = _cut_off(text, whole, [int(end) for end in ends if end >= position])
        if start < 0:
            return None
        position = min(start + len(text), len(whole))
        found.append((int(np.searchsorted(ends, start, "right")), int(np.searchsorted(ends, position)) + 1))
    longer = [(start, end + 1) for start, end in found if (start, end + 1) in spans]
    trained = sum(bool(row.mask[start:end].any()) for start, end in found)
    if len(longer) >= max(1, trained - 1) and _are_marked(row, longer):
        found = [(start, end + ((start, end + 1) in longer)) for start, end in found]
    return Generated(found, True)


def _cut_off(text: str, whole: str, starts: list[int]) -> int:
    """The first of the positions at which the rest of the tokens begins the text; -1 if there is none."""
    candidates = (at for at in starts if at < len(whole) and whole[at] == text[:1])
    return next((at for at in candidates if text.startswith(whole[at:])), -1)


def _are_texts(row: BatchRow, spans: Spans) -> bool:
    """Whether these are the texts of the turns, or the texts with end markers, of which a turn at a limit has none."""
    tokens, texts = row.tokens or [], row.turn_texts or []
    written = ["".join(tokens[start:end]) for start, end in spans]
    if written == texts or len(written) != len(texts):
        return written == texts
    marked = spans[:-1] if row.truncated and written[-1] == texts[-1] else spans
    return _are_marked(row, marked) and ["".join(tokens[a : b - 1]) for a, b in marked] == texts[: len(marked)]


def _are_marked(row: BatchRow, spans: Spans) -> bool:
    """Whether all turns end with the same token."""
    ends = [int(row.ids[end - 1]) for start, end in spans if end - start > 1]
    return len(ends) == len(spans) and len(set(ends)) == 1


def _by_log_probs(batch: Batch, row: BatchRow) -> Generated | None:
    """The tokens with a log-probability below 0, together with the trained ones. None if all tokens have one."""
    if batch.log_probs_of_all or row.log_probs is None:
        return None
    values = row.log_probs
    sampled = np.isfinite(values) & (values < 0) & row.real
    outside = values[row.real & ~row.mask]
    if len(outside) > 1 and outside[0] != 0 and (outside == outside[0]).all():
        return None  # one constant, such as -1, fills what is masked
    begins = row.prompt_ids is not None and row.mask[row.start]
    if not begins and not (row.mask & sampled).any():  # nothing that is trained was sampled
        return Generated(_from_first_token(row, runs(sampled)), False) if sampled.any() else None
    return Generated(_from_first_token(row, runs(sampled | row.mask)), False)


def _from_first_token(row: BatchRow, turns: Spans) -> Spans:
    """Add the first token of a response, which was generated: its log-probability is 0 if it was certain."""
    begin, (first, end) = row.start, turns[0]
    if row.prompt_ids is None or row.mask[begin] or first <= begin:
        return turns
    until = min(first, int(np.argmax(row.mask)))
    if until == first and first - begin <= _CERTAIN:
        return [(begin, end), *turns[1:]]
    return [(begin, until), *turns]  # a turn whose log-probabilities are missing
