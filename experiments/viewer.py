"""Measure the viewer on a large run: the index, the first screen, a filter, a search, and the browser's memory.

    python experiments/viewer.py                     # 100,000 trajectories, about 0.5 GB
    python experiments/viewer.py --count 10000

The run is synthetic: candidates with verdicts and scores, each of about 5 kB with token ids and log-probabilities. It
is opened by `rewright view` and shown in Debian's chromium by playwright (extra `dev`). A time in the browser is that
from the action until the new rows are on the screen. Memory is the proportional set size (PSS) of chromium's processes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WORDS = ("the", "of", "lookup", "person", "name", "city", "harbour", "mentor", "answer", "found", "next", "plan")
TASKS = 10_000
PROGRAM = "from rewright.cli.main import main; main()"


def write_run(folder: Path, count: int) -> int:
    """Write the run; returns the bytes of its trajectories."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("name: large\n")
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=40)) for _ in range(500)]
    ids = [json.dumps([draw.randrange(32000) for _ in range(50)]) for _ in range(200)]
    logs = [json.dumps([-round(draw.random(), 6) for _ in range(50)]) for _ in range(200)]
    with (folder / "tasks.jsonl").open("w") as file:
        for number in range(TASKS):
            message = {"role": "user", "content": f"Question {number}: {texts[number % 500]}?"}
            file.write(json.dumps({"id": f"task-{number}", "messages": [message]}) + "\n")
    with (
        (folder / "trajectories.jsonl").open("w") as file,
        (folder / "verdicts.jsonl").open("w") as verdicts,
        (folder / "quality.jsonl").open("w") as qualities,
    ):
        for number in range(count):
            turns = []
            for _ in range(3):
                text, result, name = draw.choice(texts), draw.choice(texts), f"tool_{draw.randrange(40)}"
                call = json.dumps({"name": name, "arguments": {"city": text[:20]}, "raw": "x"})
                turns.append(
                    f'{{"text":"<think>{text}</think>","token_ids":{draw.choice(ids)},"log_probs":{draw.choice(logs)},'
                    f'"calls":[{call}],"results":[{{"content":"{result}"}}]}}'
                )
            right = draw.random() < 0.5
            key = f"synth/task-{number % TASKS}/{number // TASKS}/0123abcd"
            rare = " sesquipedalian" if number == count // 2 else ""
            file.write(
                f'{{"version":1,"id":"{key}","task_id":"task-{number % TASKS}","stage":"synth","index":'
                f'{number // TASKS},"turns":[{",".join(turns)}],"stop_reason":"answered","prompt_ids":{ids[0]},'
                f'"answer":"{number}{rare}","provenance":{{"model":"pico"}},"seconds":1.5}}\n'
            )
            verdicts.write(f'{{"trajectory_id":"{key}","outcome":{float(right)},"reason":"compared"}}\n')
            total, selected = draw.random(), "kept" if right else "wrong"
            qualities.write(
                f'{{"confidence":1.0,"length":1.0,"repetition":1.0,"total":{total},"trajectory_id":"{key}",'
                f'"selected":"{selected}"}}\n'
            )
    return (folder / "trajectories.jsonl").stat().st_size


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, float, int]]:
    """The address of `rewright view`, the seconds until it is there, and the process."""
    started = time.monotonic()
    command = [sys.executable, "-c", PROGRAM, "view", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        try:
            yield address, time.monotonic() - started, server.pid
        finally:
            server.terminate()


def memory(root: int) -> tuple[float, float]:
    """MB (PSS) of all chromium processes below a process, and of the largest of them."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    sizes = []
    for process in parents:
        above = process
        while above in parents and above != root:
            above = parents[above]
        try:
            if above == root and "chrom" in Path(f"/proc/{process}/comm").read_text():
                rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
                sizes.append(sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1e3)
        except OSError:
            continue
    return sum(sizes), max(sizes, default=0.0)


def timed(action: Callable[[], Any]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


def browser_path() -> str | None:
    """Debian's chromium, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def in_browser(address: str, count: int) -> dict[str, tuple[float, str]]:
    """Walk through the page; returns the measurements with their units."""
    from playwright.sync_api import sync_playwright

    found: dict[str, tuple[float, str]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 850})
        page.set_default_timeout(60_000)
        page.goto("about:blank")
        empty, _ = memory(os.getpid())
        all_rows = f"{count:,} of {count:,} trajectories"

        def opened() -> None:
            page.goto(address)
            page.get_by_text(all_rows).wait_for()
            page.locator(".row .question").first.wait_for()

        def chosen() -> None:
            page.get_by_label("selection").select_option("kept")
            page.wait_for_timeout(0)
            page.locator(".status", has_not_text=all_rows).wait_for()

        def cleared() -> None:
            page.get_by_role("button", name="clear").click()
            page.get_by_text(all_rows).wait_for()

        def searched() -> None:
            page.get_by_label("search").fill("sesquipedalian")
            page.locator(".status", has_text="1 of").wait_for()
            page.locator(".status", has_not_text="searched").wait_for()

        def scrolled() -> None:
            page.locator(".list").evaluate("box => { box.scrollTop = box.scrollHeight; }")
            page.locator(".row .question").last.wait_for()

        found["first screen"] = (timed(opened), "s")
        found["filter"] = (timed(chosen), "s")
        cleared()
        found["to the end of the list"] = (timed(scrolled), "s")
        found["search in all texts"] = (timed(searched), "s")
        cleared()
        for place in range(20):
            page.locator(".list").evaluate(f"box => {{ box.scrollTop = box.scrollHeight * {place / 20}; }}")
            page.wait_for_timeout(100)
        page.keyboard.press("Escape")  # out of the search
        page.keyboard.press("Enter")
        page.get_by_text("Credit of every turn").or_(page.get_by_text("No credit")).first.wait_for()
        whole, largest = memory(os.getpid())
        found["memory that the page adds"] = (whole - empty, "MB")
        found["memory of the browser, all processes"] = (whole, "MB")
        found["memory of the browser, largest process"] = (largest, "MB")
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="trajectories (default: 100,000)")
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "large"
        size = write_run(folder, count)
        rows = {"trajectories": f"{count:,}, {size / 1e6:.0f} MB"}
        with served(folder) as (_, seconds, _process):
            rows["start, building the index"] = f"{seconds:.1f} s"
        with served(folder) as (address, seconds, process):
            rows["start with the index"] = f"{seconds:.1f} s"
            rows["index"] = f"{(folder / '.view/index').stat().st_size / 1e6:.1f} MB"
            found = in_browser(address, count).items()
            rows |= {name: f"{value:.{2 if unit == 's' else 0}f} {unit}" for name, (value, unit) in found}
            status = Path(f"/proc/{process}/status").read_text()
            peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
            rows["server, at most"] = f"{int(peak.split()[1]) / 1e3:.0f} MB"
        width = max(map(len, rows))
        for name, value in rows.items():
            print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
