"""An exporter in one file: the questions of the SFT set, one a line, in a text file."""

from __future__ import annotations

from pathlib import Path

from rewright.exports.base import ExportSets, Written


def export(sets: ExportSets, out: Path) -> list[Written]:
    """Write `questions.txt`."""
    questions = [one["content"] for row in sets.sft for one in row["messages"] if one["role"] == "user"]
    path = out / "questions.txt"
    path.write_text("".join(f"{question}\n" for question in questions), encoding="utf-8")
    return [Written(path, len(questions))]
