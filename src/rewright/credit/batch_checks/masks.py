"""Checks of the loss mask against the tokens that the model generated.

A row whose mask is empty was filtered out as a whole (an overlong response), which is no fault. Neither is a turn
that is masked as a whole, unless it is every turn but the last.
"""

from __future__ import annotations

import numpy as np

from rewright.credit.batch_checks.evidence import CONTENT, NEEDS, Generated, by_text, generated, marked_turns
from rewright.credit.batch_checks.rows import Batch, BatchRow, Finding, NotChecked, Result, runs

__all__ = ["inverted_mask", "last_turn_only", "mask_beside_text", "shifted_mask", "turn_boundaries"]


def inverted_mask(batch: Batch) -> Result:
    """Only the results of tools are trained, not what the model wrote (RAGEN 71)."""
    findings = []
    for row, known in _known(batch):
        if _is_inverted(row, known):
            findings.append(
                row.finding(
                    "inverted_mask",
                    f"{int(row.mask.sum())} tokens are trained, and none of them was generated",
                    int(np.argmax(row.mask)),
                    "1 on generated tokens, 0 on results of tools",
                )
            )
    return findings or _unless_known(batch)


def shifted_mask(batch: Batch) -> Result:
    """The mask is shifted: the first token of a turn is not trained (verl 3287), or one before it is."""
    findings = []
    for row, known in _known(batch):
        for start, end in [] if _is_inverted(row, known) else known.turns:
            if end - start >= 2 and not row.mask[start] and row.mask[start + 1 : end].any():
                untrained = int(np.argmax(row.mask[start:end]))
                late = untrained == 1 or bool(end < len(row.mask) and row.mask[end] and known.exact)
                if late:
                    what = f"the first token of the turn {start}-{end} is not trained"
                    findings.append(row.finding("shifted_mask", what, start, f"1 at tokens {start} to {end - 1}"))
                continue
            first = start if known.exact else start + _begins_in_prompt(row, start)
            if (known.exact or first > start) and _is_one_early(row, first, end):
                what = f"the mask of the turn {first}-{end} begins one token too early"
                findings.append(row.finding("shifted_mask", what, first - 1, f"1 at tokens {first} to {end - 1}"))
    return findings or _unless_known(batch)


def last_turn_only(batch: Batch) -> Result:
    """Of several turns only the last one is trained (ms-swift 7838)."""
    findings = []
    continued = set()  # rows whose earlier turns are trained in earlier rows, and a part of their context here
    for steps in batch.trajectories(row for row in batch.rows if row.index not in batch.padded):
        trained = [row for row in steps.rows if row.mask.any()]
        continued |= {row.index for row in trained[1:]}
    for row, known in _known(batch):
        turns = known.turns
        if row.index in continued:
            continue
        if len(turns) > 1 and _trained(row, turns[-1]) and not any(_trained(row, turn) for turn in turns[:-1]):
            start = turns[0][0]
            what = f"of {len(turns)} turns only the last one is trained"
            findings.append(row.finding("last_turn_only", what, start, "1 on the generated tokens of every turn"))
    several = False
    for steps in batch.trajectories(row for row in batch.rows if row.index not in batch.padded):
        *earlier, last = steps.rows
        several = several or bool(earlier)
        if earlier and last.mask.any() and not any(row.mask.any() for row in earlier):
            what = f"of {len(steps.rows)} steps of the trajectory {last.trajectory} only the last one is trained"
            findings.append(earlier[0].finding("last_turn_only", what, 0, "1 on the generated tokens of every step"))
    return findings or ([] if several else _unless_known(batch))


def mask_beside_text(batch: Batch) -> Result:
    """The mask does not lie on the generated text, as after a result that was tokenized again (Search-R1 20).

    Positions show a fault, and no absence of one: they may be as old as the mask.
    """
    findings = _on_padding(batch)
    by_position = by_content = False
    for row in batch.trained:
        known, written = generated(batch, row), by_text(row)
        marked = bool(batch.turn_start and batch.turn_end)
        by_position = by_position or known is not None
        by_content = by_content or row.turn_ids is not None or written is not None or (marked and known is not None)
        if known is not None and (_is_inverted(row, known) or _is_shifted(row, known)):
            continue
        fault = _other_ids(row, row.turn_ids) if row.turn_ids is not None else None
        if fault is None and known is not None:
            fault = _beside(row, known)
        if fault is None and row.turns is not None and written is not None:
            fault = _beside(row, written)
        findings += [fault] if fault is not None else []
    if findings or by_content:
        return findings
    return NotChecked(f"needs {CONTENT}{'; positions may be as old as the mask' if by_position else ''}")


def turn_boundaries(batch: Batch) -> Result:
    """The starts and the ends of the turns do not pair up (RAGEN 71)."""
    findings, checked = [], False
    for row in batch.rows:
        if row.turn_starts is not None and row.turn_ends is not None:
            starts, ends = row.turn_starts, row.turn_ends
        elif batch.turn_start and batch.turn_end:
            starts, ends = marked_turns(batch, row)
            if starts and starts[-1] >= row.end:  # opens the turn of the next row
                starts = starts[:-1]
        elif row.turns is not None:
            starts, ends = [start for start, _ in row.turns], [end for _, end in row.turns]
        else:
            continue
        checked = True
        if (token := _unpaired(starts, ends, may_be_cut=row.truncated is not False)) is not None:
            what = f"{len(starts)} starts and {len(ends)} ends of turns, which do not pair up"
            findings.append(row.finding("turn_boundaries", what, token, "a start, then its end, before the next start"))
        elif row.turn_ids is not None and not batch.turn_end and not _are_as_many(starts, row, len(row.turn_ids)):
            sizes = zip(starts, ends, row.turn_ids, strict=False)
            other = (start for start, end, ids in sizes if min(end, row.end) - start != len(ids))
            what = f"{len(starts)} turns, but the sampler returned {len(row.turn_ids)}"
            token = next(other, starts[-1] if starts else row.start)
            findings.append(row.finding("turn_boundaries", what, token, f"{len(row.turn_ids)} starts and ends"))
    return findings if checked else NotChecked("needs turns, turn_starts and turn_ends, or --turn-start and --turn-end")


def _known(batch: Batch) -> list[tuple[BatchRow, Generated]]:
    rows = [(row, generated(batch, row) or _from_start(row)) for row in batch.trained]
    return [(row, known) for row, known in rows if known is not None]


def _from_start(row: BatchRow) -> Generated | None:
    """What a row without other evidence shows: the first token of a response is generated, as is its first run."""
    begin = row.start
    if row.prompt_ids is None or row.mask[begin] or not row.real[begin]:
        return None
    first = int(np.argmax(row.mask))
    trained = runs(row.mask)
    if first == begin + 1:  # shifted by one
        return Generated([(begin, trained[0][1]), *trained[1:]], False)
    last = slice(max(row.end - 2, begin), row.end)
    if row.mask[last].any():  # only a later turn is trained, perhaps without its end marker
        return Generated([(begin, first), *trained], False)
    return Generated(runs(~row.mask & row.real), False)


def _unless_known(batch: Batch) -> Result:
    if any(generated(batch, row) is not None for row in batch.trained):
        return []
    return NotChecked(f"needs {NEEDS}")


def _is_inverted(row: BatchRow, known: Generated) -> bool:
    """Whether no generated token is trained, but for end markers, which a right mask may leave out."""
    flags = known.flags(len(row.ids))
    if known.exact and bool((row.mask & ~flags).any()):
        for start, end in known.turns:
            flags[end - 1] &= end - start < 2
    return bool(flags.any()) and not bool((flags & row.mask).any())


def _is_shifted(row: BatchRow, known: Generated) -> bool:
    if not known.exact:
        return any(not row.mask[start] and row.mask[start + 1 : end].all() for start, end in known.turns)
    flags = known.flags(len(row.ids))
    later, earlier, marked = np.roll(flags, 1), np.roll(flags, -1), np.roll(flags, 2)
    later[0] = earlier[-1] = False
    marked[:2] = False  # of texts without end markers
    moved = (part & row.real for part in (later, earlier, flags & later, later | marked))
    return bool(row.mask.any()) and any(bool((row.mask == part).all()) for part in moved)


def _is_one_early(row: BatchRow, start: int, end: int) -> bool:
    """Whether the mask of a turn begins one token before it, not more, and ends before its last token."""
    before = start > 0 and bool(row.mask[start - 1]) and not (start > 1 and row.mask[start - 2])
    return before and bool(row.mask[start]) and not row.mask[end - 1]


def _begins_in_prompt(row: BatchRow, start: int) -> bool:
    """Whether a token that was not sampled is the last one of the prompt, which opens the first turn as all others."""
    if row.log_probs is None or not row.prompt_ids or start <= row.start:
        return False
    return int(row.ids[start]) == row.prompt_ids[-1] and float(row.log_probs[start]) == 0


def _are_as_many(starts: list[int], row: BatchRow, count: int) -> bool:
    """Whether so many turns begin, those included or not that were cut off before their first token."""
    return count in (len(starts), sum(start < len(row.ids) for start in starts))


def _trained(row: BatchRow, turn: tuple[int, int]) -> bool:
    return bool(row.mask[slice(*turn)].any())


def _on_padding(batch: Batch) -> list[Finding]:
    """Tokens of padding in a mask that is neither inverted nor shifted."""
    findings = []
    for row in batch.rows:
        token = row.trained_padding
        if token is None or row.index in batch.padded:
            continue
        known = (generated(batch, row) or _from_start(row)) if row.mask.any() else None
        if known is None or not (_is_inverted(row, known) or _is_shifted(row, known)):
            findings.append(row.finding("mask_beside_text", f"token {token} is padding and is trained", token, "0"))
    return findings


def _other_ids(row: BatchRow, turn_ids: list[list[int]]) -> Finding | None:
    """Compare the trained tokens with what the sampler returned. Turns may be masked as a whole, or cut off."""
    spans = runs(row.mask)
    pieces = [row.ids[start:end].tolist() for start, end in spans]
    turns = [ids for ids in turn_ids if ids]
    whole = [token for ids in turns for token in ids]
    joined = [token for piece in pieces for token in piece]
    if joined == whole[: len(joined)] and (len(joined) == len(whole) or spans[-1][1] >= row.end):
        return None
    at = 0
    for (start, end), piece in zip(spans, pieces, strict=True):
        after = _after_match(turns, at, piece, end >= row.end)
        if after is None:
            ids = turns[at] if at < len(turns) else []
            off = next((i for i, pair in enumerate(zip(piece, ids, strict=False)) if pair[0] != pair[1]), len(ids))
            expected = f"token id {ids[off]}" if off < len(ids) else "0, the end of what the sampler returned"
            what = f"the trained tokens {start}-{end} are not those that the sampler returned"
            return row.finding("mask_beside_text", what, min(start + off, end - 1), expected)
        at = after
    return None


def _after_match(turns: list[list[int]], at: int, piece: list[int], at_end: bool) -> int | None:
    """Return the number of the turn after those that a run of the mask consists of. None: it is not made of turns."""
    for first in range(at, len(turns)):
        ids: list[int] = []
        for number in range(first, len(turns)):  # turns without a result between them are one run
            ids = ids + turns[number]
            if _same(ids, piece, at_end):
                return number + 1
            if len(ids) > len(piece):
                break
    return None


def _same(ids: list[int], piece: list[int], at_end: bool) -> bool:
    """Whether a run of the mask is these turns; the end marker may be untrained, and the last turn cut off."""
    return piece in (ids, ids[:-1]) or (at_end and ids[: len(piece)] == piece)


def _beside(row: BatchRow, known: Generated) -> Finding | None:
    flags = known.flags(len(row.ids))
    if known.exact and (outside := row.mask & ~flags).any():
        token = int(np.argmax(outside))
        return row.finding("mask_beside_text", f"token {token} is trained and was not generated", token, "0")
    return _partly(row, known)


def _partly(row: BatchRow, known: Generated) -> Finding | None:
    """A turn of which a part is trained. Only its last token, the end marker, may be untrained."""
    for start, end in known.turns:
        part = row.mask[start:end]
        if part.any() and not part[:-1].all():
            token = start + int(np.argmin(part))
            what = f"token {token} was generated in the turn {start}-{end} and is not trained, unlike the rest of it"
            return row.finding("mask_beside_text", what, token, "1")
    return None


def _unpaired(starts: list[int], ends: list[int], *, may_be_cut: bool) -> int | None:
    """Return the first start or end without its counterpart, or None."""
    for number, start in enumerate(starts):
        following = starts[number + 1] if number + 1 < len(starts) else None
        if number >= len(ends):
            return None if may_be_cut and following is None else start
        if ends[number] < start or (following is not None and following < ends[number]):
            return min(ends[number], start) if ends[number] < start else following
    return ends[len(starts)] if len(ends) > len(starts) else None
