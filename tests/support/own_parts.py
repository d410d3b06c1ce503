"""A package with an entry point of the group `rewright`, as somebody else would install it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["install"]


def install(folder: Path, module: str, source: str) -> None:
    """Write `module` with `source` into `folder`, and the metadata of a package whose entry point it is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(source)
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[rewright]\n{module} = {module}\n")
