"""The audit of "gold with errors" on ComplexFuncBench: served, evaluated, replayed and continued."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rewright.core.errors import InputError
from rewright.tasks.loading import load_tasks

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import audit_complexfuncbench


def test_a_served_policy_with_structured_calls_is_audited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        load_tasks(audit_complexfuncbench.SELECTION, "complexfuncbench")
    except InputError as problem:
        pytest.skip(str(problem))
    command = ["audit", "--quick", "--port", "0", "--work", str(tmp_path), "--out", str(tmp_path / "out.json")]
    monkeypatch.setattr("sys.argv", command)
    audit_complexfuncbench.main()
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["model"] == "gold-with-errors"
    assert found["defined"] == found["planned"] == 30
    rho = {row["signal"]: row["rho"]["value"] for row in found["signals"]}
    # Whether a call is a gold call is what the policy's effects are of. (30 turns: an error of 0.2, and other draws at
    # each port, which is in the ids. 600 turns give +0.39 for matched calls.)
    assert rho["matched"] > 0 and rho["branch(k=4)"] > 0
    assert "matched" in capsys.readouterr().out
