"""docs/architecture.md names the packages, kinds and files that there are."""

import configparser
import re
from pathlib import Path

import pytest

from rewright.core.registry import KINDS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "rewright"
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
PACKAGES = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_stands_in_the_picture_has_its_paragraph_and_its_layer(package):
    assert f'{package}["<b>{package}</b>' in PAGE
    assert len(re.findall(rf"^\*\*{package}\*\* ", PAGE, re.MULTILINE)) == 1
    contract = configparser.ConfigParser()
    contract.read(ROOT / ".importlinter")
    layers = re.findall(r"^\s*([a-z| ]+?)\s*$", contract["importlinter:contract:layers"]["layers"], re.MULTILINE)
    assert [package for layer in layers if package in layer.split(" | ")] == [package]


def test_every_kind_of_the_registry_has_its_row_and_nothing_else_has():
    assert sorted(re.findall(r"^\| an? [\w -]+ \| `(\w+)` \|", PAGE, re.MULTILINE)) == sorted(KINDS)


def test_every_file_that_the_page_names_is_there():
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", PAGE)) - set(re.findall(r"`([\w/]*mine[\w/.]*)`", PAGE))
    assert len(named) > 30
    missing = {name for name in named if not any((start / name).exists() for start in (SOURCE, ROOT))}
    assert missing == set()
