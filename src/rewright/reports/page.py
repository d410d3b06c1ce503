"""Write the page of a run: one HTML file with table, curves and trajectories, each with its repair and its credit.

The page loads no external resources and works from `file://`. Untrusted text is escaped, and the content security
policy allows only the page's own script. Without JavaScript, only filter and search are missing.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from rewright.core.errors import InputError
from rewright.core.progress import format_counts, say
from rewright.core.storage import read_bounded, write_atomically
from rewright.core.strict_json import STRICT
from rewright.credit.settings import TurnCredit
from rewright.pipeline.run_directory import Run
from rewright.recipe.schema import Recipe
from rewright.reports.cards import MEANINGS, card, shown_card
from rewright.reports.examples import Example, read_examples
from rewright.reports.stage_examples import Shown, read_evaluations, read_rollouts
from rewright.reports.summary import report
from rewright.reports.table import sft_words
from rewright.rollout.rewards import call_factor
from rewright.training.group_credit import uses_reward_model
from rewright.training.settings import RLSettings

__all__ = ["write_page"]

ALWAYS = ("kept", "low", "wrong", "repaired", "hard")
"""Kinds that always have a filter button."""

RULES = (
    "Then held-out tasks, each with one trajectory of every model, those first on which the models differ; and "
    "rollouts of the first and of the last step of RL: the first group with right and wrong ones, two of each. "
)


def write_page(run: Run, out: Path | None = None, *, examples: int = 40) -> Path:
    """Write the page (default: `report.html` in the run directory) with at most `examples` candidates.

    Returns its path. Raises InputError if `examples` is negative or records can't be read, and StorageError if the page
    can't be written.
    """
    if examples < 0:
        raise InputError(f"examples is {examples}: expected 0 or more")
    path = out if out is not None else run.path / "report.html"
    write_atomically(path, (part.encode("utf-8", "replace") for part in _page(run, examples)))
    return path


def _page(run: Run, count: int) -> Iterator[str]:
    folder = Path(__file__).parent
    style, script = ((folder / name).read_text("utf-8") for name in ("page.css", "page.js"))
    summary = report(run)
    settings, dialect, note = _credit_settings(run)
    name = escape(run.path.resolve().name)
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    yield (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name} · Rewright</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{style}</style></head>\n'
        f"<body><main>\n<h1>{name}</h1>\n"
    )
    yield _about(run)
    yield _stages(summary)
    yield _counts(summary)
    yield _sources(summary.get("sources", {}))
    yield _costs(summary)
    yield _curves(run)
    shown = read_examples(run, count, settings, dialect)
    others = [] if count == 0 else [*read_evaluations(run, settings, dialect), *read_rollouts(run, settings, dialect)]
    yield _controls(shown, others, int(summary["counts"]["candidates"]), _credit_words(settings) + note)
    for index, example in enumerate(shown):
        yield card(example, is_open=index == 0)
    for other in others:
        yield shown_card(other)
    yield f"</main>\n<script>{script}</script>\n</body></html>\n"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _credit_settings(run: Run) -> tuple[RLSettings, str, str]:
    """Return the recipe's `rl` section, its dialect and a note.

    If the recipe is of another version, or its estimator, signal or comparison is untrusted code, defaults are used
    instead and the note says so.
    """
    try:
        recipe = run.recipe()
        others: dict[str, Any] = {}
        problems: list[str] = []
        for key in ("estimator", "signal", "compare"):
            try:
                run.check_code(f"rl.credit.{key}")
            except InputError as problem:
                others[key] = getattr(TurnCredit(), key)
                problems.append(str(problem))
        if others:
            shown = " and ".join(
                f"the {key} {value}" if isinstance(value, str) else "values compared as JSON"
                for key, value in others.items()
            )
            say(f"warning: {'; '.join(problems)}; shown is the credit of {shown}")
            settings = msgspec.structs.replace(recipe.rl, credit=msgspec.structs.replace(recipe.rl.credit, **others))
            which = f"{' and '.join(others)} {'is' if len(others) == 1 else 'are'}"
            return settings, recipe.dialect, f" The {which} not the recipe's: {'; '.join(problems)}."
        return recipe.rl, recipe.dialect, ""
    except InputError as problem:
        recipe = Recipe()
        return recipe.rl, recipe.dialect, f" The recipe cannot be read ({problem}), so these are the defaults."


# Above the trajectories.


def _about(run: Run) -> str:
    path = run.path / "environment.json"
    try:
        about = STRICT.decode(read_bounded(path).decode("utf-8"))
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


def _stages(summary: dict[str, Any]) -> str:
    if not summary["stages"]:
        return '<p class="soft">Nothing was evaluated on held-out tasks yet.</p>\n'
    rows = []
    for row in summary["stages"]:
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
        + "".join(
            f'<p class="bad small">{escape(row["stage"])}: {escape(row["untrained"])}: this is the model before it, '
            "tried again.</p>\n"
            for row in summary["stages"]
            if row.get("untrained")
        )
        + "".join(
            f'<p class="bad small">{escape(row["stage"])}: {row["failures"]} of {row["trajectories"]} trajectories '
            f"had an infrastructure failure ({escape(format_counts(row.get('broke') or {}) or 'engine or tools')}) and "
            "count as not solved.</p>\n"
            for row in summary["stages"]
            if row.get("failures")
        )
        + "".join(
            f'<p class="small">{escape(row["stage"])}, {escape(name)}: {100 * part["success"]:.1f}% '
            f"[{100 * part['low']:.1f}, {100 * part['high']:.1f}] of {part['trajectories']}.</p>\n"
            for row in summary["stages"]
            for name, part in (*row.get("sources", {}).items(), *row.get("categories", {}).items())
        )
        + "".join(
            f'<p class="small">{escape(row["stage"])}: mean of the categories {100 * row["category_mean"]:.1f}%.</p>\n'
            for row in summary["stages"]
            if "category_mean" in row
        )
        + "".join(
            f'<p class="small">{escape(row["stage"])}: {escape(name)} {part["value"]:.3f} '
            f"[{part['low']:.3f}, {part['high']:.3f}] of {part['trajectories']}.</p>\n"
            for row in summary["stages"]
            for name, part in row.get("metrics", {}).items()
        )
    )


def _interval(row: dict[str, Any]) -> str:
    """Return an SVG of success and its interval on a line from 0 to 1."""
    low, value, high = (160 * min(max(float(row[key]), 0.0), 1.0) + 5 for key in ("low", "success", "high"))
    return (
        '<svg class="interval" width="170" height="12" aria-hidden="true"><line x1="5" x2="165" y1="6" y2="6"/>'
        f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="6" y2="6"/>'
        f'<circle cx="{value:.1f}" cy="6" r="4"/></svg>'
    )


def _counts(summary: dict[str, Any]) -> str:
    counts = summary["counts"]
    items = [f"<li><b>{counts[name]}</b> {name}</li>" for name in counts if counts[name] or name != "broken"]
    lines = []
    if summary["broke"]:
        lines.append(f"Infrastructure failures (not counted as wrong): {format_counts(summary['broke'])}.")
    if summary["repaired_by_mode"]:
        modes = ", ".join(f"{mode.replace('_', ' ')} {number}" for mode, number in summary["repaired_by_mode"].items())
        lines.append(f"Repaired: {modes}.")
    if "sets" in summary:
        lines.append(f"{sft_words(summary['sets'])}.")
    accuracy, matched = summary["reward_model_accuracy"], summary["reward_model_accuracy_matched_format"]
    if accuracy is not None:
        more = f" ({100 * matched:.1f}% of those of matched format)" if matched is not None else ""
        pairs = summary["reward_model_held_out_pairs"]
        lines.append(f"The reward model ranks {100 * accuracy:.1f}% of {pairs} held-out pairs right{more}.")
        if summary["length_rule"] is not None:
            rule, by_length = summary["length_rule"], 100 * summary["length_rule_accuracy"]
            lines.append(f"By length alone (the {rule} one wins) {by_length:.1f}% would be right.")
    seconds = ", ".join(f"{stage} {value:.0f}" for stage, value in summary["stage_seconds"].items())
    lines.append(f"{summary['seconds']:.0f} seconds in all" + (f": {seconds}." if seconds else "."))
    return (
        f'<h2>Trajectories</h2>\n<ul class="counts">{"".join(items)}</ul>\n'
        f'<p class="soft small">{escape(" ".join(lines))}</p>\n'
    )


def _sources(sources: dict[str, dict[str, Any]]) -> str:
    """The candidates of a mixture by source."""
    if not sources:
        return ""
    counts = ("kept", "low", "wrong", "repaired")
    rows = "\n".join(
        f"<tr><td>{escape(name)}</td><td>{100 * row['success']:.1f}%</td>"
        f"<td>{100 * row['low']:.1f} – {100 * row['high']:.1f}</td><td>{_interval(row)}</td><td>{row['tasks']}</td>"
        f"<td>{row['trajectories']}</td>" + "".join(f"<td>{row['counts'][key]}</td>" for key in counts) + "</tr>"
        for name, row in sources.items()
    )
    return (
        '<h2>Candidates by source</h2>\n<div class="scroll"><table><tr><th>source</th><th>success</th>'
        "<th>95% interval</th><th></th><th>tasks</th><th>candidates</th>"
        f"{''.join(f'<th>{name}</th>' for name in counts)}</tr>\n{rows}</table></div>\n"
    )


def _costs(summary: dict[str, Any]) -> str:
    if not summary["costs"]:
        return ""
    rows = []
    for stage, cost in summary["costs"].items():
        seconds = "-" if cost["seconds"] is None else f"{cost['seconds']:.1f}"
        money = "-" if cost["money"] is None else f"{cost['money']:.4f}"
        uncounted = f"{cost['uncounted']} of {cost['turns']} turns" if cost["uncounted"] else "-"
        rows.append(
            f"<tr><td>{escape(stage)}</td><td>{cost['trajectories']:,}</td><td>{cost['prompt_tokens']:,}</td>"
            f"<td>{cost['completion_tokens']:,}</td><td>{uncounted}</td><td>{seconds}</td><td>{money}</td></tr>"
        )
    faults = "; ".join(f"{stage}: {format_counts(causes)}" for stage, causes in summary["faults"].items())
    return (
        '<h2>Cost of generating</h2>\n<div class="scroll"><table><tr><th>stage</th><th>trajectories</th>'
        "<th>prompt tokens</th><th>generated</th><th>uncounted</th><th>seconds</th><th>money</th></tr>\n"
        + "\n".join(rows)
        + "</table></div>\n"
        + (f'<p class="soft small">Failed attempts at the engine: {escape(faults)}.</p>\n' if faults else "")
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


def _credit_words(settings: RLSettings) -> str:
    weight = (
        f"calls count {settings.call_weight:g} times (a number in a call is its match, before that), "
        if call_factor(settings) not in (0.0, 1.0)
        else ""
    )
    scores = "; candidates are shown without the reward model's score" if uses_reward_model(settings) else ""
    return (
        "The credit of RL's rollouts is what RL used. That of candidates is what it would give them, those of a task "
        f"as one group ({settings.credit.assignment} assignment, estimator {settings.credit.estimator_name}, {weight}"
        f"trajectory reward {settings.trajectory_reward}{scores}). Repairs and held-out trajectories are in no group "
        "and have rewards only."
    )


def _controls(shown: list[Example], others: list[Shown], candidates: int, note: str) -> str:
    counts = Counter(label for example in shown for label in example.labels) + Counter(group.label for group in others)
    buttons = ['<button type="button" data-label="" aria-pressed="true">all</button>']
    for label, meaning in MEANINGS.items():
        if label in counts or label in ALWAYS:
            buttons.append(
                f'<button type="button" data-label="{label}" aria-pressed="false" title="{meaning}">'
                f"{label} {counts[label]}</button>"
            )
    of = f" of {candidates}" if candidates > len(shown) else ""
    text = f"{len(shown)}{of} candidates, of every kind as evenly as possible. {RULES if others else ''}{note}"
    if not shown and not others:
        return f'<h2>Examples</h2>\n<p class="soft">No candidates to show.</p>\n<input id="search" hidden>{_SHOWN}\n'
    return (
        f'<h2>Examples</h2>\n<p class="soft small">{escape(text)}</p>\n<div class="controls">{"".join(buttons)}'
        '<input id="search" type="search" placeholder="search: all words must occur" aria-label="search">'
        f'<button type="button" id="open">open all</button>{_SHOWN}</div>\n'
    )


_SHOWN = '<span id="shown" class="soft small" role="status"></span>'
