"""Format the table of a run: stage, held-out success with its interval, Solve-F1, calls and seconds; then counts."""

from __future__ import annotations

from typing import Any

from rewright.core.progress import format_counts
from rewright.core.records import LIMIT_STOPS

__all__ = ["sft_words", "table"]


def table(summary: dict[str, Any]) -> str:
    """Return the report of a run (`rewright.reports.summary.report`) as plain text."""
    lines: list[str] = []
    if summary["stages"]:
        lines.append(f"{'stage':<8}{'success':>9}{'95% interval':>18}{'Solve-F1':>10}{'calls':>8}{'tasks':>7}{'s':>8}")
    for row in summary["stages"]:
        interval = f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        solve = f"{row['solve_f1']:.3f}" if row.get("solve_f1") is not None else "-"
        lines.append(
            f"{row['stage']:<8}{100 * row['success']:>8.1f}%{interval:>18}{solve:>10}"
            f"{row['calls']:>8.2f}{row['tasks']:>7}{row['seconds']:>8.1f}"
        )
        lines += [f"  {words}" for words in (_powers_words(row), _bounds_words(row, "all")) if words]
        if row.get("untrained"):
            lines.append(f"  {row['untrained']}: this is the model before it, tried again")
        if row.get("failures"):
            what = format_counts(row.get("broke") or {}) or "engine or tools"
            lines.append(
                f"  {row['failures']} of {row['trajectories']} had an infrastructure failure ({what}) and count as "
                "not solved"
            )
        if limited := _limits_words(row):
            lines.append(f"  {limited}")
        for name, part in (*row.get("sources", {}).items(), *row.get("categories", {}).items()):
            interval = f"[{100 * part['low']:.1f}, {100 * part['high']:.1f}]"
            line = f"  {name}: {100 * part['success']:.1f}% {interval} of {part['trajectories']}"
            lines.append("; ".join(filter(None, (line, _powers_words(part), _bounds_words(row, name)))))
        if "category_mean" in row:
            lines.append(f"  mean of the categories: {100 * row['category_mean']:.1f}%")
        for name, part in row.get("totals", {}).items():
            interval = f"[{100 * part['low']:.1f}, {100 * part['high']:.1f}]"
            line = f"  {name}: {100 * part['value']:.1f}% {interval}"
            lines.append("; ".join(filter(None, (line, _bounds_words(row, name)))))
        if row.get("note"):
            lines.append(f"  note: {row['note']}")
        for name, part in row.get("metrics", {}).items():
            interval = f"[{part['low']:.3f}, {part['high']:.3f}]"
            lines.append(f"  {name}: {part['value']:.3f} {interval} of {part['trajectories']}")
    counts = summary["counts"]
    if counts["candidates"]:
        lines.append("")
        lines.append(", ".join(f"{name} {count}" for name, count in counts.items() if count or name != "broken"))
        if summary["broke"]:
            lines.append(f"infrastructure failures (not counted as wrong): {format_counts(summary['broke'])}")
        if summary["repaired_by_mode"]:
            lines.append(f"repaired by mode: {format_counts(summary['repaired_by_mode'])}")
    if "sets" in summary:
        lines.append(sft_words(summary["sets"]))
    lines += _rounds(summary.get("rounds", []))
    lines += _sources(summary.get("sources", {}))
    accuracy = summary.get("reward_model_accuracy")
    if accuracy is not None:
        matched = summary.get("reward_model_accuracy_matched_format")
        number = summary["reward_model_matched_format_pairs"]
        more = f", {100 * matched:.1f}% of the {number} of matched format" if matched is not None else ""
        pairs = summary["reward_model_held_out_pairs"]
        lines.append(f"reward model: {100 * accuracy:.1f}% of {pairs} held-out pairs ranked right{more}")
        if summary["length_rule"] is not None:
            by_length = summary["length_rule_accuracy_matched_format"]
            more = f", {100 * by_length:.1f}% of those of matched format" if by_length is not None else ""
            words = f"{100 * summary['length_rule_accuracy']:.1f}% ranked right{more}"
            lines.append(f"  by length alone (the {summary['length_rule']} one wins): {words}")
    if (auc := summary.get("reward_model_prefix_auc")) is not None:
        lines.append(f"  AUC on turn prefixes of held-out tasks: {auc:.3f} (0.5 is chance)")
    if summary.get("dpo_accuracy") is not None:
        accuracy, pairs = 100 * summary["dpo_accuracy"], summary["dpo_held_out_pairs"]
        lines.append(f"DPO: the log-ratios rank {accuracy:.1f}% of {pairs} held-out pairs right")
    if summary["costs"]:
        lines.append("")
        width = max(8, *map(len, summary["costs"]))
        lines.append(f"{'cost of':<{width}}{'prompt tokens':>16}{'generated':>12}{'s':>9}{'money':>11}")
    for stage, cost in summary["costs"].items():
        seconds = "-" if cost["seconds"] is None else f"{cost['seconds']:.1f}"
        money = "-" if cost["money"] is None else f"{cost['money']:.4f}"
        unknown = f"  ({cost['uncounted']} of {cost['turns']} turns uncounted)" if cost["uncounted"] else ""
        lines.append(
            f"{stage:<{width}}{cost['prompt_tokens']:>16,}{cost['completion_tokens']:>12,}{seconds:>9}{money:>11}{unknown}"
        )
    for stage, reason in summary["skipped"].items():
        lines.append(f"skipped: {stage}" + (f" ({reason})" if reason else ""))
    for stage, faults in summary["faults"].items():
        lines.append(f"failed attempts at the engine in {stage}: {format_counts(faults)}")
    lines.append(f"seconds in all: {summary['seconds']}")
    return "\n".join(lines)


def _limits_words(row: dict[str, Any]) -> str:
    """How many trajectories of an evaluation a limit ended, and which; "" for none."""
    stops = row.get("stops") or {}
    limited: dict[str, int] = {reason: stops[reason] for reason in LIMIT_STOPS if stops.get(reason)}
    count, total = sum(limited.values()), row["trajectories"]
    if not count:
        return ""
    return f"{100 * count / total:.1f}% ({count} of {total}) ended at a limit ({format_counts(limited)})"


def _bounds_words(row: dict[str, Any], name: str) -> str:
    """The floor and ceiling of a benchmark's category or total; "" if it states none."""
    return ", ".join(
        f"{kind} {100 * row[kind][name]:.1f}%" for kind in ("floor", "ceiling") if name in row.get(kind, {})
    )


def _powers_words(row: dict[str, Any]) -> str:
    """pass^k of an evaluation with several trajectories per task."""
    return ", ".join(
        f"pass^{k} {100 * part['value']:.1f}% [{100 * part['low']:.1f}, {100 * part['high']:.1f}]"
        for k, part in row.get("pass_powers", {}).items()
    )


def sft_words(sets: dict[str, int]) -> str:
    """How many rows the SFT set has, and why."""
    removed = {"duplicates": sets["duplicates"], "held out": sets["held_out"]}
    less = " and ".join(f"{count} {name}" for name, count in removed.items())
    return f"SFT rows {sets['sft']}: {sets['kept']} kept + {sets['repaired']} repaired, less {less}"


def _rounds(found: list[dict[str, Any]]) -> list[str]:
    """The rounds of a run with several. The success after each is among the stages."""
    if not found:
        return []
    names = ("tasks", "unsolved", "candidates", "kept", "low", "wrong", "repaired", "hard", "pairs", "sft")
    lines = ["", f"{'round':<8}" + "".join(f"{name:>11}" for name in names)]
    for row in found:
        shown = ("-" if row.get(name) is None else str(row[name]) for name in names)
        lines.append(f"{row['round']:<8}" + "".join(f"{value:>11}" for value in shown))
    return lines


def _sources(found: dict[str, dict[str, Any]]) -> list[str]:
    """The candidates of a mixture by source."""
    if not found:
        return []
    width = max(8, *map(len, found))
    counts = ("kept", "low", "wrong", "repaired")
    head = f"{'source':<{width}}{'success':>9}{'95% interval':>18}{'tasks':>7}{'candidates':>12}"
    lines = ["", head + "".join(f"{name:>10}" for name in counts)]
    for name, row in found.items():
        interval = f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        line = f"{name:<{width}}{100 * row['success']:>8.1f}%{interval:>18}{row['tasks']:>7}{row['trajectories']:>12}"
        lines.append(line + "".join(f"{row['counts'][key]:>10}" for key in counts))
    return lines
