"""The picture of one trajectory's credit: predicted calls left, gold calls right, and who is paid for what. SVG text.

Rows are turns. In each: the turn's reward and advantage as bars, its calls with their arguments, and lines to the gold
calls that they match, as thick as the similarity (or, for optimal transport, as the share of the call that is
transported, times its similarity). Wrong and extra arguments stand out on the left, missing ones on the right.
Pure Python, no fonts or scripts needed: it opens in every browser and can be put into a page as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rewright.credit import Match, similarity
from rewright.credit.calls import read_call
from rewright.credit_files import Credited, arguments_of, name_of

__all__ = ["credit_picture", "picture_of"]

_INK, _GREY, _FAINT, _LINE = "#1f2933", "#66727f", "#f2f4f7", "#c9d1da"
_PAID, _WRONG, _GAIN, _LOSS = "#0b7a75", "#b4540a", "#2563a8", "#b4540a"
"""Teal: paid. Orange: wrong, or below zero. Blue: above zero. Told apart without red and green."""

_WIDTH, _MARGIN = 1080, 20
_BARS_LEFT, _BARS_WIDTH = 92, 150
_LEFT, _BOX = 270, 320
_RIGHT, _GOLD_BOX = 760, 300
_LINE_HEIGHT, _CHARACTER, _PADDING, _GAP = 16, 6.65, 8, 8
_TOP = 84
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Words = list[tuple[str, str]]
"""Pieces of text with their colours."""


def picture_of(credited: Credited, title: str = "") -> str:
    """`credit_picture` of a trajectory as `rewright.credit_files.credit` returns it."""
    stored = credited.stored
    return credit_picture(
        stored.turns,
        stored.golds or [],
        credited.match,
        credited.rewards,
        credited.advantages,
        title=title or stored.prompt or stored.id,
        texts=stored.texts,
        outcome=stored.outcome,
    )


def credit_picture(
    turns: Sequence[Sequence[Any]],
    golds: Sequence[Any],
    match: Match,
    rewards: ArrayLike,
    advantages: ArrayLike | None = None,
    *,
    title: str = "",
    texts: Sequence[str] | None = None,
    outcome: float | None = None,
) -> str:
    """SVG text.

    `turns`: calls of each of the T turns. `golds`: G gold calls. `match`: of all calls in order with the gold calls.
    `rewards`, `advantages`: (T,). `texts`: what the model wrote in each turn, shown where it made no call. `outcome`:
    named in the caption. Raises ValueError for numbers of turns or calls that do not fit.
    """
    turn_rewards = np.asarray(rewards, dtype=np.float64)
    turn_advantages = None if advantages is None else np.asarray(advantages, dtype=np.float64)
    calls = [call for turn in turns for call in turn]
    if len(turn_rewards) != len(turns) or (turn_advantages is not None and len(turn_advantages) != len(turns)):
        raise ValueError(f"{len(turns)} turns, but {len(turn_rewards)} rewards: expected one for each turn")
    if match.similarity_PG.shape != (len(calls), len(golds)):
        raise ValueError(f"the match is of {match.similarity_PG.shape} calls: expected ({len(calls)}, {len(golds)})")

    links = _links(match)
    partner = {i: golds[j] for i, j, *_ in sorted(links, key=lambda link: link[3])}
    predicted = [_predicted_lines(call, partner.get(index)) for index, call in enumerate(calls)]
    wanted = _gold_lines(golds, calls, links)

    parts: list[str] = []
    height, middles, shapes = _draw_turns(turns, predicted, match, (turn_rewards, turn_advantages), texts)
    parts += shapes
    gold_heights = [_box_height(lines) for lines in wanted]
    total = sum(gold_heights) + _GAP * max(len(golds) - 1, 0)
    y = _TOP + max((height - _TOP - total) / 2, 0.0)
    gold_middles = []
    paid_gold = {j for _, j, _, _ in links}
    for index, lines in enumerate(wanted):
        parts.append(_box(_RIGHT, y, _GOLD_BOX, gold_heights[index], lines, dashed=index not in paid_gold))
        gold_middles.append(y + gold_heights[index] / 2)
        y += gold_heights[index] + _GAP
    if not golds:
        parts.append(_text(_RIGHT, _TOP + 18, [("no gold calls", _GREY)]))
    bottom = max(height, y) + 8
    curves = [_link(middles[i], gold_middles[j], label, weight) for i, j, label, weight in links]
    caption = _caption(match, calls, golds, turn_rewards, outcome)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 34:.0f}" '
            f'width="{_WIDTH}" height="{bottom + 34:.0f}" font-family="system-ui, sans-serif" font-size="12">',
            f"<title>{_escape(title)}</title>",
            f'<rect width="{_WIDTH}" height="{bottom + 34:.0f}" fill="#ffffff"/>',
            f'<text x="{_MARGIN}" y="28" font-size="15" font-weight="600" fill="{_INK}">'
            f"{_escape(_cut(title, 120))}</text>",
            _text(_MARGIN, 48, [(caption, _GREY)]),
            *_headings(turn_advantages is not None),
            *parts,
            *curves,
            _text(_MARGIN, bottom + 18, _legend(match)),
            "</svg>",
        ]
    )


def _links(match: Match) -> list[tuple[int, int, str, float]]:
    """Lines to draw: predicted, gold, label, weight in (0, 1]."""
    if match.plan_PG is None:
        return [
            (i, j, f"{match.similarity_PG[i, j]:.2f}", float(match.similarity_PG[i, j])) for i, j in match.pairs or ()
        ]
    shares = match.plan_PG * len(match.plan_PG)  # of each predicted call, where its mass goes
    weights = shares * match.similarity_PG
    return [
        (int(i), int(j), f"{shares[i, j]:.0%}" if shares[i, j] >= 0.2 else "", float(weights[i, j]))
        for i, j in np.argwhere(weights >= 0.02)
    ]


def _predicted_lines(call: Any, gold: Any) -> list[Words]:
    """Name and arguments of a predicted call, beside the gold call that it is matched with (None: unmatched)."""
    read = read_call(call)
    name, arguments = name_of(call), arguments_of(call)
    if read is None or not isinstance(arguments, dict):
        shown = name if name else "call"
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, default=str, ensure_ascii=False)
        return [[(f"{shown}  ", _INK), ("malformed", _WRONG)], *_wrap([(_cut(written, 90), _GREY)], _BOX)]
    read_gold = read_call(gold) if gold is not None else None
    words: Words = []
    for key, value in arguments.items():
        colour = _INK
        if read_gold is not None and read_gold.values.get(key, _MISSING) != read.values[key]:
            colour = _WRONG
        words.append((_argument(key, value), colour))
    return [[(name or "", _INK)], *_wrap(words, _BOX)]


_MISSING = object()


def _gold_lines(
    golds: Sequence[Any], calls: Sequence[Any], links: list[tuple[int, int, str, float]]
) -> list[list[Words]]:
    """Name and arguments of the gold calls; arguments that the matched call lacks stand out."""
    lines = []
    for index, gold in enumerate(golds):
        owners = [calls[i] for i, j, _, _ in sorted(links, key=lambda link: -link[3]) if j == index]
        read = read_call(owners[0]) if owners else None
        arguments = arguments_of(gold)
        words = [
            (_argument(key, value), _INK if read is None or key in read.values else _WRONG)
            for key, value in (arguments.items() if isinstance(arguments, dict) else ())
        ]
        lines.append([[(name_of(gold) or "malformed", _INK)], *_wrap(words, _GOLD_BOX)])
    return lines


def _argument(key: Any, value: Any) -> str:
    return f"{_cut(str(key), 20)}: {_cut(json.dumps(value, ensure_ascii=False, default=str), 34)}"


def _wrap(words: Words, width: int) -> list[Words]:
    """Pieces of text in lines that fit a box, at most three; what is left is an ellipsis."""
    room = int((width - 2 * _PADDING) / _CHARACTER)
    lines: list[Words] = []
    used = 0
    for word, colour in words:
        if lines and used + len(word) + 2 <= room:
            lines[-1].append((f"  {word}", colour))
            used += len(word) + 2
            continue
        if len(lines) == 3:
            lines[-1].append(("  …", _GREY))
            break
        lines.append([(_cut(word, room - 2), colour)])
        used = min(len(word), room - 2)
    return lines


def _box_height(lines: list[Words]) -> float:
    return 2 * _PADDING + _LINE_HEIGHT * len(lines) - 4


def _draw_turns(
    turns: Sequence[Sequence[Any]],
    predicted: list[list[Words]],
    match: Match,
    numbers: tuple[Any, Any],
    texts: Sequence[str] | None,
) -> tuple[float, list[float], list[str]]:
    """Bands, bars and predicted calls: the bottom, the middle of each predicted call's box, and the shapes."""
    parts: list[str] = []
    rewards, advantages = numbers
    both = [np.abs(row).max() for row in (rewards, advantages) if row is not None and len(row)]
    scale = _BARS_WIDTH / 2 / max([1e-9, *both])
    y = float(_TOP)
    middles: list[float] = []
    index = 0
    for turn, calls in enumerate(turns):
        own = predicted[index : index + len(calls)]
        content = sum(_box_height(lines) + _GAP for lines in own) - _GAP if own else 22.0
        band = max(content, 40.0) + 2 * _GAP
        fill = _FAINT if turn % 2 == 0 else "#ffffff"
        parts.append(f'<rect x="{_MARGIN}" y="{y:.1f}" width="{_LEFT + _BOX - _MARGIN + 8}" height="{band:.1f}" '
                     f'rx="4" fill="{fill}"/>')  # fmt: skip
        centre = y + band / 2
        parts.append(_text(_MARGIN + 10, centre + 4, [(f"turn {turn + 1}", _INK)], bold=True))
        parts.extend(_bars(centre, rewards[turn], None if advantages is None else advantages[turn], scale))
        place = y + (band - content) / 2
        for lines in own:
            box = _box_height(lines)
            paid = match.rewards_P[index]
            parts.append(_box(_LEFT, place, _BOX, box, lines, dashed=not paid > 0.0, note=f"{paid:.2f}"))
            middles.append(place + box / 2)
            place += box + _GAP
            index += 1
        if not own:
            said = _cut(" ".join(texts[turn].split()), 36) if texts is not None and turn < len(texts) else ""
            parts.append(_text(_LEFT + _PADDING, centre + 4, [("no call  ", _GREY), (said, _GREY)]))
        y += band
    return y, middles, parts


def _bars(centre: float, reward: float, advantage: float | None, scale: float) -> list[str]:
    """Reward above, advantage below, from a common zero line, each with its number."""
    zero = _BARS_LEFT + _BARS_WIDTH / 2
    shapes = [f'<line x1="{zero}" x2="{zero}" y1="{centre - 20}" y2="{centre + 20}" stroke="{_LINE}"/>']
    rows = [(reward, -16.0, _PAID, "reward")]
    if advantage is not None:
        rows.append((advantage, 4.0, _GAIN if advantage >= 0 else _LOSS, "advantage"))
    for value, offset, colour, label in rows:
        length = abs(value) * scale
        left = zero if value >= 0 else zero - length
        shapes.append(
            f'<rect x="{left:.1f}" y="{centre + offset:.1f}" width="{max(length, 0.8):.1f}" height="12" rx="2" '
            f'fill="{colour}"><title>{label} {value:.4f}</title></rect>'
        )
        # The number stands on the empty side of the zero line, where the bar cannot cover it.
        end, anchor = (zero - 5, "end") if value >= 0 else (zero + 5, "start")
        shapes.append(_text(end, centre + offset + 10, [(f"{value:.2f}", _INK)], anchor=anchor, size=11))
    return shapes


def _box(x: float, y: float, width: float, height: float, lines: list[Words], *, dashed: bool, note: str = "") -> str:
    """A call: its name, its arguments, and what it is paid."""
    border = f'stroke="{_LINE}" stroke-dasharray="4 3"' if dashed else f'stroke="{_PAID}"'
    shapes = [f'<rect x="{x}" y="{y:.1f}" width="{width}" height="{height:.1f}" rx="5" fill="#ffffff" {border}/>']
    for number, words in enumerate(lines):
        base = y + _PADDING + 10 + _LINE_HEIGHT * number
        shapes.append(_text(x + _PADDING, base, words, bold=number == 0, mono=number > 0))
    if note:
        colour = _GREY if dashed else _PAID
        shapes.append(_text(x + width - _PADDING, y + _PADDING + 10, [(note, colour)], anchor="end", bold=not dashed))
    return "".join(shapes)


def _link(left: float, right: float, label: str, weight: float) -> str:
    """A line from a predicted to a gold call."""
    start, end = _LEFT + _BOX, _RIGHT
    middle = (start + end) / 2
    curve = (
        f'<path d="M {start} {left:.1f} C {middle} {left:.1f}, {middle} {right:.1f}, {end} {right:.1f}" fill="none" '
        f'stroke="{_PAID}" stroke-width="{0.8 + 4.2 * weight:.2f}" stroke-opacity="{0.25 + 0.55 * weight:.2f}"/>'
    )
    if not label:
        return curve
    # On the curve at a fifth of the way: near the predicted call, where lines have not crossed yet.
    x, y = 0.512 * start + 0.48 * middle + 0.008 * end, left + 0.104 * (right - left)
    tag = f'<rect x="{x - 17:.1f}" y="{y - 8:.1f}" width="34" height="16" rx="3" fill="#ffffff" fill-opacity="0.92"/>'
    return curve + tag + _text(x, y + 4, [(label, _PAID)], anchor="middle", size=11)


def _headings(with_advantages: bool) -> list[str]:
    bars = [("reward", _PAID), (" / advantage", _GAIN)] if with_advantages else [("reward", _PAID)]
    return [
        _text(_BARS_LEFT + _BARS_WIDTH / 2, _TOP - 10, bars, anchor="middle"),
        _text(_LEFT, _TOP - 10, [("predicted calls", _GREY)]),
        _text(_RIGHT, _TOP - 10, [("gold calls", _GREY)]),
    ]


def _caption(match: Match, calls: Sequence[Any], golds: Sequence[Any], rewards: Any, outcome: float | None) -> str:
    exact = sum(similarity(calls[i], golds[j]) == 1.0 for i, j in match.pairs or ())
    matched = f", {len(match.pairs)} matched, {exact} exactly" if match.pairs is not None else ", optimal transport"
    result = "" if outcome is None else f" · outcome {outcome:.2f}"
    return f"{len(calls)} calls, {len(golds)} gold calls{matched}{result} · trajectory reward {rewards.sum():.2f}"


def _legend(match: Match) -> Words:
    lines = "similarity" if match.plan_PG is None else "share of the call that is transported, times its similarity"
    return [
        (f"line: {lines} · number in a call: its reward · dashed: unpaid (left), unmatched (right) · ", _GREY),
        ("wrong, extra or missing", _WRONG),
    ]


def _text(
    x: float, y: float, words: Words, *, anchor: str = "start", size: int = 12, bold: bool = False, mono: bool = False
) -> str:
    """A line of text in pieces of their own colours."""
    weight = ' font-weight="600"' if bold else ""
    family = (
        ' font-family="ui-monospace, DejaVu Sans Mono, monospace" font-size="11"' if mono else f' font-size="{size}"'
    )
    spans = "".join(f'<tspan fill="{colour}">{_escape(word)}</tspan>' for word, colour in words)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" xml:space="preserve"{family}{weight}>{spans}</text>'


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _escape(text: str) -> str:
    """Text for XML: markup escaped, characters that XML does not know replaced."""
    cleaned = _NOT_XML.sub("\ufffd", text)
    return cleaned.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
