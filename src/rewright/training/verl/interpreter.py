"""The interpreter with verl: where it is, whether verl starts there, and how it finds Rewright."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from rewright.core.errors import InputError
from rewright.training.verl.settings import VerlSettings

__all__ = ["MODULES", "check_address", "check_interpreter", "interpreter", "python_path", "script"]

PROBE_SECONDS: Final = 120.0
CONNECT_SECONDS: Final = 5.0
VERL: Final = (0, 9)
"""The version of verl that the back end is written for."""
MODULES: Final = ("rewright.credit.settings", "rewright.rollout.loop", "rewright.judging.judges")
"""What the agent loop imports, and with it what it needs."""


def interpreter(settings: VerlSettings) -> str:
    """The path of the interpreter. Raises InputError for a file that is none."""
    if settings.python is None:
        return sys.executable
    path = Path(settings.python).expanduser().absolute()  # not resolved: a link in a virtual environment means it
    if not path.is_file() or not os.access(path, os.X_OK):
        raise InputError(f"rl.verl.python: {settings.python}: expected a Python interpreter, such as env/bin/python")
    return str(path)


def script(name: str) -> str:
    """The path of a file of this package that is run by another interpreter."""
    return str(Path(__file__).with_name(name))


def python_path(folder: Path) -> list[str]:
    """Folders in which another interpreter finds Rewright and the user's own functions. Writes into `folder`.

    Rewright may lie among the packages of this interpreter, which the other one must not find, so that it gets a folder
    with nothing but a link.
    """
    package = Path(__file__).absolute().parents[2]
    link = folder / "python" / package.name
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink() or link.readlink() != package:
        link.unlink(missing_ok=True)
        link.symlink_to(package)
    given = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    return list(dict.fromkeys([str(link.parent), *given, str(Path.cwd())]))


def check_interpreter(settings: VerlSettings, overrides: Sequence[str]) -> dict[str, str | None]:
    """Return the versions of packages there. Raises InputError if verl does not start there with these overrides."""
    python = interpreter(settings)
    found = _ask(python, tuple(overrides), os.environ.get("PYTHONPATH", ""))
    versions: dict[str, str | None] = found["versions"]
    where = f"rl.backend is verl: {python}"
    hint = "pip install 'rewright[verl]', or name another interpreter in rl.verl.python"
    if versions["verl"] is None:
        raise InputError(f"{where} has no verl: {hint}")
    release = tuple(int(part) for part in versions["verl"].split(".")[:2] if part.isdecimal())
    if release != VERL:
        raise InputError(f"{where} has verl {versions['verl']}: expected verl {VERL[0]}.{VERL[1]}: {hint}")
    if found["missing"]:
        raise InputError(f"{where} has no {', '.join(found['missing'])}, which verl needs: {hint}")
    if found["conflicts"]:
        raise InputError(f"{where}: verl {versions['verl']} does not fit {', '.join(found['conflicts'])}: {hint}")
    if found["import"] is not None:
        raise InputError(f"{where} cannot import Rewright: {found['import']}")
    if found["configuration"] is not None:
        raise InputError(f"rl.verl.overrides: verl {versions['verl']} says: {found['configuration']}")
    return versions


def check_address(address: str) -> None:
    """Raise InputError unless something listens at the address of a Ray cluster."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise InputError(
            f"ray.address: {address!r}: expected HOST:PORT of the cluster's head node, such as 10.0.0.1:6379"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise InputError(
            f"ray.address: {address}: no Ray cluster there ({reason}): expected the address that `ray start --head` "
            "has printed"
        ) from None


@lru_cache(maxsize=8)
def _ask(python: str, overrides: tuple[str, ...], path: str) -> dict[str, Any]:
    """The answer of `probe.py`. `path`: PYTHONPATH, on which the answer depends."""
    try:
        with tempfile.TemporaryDirectory(prefix="rewright-") as folder:
            request = {"path": python_path(Path(folder)), "modules": MODULES, "overrides": overrides}
            done = subprocess.run(
                [python, script("probe.py")],
                input=json.dumps(request),
                capture_output=True,
                text=True,
                timeout=PROBE_SECONDS,
                check=False,
                env=os.environ | {"PYTHONSAFEPATH": "1"},
            )
        answer: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise InputError(f"rl.verl.python: {python} did not answer within {PROBE_SECONDS:g} s") from None
    except (OSError, ValueError) as problem:
        said = (done.stderr.strip().splitlines() or [str(problem)])[-1] if isinstance(problem, ValueError) else problem
        raise InputError(f"rl.verl.python: {python} is no Python interpreter that can be used: {said}") from None
    return answer
