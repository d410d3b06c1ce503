"""docs/comparison.md: versions are those that the tests install, and what the notes name exists in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rewright import __version__

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "comparison.md").read_text("utf-8")
FOLDERS = {
    "trl": (".venv/lib", ".venv/scale-verl/lib"),
    "verl": (".venv/scale-verl/lib", ".venv/verl"),
    "verifiers": (".venv/peers/lib",),
    "inspect_ai": (".venv/peers/lib",),
}


def pinned(file: str, package: str) -> str:
    found = re.search(rf"^{package}==(\S+)", (ROOT / file).read_text("utf-8"), re.MULTILINE | re.IGNORECASE)
    assert found, f"{file} has no {package}"
    return found[1]


def compared(project: str) -> str:
    found = re.search(rf"^\| {project} \| (\S+) \|", PAGE, re.MULTILINE)
    assert found, f"the page has no row {project}"
    return found[1]


def test_the_versions_of_the_page_are_those_that_the_tests_install() -> None:
    assert compared("Rewright") == __version__
    assert compared("TRL") == pinned("constraints.txt", "trl")
    assert compared("verl") == pinned("tests/integrations/verl.txt", "verl")
    assert compared("verifiers") == pinned("tests/peers.txt", "verifiers")
    assert compared("inspect_ai") == pinned("tests/peers.txt", "inspect_ai")
    plugins = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    assert f"skyrl=={compared('SkyRL')}" in plugins


def test_every_note_is_referred_to_and_every_reference_has_a_note() -> None:
    body, _, notes = PAGE.partition("## Notes")
    numbers = {number for group in re.findall(r"\[([\d, ]+)\](?!\()", body) for number in group.split(", ")}
    assert numbers == set(re.findall(r"^(\d+)\. ", notes, re.MULTILINE))


@pytest.mark.parametrize("package", FOLDERS)
def test_the_files_that_the_notes_name_are_in_the_installed_packages(package: str) -> None:
    folders = [
        found
        for place in FOLDERS[package]
        for found in [*(ROOT / place).glob(f"python3*/site-packages/{package}"), ROOT / place / package]
    ]
    installed = next((folder for folder in folders if folder.is_dir()), None)
    if installed is None:
        pytest.skip(f"{package} is not installed")
    named = re.findall(rf"`{package}/([\w./-]+)`", PAGE.partition("## Notes")[2])
    assert named
    assert [path for path in named if not (installed / path).exists()] == []
    words = {
        "trl": {"trainer/grpo_trainer.py": ["def _tool_call_loop", "advantages.dim() == 1"]},
        "verl": {
            "experimental/agent_loop/agent_loop.py": ["rm_scores[-1] = reward_score"],
            "trainer/ppo/core_algos.py": ["class AdvantageEstimator", "def register_adv_est"],
        },
        "verifiers": {"v1/trace.py": ["    rewards: dict[str, Reward | None]", "def advantages(self)"]},
        "inspect_ai": {"util/_sandbox/local.py": ['name="local"'], "util/_sandbox/docker/docker.py": ['name="docker"']},
    }[package]
    for file, wanted in words.items():
        text = (installed / file).read_text("utf-8")
        assert [word for word in wanted if word not in text] == [], file
