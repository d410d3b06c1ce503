"""The embedded search index: BM25 over a corpus of `{id, contents}`, stored in a memory-mapped folder.

    DIR/
      index.json        format, version, number of documents, how text is split into words
      documents.jsonl   the documents, one a line         offsets.npy   where each line starts
      bm25/             the scores (numpy arrays), the vocabulary (JSON)

The folder contains no pickle, so opening an untrusted folder runs no code. Words are runs of letters and digits in
lower case, without English stop words and without stemming. Scores are BM25 (Lucene's variant) with k1 = 1.5 and
b = 0.75.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import mmap
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self

import msgspec
import numpy as np

from rewright.core.errors import InputError, StorageError
from rewright.core.storage import bounded_lines, encode_line, open_file, read_bounded
from rewright.core.strict_json import STRICT

__all__ = [
    "MAX_QUERY_CHARACTERS",
    "Document",
    "SearchCancelled",
    "SearchHit",
    "SearchIndex",
    "build_index",
    "check_query",
    "read_corpus",
    "search_in_thread",
]

FORMAT: Final = "rewright-search-index"
VERSION: Final = 1
WORDS: Final = {"token_pattern": r"(?u)\b\w+\b", "stopwords": "en"}
"""Tokenisation options; stored with the index, so that queries are tokenised like the documents."""


MAX_QUERY_CHARACTERS: Final = 4096
"""The time and memory of a query grow with the number of its words and of the documents that contain them."""

_WORDS_PER_STEP: Final = 16


class SearchCancelled(Exception):  # noqa: N818 - expected by the caller that cancels
    """A search was cancelled."""


class Document(msgspec.Struct, frozen=True):
    """One passage."""

    id: str
    contents: str


class SearchHit(NamedTuple):
    """A document found by a query. `score`: higher is better; None if the server returned none."""

    document: Document
    score: float | None = None


class _Row(msgspec.Struct):
    """A line of a corpus; other keys are ignored."""

    id: str | int
    contents: str


def read_corpus(path: Path) -> Iterator[Document]:
    """Read the documents of a JSON Lines corpus, which may be a `.gz` file.

    Raises InputError, with file and line, for a line that is not {id, contents} and for a duplicate id.
    """
    decoder = msgspec.json.Decoder(_Row)
    lines: dict[str, int] = {}
    try:
        plain = open_file(path)
        file: IO[bytes] = gzip.GzipFile(fileobj=plain) if path.suffix.lower() == ".gz" else plain  # type: ignore[assignment]
    except OSError as problem:
        raise InputError(f"cannot read {path}: {problem.strerror or problem}") from None
    with plain, file:
        try:
            for number, line in enumerate(bounded_lines(file, path), 1):
                if line.isspace():
                    continue
                try:
                    row = decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
                    wanted = 'expected {"id": "...", "contents": "..."}'
                    raise InputError(f"{path}:{number}: not a document: {problem}: {wanted}") from None
                name = str(row.id)
                if lines.setdefault(name, number) != number:
                    raise InputError(f"{path}:{number}: the id {name!r} is already used in line {lines[name]}")
                yield Document(id=name, contents=row.contents)
        except (gzip.BadGzipFile, zlib.error, EOFError) as problem:
            raise InputError(f"{path}: not a whole gzip file: {problem}") from None
        except OSError as problem:
            raise InputError(f"cannot read {path}: {problem.strerror or problem}") from None


def build_index(
    documents: Iterable[Document],
    out: Path,
    *,
    where: str = "the corpus",
    on_document: Callable[[], None] | None = None,
) -> int:
    """Build an index folder atomically. Returns the number of documents.

    Args:
        documents: the corpus.
        out: the folder; an existing index is replaced.
        where: describes the corpus in errors.
        on_document: called after each document.

    Raises InputError for a corpus without words and for an `out` that exists and is not an index, and StorageError if
    the folder cannot be written.
    """
    if out.exists() and not (out / "index.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not a search index: choose another folder")
    temporary = out.with_name(out.name + ".tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        offsets = [0]

        def contents() -> Iterator[str]:
            with (temporary / "documents.jsonl").open("wb") as file:
                for document in documents:
                    offsets.append(offsets[-1] + file.write(encode_line(document)))
                    yield document.contents
                    if on_document is not None:
                        on_document()

        bm25 = _indexed(contents(), where)
        np.save(temporary / "offsets.npy", np.array(offsets, dtype=np.int64))
        bm25.save(temporary / "bm25", show_progress=False)
        about = {"format": FORMAT, "version": VERSION, "documents": len(offsets) - 1, "words": WORDS}
        (temporary / "index.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        earlier = out.with_name(out.name + ".old")  # deleted file by file only when it is no longer the index
        shutil.rmtree(earlier, ignore_errors=True)
        if out.exists():
            out.rename(earlier)
        temporary.rename(out)
        shutil.rmtree(earlier, ignore_errors=True)
    except OSError as problem:
        raise StorageError(f"cannot write the search index {out}: {problem.strerror or problem}") from problem
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(offsets) - 1


class SearchIndex:
    """Finds the documents that match a query best. Created by `open` (a folder) or `of` (in memory). Thread-safe."""

    def __init__(self, bm25: Any, documents: Sequence[Document]) -> None:
        self._bm25 = bm25
        self.documents = documents

    @classmethod
    def of(cls, documents: Iterable[Document]) -> Self:
        """Build an index in memory, for a small corpus. Raises InputError for a corpus without words."""
        stored = list(documents)
        return cls(_indexed((document.contents for document in stored), "the corpus"), stored)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open an index folder, memory-mapped. Raises InputError if it is missing, damaged or of another version."""
        import bm25s

        folder = Path(path)
        hint = f"build it with: rewright index corpus.jsonl --out {folder}"
        try:
            about = STRICT.decode(read_bounded(folder / "index.json").decode("utf-8"))
        except OSError as problem:
            raise InputError(f"{folder} is not a search index ({problem.strerror or problem}): {hint}") from None
        except ValueError:
            about = None
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise InputError(f"{folder}/index.json is not the metadata of a search index: {hint}")
        if about.get("version") != VERSION or about.get("words") != WORDS:
            raise InputError(f"{folder} is of another version ({about.get('version')}) than {VERSION}: {hint}")
        try:
            documents = _StoredDocuments(folder)
            bm25 = bm25s.BM25.load(folder / "bm25", mmap=True, load_corpus=False, show_progress=False)
            indexed_count = int(bm25.scores["num_docs"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, IndexError, ImportError) as problem:
            raise InputError(f"{folder} is damaged ({_one_line(problem)}): {hint}") from None
        if not len(documents) == indexed_count == about.get("documents"):
            raise InputError(f"{folder} is damaged (its parts belong to different corpora): {hint}")
        return cls(bm25, documents)

    def __len__(self) -> int:
        return len(self.documents)

    def search(self, query: str, top_k: int = 1, *, stopped: Callable[[], bool] = lambda: False) -> list[SearchHit]:
        """Return up to `top_k` documents, best first; equal scores in corpus order. Empty without a common word.

        `stopped` is called between words; if it returns True, `SearchCancelled` is raised. Raises InputError for a
        query of more than `MAX_QUERY_CHARACTERS`.
        """
        check_query(query)
        token_ids = self._bm25.get_tokens_ids(_words(query))
        scores_D: Any = None
        for start in range(0, len(token_ids), _WORDS_PER_STEP):
            if stopped():
                raise SearchCancelled
            part_D = self._bm25.get_scores_from_ids(token_ids[start : start + _WORDS_PER_STEP])
            scores_D = part_D if scores_D is None else scores_D + part_D
        if scores_D is None:
            return []
        count = min(top_k, len(scores_D))
        threshold = np.partition(scores_D, len(scores_D) - count)[len(scores_D) - count]
        candidates = np.flatnonzero((scores_D >= threshold) & (scores_D > 0))
        best = candidates[np.argsort(-scores_D[candidates], kind="stable")][:count]
        return [SearchHit(self.documents[int(index)], float(scores_D[index])) for index in best]


def check_query(query: str) -> None:
    """Raise InputError for a query of more than `MAX_QUERY_CHARACTERS`."""
    if len(query) > MAX_QUERY_CHARACTERS:
        raise InputError(f"query has {len(query)} characters: expected at most {MAX_QUERY_CHARACTERS}")


async def search_in_thread(index: SearchIndex, queries: Sequence[str], top_k: int) -> list[list[SearchHit]]:
    """Search in a thread; returns one list of hits per query. The thread ends soon after a cancellation."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(lambda: [index.search(query, top_k, stopped=stop.is_set) for query in queries])
    finally:
        stop.set()


class _StoredDocuments(Sequence[Document]):
    """The documents of a folder, read on demand."""

    def __init__(self, folder: Path) -> None:
        self._offsets = np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False)
        with (folder / "documents.jsonl").open("rb") as file:
            self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            size = os.fstat(file.fileno()).st_size
        if self._offsets.ndim != 1 or len(self._offsets) < 2 or int(self._offsets[-1]) != size:
            raise ValueError("documents.jsonl and offsets.npy do not match")
        self._decoder = msgspec.json.Decoder(Document)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._decoder.decode(self._lines[int(self._offsets[index]) : int(self._offsets[index + 1])])


def _words(text: str) -> list[str]:
    import bm25s

    words: list[str] = bm25s.tokenize([text], return_ids=False, show_progress=False, **WORDS)[0]
    return words


def _indexed(texts: Iterable[str], where: str) -> Any:
    """Build a BM25 index of texts in memory. Raises InputError for texts without words."""
    import bm25s

    tokens = bm25s.tokenize(texts, show_progress=False, **WORDS)
    if not tokens.vocab:
        raise InputError(f"{where} has nothing to search: expected documents that contain words")
    bm25 = bm25s.BM25()
    bm25.index(tokens, show_progress=False)
    return bm25


def _one_line(problem: BaseException) -> str:
    return " ".join(str(problem).split()) or type(problem).__name__
