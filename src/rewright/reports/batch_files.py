"""Read a dump of a training batch: JSON Lines, JSON, parquet or .npz, in the layout of one of several trainers.

A file has one row per sequence, or one value per key for the whole batch (padded tensors, SkyRL's lists). Pickles
(.pt, .pkl) are refused: loading one executes its code.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rewright.core.errors import InputError
from rewright.core.files import refuse_special
from rewright.core.records import Trajectory
from rewright.credit.batch_checks import Batch, BatchRow
from rewright.reports.batch_layouts import IDS_KEYS, LAYOUTS, detect
from rewright.reports.run_credit import group_of
from rewright.tasks.rows import read_rows

__all__ = ["Layout", "ReadBatch", "read_batch"]

Layout = Literal["rows", "verl", "trl", "skyrl", "rewright"]

_MAX_ARRAY_BYTES = 2**33
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin")


class ReadBatch(NamedTuple):
    """A batch, the layout of its file, and the keys of the file that no check reads.

    `failed` are the stored rollouts that failed before their prompt had token ids; the batch does not have them.
    """

    batch: Batch
    layout: str
    ignored: list[str]
    failed: int = 0


class _Numbers(msgspec.Struct):
    """The types of a row's keys. Lists of numbers may have null."""

    group: str | int | None = None
    trajectory: str | int | None = None
    task: str | int | None = None
    prompt_ids: list[int] | None = None
    response_ids: list[int] | None = None
    input_ids: list[int] | None = None
    mask: list[float | bool] | None = None
    real: list[float | bool] | None = None
    turns: list[tuple[int, int]] | None = None
    turn_starts: list[int] | None = None
    turn_ends: list[int] | None = None
    turn_ids: list[list[int]] | None = None
    tokens: list[str] | None = None
    turn_texts: list[str] | None = None
    reward: float | None = None
    reward_stated: bool = True
    token_rewards: list[float | None] | None = None
    turn_rewards: list[float | None] | None = None
    advantages: list[float | None] | float | None = None
    log_probs: list[float | None] | None = None
    old_log_probs: list[float | None] | None = None
    last_step: bool | None = None
    truncated: bool | None = None
    padding: bool = False


def read_batch(
    path: Path,
    layout: str | None = None,
    *,
    group_size: int | None = None,
    turn_start: tuple[int, ...] = (),
    turn_end: tuple[int, ...] = (),
) -> ReadBatch:
    """Read a dump.

    Args:
        path: the file, or a run directory (its rollouts.jsonl).
        layout: "rows", "verl", "trl", "skyrl" or "rewright"; None: by the keys of the first row.
        group_size: rows without a group are groups of so many, in order (TRL's `num_generations`).
        turn_start, turn_end: token ids that open and close a turn of the model.

    Raises InputError (file, row, what was expected) for a file that is not such a dump.
    """
    if layout not in (None, "rewright", *LAYOUTS):
        raise InputError(f"--from is {layout!r}: expected rows, {', '.join(sorted({*LAYOUTS, 'rewright'} - {'rows'}))}")
    file = path / "rollouts.jsonl" if path.is_dir() else path
    used: set[str] = set()
    keys: dict[str, None] = {}
    rows: list[BatchRow] = []
    finished = failed = 0
    for index, (place, values) in enumerate(_rows(file)):
        layout = layout or detect(values)
        if layout is None:
            raise InputError(f"{place}: of no known layout, its keys are {_listed(values)}: give it with --from")
        keys |= dict.fromkeys(values)
        if layout == "rewright":
            used |= values.keys()
            stored = _translated_trajectory(values, place)
            if stored is None:
                failed += 1
                continue
            translated = stored
        else:
            translated = _translated(values, layout, place, used)
        if "group" not in translated and (size := group_size or _generations(values, place)):
            translated["group"] = index // size
        if layout == "skyrl" and "last_step" in translated:  # the rows of a trajectory follow each other
            translated.setdefault("trajectory", finished)
            finished += bool(translated["last_step"])
        rows.append(_row(index, place, translated, layout))
    if not rows:
        raise InputError(f"{file}: all {failed} rollouts failed before their prompt had token ids: nothing to check")
    for option, marker in (("--turn-start", turn_start), ("--turn-end", turn_end)):
        asked = [
            row for row in rows if (row.prompt_ids or row.whole) and (option == "--turn-start" or not row.truncated)
        ]
        if marker and asked and not any(_has(row, marker) for row in asked):
            raise InputError(
                f"{option}: no prompt or response of {file} has these token ids: expected its chat template's"
            )
    ignored = [key for key in keys if key not in used]
    return ReadBatch(Batch(rows, turn_start, turn_end), layout or "rows", ignored, failed)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every row with its place; values of a whole batch are divided into rows."""
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise InputError(f"{path}: is a pickle, which can execute code: expected .npz, .jsonl, .json or .parquet")
    if suffix == ".npz":
        arrays = _arrays(path)
        if any(arrays.get(key) == [] for key in IDS_KEYS):
            raise InputError(f"{path}: has no rows")
        yield from _divided(str(path), arrays)
        return
    for row in read_rows(path):
        if row.problem is not None:
            raise InputError(row.problem)
        yield from _divided(row.place, row.values)


def _divided(place: str, values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    ids = next((values[key] for key in IDS_KEYS if values.get(key)), None)
    if not (isinstance(ids, list) and ids and isinstance(ids[0], list)):
        yield place, values
        return
    count = len(ids)
    padding = _pad_size(values.get("pad_size"), count, place)
    for index in range(count):
        row = {}
        for key, value in values.items():
            if isinstance(value, list) and key not in ("num_items_in_batch",):
                if len(value) != count:
                    raise InputError(f"{place}: {key} has {len(value)} entries: expected {count}, one per row")
                row[key] = value[index]
            else:
                row[key] = value
        if padding > 0:
            row["padding"] = index >= count - padding
        yield f"{place}: row {index}", row


def _pad_size(value: Any, count: int, place: str) -> int:
    """The number of rows at the end of a batch that only fill it up."""
    if value is None:
        return 0
    if not isinstance(value, int) or not 0 <= value < count:
        raise InputError(f"{place}: pad_size is {value!r:.40}: expected a number of the {count} rows, less than all")
    return value


def _arrays(path: Path) -> dict[str, Any]:
    refuse_special(path)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > _MAX_ARRAY_BYTES:
            raise InputError(f"{path}: holds more than {_MAX_ARRAY_BYTES:,} bytes: expected one batch")
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key].tolist() for key in arrays.files}
    except OSError as problem:
        raise InputError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError, NotImplementedError) as problem:
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise InputError(f"{path}: not a .npz file of plain arrays: {reason:.160}") from None


def _translated(values: dict[str, Any], layout: str, place: str, used: set[str]) -> dict[str, Any]:
    try:
        return LAYOUTS[layout](values, used)
    except (AttributeError, TypeError, ValueError) as problem:
        reason = str(problem).partition("\n")[0]
        raise InputError(
            f"{place}: not a row of layout {layout}: expected lists of numbers, one per token ({reason:.120})"
        ) from None


def _generations(values: Mapping[str, Any], place: str) -> int | None:
    """The size of TRL's groups."""
    size = values.get("num_generations")
    if size is None or (isinstance(size, int | float) and math.isfinite(size) and size >= 1 and size == int(size)):
        return None if size is None else int(size)
    raise InputError(f"{place}: num_generations is {str(size)[:40]!r}: expected the number of rows of a group")


def _row(index: int, place: str, values: dict[str, Any], layout: str) -> BatchRow:
    try:
        given = msgspec.convert(values, _Numbers, strict=False)
    except msgspec.ValidationError as problem:
        raise InputError(f"{place}: {problem}") from None
    ids = given.response_ids if given.response_ids is not None else given.input_ids
    if ids is None or given.mask is None:
        lacks = "response_ids or input_ids" if ids is None else "mask"
        raise InputError(f"{place}: no {lacks} (layout {layout}); it has {_listed(values)}")
    split = given.response_ids is not None and given.prompt_ids is not None
    length = len(ids)

    def per_token(name: str, value: Any) -> NDArray[np.float64] | None:
        if value is None:
            return None
        if not isinstance(value, list):
            return np.full(length, float(value))
        if len(value) != length:
            raise InputError(
                f"{place}: {name} has {len(value)} values: expected {length}, one per token of the response"
            )
        return np.array([math.nan if one is None else one for one in value], dtype=np.float64)

    mask, real = per_token("mask", given.mask), per_token("real", given.real)
    for name, flags in (("mask", mask), ("real", real)):
        if flags is not None and not np.isin(flags, (0.0, 1.0)).all():
            raise InputError(f"{place}: {name} has other values than 0 and 1")
    if given.tokens is not None and len(given.tokens) != length:
        raise InputError(f"{place}: tokens has {len(given.tokens)} values: expected {length}, one per token")
    positions = [
        *(at for turn in given.turns or () for at in turn),
        *(given.turn_starts or ()),
        *(given.turn_ends or ()),
    ]
    if min(positions, default=0) < 0:
        raise InputError(
            f"{place}: a turn has the position {min(positions)}: expected positions in the response, from 0"
        )
    try:
        array = np.array(ids, dtype=np.int64)
    except OverflowError:
        raise InputError(f"{place}: a token id is no 64-bit number") from None
    token_rewards = per_token("token_rewards", given.token_rewards)
    turn_rewards = np.array(given.turn_rewards or (), dtype=np.float64)  # null is nan
    trained = mask.astype(bool) if mask is not None else np.zeros(length, dtype=bool)
    present = real.astype(bool) if real is not None else _without_padding(array, trained, layout)
    return BatchRow(
        index=index,
        place=place,
        ids=array,
        mask=trained & present,
        real=present,
        trained_padding=int(np.argmax(trained & ~present)) if (trained & ~present).any() else None,
        group=_label(given.group),
        trajectory=_label(given.trajectory),
        task=_label(given.task),
        prompt_ids=tuple(given.prompt_ids or ()) or None if split else None,
        whole=given.response_ids is None,
        turns=given.turns,
        turn_starts=given.turn_starts,
        turn_ends=given.turn_ends,
        turn_ids=given.turn_ids,
        tokens=given.tokens,
        turn_texts=given.turn_texts,
        reward=given.reward if given.reward is not None and math.isfinite(given.reward) else None,
        reward_stated=given.reward_stated,
        token_rewards=None if token_rewards is None else np.nan_to_num(token_rewards),
        turn_rewards=None if given.turn_rewards is None else np.nan_to_num(turn_rewards).tolist(),
        advantages=per_token("advantages", given.advantages),
        log_probs=per_token("log_probs", given.log_probs),
        old_log_probs=per_token("old_log_probs", given.old_log_probs),
        last_step=given.last_step,
        truncated=given.truncated,
        padding=given.padding,
    )


def _has(row: BatchRow, marker: tuple[int, ...]) -> bool:
    """Whether a sequence has these token ids in a row."""
    ids, size = (*(row.prompt_ids or ()), *row.ids.tolist()), len(marker)
    return any(ids[at : at + size] == marker for at, token in enumerate(ids) if token == marker[0])


def _label(value: str | int | None) -> str | None:
    return None if value is None else str(value)


def _without_padding(ids: NDArray[np.int64], mask: NDArray[np.bool_], layout: str) -> NDArray[np.bool_]:
    """All tokens; in verl's padded rows without an attention mask, all but a run of one untrained id at the end."""
    real = np.ones(len(ids), dtype=bool)
    if layout == "verl" and len(ids) > 1 and ids[-1] == ids[-2]:
        end = len(ids)
        while end > 0 and ids[end - 1] == ids[-1] and not mask[end - 1]:
            end -= 1
        real[end:] = False
    return real


def _translated_trajectory(values: Mapping[str, Any], place: str) -> dict[str, Any] | None:
    """A stored trajectory of Rewright as a row. The group is its task and, in RL, its step.

    None if it failed before its prompt had token ids.
    """
    try:
        stored = msgspec.convert(values, Trajectory)
    except msgspec.ValidationError as problem:
        raise InputError(f"{place}: not a trajectory of Rewright: {problem}") from None
    if stored.prompt_ids is None and stored.failure is not None:
        return None
    if stored.prompt_ids is None:
        raise InputError(f"{place}: trajectory {stored.id} has no token ids: its engine did not return them")
    start = len(stored.prompt_ids)
    spans = [(span.start - start, span.end - start) for span in stored.spans]
    row: dict[str, Any] = {
        "group": group_of(stored),
        "trajectory": stored.id,
        "task": stored.task_id,
        "prompt_ids": list(stored.prompt_ids),
        "response_ids": stored.token_ids[start:],
        "mask": stored.mask[start:],
        "turns": spans,
        "turn_ids": [list(turn.token_ids or ()) for turn in stored.turns],
        "truncated": stored.stop_reason == "token_limit",
    }
    if all(turn.log_probs is not None for turn in stored.turns):
        log_probs: list[float] = []
        for turn in stored.turns:
            log_probs += [*(turn.log_probs or ()), *([0.0] * len(turn.suffix_ids))]
        row["log_probs"] = log_probs
    if stored.credit is not None:
        advantages = [0.0] * len(row["response_ids"])
        for value, (first, end) in zip(stored.credit.advantages, spans, strict=False):
            advantages[first:end] = [value] * (end - first)
        row["advantages"] = advantages
        if None not in stored.credit.turn_rewards:
            row["turn_rewards"] = list(stored.credit.turn_rewards)
        row["reward"] = stored.credit.trajectory_reward
    return {key: value for key, value in row.items() if value is not None}


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(list(values)[:20]) or "none"
