"""Keys and functions of earlier versions: an error in what a person writes, mapped in what a run has stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewright.cli import main as cli
from rewright.core.errors import InputError
from rewright.credit.settings import TurnCredit
from rewright.recipe.loader import load_recipe
from rewright.recipe.schema import Recipe

STORED = Path(__file__).with_name("stored_recipe.yaml")
"""The resolved recipe of a run, as the version before the renaming wrote it: nothing but defaults."""

MISTAKES = [
    (
        "rl:\n  credit:\n    lonely_turn: raw\n",
        [],
        "r.yaml:3: rl.credit.lonely_turn was renamed: expected rl.credit.singleton_turn",
    ),
    (
        "seed: 1\n",
        ["rl.credit.lonely_turn=raw"],
        "override 'rl.credit.lonely_turn=raw': rl.credit.lonely_turn was renamed: expected rl.credit.singleton_turn",
    ),
    (
        "rl: {trajectory_reward: autotraj, credit: {estimator: grpo, lonely_turn: raw}}\n",
        [],
        "r.yaml:1: rl.credit.lonely_turn was renamed: expected rl.credit.singleton_turn",
    ),
    (
        "quality:\n  dimensions:\n  - {name: a, function: 'rewright.quality:length', weight: 1}\n",
        [],
        "r.yaml:3: quality.dimensions[0].function: rewright.quality:length has moved: expected length",
    ),
]


@pytest.mark.parametrize(("text", "overrides", "message"), MISTAKES)
def test_what_a_person_writes_gets_the_new_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, overrides: list[str], message: str
) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr("sys.argv", ["rewright", "run", str(file), *overrides, "--run", str(tmp_path / "run")])
        cli.main()
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


def test_a_stored_recipe_of_an_earlier_version_is_read_as_if_it_were_of_today(tmp_path: Path) -> None:
    assert load_recipe(STORED, stored=True) == Recipe()
    other = tmp_path / "recipe.yaml"
    other.write_text(STORED.read_text().replace("lonely_turn: zero", "lonely_turn: raw"))
    assert load_recipe(other, stored=True).rl.credit.singleton_turn == "raw"
    with pytest.raises(InputError, match="was renamed: expected"):
        load_recipe(other)
    with pytest.raises(InputError, match=r"override .*was renamed: expected"):
        load_recipe(other, ["rl.credit.lonely_turn=zero"], stored=True)


def test_a_wrong_value_under_an_old_key_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("rl:\n  credit:\n    lonely_turn: never\n")
    with pytest.raises(InputError, match=r"recipe\.yaml:3: rl\.credit\.singleton_turn: invalid enum value 'never'"):
        load_recipe(file, stored=True)


def test_settings_of_a_trainer_get_the_new_name_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="lonely_turn was renamed: expected singleton_turn"):
        TurnCredit.of({"lonely_turn": "zero"})
    monkeypatch.setenv("REWRIGHT_TURN_CREDIT", '{"lonely_turn": "zero"}')
    with pytest.raises(ValueError, match="lonely_turn was renamed: expected singleton_turn"):
        TurnCredit.from_environment()
