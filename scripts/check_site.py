"""Check the built documentation: nothing is loaded from another host, every link leads to a page and an anchor of it.

python scripts/check_site.py build/site
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
LISTED = {"canonical", "prev", "next", "alternate"}
"""Relations of <link> that load nothing."""


class Page(HTMLParser):
    """What a page loads, the links on it, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag's address and its anchor."""
        values = {key: value for key, value in attrs if value}
        if "id" in values:
            self.anchors.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        name = LOADED.get(tag)
        if name in values and values.get("rel") not in LISTED:
            self.loaded.append(values[name])


def main() -> None:
    """Print what is wrong and end with 1, or print how much there is."""
    folder = Path(sys.argv[1]).resolve()
    pages = {path: Page(path) for path in sorted(folder.rglob("*.html"))}
    wrong = [
        f"{style.relative_to(folder)} loads {part.partition(')')[0]}"
        for style in folder.rglob("*.css")
        for part in style.read_text("utf-8").split("url(")[1:]
        if part.lstrip("\"'").startswith(("http:", "https:", "//"))
    ]
    for path, page in pages.items():
        for address in [*page.loaded, *page.links]:
            parts = urlsplit(address)
            where = f"{path.relative_to(folder)}: {address}"
            if parts.scheme or parts.netloc:
                if address in page.loaded and parts.scheme != "data":
                    wrong.append(f"{where} is loaded from another host")
                continue
            if path.name == "404.html":
                continue  # its addresses begin at the root of the server
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                wrong.append(f"{where} does not exist")
            elif (
                parts.fragment and target in pages and unquote(parts.fragment) not in {*pages[target].anchors, "__top"}
            ):
                wrong.append(f"{where} has no such heading")
    if wrong or not pages:
        sys.exit("\n".join(wrong) or f"{folder} holds no page")
    print(f"{folder.name}: {len(pages)} pages, {sum(len(page.links) for page in pages.values())} links")


if __name__ == "__main__":
    main()
