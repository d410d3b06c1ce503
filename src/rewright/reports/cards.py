"""HTML cards of the page: a candidate with its repair, or trajectories of one task side by side, with their credit.

Untrusted text of models, tools and data sets is escaped by `_text`.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

from rewright.core.records import Quality, Task, ToolCall, ToolResult, Trajectory, Turn
from rewright.credit.messages import arguments_of, name_of
from rewright.dialects.split import split_turn
from rewright.reports.credit_picture import drawing_of
from rewright.reports.examples import Attempt, Example
from rewright.reports.stage_examples import Shown
from rewright.reports.stored_credit import prompt_text

__all__ = ["MAX_TEXT_CHARACTERS", "MEANINGS", "card", "shown_card"]

MAX_TEXT_CHARACTERS = 8000
"""Maximum length of a text in characters; longer ones are cut, because a tool result can have megabytes."""

MEANINGS = {
    "kept": "right and of high quality",
    "low": "right, of low quality",
    "wrong": "not right",
    "broken": "an infrastructure failure of an engine or a tool server",
    "repaired": "its repair was accepted",
    "hard": "no repair was accepted",
    "unscored": "not scored yet",
    "evaluation": "a held-out task, solved by each model",
    "rollout": "rollouts of one task in a step of RL",
}


def card(example: Example, *, is_open: bool) -> str:
    """Return the HTML of one candidate beside its repair."""
    sides = [_side("Candidate", example.candidate, _facts(example))]
    if example.repair is not None:
        sides.append(_repair_side(example))
    pictures = [("Candidate", example.candidate)]
    if example.repaired is not None:
        pictures.append(("Repair", example.repaired))
    task_id = example.candidate.trajectory.task_id
    return _details(example.labels, example.task, task_id, [_sides(sides), _credits(pictures)], is_open=is_open)


def shown_card(shown: Shown) -> str:
    """Return the HTML of trajectories of one task side by side: of several models, or the rollouts of a step."""
    sides = [_side(title, attempt, [("verdict", _verdict(attempt))]) for title, attempt in shown.attempts]
    task_id = shown.attempts[0][1].trajectory.task_id
    return _details([shown.label], shown.task, task_id, [_sides(sides), _credits(shown.attempts)], note=shown.note)


def _sides(sides: list[str]) -> str:
    many = " many" if len(sides) > 2 else ""
    return f'<div class="sides{many}">{"".join(sides)}</div>\n'


def _details(
    labels: list[str],
    task: Task | None,
    task_id: str,
    body: list[str],
    *,
    note: str = "",
    is_open: bool = False,
) -> str:
    question = prompt_text(list(task.messages)) if task is not None else task_id
    badges = "".join(f'<span class="badge {label}" title="{MEANINGS[label]}">{label}</span>' for label in labels)
    noted = f'<span class="soft small">{_text(note)}</span>' if note else ""
    return (
        f'<details class="card" data-labels="{" ".join(labels)}"{" open" if is_open else ""}>'
        f'<summary><span class="question">{_text(question)}</span>{noted}{badges}</summary>\n<div class="body">'
        f"{_gold(task)}{''.join(body)}</div></details>\n"
    )


def _gold(task: Task | None) -> str:
    if task is None:
        return '<p class="soft small">This task is no longer in the files of the run.</p>'
    gold = task.gold
    parts = []
    if gold.answers:
        parts.append(f"gold answer {' or '.join(gold.answers)}")
    if gold.calls is not None:
        parts.append(f"{len(gold.calls)} gold calls")
    parts.append(f"{len(task.tools)} tools: {', '.join(tool.name for tool in task.tools)}")
    return f'<p class="soft small">{_text(" · ".join(parts))}</p>'


def _facts(example: Example) -> list[tuple[str, str]]:
    facts = [("verdict", _verdict(example.candidate))]
    if example.quality is not None:
        facts.append(("quality", _quality(example.quality)))
        facts.append(("selection", f"{example.quality.selected}: {MEANINGS.get(str(example.quality.selected), '')}"))
    return facts


def _quality(quality: Quality) -> str:
    scores = {
        "confidence": quality.confidence,
        "length": quality.length,
        "repetition": quality.repetition,
        **quality.extra,
    }
    return f"{quality.total:.3f} ({', '.join(f'{name} {value:.2f}' for name, value in scores.items())})"


def _verdict(attempt: Attempt) -> str:
    verdict = attempt.verdict
    if verdict is None:
        return "not judged"
    metrics = [f"{name} {value:.2f}" for name, value in verdict.metrics.items() if name in ("solve_f1",)]
    outcome = "right" if verdict.correct else "wrong"
    return (
        f"{outcome}, outcome {verdict.outcome:g}" + "".join(f", {metric}" for metric in metrics) + f": {verdict.reason}"
    )


def _repair_side(example: Example) -> str:
    repair = example.repair
    assert repair is not None
    facts = [
        ("decision", f"{'accepted' if repair.accepted else 'rejected'}: {repair.reason}"),
        ("repaired for", repair.mode.replace("_", " ")),
        ("attempts", f"{repair.attempts}" + (f", {repair.tokens} tokens" if repair.tokens is not None else "")),
    ]
    if example.repaired is None:
        return f'<section class="side"><h3>Repair</h3>{_list(facts)}</section>'
    title = "Repair" if repair.attempts == 1 else f"Repair (attempt {repair.attempts})"
    return _side(title, example.repaired, [*facts, ("verdict", _verdict(example.repaired))])


def _side(title: str, attempt: Attempt, facts: list[tuple[str, str]]) -> str:
    trajectory = attempt.trajectory
    turns = "".join(_turn(number, turn, trajectory) for number, turn in enumerate(trajectory.turns, 1))
    if trajectory.answer is not None:
        end = f'<div class="answer"><span class="soft small">answer </span>{_text(trajectory.answer)}</div>'
    elif trajectory.stop_reason == "called":
        end = '<div class="answer"><span class="soft small">ends with its calls, which nothing executes</span></div>'
    else:
        end = f'<div class="answer bad">no answer ({_text(trajectory.stop_reason.replace("_", " "))})</div>'
    if trajectory.failure is not None:
        end += f'<p class="bad small">{_text(f"{trajectory.failure.kind}: {trajectory.failure.message}")}</p>'
    model = f" · {trajectory.provenance.model}" if trajectory.provenance.model else ""
    heading = f'{title} <span class="soft">{_text(trajectory.id + model)}</span>'
    return f'<section class="side"><h3>{heading}</h3>{turns}{end}{_list(facts)}</section>'


def _list(facts: list[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{_text(value)}</dd>' for name, value in facts)}</dl>"


def _turn(number: int, turn: Turn, trajectory: Trajectory) -> str:
    thought, _, text = split_turn(turn.opening + turn.text)
    for call in turn.calls:  # calls of the dialect tags
        text = text.replace(call.raw, "", 1) if call.raw else text
    text = text.strip()
    if trajectory.answer is not None and _bare(text) == trajectory.answer.strip():
        text = ""  # shown below the turns
    stop = " · cut off" if turn.stop == "length" else ""
    parts = [f'<span class="soft">turn {number}{stop}</span>']
    if thought.strip():
        parts.append(f'<div class="thought">{_text(thought.strip())}</div>')
    if text:
        parts.append(f'<div class="said">{_text(text)}</div>')
    for index, call in enumerate(turn.calls):
        parts.append(_call(call, answered=index < len(turn.results)))
        if index < len(turn.results):
            parts.append(_result(turn.results[index]))
    for message in turn.follow_up.messages if turn.follow_up is not None else ():
        text = f'<span class="soft small">{_text(str(message["role"]))} </span>{_text(str(message["content"]))}'
        parts.append(f'<div class="said">{text}</div>')
    return f'<div class="turn">{"".join(parts)}</div>'


def _bare(text: str) -> str:
    return text.removeprefix("<answer>").removesuffix("</answer>").strip()


def _call(call: ToolCall, *, answered: bool) -> str:
    if call.error is not None:
        error = "malformed" if answered else call.error  # the result has the full error
        return f'<div class="call">{_text(call.raw.strip())} <span class="bad">{_text(error)}</span></div>'
    arguments = arguments_of(call)
    written = ", ".join(f"{key}: {_json(value)}" for key, value in arguments.items())
    return f'<div class="call"><b>{_text(name_of(call) or "")}</b>({_text(written)})</div>'


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _result(result: ToolResult) -> str:
    if result.error is None:
        return f'<div class="result">{_text(result.content)}</div>'
    kind, _, message = result.error.partition(": ")
    # The content is what the model was shown, and usually contains the error message already.
    error = kind if message and message in result.content else result.error
    error = "" if error in result.content else f'<span class="bad">{_text(error)}</span>\n'
    return f'<div class="result failed">{error}{_text(result.content)}</div>'


def _credits(pictures: list[tuple[str, Attempt]]) -> str:
    """Return the HTML of the credit of attempts, each with its title."""
    drawn = [
        f'<h3>{title}</h3><div class="picture">{drawing_of(attempt.credited).svg()}</div>'
        for title, attempt in pictures
        if attempt.credited is not None
    ]
    if not drawn:
        return '<p class="soft small">No credit: it needs gold calls or an outcome, and at least one turn.</p>'
    return f'<details class="credit" open><summary>Credit of every turn</summary>{"".join(drawn)}</details>'


def _text(text: str) -> str:
    """Escape untrusted text for HTML and cut it to `MAX_TEXT_CHARACTERS` characters."""
    if len(text) > MAX_TEXT_CHARACTERS:
        text = f"{text[:MAX_TEXT_CHARACTERS]}… ({len(text) - MAX_TEXT_CHARACTERS:,} more characters)"
    return escape(text)
