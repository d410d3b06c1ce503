"""The state of the plug-ins, as `rewright doctor` shows it."""

import sys
from importlib.metadata import PackageNotFoundError, version

from rewright.integrations import doctor


def test_every_trainer_has_a_state_and_those_installed_load():
    states = {state.trainer: state for state in doctor.check_plugins()}
    assert set(states) == {"trl", "verl", "skyrl", "verifiers"}
    for name, state in states.items():
        try:
            assert state.installed == version(name)
            assert state.problem is None or "VERL_USE_EXTERNAL_MODULES" in state.problem
        except PackageNotFoundError:
            assert (state.installed, state.problem) == (None, None)


def test_a_plug_in_that_fails_to_load_is_named(monkeypatch, tmp_path):
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('no CUDA\\n\\nlook there')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "_PLUGINS", {"numpy": ("broken_plugin", "x")})
    (state,) = doctor.check_plugins()
    assert state.problem == "broken_plugin does not load: RuntimeError: no CUDA look there"
    assert "broken_plugin" not in sys.modules
