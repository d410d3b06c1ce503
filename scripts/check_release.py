"""Check the distributions in a folder as somebody would meet them: `make release` runs this after building.

    python scripts/check_release.py dist

Both files hold the same package, and the sdist everything to build and read it. The wheel, without extras, is installed
into an environment of its own outside of the source tree; there the command line answers, `rewright.credit` computes,
the pico models are there, and no torch is needed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
PROGRAM = """
import importlib.util, sys
import rewright, rewright.credit
from pathlib import Path

gold = [{"name": "f", "arguments": {"x": 1}}]
assert rewright.credit.turn_rewards([gold, []], gold, outcome=1.0).tolist() == [1.0, 1.0]
home = Path(rewright.__file__).parent
assert "site-packages" in home.parts, home
assert (home / "py.typed").exists()
assert sorted(path.parent.name for path in home.glob("engines/models/*/model.safetensors")), "no pico model"
assert importlib.util.find_spec("torch") is None and "torch" not in sys.modules
print(rewright.__version__)
"""
SHIPPED = ("LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "Makefile", "constraints.txt", "docs/index.md")
BUNDLE = (
    "rewright/viewer/bundle/app.js",
    "rewright/viewer/bundle/app.css",
    "rewright/viewer/bundle/LICENSES.txt",
    ".dist-info/licenses/src/rewright/viewer/bundle/LICENSES.txt",
    ".dist-info/licenses/LICENSE",
)
"""The page of `rewright view` and the licences of what it contains."""


def fail(message: str) -> None:
    """End with one line."""
    sys.exit(f"release {VERSION}: {message}")


def check_names(folder: Path) -> Path:
    """The wheel's path, after a look into both files and at the release notes."""
    wheels, sources = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if [path.name for path in wheels] != [f"rewright-{VERSION}-py3-none-any.whl"]:
        fail(f"{folder} holds {[path.name for path in wheels]}, expected one wheel of version {VERSION}")
    if [path.name for path in sources] != [f"rewright-{VERSION}.tar.gz"]:
        fail(f"{folder} holds {[path.name for path in sources]}, expected one sdist of version {VERSION}")
    with tarfile.open(sources[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing = [name for name in SHIPPED if name not in names]
    if missing:
        fail(f"the sdist lacks {', '.join(missing)}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        files = wheel.namelist()
    packaged = {name for name in files if name.startswith("rewright/")}
    lacking = [name for name in BUNDLE if not any(one.endswith(name) for one in files)]
    if lacking:
        fail(f"the wheel lacks {', '.join(lacking)}")
    inside = {name.removeprefix("src/") for name in names if re.match(r"src/rewright/.*\.\w+$", name)}
    if packaged != inside:
        fail(f"wheel and sdist differ: {sorted(packaged ^ inside)[:5]}")
    if not (ROOT / "docs" / "releases" / f"{VERSION}.md").exists():
        fail(f"docs/releases/{VERSION}.md is missing")
    if f"version: {VERSION}" not in (ROOT / "CITATION.cff").read_text("utf-8").splitlines():
        fail("CITATION.cff names another version")
    return wheels[0]


def answer(command: list[str], folder: Path) -> str:
    """What a command prints. Ends the check where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        fail(f"{' '.join(command[:4])} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def main() -> None:
    """Check the folder that is named, `dist` by default."""
    wheel = check_names(Path(sys.argv[1] if len(sys.argv) > 1 else "dist").resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "empty", with_pip=True)
        bin_folder = folder / "empty" / "bin"
        pip = [str(bin_folder / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        answer([*pip, "--constraint", str(ROOT / "constraints.txt"), str(wheel)], folder)
        if answer([str(bin_folder / "rewright"), "version"], folder).strip() != VERSION:
            fail("`rewright version` prints another version")
        if "quickstart" not in answer([str(bin_folder / "rewright"), "--help"], folder):
            fail("`rewright --help` does not list its verbs")
        if answer([str(bin_folder / "python"), "-c", PROGRAM], folder).strip() != VERSION:
            fail("`rewright.__version__` is another version")
        count = len(answer([*pip[:3], "list", "--format=freeze"], folder).splitlines())
    size = wheel.stat().st_size / 1e6
    print(f"release {VERSION}: {wheel.name} ({size:.1f} MB) works in an empty environment of {count} packages")


if __name__ == "__main__":
    main()
