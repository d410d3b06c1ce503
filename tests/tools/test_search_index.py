"""The embedded search index: what it finds, what it refuses, what is left when building fails (docs/search.md)."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rewright.cli import main as cli
from rewright.core.errors import InputError
from rewright.tools.search_index import Document, SearchIndex, build_index, read_corpus
from support import command_line
from support.command_line import WHOLE, Kill

TOWN = [
    Document("kalo", "Kalo is 36 years old and lives in Lomo."),
    Document("lomo", "Lomo is a town of 5 mills beside a river, and everybody there knows its mayor well."),
    Document("boru", "Boru is 41 years old. Boru is the mayor of Lomo."),
    Document("empty", ""),
]


def ids(index: SearchIndex, query: str, top_k: int = 1) -> list[str]:
    return [found.document.id for found in index.search(query, top_k)]


def test_the_best_passages_first_from_memory_and_from_a_folder(tmp_path: Path) -> None:
    assert build_index(TOWN, tmp_path / "index") == len(TOWN)
    for index in (SearchIndex.of(TOWN), SearchIndex.open(tmp_path / "index")):
        assert len(index) == 4
        assert ids(index, "Who is the mayor of Lomo?") == ["boru"]
        assert ids(index, "KALO") == ["kalo"]
        assert ids(index, "mayor", 9) == ["boru", "lomo"]
        assert ids(index, "5") == ["lomo"], "numbers of one digit are words too"
        assert index.search("mayor")[0].document == TOWN[2]
        assert ids(index, "xylophone") == ids(index, "is the of") == ids(index, "?!") == []
        assert ids(index, "\ud83d mayor") == ["boru"]


def test_scores_are_those_of_bm25_and_equal_ones_keep_their_order() -> None:
    generator = random.Random(0)
    words = [f"w{number}" for number in range(30)]
    texts = [" ".join(generator.choices(words, k=generator.randint(3, 40))) for _ in range(60)]
    index = SearchIndex.of([Document(str(place), text) for place, text in enumerate([*texts, *texts])])
    for _ in range(20):
        query = generator.sample(words, 3)
        scores = bm25([*texts, *texts], query)
        best = sorted(range(len(scores)), key=lambda place: (-round(scores[place], 4), place))
        found = index.search(" ".join(query), 7)
        assert [one.document.id for one in found] == [str(place) for place in best[:7] if scores[place] > 0]
        assert [one.score for one in found] == pytest.approx([scores[place] for place in best[: len(found)]], rel=1e-4)


def bm25(texts: list[str], query: list[str], k1: float = 1.5, b: float = 0.75) -> list[float]:
    """Lucene's BM25, in the plainest words."""
    documents = [re.findall(r"\w+", text) for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        counts = Counter(document)
        score = 0.0
        for word in query:
            holding = sum(word in other for other in documents)
            rarity = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
            score += rarity * counts[word] / (counts[word] + k1 * (1 - b + b * len(document) / mean))
        scores.append(score)
    return scores


BAD_LINES = {
    '{"id": "a"}': "missing required field `contents`",
    '{"id": 1.5, "contents": "x"}': "at `$.id`",
    '{"id": "a", "contents": null}': "at `$.contents`",
    "not json": "malformed",
    '{"id": "a", "contents": "x"': "truncated",
    "\xff": "not a document",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named_and_the_older_index_stays(line: str, tmp_path: Path) -> None:
    build_index(TOWN, tmp_path / "index")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_bytes(b'{"id": 7, "contents": "Seven.", "title": "ignored"}\n\n' + line.encode("latin-1"))
    with pytest.raises(InputError, match=rf"corpus\.jsonl:3: .*{re.escape(BAD_LINES[line])}.*expected"):
        build_index(read_corpus(corpus), tmp_path / "index")
    assert ids(SearchIndex.open(tmp_path / "index"), "Kalo") == ["kalo"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "index"]


def test_what_is_no_index_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="exists and is not a search index"):
        build_index(TOWN, tmp_path)
    assert (tmp_path / "thesis.tex").exists()
    with pytest.raises(InputError, match="nothing to search"):
        build_index([Document("a", "...")], tmp_path / "index")


def test_a_kill_while_an_index_is_replaced_leaves_an_index_or_none(tmp_path: Path) -> None:
    """With some files of the earlier one, the folder was said to be no index, and was never replaced."""
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "index"
    corpus.write_text('{"id": "a", "contents": "the older text"}\n')
    assert build_index(read_corpus(corpus), out) == 1
    shutil.copytree(out, tmp_path / "older")
    corpus.write_text('{"id": "b", "contents": "the newer text"}\n')
    command = ["index", str(corpus), "--out", str(out)]
    done = command_line.run(command, tmp_path / "log")
    assert done.code == 0, done.errors
    for change in range(1, done.changes[WHOLE] + 1):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(tmp_path / "older", out)
        killed = command_line.run(command, tmp_path / "log", [Kill(WHOLE, change=change)])
        assert killed.code == -signal.SIGKILL, killed.errors
        if out.exists():
            assert len(SearchIndex.open(out).documents) == 1
        assert build_index(read_corpus(corpus), out) == 1
        assert sorted(path.name for path in tmp_path.glob("index*")) == ["index"]


def test_a_folder_that_is_damaged_or_of_another_version_is_refused(tmp_path: Path) -> None:
    def broken(change: str) -> Path:
        folder = tmp_path / change
        build_index(TOWN, folder)
        return folder

    head = json.loads((broken("whole") / "index.json").read_text())
    (broken("version") / "index.json").write_text(json.dumps({**head, "version": 2}))
    (broken("format") / "index.json").write_text(json.dumps({"format": "other"}))
    (broken("json") / "index.json").write_text("{")
    (broken("missing") / "offsets.npy").unlink()
    with (broken("cut") / "documents.jsonl").open("r+b") as file:
        file.truncate(50)
    with (broken("scores") / "bm25" / "data.csc.index.npy").open("r+b") as file:
        file.truncate(20)
    folder = broken("mixed")
    build_index(TOWN[:2], tmp_path / "other")
    shutil.copytree(tmp_path / "other" / "bm25", folder / "bm25", dirs_exist_ok=True)
    np.save(broken("pickle") / "offsets.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    for name in ("version", "format", "json", "missing", "cut", "scores", "mixed", "pickle", "not there"):
        with pytest.raises(InputError, match="build it with: rewright index"):
            SearchIndex.open(tmp_path / name)
    assert not Trap.opened


class Trap:
    """Unpickling it would be seen."""

    opened = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return setattr, (Trap, "opened", True)


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": "a", "contents": "Kalo lives in Lomo."}\n{"id": "b", "contents": "Boru is 41."}\n')

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rewright", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as leave:
            return int(leave.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    code, output, _ = run("index", corpus, "--out", tmp_path / "index", "--json")
    assert code == 0
    assert json.loads(output.splitlines()[-1])["documents"] == 2
    assert ids(SearchIndex.open(tmp_path / "index"), "Who is 41?") == ["b"]
    code, output, _ = run("index", corpus)
    assert (code, output.partition(": ")[0]) == (0, str(tmp_path / "corpus.index"))
    assert ids(SearchIndex.open(tmp_path / "corpus.index"), "Who is 41?") == ["b"]
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(corpus.read_bytes()))
    assert run("index", packed)[0] == 0
    assert ids(SearchIndex.open(tmp_path / "packed.index"), "Who is 41?") == ["b"]
    packed.write_bytes(packed.read_bytes()[:-9])
    code, _, errors = run("index", packed)
    assert code == 2
    assert f"error: {packed}: not a whole gzip file" in errors
    corpus.write_text("[]\n")
    code, output, errors = run("index", corpus, "--out", tmp_path / "index")
    assert (code, output) == (2, "")
    assert f"error: {corpus}:1: not a document" in errors
    code, _, errors = run("serve-search", tmp_path)
    assert code == 2
    assert "is not a search index" in errors
