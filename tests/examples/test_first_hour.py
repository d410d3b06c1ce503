"""The notebook runs from top to bottom in a kernel of this environment, driven by nbclient."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support import peers

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_hour.ipynb"
CLIENT = """
import sys, nbformat
from nbclient import NotebookClient
source, result, folder = sys.argv[1:]
notebook = nbformat.read(source, as_version=4)
nbformat.validate(notebook)
NotebookClient(notebook, timeout=240, kernel_name="here", resources={"metadata": {"path": folder}}).execute()
nbformat.write(notebook, result)
"""
KERNEL = """
import sys
sys.path.append({packages!r})
from ipykernel.kernelapp import IPKernelApp
IPKernelApp.launch_instance()
"""
"""This environment has no ipykernel: that of the peers comes last, so that everything else is this environment's."""


@peers.needs_peers
@pytest.mark.needs_torch
def test_the_notebook_runs(tmp_path: Path) -> None:
    packages = peers.run("import ipykernel, pathlib; print(pathlib.Path(ipykernel.__file__).parents[1])").strip()
    kernel = {
        "argv": [sys.executable, "-c", KERNEL.format(packages=packages), "-f", "{connection_file}"],
        "display_name": "here",
        "language": "python",
    }
    specification = tmp_path / "kernels" / "here" / "kernel.json"
    specification.parent.mkdir(parents=True)
    specification.write_text(json.dumps(kernel))
    result = tmp_path / "result.ipynb"
    empty = tmp_path / "empty"
    empty.mkdir()
    peers.run(CLIENT, NOTEBOOK, result, empty, folder=empty, JUPYTER_PATH=str(tmp_path))
    printed = [_text(cell) for cell in json.loads(result.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    text = "\n".join(printed)
    assert "good turn rewards [1. 1. 1.]" in text
    assert "<svg" in text
    assert "of 15 are right" in text
    assert " repaired - correct, quality" in text
    assert "rows," in text and "'role': 'assistant'" in text
    assert list(empty.iterdir()) == []


def test_the_notebook_is_stored_without_outputs() -> None:
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


def _text(cell: dict[str, Any]) -> str:
    found = []
    for output in cell["outputs"]:
        found += [output.get("text", ""), *map("".join, output.get("data", {}).values())]
    return "\n".join("".join(part) for part in found)
