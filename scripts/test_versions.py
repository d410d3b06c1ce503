"""Run the tests on the lowest and the newest versions that pyproject.toml allows: `make test-versions`.

    python scripts/test_versions.py                          # every row of the table
    python scripts/test_versions.py --only 3.11-lowest       # one of them
    python scripts/test_versions.py -- -n 0 tests/credit     # what follows -- goes to pytest
    python scripts/test_versions.py --list                   # the rows, and what this machine has for them

Lowest is `constraints-lowest.txt`, which `--compile` writes again with uv (`--resolution lowest-direct`: our direct
dependencies at their lower bounds, theirs as new as fits). Newest is whatever pip finds today. Environments are kept in
build/versions and made again when the bounds change.

torch is the CPU build of the version in constraints.txt in every row: a plain `torch` brings gigabytes of CUDA. Where
pip is offered no such build for a Python (PIP_FIND_LINKS=folder, or PyTorch's index of CPU builds), the row runs the
tests that need no torch, and says so.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
LOWEST = ROOT / "constraints-lowest.txt"
HOME = ROOT / "build" / "versions"
ROWS = (("3.11", "lowest"), ("3.11", "newest"), ("3.12", "newest"), ("3.13", "newest"))
WITHOUT_TORCH = "bench,view,mcp,dev"
EXTRAS = f"train,{WITHOUT_TORCH}"
COMPILE = ["--resolution", "lowest-direct", "--python-version", "3.11", "--no-header", "--no-annotate"]


@dataclass
class Row:
    """One line of the table."""

    name: str
    torch: str = "-"
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    note: str = ""

    @property
    def ok(self) -> bool:
        """Tests ran and none failed; a Python that this machine lacks is no failure."""
        return self.note.startswith("no python") or (self.passed > 0 and self.failed == 0 and not self.note)


def interpreter(version: str) -> str | None:
    """The path of `pythonX.Y`, if there is one that runs (a shim of pyenv may lead nowhere)."""
    candidates = [f"python{version}", *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    for candidate in candidates:
        found = shutil.which(candidate)
        ask = "import sys; print('%d.%d' % sys.version_info[:2])"
        if found:
            done = subprocess.run([found, "-c", ask], capture_output=True, text=True, check=False)
            if done.stdout.strip() == version:
                return found
    return None


def pinned_torch() -> str:
    """The CPU build of the version in constraints.txt."""
    found = re.search(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert found is not None, "constraints.txt pins torch"
    return f"torch=={found[1]}+cpu"


def run(command: list[str], log: Path) -> int:
    """Run it with its output in a file."""
    with log.open("a", encoding="utf-8") as file:
        print("$", *command, file=file, flush=True)
        return subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


def environment(version: str, kind: str, row: Row) -> Path | None:
    """The row's environment, made if need be. None where that fails; `row.note` says why."""
    found = interpreter(version)
    if found is None:
        row.note = f"no python{version} on this machine"
        return None
    folder, log = HOME / row.name, HOME / f"{row.name}.log"
    python, stamp = folder / "bin" / "python", folder / "stamp"
    state = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", LOWEST.name)))
    if not (stamp.exists() and stamp.read_text("utf-8").startswith(state.hexdigest())):
        shutil.rmtree(folder, ignore_errors=True)
        log.unlink(missing_ok=True)
        HOME.mkdir(parents=True, exist_ok=True)
        (HOME / ".gitignore").write_text("*\n", encoding="utf-8")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if run([found, "-m", "venv", str(folder)], log):
            row.note = f"no environment: {log}"
            return None
        torch = run([*pip, "--only-binary", ":all:", "--no-deps", pinned_torch()], log) == 0
        extras = EXTRAS if torch else WITHOUT_TORCH
        constraints = ["--constraint", str(LOWEST)] if kind == "lowest" else []
        pinned = [pinned_torch()] if torch else []
        if run([*pip, *constraints, *pinned, "--editable", f".[{extras}]"], log):
            row.note = f"not installed: {log}"
            return None
        # As in the Makefile: its own dependencies pin an old numpy.
        if run([*pip, "--constraint", str(ROOT / "constraints.txt"), "--no-deps", "bfcl-eval"], log):
            row.note = f"no bfcl-eval: {log}"
            return None
        stamp.write_text(f"{state.hexdigest()} {pinned_torch().partition('==')[2] if torch else ''}", encoding="utf-8")
    row.torch = stamp.read_text("utf-8").partition(" ")[2] or "-"
    return python


def tested(version: str, kind: str, arguments: list[str]) -> Row:
    """Make the row's environment, run the tests in it, count."""
    row = Row(f"{version}-{kind}")
    python = environment(version, kind, row)
    if python is None:
        return row
    results, log = HOME / f"{row.name}.xml", HOME / f"{row.name}.tests.log"
    results.unlink(missing_ok=True)
    plugin = [] if row.torch != "-" else ["-p", "support.without_torch"]
    command = [str(python), "-m", "pytest", *plugin, f"--junitxml={results}", *arguments]
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        variables = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
        subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=variables, check=False)
    row.seconds = time.monotonic() - started
    if not results.exists():
        row.note = f"no result: {log}"
        return row
    for suite in ElementTree.parse(results).iter("testsuite"):
        count = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
        row.failed += count["failures"] + count["errors"]
        row.skipped += count["skipped"]
        row.passed += count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    return row


def write_lowest() -> int:
    """Write constraints-lowest.txt: uv resolves, torch (whose build differs by machine) is left to the script."""
    extras = [part for extra in (*EXTRAS.split(","), "gym") for part in ("--extra", extra)]
    command = ["uv", "pip", "compile", "pyproject.toml", *extras, *COMPILE, "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return done.returncode
    lines = [line for line in done.stdout.splitlines() if not re.match(r"(torch|triton|nvidia-\S+|cuda-\S+)==", line)]
    head = "# The lowest versions that pyproject.toml allows, for Python 3.11: scripts/test_versions.py --compile.\n"
    LOWEST.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return 0


def main() -> int:
    """The table. Exit code 1 where a test failed or a row could not be run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", metavar="ROW", help="a row such as 3.11-lowest; may be given again")
    parser.add_argument("--compile", action="store_true", help="write constraints-lowest.txt again (needs uv)")
    parser.add_argument("--list", action="store_true", help="show the rows and stop")
    parser.add_argument("arguments", nargs="*", help="arguments of pytest, after --")
    options = parser.parse_args()
    if options.compile:
        return write_lowest()
    names = [f"{version}-{kind}" for version, kind in ROWS]
    for name in options.only or ():
        if name not in names:
            parser.error(f"unknown row {name!r}: expected one of {', '.join(names)}")
    if options.list:
        for version, kind in ROWS:
            print(f"{version}-{kind}: {interpreter(version) or 'no such python on this machine'}")
        return 0
    rows = []
    print(f"{'row':<12} {'torch':<12} {'passed':>6} {'failed':>6} {'skipped':>7} {'seconds':>8}", flush=True)
    for version, kind in ROWS:
        if options.only and f"{version}-{kind}" not in options.only:
            continue
        row = tested(version, kind, options.arguments)
        rows.append(row)
        numbers = f"{row.passed:>6} {row.failed:>6} {row.skipped:>7} {row.seconds:>8.0f}"
        print(f"{row.name:<12} {row.torch:<12} {numbers}  {row.note}".rstrip(), flush=True)
        if row.failed:
            print(f"  see {HOME / f'{row.name}.tests.log'}", flush=True)
    return 0 if rows and all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
