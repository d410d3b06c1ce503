"""The environments of `make test-scale`: verl with Ray, and vLLM, each with its own version of transformers.

Neither has Rewright installed: a process there finds it in this source tree.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOME = Path(os.environ.get("REWRIGHT_SCALE", ROOT / ".venv"))
VERL = HOME / "scale-verl/bin/python"
VLLM = HOME / "scale-vllm/bin/python"

needs_verl = pytest.mark.skipif(not VERL.exists(), reason="no .venv/scale-verl: make test-scale installs it")
needs_vllm = pytest.mark.skipif(not VLLM.exists(), reason="no .venv/scale-vllm: make test-scale installs it")


def python(
    interpreter: str | Path, *arguments: str | Path, folder: Path, timeout: float = 600, **variables: str
) -> subprocess.CompletedProcess[str]:
    """A finished Python process of one of the environments, which sees `src` and `tests`."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return subprocess.run(
        [str(interpreter), *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path} | variables,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def rewright(
    *arguments: str | Path,
    folder: Path,
    interpreter: str | Path = sys.executable,
    timeout: float = 600,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """`rewright ...`, finished, run by the interpreter of one of the environments (default: the one of the tests)."""
    return python(interpreter, "-m", "rewright", *arguments, folder=folder, timeout=timeout, **variables)
