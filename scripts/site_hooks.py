"""What the documentation site does beyond MkDocs: mkdocs.yml names this file under `hooks`.

- An entry of the navigation with a `*` stands for the pages that match, in the order of their names. A page is
  called by its heading up to a colon, and so is a link whose text is the name of a file.
- A link out of docs/ leads to a page of the site that shows the file: Markdown as a page, other text as a listing.
- The layers in architecture.md are drawn as boxes. Their source is a Mermaid diagram, which GitHub draws. Mermaid
  itself would be loaded from another host.
- Lists are indented by two spaces in our pages and by four in Python-Markdown.
"""

from __future__ import annotations

import html
import json
import os.path
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NAMED = re.compile(r"(?<=\[)\w+\.md(?=\]\(([^)\s#:]+\.md)(?:#[^)\s]*)?\))")
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)((?:#[^)\s]*)?)(?=\))")
SHOWN = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".toml": "toml", ".jsonl": "json", "": "text", ".txt": "text"}


def on_config(config: MkDocsConfig) -> None:
    """Expand the `*` of the navigation."""
    config.nav = _expanded(config.nav)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file outside of docs/ that a page links, and for those that these link."""
    done: set[Path] = set()
    waiting = [path for file in files.documentation_pages() for path in _linked(DOCS / file.src_uri)]
    waiting += [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
    while waiting:
        path = waiting.pop()
        if path in done or path.is_relative_to(DOCS):
            continue
        done.add(path)
        if path.suffix == ".md":
            waiting += _linked(path)
        files.append(_file(path, config))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Follow links out of docs/, draw the layers, indent lists."""
    source = _source(page.file.src_uri)
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    for number, part in enumerate(parts):
        if part.startswith("```mermaid"):
            parts[number] = _boxes(part)
        elif not part.startswith("```"):
            named = NAMED.sub(lambda found: _named(found, source), part)
            linked = LINK.sub(lambda found: _target(found, source, page.file.src_uri), named)
            parts[number] = re.sub(r"^ {1,3}(?=\S)", "    ", linked, flags=re.MULTILINE)
    return "".join(parts)


def _expanded(entry: Any) -> Any:
    if isinstance(entry, dict):
        return {title: _expanded(part) for title, part in entry.items()}
    if not isinstance(entry, list):
        return entry
    found: list[Any] = []
    for one in entry:
        if isinstance(one, str) and "*" in one:
            found += [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.glob(one))]
        else:
            found.append(_expanded(one))
    short = [_heading(_source(one)).partition(":")[0] for one in found if isinstance(one, str)]
    return [_titled(one, short) if isinstance(one, str) else one for one in found]


def _titled(uri: str, taken: list[str]) -> dict[str, str]:
    """An entry of the navigation: the heading up to a colon, or all of it where another one begins in the same way."""
    heading = _heading(_source(uri))
    title = heading.partition(":")[0]
    return {title if taken.count(title) == 1 else heading: uri}


def _heading(page: Path) -> str:
    found = re.search(r"^# (.+)$", page.read_text("utf-8") if page.is_file() else "", re.MULTILINE)
    return found[1].replace("`", "") if found else page.stem


def _named(found: re.Match[str], source: Path) -> str:
    page = Path(os.path.normpath(source.parent / found[1]))
    return _heading(page).partition(":")[0] if page.is_relative_to(DOCS) else found[0]


def _linked(page: Path) -> list[Path]:
    """Files outside of docs/ that a page links."""
    targets = [Path(os.path.normpath(page.parent / found[1])) for found in LINK.finditer(page.read_text("utf-8"))]
    return [path for path in targets if path.is_file() and not path.is_relative_to(DOCS)]


def _shown(path: Path) -> PurePosixPath:
    """Where the site has a file of the repository."""
    if path.is_relative_to(DOCS):
        return PurePosixPath(path.relative_to(DOCS).as_posix())
    name = PurePosixPath("repository", path.relative_to(ROOT).as_posix())
    return name.with_name(f"{name.name}.md") if path.suffix in SHOWN or path.suffix == ".ipynb" else name


def _source(uri: str) -> Path:
    """The file that a page of the site shows."""
    if not uri.startswith("repository/"):
        return DOCS / uri
    path = ROOT / uri.removeprefix("repository/")
    return path if path.exists() else path.with_suffix("")


def _target(found: re.Match[str], source: Path, uri: str) -> str:
    path = Path(os.path.normpath(source.parent / found[1]))
    if not path.is_file() or (path.is_relative_to(DOCS) and source.is_relative_to(DOCS)):
        return found[0]
    return os.path.relpath(_shown(path), PurePosixPath(uri).parent) + found[2]


def _file(path: Path, config: MkDocsConfig) -> File:
    name, uri = path.relative_to(ROOT).as_posix(), str(_shown(path))
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text("utf-8"))["cells"]
        texts = [("".join(cell["source"]), cell["cell_type"]) for cell in cells]
        content = "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for text, kind in texts)
    elif path.suffix in SHOWN:
        content = f"# {name}\n\n````{SHOWN[path.suffix]}\n{path.read_text('utf-8')}\n````\n"
    elif path.suffix == ".md":
        content = path.read_text("utf-8")
    else:
        return File.generated(config, uri, abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV)
    return File.generated(config, uri, content=content, inclusion=InclusionLevel.NOT_IN_NAV)


def _boxes(diagram: str) -> str:
    """A row of boxes for every layer of the diagram."""
    rows: list[list[str]] = []
    layer = False
    for line in diagram.splitlines():
        box = re.search(r'^\s*\w+\["(.*)"\]', line)
        if box is None:
            opened = re.match(r"\s*subgraph", line) is not None
            if opened:
                rows.append([])
            layer = opened or (layer and line.strip() != "end")
        elif layer:
            rows[-1].append(box[1])
        else:
            rows.append([box[1]])
    boxes = ["".join(f"<span>{html.unescape(box)}</span>" for box in row) for row in rows]
    return '<div class="layers">' + "".join(f"<div>{row}</div>" for row in boxes) + "</div>"
