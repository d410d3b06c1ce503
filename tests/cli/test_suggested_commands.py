"""The commands that Rewright suggests run as printed, with its program on the path, in the folder or elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("rewright")

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="rewright is not installed as a program")


def shell(line: str, folder: Path, *, path: str = "/usr/bin:/bin") -> str:
    done = subprocess.run(
        line, shell=True, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def start(program: str, folder: Path, **where: str) -> list[str]:
    """The commands that `rewright init` prints."""
    return re.findall(r"^  (.+)$", shell(f"{program} init 'my project'", folder, **where).partition("next:")[2], re.M)


def test_the_program_s_path_is_printed_where_the_shell_does_not_find_it(tmp_path: Path) -> None:
    change, validate, *_ = start(str(PROGRAM), tmp_path)
    assert validate == f"{PROGRAM} validate tasks.jsonl --trusted my_tools"
    assert "0 errors" in shell(f"{change}; {validate}", tmp_path)


def test_the_name_is_printed_where_the_shell_finds_it(tmp_path: Path) -> None:
    path = f"{PROGRAM.parent}:/usr/bin:/bin"
    change, validate, *_ = start("rewright", tmp_path, path=path)
    assert validate == "rewright validate tasks.jsonl --trusted my_tools"
    assert "0 errors" in shell(f"{change}; {validate}", tmp_path, path=path)


@pytest.mark.needs_torch
def test_a_program_in_the_folder_is_printed_as_such_and_a_run_ends_with_the_command_that_shows_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/rewright").symlink_to(PROGRAM)
    start("venv/rewright", tmp_path)
    said = shell("./venv/rewright run 'my project/recipe.yaml' tasks='my project/tasks.jsonl' stages=[build]", tmp_path)
    view = re.findall(r"^look at the run with (.*)$", said, re.M)
    assert view == ["venv/rewright view runs/first"]
    assert "page.html" in shell(f"{view[0]} --static page.html", tmp_path)
