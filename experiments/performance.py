"""Measure every part beside a peer or a limit, and write the table of docs/performance.md.

    python experiments/performance.py                       # all parts, at most ten minutes on two quiet cores
    python experiments/performance.py --part driver         # the rows of one part as JSON; nothing is written
    python experiments/performance.py --report              # print the table of the results file, measure nothing
    python experiments/performance.py --tiny --out FILE     # the smallest sizes, to see that everything runs

Each part runs in a process of its own, one after another. What a value is compared with is measured beside it in the
same minutes: a *peer* does the same work in another way (another library, or plain Python), a *limit* does less and
cannot be beaten by much (a bare loop, one pass over the bytes). The rows are written to
experiments/results/performance.json and from there into the page. A part that fails leaves a row that says so, and the
exit code is 1.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
from performance_parts.rows import Report, Row, table, with_table

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "performance.json"
PAGE = HERE.parent / "docs" / "performance.md"
PACKAGES = ("rewright", "numpy", "scipy", "msgspec", "aiohttp", "openai", "torch", "transformers", "trl")
PARTS = ("driver", "credit", "advantages", "sandbox", "rl", "stored", "viewer", "start")
ONE_THREAD = {"credit", "advantages"}
SECONDS_OF_A_PART = 300


def measured(part: str, *, tiny: bool) -> list[Row]:
    """The rows of one part, measured in this process."""
    if part in ("credit", "advantages"):
        from performance_parts import numeric

        rows: Callable[..., list[Row]] = {"credit": numeric.credit, "advantages": numeric.advantages_of_a_step}[part]
    elif part == "rl":
        from performance_parts.training import rl_rows as rows
    elif part == "viewer":
        from performance_parts.browser import viewer_rows as rows
    else:
        from performance_parts import programs

        rows = {
            "driver": programs.driver_rows,
            "sandbox": programs.sandbox_rows,
            "stored": programs.stored_rows,
            "start": programs.command_line_rows,
        }[part]
    return rows(tiny=tiny)


def in_a_process(part: str, seconds: float, *, tiny: bool) -> tuple[list[Row], bool]:
    """The rows of one part, measured in a process of its own, and whether all went well."""
    command = [sys.executable, str(HERE / "performance.py"), "--part", part, *(["--tiny"] if tiny else [])]
    threads = {"OMP_NUM_THREADS": "1"} if part in ONE_THREAD else {}
    started = time.perf_counter()
    try:
        # A session of its own, so that what a part has started ends with it when its time is up.
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, env=os.environ | threads, start_new_session=True
        ) as process:
            try:
                printed, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        rows = msgspec.json.decode(printed.splitlines()[-1], type=list[Row])
    except (subprocess.SubprocessError, msgspec.DecodeError, IndexError) as problem:
        print(f"{part}: {problem}", file=sys.stderr)
        why = "its time was up" if isinstance(problem, subprocess.TimeoutExpired) else "it failed"
        return [Row(what=part, command=f"python experiments/performance.py --part {part}", missing=why)], False
    print(f"{part}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return rows, True


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The versions of what is measured."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    peers = Path(os.environ.get("REWRIGHT_PEERS", HERE.parent / ".venv/peers")) / "bin/python"
    program = "from importlib.metadata import version; print(version('inspect_ai'))"
    for name, command in (("inspect_ai", [str(peers), "-c", program]), ("Chromium", ["chromium", "--version"])):
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            words = [word for word in done.stdout.split() if word[0].isdigit()]
            found |= {name: words[0]} if words else {}
    return found


def main() -> int:
    """Measure, or print what was measured. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="print the table of the results file")
    parser.add_argument(
        "--tiny", action="store_true", help="the smallest sizes; writes only what --out and --page name"
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, help="only these parts; writes only what --out and --page name"
    )
    parser.add_argument(
        "--part-seconds", type=float, default=SECONDS_OF_A_PART, help="time limit of a part (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help=f"results file (default: {RESULTS.relative_to(HERE.parent)})")
    parser.add_argument("--page", type=Path, help=f"page to rewrite (default: {PAGE.relative_to(HERE.parent)})")
    parser.add_argument("--part", choices=PARTS, help="measure one part in this process and print its rows")
    given = parser.parse_args()
    if given.part:
        print(msgspec.json.encode(measured(given.part, tiny=given.tiny)).decode())
        return 0
    if given.report:
        print(table(msgspec.json.decode((given.out or RESULTS).read_bytes(), type=Report)))
        return 0
    out, page = (given.out, given.page) if given.tiny or given.only else (given.out or RESULTS, given.page or PAGE)
    load, started = os.getloadavg()[0], time.perf_counter()
    found = [in_a_process(part, given.part_seconds, tiny=given.tiny) for part in given.only or PARTS]
    report = Report(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine=f"{len(os.sched_getaffinity(0))} cores of {processor()}",
        load=round(load, 2),
        seconds=round(time.perf_counter() - started),
        versions=versions(),
        rows=[row for rows, _ in found for row in rows],
        tiny=given.tiny,
    )
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    if page is not None:
        page.write_text(with_table(page.read_text("utf-8"), report), "utf-8")
    print(table(report))
    return 0 if all(well for _, well in found) else 1


if __name__ == "__main__":
    sys.exit(main())
