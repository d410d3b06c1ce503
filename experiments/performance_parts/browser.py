"""The viewer on a large run in a real browser."""

from __future__ import annotations

import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import msgspec

import viewer
from performance_parts.rows import Figure, Row, rounded
from rewright.core.records import Trajectory

GOALS = {"first screen": 2.0, "filter": 0.5, "memory that the page adds": 300.0}


def viewer_rows(*, tiny: bool) -> list[Row]:
    """Start, first screen, filter, search and memory on 100,000 trajectories of 5 kB."""
    count = 300 if tiny else 100_000
    command = "python experiments/viewer.py"
    about = f"viewer ({count:,} trajectories)"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "large"
        viewer.write_run(folder, count)
        with viewer.served(folder) as (_, seconds, _process):
            built = Row(what=f"{about}: start, index is built", command=command, unit="s", today=rounded(seconds),
                        limit=Figure(read_all(folder / "trajectories.jsonl"), "msgspec decodes the file"))  # fmt: skip
        if not find_spec("playwright") or not viewer.browser_path():
            why = "chromium or playwright is not installed"
            return [built, Row(what=f"{about}: in the browser", command=command, missing=why)]
        with viewer.served(folder) as (address, seconds, _process):
            rows = [
                built,
                Row(what=f"{about}: start with the index", command=command, unit="s", today=rounded(seconds)),
            ]
            for name, (value, unit) in viewer.in_browser(address, count).items():
                goal = Figure(GOALS[name], "goal") if name in GOALS else None
                what = f"{about}: {name}"
                rows.append(Row(what=what, command=command, unit=unit, today=rounded(value), limit=goal))
    return rows


def read_all(file: Path) -> float:
    """Seconds to decode every line of the file."""
    decoder, started = msgspec.json.Decoder(Trajectory), time.perf_counter()
    with file.open("rb") as lines:
        for line in lines:
            decoder.decode(line)
    return rounded(time.perf_counter() - started)
