"""The licences of what the page's bundle contains are in the package and in its distributions."""

import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUNDLE = files("rewright.viewer") / "bundle"


def test_every_package_that_is_not_for_development_has_its_licence_beside_the_bundle() -> None:
    lock = json.loads((ROOT / "viewer" / "package-lock.json").read_text("utf-8"))
    shipped = {
        f"{path.rpartition('node_modules/')[2]} {one['version']} ({one['license']})"
        for path, one in lock["packages"].items()
        if path and not one.get("dev")
    }
    text = (BUNDLE / "LICENSES.txt").read_text("utf-8")
    assert shipped and shipped == set(re.findall(r"^(\S+ [\d.]+ \(.+\))$", text, re.MULTILINE))
    assert text.count("Copyright (c)") >= len(shipped)


def test_the_distributions_name_these_licences() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert "src/rewright/viewer/bundle/LICENSES.txt" in project["license-files"]
    assert all((ROOT / name).exists() for name in project["license-files"])
