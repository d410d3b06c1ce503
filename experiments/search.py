"""Time, size and memory of the embedded search index on a made-up corpus of 100-word passages.

python experiments/search.py [documents]
"""

from __future__ import annotations

import multiprocessing
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rewright.tools.search_index import Document, SearchIndex, build_index

VOCABULARY = 200_000
WORDS = 100
QUERIES = 200


def corpus(count: int) -> Iterator[Document]:
    """Passages whose words are as unevenly common as in a language (Zipf)."""
    generator = random.Random(0)
    for number in range(count):
        words = (f"w{int(VOCABULARY ** generator.random())}" for _ in range(WORDS))
        yield Document(str(number), " ".join(words))


def peak_mb() -> float:
    """Most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def build(count: int, folder: Path) -> None:
    before, started = peak_mb(), time.perf_counter()
    build_index(corpus(count), folder)
    seconds = time.perf_counter() - started
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    print(f"build    {count} documents: {seconds:.1f} s, {size:.0f} MB on disk, {peak_mb() - before:.0f} MB of memory")


def query(folder: Path) -> None:
    before, started = peak_mb(), time.perf_counter()
    index = SearchIndex.open(folder)
    opened = time.perf_counter() - started
    print(f"open     {opened * 1000:.0f} ms, {peak_mb() - before:.0f} MB of memory")
    generator = random.Random(1)
    seconds = []
    for _ in range(QUERIES):
        words = " ".join(f"w{int(VOCABULARY ** generator.random())}" for _ in range(8))
        started = time.perf_counter()
        index.search(words, 1)
        seconds.append(time.perf_counter() - started)
    milliseconds = sorted(1000 * value for value in seconds)
    print(
        f"query    8 words: median {statistics.median(milliseconds):.2f} ms, 95% within "
        f"{milliseconds[int(0.95 * QUERIES)]:.2f} ms, {peak_mb() - before:.0f} MB of memory"
    )


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        context = multiprocessing.get_context("spawn")
        for target, arguments in ((build, (count, folder)), (query, (folder,))):
            process = context.Process(target=target, args=arguments)
            process.start()
            process.join()


if __name__ == "__main__":
    main()
