"""The page of a run: one HTML file with table, curves and trajectories, each with its repair and its credit.

It loads nothing from anywhere and works from `file://`. Whatever a model, a tool or a data set wrote is escaped, and
the page's content policy lets no script run but its own. Without JavaScript everything is there but filter and search.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from rewright.credit_files import arguments_of, name_of, prompt_text
from rewright.dialects.hermes import split_thought
from rewright.errors import InputError
from rewright.pipeline import report
from rewright.plugins.settings import TurnCredit
from rewright.records import Quality, ToolCall, ToolResult, Trajectory, Turn
from rewright.runs import Run
from rewright.storage import write_atomically
from rewright.viewer.credit_picture import credit_picture
from rewright.viewer.examples import Attempt, Example, read_examples

__all__ = ["write_page"]

LONGEST = 8000
"""Characters of one text that are shown; a tool result can be megabytes."""

MEANINGS = {
    "kept": "right and of high quality",
    "low": "right, of low quality",
    "wrong": "not right",
    "repaired": "its repair was taken",
    "hard": "no repair was good enough",
    "unscored": "not scored yet",
}


def write_page(run: Run, out: Path | None = None, *, examples: int = 40) -> Path:
    """Write the page (default: `report.html` in the run directory) with at most `examples` candidates; its path.

    Raises InputError for a number of examples below 0 and for records that cannot be read, StorageError where the page
    cannot be written.
    """
    if examples < 0:
        raise InputError(f"examples is {examples}: expected 0 or more")
    path = out if out is not None else run.path / "report.html"
    write_atomically(path, (part.encode("utf-8", "replace") for part in _page(run, examples)))
    return path


def _page(run: Run, count: int) -> Iterator[str]:
    folder = Path(__file__).parent
    style, script = ((folder / name).read_text("utf-8") for name in ("page.css", "page.js"))
    found = report(run)
    settings, note = _credit_settings(run)
    name = escape(run.path.resolve().name)
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    yield (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name} · Rewright</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{style}</style></head>\n'
        f"<body><main>\n<h1>{name}</h1>\n"
    )
    yield _about(run)
    yield _stages(found)
    yield _counts(found)
    yield _curves(run)
    shown = read_examples(run, count, settings)
    yield _controls(shown, int(found["counts"]["candidates"]), settings, note)
    for index, example in enumerate(shown):
        yield _card(example, is_open=index == 0)
    yield f"</main>\n<script>{script}</script>\n</body></html>\n"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _credit_settings(run: Run) -> tuple[TurnCredit, str]:
    """The recipe's credit settings. A recipe of another version is no reason to show nothing: defaults, with a note."""
    try:
        return run.recipe().rl.credit, ""
    except InputError as problem:
        return TurnCredit(), f" The recipe cannot be read ({problem}), so these are the defaults."


# Above the trajectories.


def _about(run: Run) -> str:
    path = run.path / "environment.json"
    try:
        about = json.loads(path.read_text("utf-8"))
        versions = about.get("versions", {})
        parts = [
            f"started {about.get('started', '?')}",
            f"Rewright {versions.get('rewright', '?')}",
            *([f"commit {str(about['commit'])[:12]}"] if about.get("commit") else []),
            f"seed {about.get('seed', '?')}",
            f"{about.get('processors', '?')} processors",
        ]
    except (OSError, ValueError, AttributeError):
        return ""
    return f'<p class="soft small">{escape(" · ".join(parts))}</p>\n'


def _stages(found: dict[str, Any]) -> str:
    if not found["stages"]:
        return '<p class="soft">Nothing was evaluated on held-out tasks yet.</p>\n'
    rows = []
    for row in found["stages"]:
        solve = f"{row['solve_f1']:.3f}" if row.get("solve_f1") is not None else "-"
        rows.append(
            f"<tr><td>{escape(row['stage'])}</td><td>{100 * row['success']:.1f}%</td>"
            f"<td>{100 * row['low']:.1f} – {100 * row['high']:.1f}</td><td>{_interval(row)}</td><td>{solve}</td>"
            f"<td>{row['calls']:.2f}</td><td>{row['tasks']}</td><td>{row['seconds']:.1f}</td></tr>"
        )
    return (
        '<h2>Held-out tasks</h2>\n<div class="scroll"><table><tr><th>model after</th><th>success</th>'
        "<th>95% interval</th><th></th><th>Solve-F1</th><th>calls</th><th>tasks</th><th>seconds</th></tr>\n"
        + "\n".join(rows)
        + "</table></div>\n"
    )


def _interval(row: dict[str, Any]) -> str:
    """Success and its interval on a line from 0 to 1."""
    low, value, high = (160 * min(max(float(row[key]), 0.0), 1.0) + 5 for key in ("low", "success", "high"))
    return (
        '<svg class="interval" width="170" height="12" aria-hidden="true"><line x1="5" x2="165" y1="6" y2="6"/>'
        f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="6" y2="6"/>'
        f'<circle cx="{value:.1f}" cy="6" r="4"/></svg>'
    )


def _counts(found: dict[str, Any]) -> str:
    counts = found["counts"]
    items = [f"<li><b>{counts[name]}</b> {name}</li>" for name in counts]
    lines = []
    if found["repaired_by_mode"]:
        modes = ", ".join(f"{mode.replace('_', ' ')} {number}" for mode, number in found["repaired_by_mode"].items())
        lines.append(f"Repaired: {modes}.")
    accuracy, matched = found["reward_model_accuracy"], found["reward_model_accuracy_matched_format"]
    if accuracy is not None:
        more = f" ({100 * matched:.1f}% of those of matched format)" if matched is not None else ""
        pairs = found["reward_model_held_out_pairs"]
        lines.append(f"The reward model ranks {100 * accuracy:.1f}% of {pairs} held-out pairs right{more}.")
        if found["length_rule"] is not None:
            rule, by_length = found["length_rule"], 100 * found["length_rule_accuracy"]
            lines.append(f"By length alone (the {rule} one wins) {by_length:.1f}% would be right.")
    seconds = ", ".join(f"{stage} {value:.0f}" for stage, value in found["stage_seconds"].items())
    lines.append(f"{found['seconds']:.0f} seconds in all" + (f": {seconds}." if seconds else "."))
    return (
        f'<h2>Trajectories</h2>\n<ul class="counts">{"".join(items)}</ul>\n'
        f'<p class="soft small">{escape(" ".join(lines))}</p>\n'
    )


def _curves(run: Run) -> str:
    path = run.path / "learning_curves.png"
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    alt = "Curves of SFT loss, reward-model accuracy, RL success, and held-out success after each stage"
    return (
        f'<h2>Learning curves</h2>\n<div class="picture"><img class="curves" alt="{alt}" '
        f'src="data:image/png;base64,{data}"></div>\n'
    )


def _controls(shown: list[Example], candidates: int, settings: TurnCredit, note: str) -> str:
    counts: dict[str, int] = {}
    for example in shown:
        for label in example.labels:
            counts[label] = counts.get(label, 0) + 1
    buttons = ['<button type="button" data-label="" aria-pressed="true">all</button>']
    for label, meaning in MEANINGS.items():
        if label in counts or label != "unscored":
            buttons.append(
                f'<button type="button" data-label="{label}" aria-pressed="false" title="{meaning}">'
                f"{label} {counts.get(label, 0)}</button>"
            )
    of = f" of {candidates}" if candidates > len(shown) else ""
    text = (
        f"{len(shown)}{of} candidates, of every kind as evenly as possible. Credit is what the recipe's RL would give "
        f"the candidates of a task as one group ({settings.assignment} assignment, estimator {settings.estimator}, "
        f"without reward model and format terms); a repair is in no group and has rewards only.{note}"
    )
    if not shown:
        return f'<h2>Examples</h2>\n<p class="soft">No candidates to show.</p>\n<input id="search" hidden>{_SHOWN}\n'
    return (
        f'<h2>Examples</h2>\n<p class="soft small">{escape(text)}</p>\n<div class="controls">{"".join(buttons)}'
        '<input id="search" type="search" placeholder="search: all words must occur" aria-label="search">'
        f'<button type="button" id="open">open all</button>{_SHOWN}</div>\n'
    )


_SHOWN = '<span id="shown" class="soft small" role="status"></span>'


# One candidate.


def _card(example: Example, *, is_open: bool) -> str:
    candidate = example.candidate
    question = prompt_text(list(example.task.messages)) if example.task is not None else candidate.trajectory.task_id
    badges = "".join(
        f'<span class="badge {label}" title="{MEANINGS[label]}">{label}</span>' for label in example.labels
    )
    sides = [_side("Candidate", candidate, _facts(example))]
    if example.repair is not None:
        sides.append(_repair_side(example))
    return (
        f'<details class="card" data-labels="{" ".join(example.labels)}"{" open" if is_open else ""}>'
        f'<summary><span class="question">{_text(question)}</span>{badges}</summary>\n<div class="body">'
        f'{_gold(example)}<div class="sides">{"".join(sides)}</div>\n{_credits(example)}</div></details>\n'
    )


def _gold(example: Example) -> str:
    if example.task is None:
        return '<p class="soft small">The run does not know this task any more.</p>'
    gold = example.task.gold
    parts = []
    if gold.answers:
        parts.append(f"gold answer {' or '.join(gold.answers)}")
    if gold.calls is not None:
        parts.append(f"{len(gold.calls)} gold calls")
    parts.append(f"{len(example.task.tools)} tools: {', '.join(tool.name for tool in example.task.tools)}")
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
    return f"{outcome}, outcome {verdict.outcome:g}" + "".join(f", {one}" for one in metrics) + f": {verdict.reason}"


def _repair_side(example: Example) -> str:
    repair = example.repair
    assert repair is not None
    facts = [
        ("decision", f"{'taken' if repair.accepted else 'not taken'}: {repair.reason}"),
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
    thought, said = split_thought(turn.opening + turn.text)
    for call in turn.calls:
        said = said.replace(call.raw, "", 1)
    said = said.replace("<tool_call>", "").replace("</tool_call>", "").strip()
    if trajectory.answer is not None and _bare(said) == trajectory.answer.strip():
        said = ""  # it stands below the turns
    stop = " · cut off" if turn.stop == "length" else ""
    parts = [f'<span class="soft">turn {number}{stop}</span>']
    if thought.strip():
        parts.append(f'<div class="thought">{_text(thought.strip())}</div>')
    if said:
        parts.append(f'<div class="said">{_text(said)}</div>')
    for index, call in enumerate(turn.calls):
        parts.append(_call(call, answered=index < len(turn.results)))
        if index < len(turn.results):
            parts.append(_result(turn.results[index]))
    return f'<div class="turn">{"".join(parts)}</div>'


def _bare(text: str) -> str:
    return text.removeprefix("<answer>").removesuffix("</answer>").strip()


def _call(call: ToolCall, *, answered: bool) -> str:
    if call.error is not None:
        error = "malformed" if answered else call.error  # the result says what is wrong
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
    # The content is what the model was shown and mostly says the error's message already.
    error = kind if message and message in result.content else result.error
    error = "" if error in result.content else f'<span class="bad">{_text(error)}</span>\n'
    return f'<div class="result failed">{error}{_text(result.content)}</div>'


def _credits(example: Example) -> str:
    pictures = [("Candidate", example.candidate), ("Repair", example.repaired)]
    drawn = [
        f'<h3>{title}</h3><div class="picture">{_picture(attempt, with_advantages=title == "Candidate")}</div>'
        for title, attempt in pictures
        if attempt is not None and attempt.credited is not None
    ]
    if not drawn:
        return '<p class="soft small">No credit: it needs gold calls and at least one turn.</p>'
    return f'<details class="credit" open><summary>Credit of every turn</summary>{"".join(drawn)}</details>'


def _picture(attempt: Attempt, *, with_advantages: bool) -> str:
    credited = attempt.credited
    assert credited is not None
    stored = credited.stored
    return credit_picture(
        stored.turns,
        stored.golds or [],
        credited.match,
        credited.rewards,
        credited.advantages if with_advantages else None,
        title=stored.prompt or stored.id,
        texts=stored.texts,
        outcome=stored.outcome,
    )


def _text(text: str) -> str:
    """Anything that somebody wrote, as HTML: escaped, and cut where it is longer than a person reads."""
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}… ({len(text) - LONGEST:,} more characters)"
    return escape(text)
