"""Asked of the interpreter with verl: `python probe.py < REQUEST`, JSON on both sides. Started as a file.

The request is `{"path": [...], "modules": [...], "overrides": [...]}`. The answer has the versions of the packages
(null: not installed), the requirements of verl that are not met, the first module that cannot be imported, and the
first problem of the overrides with verl's configuration. Neither torch nor verl is imported.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

PACKAGES = ("verl", "ray", "transformers", "torch", "tensordict", "hydra-core", "vllm", "TransferQueue")
CHECKED = ("ray", "transformers", "tensordict", "hydra-core")
"""The requirements of verl that are checked, if they are installed; of others it needs only some."""
MISSING = {"ray": "ray", "tensordict": "tensordict", "hydra-core": "hydra", "TransferQueue": "transfer_queue"}
"""Packages without which verl does not start: distribution and module."""


def main() -> dict[str, Any]:
    """Answer the request on standard input."""
    request = json.load(sys.stdin)
    sys.path[:0] = request["path"]
    versions = {name: version(name) for name in PACKAGES}
    answer: dict[str, Any] = {"python": sys.version.split()[0], "versions": versions}
    if versions["verl"] is None:
        return answer
    answer["missing"] = [name for name, module in MISSING.items() if importlib.util.find_spec(module) is None]
    answer["conflicts"] = conflicts(versions)
    answer["import"] = import_problem(request["modules"])
    if not answer["missing"] and not answer["conflicts"]:
        answer["configuration"] = configuration_problem(request["overrides"])
    return answer


def version(name: str) -> str | None:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def conflicts(versions: dict[str, str | None]) -> list[str]:
    """The requirements of verl that an installed package does not meet, such as "transformers 5.23.0 (verl: <5.11)"."""
    from packaging.requirements import Requirement

    found = []
    for text in importlib.metadata.requires("verl") or []:
        requirement = Requirement(text)
        installed = versions.get(requirement.name)
        if requirement.name not in CHECKED or installed is None:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            found.append(f"{requirement.name} {installed} ({requirement.specifier} is wanted)")
    return found


def import_problem(modules: list[str]) -> str | None:
    """Why a module of Rewright cannot be imported; None: all can."""
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as problem:
            return f"{name}: {type(problem).__name__}: {problem}"
    return None


def configuration_problem(overrides: list[str]) -> str | None:
    """The first line of what Hydra says about verl's configuration with these overrides; None: nothing."""
    from hydra import compose, initialize_config_dir

    spec = importlib.util.find_spec("verl")
    assert spec is not None and spec.origin is not None
    with initialize_config_dir(str(Path(spec.origin).parent / "trainer/config"), version_base=None):
        try:
            compose("ppo_trainer", overrides=overrides)
        except Exception as problem:
            said = [line.strip() for line in str(problem).splitlines() if line.strip()]
            return " ".join(said[:2])
    return None


if __name__ == "__main__":
    with redirect_stdout(io.StringIO()):
        found = main()
    print(json.dumps(found))
