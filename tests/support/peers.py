"""Libraries of other projects (inspect_ai, verifiers, ATIF, openai, anthropic, LangChain): outside readers and writers.

They want other versions than ours, so `make tests` installs them into an environment of their own, `.venv/peers`
(tests/peers.txt), which sees this source tree. A test writes what they shall read, and runs a script there.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("REWRIGHT_PEERS", ROOT / ".venv/peers")) / "bin/python"

needs_peers = pytest.mark.skipif(not PYTHON.exists(), reason="no .venv/peers: make tests installs it")


def run(script: str, *arguments: str | Path, folder: Path | None = None, **variables: str) -> str:
    """Standard output of a Python script that runs with the peers' libraries. AssertionError if it fails."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    done = subprocess.run(
        [str(PYTHON), "-c", script, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path} | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
