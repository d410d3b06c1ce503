"""The content of a run's environment.json: directory format, versions, machine, commit and seed."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

__all__ = ["FORMAT", "environment"]

FORMAT: Final = 2
"""The format of run directories that this version writes. `rewright.pipeline.migration` converts older ones."""

PACKAGES = ("rewright", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "scipy", "msgspec")


def environment(seed: int) -> dict[str, Any]:
    """Versions, machine, commit and seed, to reproduce the run."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    commit = None
    try:
        folder = Path(__file__).parent
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
        commit = done.stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        commit = None
    return {
        "format": FORMAT,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "versions": versions,
        "commit": commit,
        "seed": seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
